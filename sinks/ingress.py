"""What comes from outside into a folder: usage and contracts, appended by partition, each source once.

Guarantee: each partition's part of an append is one commit, with a record of what source it came from; an append that
was interrupted and is run again skips the partitions that have it, so nothing stands twice.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from schemas import segments
from sinks.errors import SinkError
from sinks.files import PartitionWriter

WRITER: Final = "ingress"
TOKEN: Final = "_tieout.ingress.token"  # noqa: S105 - a topic's name
SETTINGS: Final = "tieout.json"


class Ingress:
    """The only writer of a folder's outside topics, all partitions held."""

    def __init__(self, writers: list[PartitionWriter]) -> None:
        self._writers = writers
        self._done = [_sources(writer) for writer in writers]

    @classmethod
    def open(cls, root: Path, partitions: int) -> "Ingress":
        """Hold a folder for writing, with its number of partitions; a folder keeps the number that it began with."""
        have = partitions_of(root)
        if have is None:
            _create(root, partitions)
        elif have != partitions:
            msg = f"{root}: has {have} partitions, {partitions} were asked for; the number is fixed, replay into a new folder to change it"
            raise SinkError(msg)
        writers: list[PartitionWriter] = []
        try:
            writers.extend(PartitionWriter.open(root, WRITER, partition) for partition in range(partitions))
        except SinkError:
            for writer in writers:
                writer.close()
            raise
        return cls(writers)

    def append(self, topic: str, batches: Mapping[int, pa.RecordBatch], source: str) -> int:
        """Append records by partition under the name of their source; how many were new."""
        added = 0
        for partition, batch in sorted(batches.items()):
            writer, done = self._writers[partition], self._done[partition]
            name = f"{topic} {source}"
            if name in done or not batch.num_rows:
                continue
            note = json.dumps({"topic": topic, "source": source, "records": batch.num_rows}).encode()
            stamp = np.array([int(batch["timestamp"][-1].as_py())])
            writer.commit(writer.last + 1, {topic: batch, TOKEN: segments.records(pa.array([note], pa.large_binary()), None, stamp)})
            done.add(name)
            added += batch.num_rows
        return added

    def close(self) -> None:
        """Give the folder up."""
        for writer in self._writers:
            writer.close()


def partitions_of(root: Path) -> int | None:
    """The number of partitions of a folder; None where it is new."""
    try:
        settings = json.loads((root / SETTINGS).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        msg = f"{root / SETTINGS}: cannot be read ({error}); it holds the folder's number of partitions, restore it"
        raise SinkError(msg) from error
    return int(settings["partitions"])


def _create(root: Path, partitions: int) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = root / f"{SETTINGS}.writing"
        temporary.write_text(json.dumps({"format": segments.FORMAT, "partitions": partitions}) + "\n")
        temporary.rename(root / SETTINGS)
    except OSError as error:
        msg = f"{root}: cannot be written ({error.strerror}); make the folder writable, or choose another with --dir"
        raise SinkError(msg) from error


def _sources(writer: PartitionWriter) -> set[str]:
    found = set()
    for commit in segments.commits(writer.directory):
        path = commit.path / f"{TOKEN}{segments.SUFFIX}"
        if path.exists():
            for raw in segments.read(path)["value"].to_pylist():
                note = json.loads(raw)
                found.add(f"{note['topic']} {note['source']}")
    return found
