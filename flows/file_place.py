"""Topics in a folder: the place of a run without services."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from flows import topics
from flows.pipeline import TopicSize
from schemas import segments
from schemas.catalog import Avro
from sinks.files import PartitionWriter
from sinks.ingress import partitions_of
from sources.errors import SourceError
from sources.files import TopicReader, list_topics

_MERGE_EVERY: Final = 64
_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class FileLog:
    """One partition of a flow in a folder."""

    root: Path
    writer: PartitionWriter
    partition: int

    def reader(self, topic: str) -> TopicReader:
        """A reader of this partition of a topic."""
        return TopicReader(self.root, topic, self.partition)

    written = reader

    def end(self, topic: str) -> int:
        """The end of this partition of a topic now."""
        return self.reader(topic).refresh()

    def own(self, topic: str, written: int, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """What is kept of a topic that only this flow writes; SourceError where the last ones are missing."""
        reader = self.reader(topic)
        if reader.refresh() != written:
            msg = f"{topic}, partition {self.partition}: has {reader.end} records, the token counts {written}; restore the folder from a backup"
            raise SourceError(msg)
        for at in range(max(reader.start, start), reader.end, _ROWS):
            yield at, reader.read(at, _ROWS)

    def trim(self, topic: str, before: int) -> None:
        """Remove the segments whose records are all older; the last one stays, it tells how many there were."""
        reader = self.reader(topic)
        reader.refresh()
        old = [segment for segment in reader.segments()[:-1] if int(reader.read(segment.start + segment.rows - 1, 1)["timestamp"][0].as_py()) < before]
        if old:
            self.writer.drop_before(topic, old[-1].commit.last + 1)

    def last(self, topic: str) -> pa.RecordBatch:
        """The last record of such a topic, or none."""
        reader = self.reader(topic)
        end = reader.refresh()
        return reader.read(max(end - 1, reader.start), 1)

    def commit(
        self, sequence: int, outputs: Mapping[str, pa.RecordBatch], positions: Mapping[str, int], replaces: str | None  # noqa: ARG002 - a place's signature
    ) -> None:
        """Write one commit; now and then put small ones together."""
        self.writer.commit(sequence, outputs)
        if replaces is not None:
            self.writer.drop_before(replaces, sequence)
        if sequence % _MERGE_EVERY == 0:
            self.writer.merge()

    def close(self) -> None:
        """Give the partition up."""
        self.writer.close()


@dataclass(frozen=True, slots=True)
class FileHeads:
    """The last records of a topic in a folder."""

    readers: Sequence[TopicReader]
    """By partition."""

    def values(self) -> list[bytes | None]:
        """The value of each partition's last record; None where it has none."""
        found = [reader.read(max(reader.refresh() - 1, reader.start), 1)["value"] for reader in self.readers]
        return [last[0].as_py() if len(last) else None for last in found]

    def close(self) -> None:
        """Files have nothing to close."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A folder of topics."""

    root: Path

    def fence(self, flow: str, partition: int) -> FileLog:
        """Become the only writer of a flow's partition; Fenced where another process is."""
        return FileLog(self.root, PartitionWriter.open(self.root, flow, None if flow in topics.WHOLE_FLOWS else partition), partition)

    @property
    def name(self) -> str:
        """The folder's path."""
        return str(self.root)

    def reader(self, topic: str, partition: int) -> TopicReader:
        """A reader of one partition of a topic."""
        return TopicReader(self.root, topic, partition)

    written = reader

    def heads(self, topic: str) -> FileHeads | None:
        """The last records of a topic that a flow writes by partition; None where nobody has written it."""
        found = {int(path.parent.parent.name) for path in self.root.glob(f"*/[0-9][0-9][0-9][0-9]/*/{segments.name(topic)}")}
        return FileHeads([self.reader(topic, partition) for partition in range(max(found) + 1)]) if found else None

    def partitions(self) -> int:
        """The number that the folder keeps."""
        found = partitions_of(self.root)
        if found is None:
            msg = f"{self.root}: is no folder of topics; make one with 'tieout generate' or 'tieout import', or check --dir"
            raise SourceError(msg)
        return found

    def sizes(self) -> list[TopicSize]:
        """All topics of the folder."""
        return [TopicSize(*size) for size in list_topics(self.root)]

    def writers(self) -> dict[int, Avro]:
        """``schemas/<id>.avsc`` in the folder."""
        return {int(path.stem): json.loads(path.read_text()) for path in (self.root / "schemas").glob("*.avsc")}
