"""Topics in a directory, read by position.

A position is the number of records before; it holds over commits, merges and restarts. A topic of a partition has
one writer, found by looking, or is shared by several, whose segments follow each other by their positions. Readers of
other processes survive a merge that happens meanwhile: they look again.

Errors: those of ``sources.errors``.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from schemas import segments
from sources.errors import RetentionGap, SourceError
from sources.lot import Lot

_LOOKS: Final = 3
"""How often a shared topic is looked at before what stands behind a gap is left to the next time."""


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
        for _ in range(_LOOKS):
            self._found = self._look()
            gap = next((at for at, (one, following) in enumerate(pairwise(self._found), 1) if one.start + one.rows != following.start), None)
            if gap is None or self.topic not in segments.SHARED:
                break
            self._found = self._found[:gap]  # one writer was looked at before another committed, or merged meanwhile
        self._known = {segment.path: segment for segment in self._found}
        return self.end

    def _look(self) -> list[Segment]:
        """All segments by their positions."""
        owners: dict[Path, list[Segment]] = {}
        for directory, name in segments.runs(self.root, self.topic, self.partition):
            mine = [self._segment(commit, name) for commit in segments.commits(directory)]
            kept = [segment for segment in mine if segment is not None]
            if kept:
                owners[directory] = kept
        if len(owners) > 1 and self.topic not in segments.SHARED:
            msg = f"{self.topic}, partition {self.partition}: {len(owners)} writers under {self.root}; a topic has one"
            raise SourceError(msg)
        return sorted(segment for found in owners.values() for segment in found)

    def _segment(self, commit: segments.CommitDir, name: str) -> Segment | None:
        path = commit.path / name
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
    for run in sorted(path for pattern in ("*/[0-9][0-9][0-9][0-9]", f"*/{segments.ALL}") for path in root.glob(pattern)):
        of = None if run.name == segments.ALL else int(run.name)
        for commit in segments.commits(run):
            for path in commit.path.glob(f"*{segments.SUFFIX}"):
                first = segments.first_position(path)
                size = sizes.setdefault(segments.placed(path.name, of), [first, 0, 0])
                size[0] = min(size[0], first)
                size[1] += segments.count(path)
                size[2] += path.stat().st_size
    return [(topic, partition, start, start + rows, held) for (topic, partition), (start, rows, held) in sorted(sizes.items())]
