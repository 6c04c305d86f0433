"""Topics in a folder: the place of a run without services."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from schemas.catalog import Avro
from sinks.files import PartitionWriter
from sources.files import TopicReader

_MERGE_EVERY: Final = 64


@dataclass(frozen=True, slots=True)
class FileLog:
    """One partition of a flow in a folder."""

    root: Path
    writer: PartitionWriter
    partition: int

    def reader(self, topic: str) -> TopicReader:
        """A reader of this partition of a topic."""
        return TopicReader(self.root, topic, self.partition)

    def own(self, topic: str) -> pa.RecordBatch:
        """All records of a topic that only this flow writes."""
        reader = self.reader(topic)
        reader.refresh()
        return reader.read(reader.start, reader.end - reader.start)

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
class FilePlace:
    """A folder of topics."""

    root: Path

    def fence(self, flow: str, partition: int) -> FileLog:
        """Become the only writer of a flow's partition; Fenced where another process is."""
        return FileLog(self.root, PartitionWriter.open(self.root, flow, partition), partition)

    def writers(self) -> dict[int, Avro]:
        """``schemas/<id>.avsc`` in the folder."""
        return {int(path.stem): json.loads(path.read_text()) for path in (self.root / "schemas").glob("*.avsc")}
