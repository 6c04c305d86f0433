"""Topics in a directory, read by position.

A position is the number of records before; it holds over commits, merges and restarts. A topic of a partition has
one writer, found by looking. Readers of other processes survive a merge that happens meanwhile: they look again.

Errors: those of ``sources.errors``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from schemas import segments
from sources.errors import RetentionGap, SourceError
from sources.lot import Lot


class Segment(NamedTuple):
    """One segment of a topic's partition."""

    start: int
    rows: int
    path: Path
    commit: segments.CommitDir


@dataclass(slots=True)
class TopicReader:
    """One partition of one topic."""

    root: Path
    topic: str
    partition: int
    _found: list[Segment] = field(default_factory=list)
    _known: dict[Path, Segment] = field(default_factory=dict)

    def refresh(self) -> int:
        """Look for new segments; the end position. Segments never change, so known ones are not opened again."""
        directories = sorted(self.root.glob(f"*/{self.partition:04d}"))
        owners: dict[Path, list[Segment]] = {}
        for directory in directories:
            mine = [self._segment(commit) for commit in segments.commits(directory)]
            kept = [segment for segment in mine if segment is not None]
            if kept:
                owners[directory] = kept
        if len(owners) > 1:
            msg = f"{self.topic}, partition {self.partition}: {len(owners)} writers under {self.root}; a topic has one"
            raise SourceError(msg)
        self._found = next(iter(owners.values()), [])
        self._known = {segment.path: segment for segment in self._found}
        return self.end

    def _segment(self, commit: segments.CommitDir) -> Segment | None:
        path = commit.path / f"{self.topic}{segments.SUFFIX}"
        known = self._known.get(path)
        if known is not None:
            return known
        try:
            return Segment(segments.first_position(path), segments.count(path), path, commit)
        except FileNotFoundError:
            return None

    @property
    def start(self) -> int:
        """The first position kept."""
        return self._found[0].start if self._found else 0

    @property
    def end(self) -> int:
        """The position after the last record seen by the last ``refresh``."""
        return self._found[-1].start + self._found[-1].rows if self._found else 0

    def segments(self) -> list[Segment]:
        """The segments seen by the last ``refresh``."""
        return list(self._found)

    def lot(self, position: int, rows: int, until: int | None = None) -> Lot:
        """The same records as ``read`` with their positions, none at ``until`` (``end``) or beyond."""
        records = self.read(position, min(rows, (self.end if until is None else until) - position))
        positions = np.arange(position, position + records.num_rows)
        return Lot(positions, records, position + records.num_rows)

    def read(self, position: int, rows: int) -> pa.RecordBatch:
        """Up to ``rows`` records from ``position``, over segment ends; fewer only at the end."""
        if position < self.start:
            msg = (
                f"{self.topic}, partition {self.partition}: position {position} is below retention, records {position} "
                f"to {self.start - 1} are gone; restore them, or start anew from {self.start} in another folder"
            )
            raise RetentionGap(msg)
        parts: list[pa.Table] = []
        for segment in self._found:
            if segment.start + segment.rows <= position or rows <= 0:
                continue
            try:
                table = segments.read(segment.path)
            except FileNotFoundError:
                self.refresh()  # merged meanwhile: the same records stand elsewhere
                rest = self.read(position, rows)
                return _one([*parts, pa.Table.from_batches([rest])])
            taken = table.slice(position - segment.start, rows)
            parts.append(taken)
            position, rows = position + taken.num_rows, rows - taken.num_rows
        return _one(parts)


def _one(parts: list[pa.Table]) -> pa.RecordBatch:
    if not parts:
        return pa.RecordBatch.from_pylist([], schema=segments.RECORDS)
    table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts])
    batches = table.combine_chunks().to_batches() if len(parts) > 1 or table.column(0).num_chunks > 1 else table.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=segments.RECORDS)


def list_topics(root: Path) -> list[tuple[str, int, int, int, int]]:
    """Topic, partition, first position, end and bytes of all topics of a folder."""
    sizes: dict[tuple[str, int], list[int]] = {}
    for partition in sorted(root.glob("*/[0-9][0-9][0-9][0-9]")):
        for commit in segments.commits(partition):
            for path in commit.path.glob(f"*{segments.SUFFIX}"):
                first = segments.first_position(path)
                size = sizes.setdefault((path.name.removesuffix(segments.SUFFIX), int(partition.name)), [first, first, 0])
                size[1] += segments.count(path)
                size[2] += path.stat().st_size
    return [(topic, partition, start, end, held) for (topic, partition), (start, end, held) in sorted(sizes.items())]
