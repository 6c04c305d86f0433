"""Topic records in files: the layout and format that the file source and sink share.

A topic's partition is a run of segments, one for each commit of its writer:
``<root>/<writer>/<partition>/<first>-<last>/<topic>.arrow``, where a fresh commit n is ``n-n`` and a merged one spans
several. A writer whose commits reach several partitions keeps one run for all: ``<root>/<writer>/all/<first>-<last>/``, whose
segments are named ``<topic>@<partition>.arrow``. A segment is an Arrow IPC file of ``RECORDS``: the values inside are the framed Avro bytes as they would lie
on Kafka (docs/decisions/0001-file-segments-are-arrow-ipc.md says why not row-by-row containers).
"""

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FORMAT: Final = 1
HEADERS: Final = pa.list_(pa.struct([pa.field("key", pa.string(), nullable=False), pa.field("value", pa.binary())]))
RECORDS: Final = pa.schema([
    ("key", pa.large_binary()),
    ("value", pa.large_binary()),
    pa.field("timestamp", pa.int64(), nullable=False),  # record time, UTC microseconds
    ("headers", HEADERS),  # null: none
])
SUFFIX: Final = ".arrow"
ALL: Final = "all"
"""The run of a writer whose commits reach several partitions."""
SHARED: Final = frozenset({"contract.version.v1", "finance.exception.v1"})
"""Topics that several writers add to: they take their positions one after the other, under the folder's lock."""


class CommitDir(NamedTuple):
    """One commit (or a merged run of commits) of a writer's partition."""

    first: int
    last: int
    path: Path


def records(
    values: pa.Array, keys: pa.Array | None, timestamps: npt.NDArray[np.int64], headers: pa.Array | None = None
) -> pa.RecordBatch:
    """Topic records from their columns; no keys or headers cost nothing."""
    n = len(values)
    return pa.RecordBatch.from_arrays(
        [
            pa.nulls(n, pa.large_binary()) if keys is None else keys.cast(pa.large_binary()),
            values.cast(pa.large_binary()),
            pa.array(timestamps, pa.int64()),
            pa.nulls(n, HEADERS) if headers is None else headers.cast(HEADERS),
        ],
        schema=RECORDS,
    )


def commit_name(first: int, last: int) -> str:
    """The name of a commit's directory."""
    return f"{first:012d}-{last:012d}"


def name(topic: str, partition: int | None = None) -> str:
    """The file of a topic's segment; in a run for all partitions it says which."""
    return f"{topic}{SUFFIX}" if partition is None else f"{topic}@{partition:04d}{SUFFIX}"


def placed(file: str, partition: int | None) -> tuple[str, int]:
    """The topic and partition of a segment's file in the run of a partition, or (None) in a run for all."""
    topic = file.removesuffix(SUFFIX)
    if partition is not None:
        return topic, partition
    topic, _, number = topic.rpartition("@")
    return topic, int(number)


def runs(root: Path, topic: str, partition: int) -> list[tuple[Path, str]]:
    """Where a partition's records may lie: the directories of runs, with the name of the topic's segments in them."""
    own = [(path, name(topic)) for path in sorted(root.glob(f"*/{partition:04d}"))]
    return own + [(path, name(topic, partition)) for path in sorted(root.glob(f"*/{ALL}"))]


def commits(partition: Path) -> list[CommitDir]:
    """The commits in a partition's directory in order; what a merged directory covers is left out."""
    found = []
    for path in partition.iterdir() if partition.is_dir() else ():
        first, dash, last = path.name.partition("-")
        if dash and first.isdigit() and last.isdigit() and path.is_dir():
            found.append(CommitDir(int(first), int(last), path))
    found.sort(key=lambda commit: (commit.first, -commit.last))
    kept: list[CommitDir] = []
    for commit in found:
        if not kept or commit.first > kept[-1].last:
            kept.append(commit)
    return kept


def write(path: Path, batch: pa.RecordBatch | pa.Table, topic: str, first_position: int) -> None:
    """Write a segment (the caller makes it durable)."""
    metadata = {b"topic": topic.encode(), b"first_position": str(first_position).encode(), b"format": str(FORMAT).encode()}
    schema = RECORDS.with_metadata(metadata)
    table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.replace_schema_metadata(metadata))


def first_position(path: Path) -> int:
    """The position of a segment's first record."""
    with pa.memory_map(str(path)) as source:
        return int(pa.ipc.open_file(source).schema.metadata[b"first_position"])


def read(path: Path) -> pa.Table:
    """A segment's records, mapped into memory."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def count(path: Path) -> int:
    """The number of a segment's records."""
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))


def digest(batch: pa.RecordBatch) -> str:
    """SHA-256 over records: their lengths, keys, values and headers, however their buffers lie.

    Timestamps stay outside: a topic may be one whose broker sets them.
    """
    found = hashlib.sha256()
    for name in ("key", "value"):
        column = batch[name]
        found.update(column.is_valid().to_numpy(zero_copy_only=False).tobytes())
        if column.null_count == len(column):
            continue
        offsets = np.frombuffer(column.buffers()[1], np.int64, len(column) + 1, column.offset * 8)
        found.update((offsets - offsets[0]).tobytes())
        data = column.buffers()[2]
        if data is not None:
            found.update(memoryview(data)[int(offsets[0]) : int(offsets[-1])])
    headers = batch["headers"]
    if headers.null_count < len(headers):
        found.update(repr(headers.to_pylist()).encode())
    return found.hexdigest()
