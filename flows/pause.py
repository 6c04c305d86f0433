"""A partition that is paused because too much of it is rejected: what waits meanwhile, and what a person is told.

In: a prepared lot of which the first rows are folded; the window that paused the partition; the topic of commands.
Out: the rest of the lot, folded when the partition is released; words that say how many rows of which reasons, and how
to go on; and, from a place, the window of a partition that is paused there.
Source: docs/decisions/0005-pause-on-rejects.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from flows import command_records, topics, usage_state
from flows.authority import Authority
from flows.cli import CommandError
from flows.command_records import Recorded
from flows.pipeline import Place, Prepared, Reader
from schemas import segments
from schemas.decode import Decoded
from sources.lot import Lot
from tieout.exception_queue import HOLD, WAIVE
from tieout.rejection import Rejects

RELEASE: Final = "release"
_BACK: Final = (2, 16, 128)
"""How far before its end a topic is read to find its last record: transactions leave marks that are none."""


class PartitionPaused(CommandError):
    """A run ended with a partition paused; the message says why and how to go on."""


class Pause(NamedTuple):
    """That a partition is paused: why, in words, and whether a release has been looked for since."""

    why: str
    looked: bool


@dataclass(slots=True)
class Gate:
    """What a partition keeps while it is paused, and where it looks for its release."""

    flow: str
    partition: int
    commands: Reader
    authority: Authority
    """Who may release it."""
    lots: deque[Prepared] = field(default_factory=deque)
    """What was read already when the pause began."""
    looked: bool = False
    """Whether a release has been looked for since the pause began."""

    def shut(self) -> int:
        """Begin a pause; the position from which on commands count for it."""
        self.looked = False
        return self.commands.refresh()

    def released(self, position: int) -> int | None:
        """The end of the commands where one from a position on releases the partition; None where none does."""
        end = self.commands.refresh()
        self.looked = True
        wanted = command_records.subject(self.flow, self.partition)
        asked = [one for one in command_records.about(self.commands, position, end, RELEASE, command_records.PARTITION) if one.command.subject_id == wanted]
        if not asked:
            return None
        self.authority.advance()
        return end if any(self.authority.why_not(*one) is None for one in asked) else None

    def waived(self, start: int, end: int) -> tuple[frozenset[str], dict[str, int]]:
        """The holds that are waived between two positions of the commands, and how far the reference data was read for it."""
        asked = command_records.about(self.commands, start, end, WAIVE, HOLD)
        return waived(self.authority, asked, None) if asked else (frozenset(), {})


def waived(authority: Authority, asked: Sequence[Recorded], until: dict[str, int] | None) -> tuple[frozenset[str], dict[str, int]]:
    """The holds of those waivers that count by the reference data of now, or up to some positions; and how far it was read."""
    positions = authority.advance(until)
    return frozenset(one.command.subject_id for one in asked if authority.why_not(*one) is None), positions


def nothing_at(position: int) -> Lot:
    """A lot without records, at a position."""
    return Lot(np.empty(0, np.int64), pa.RecordBatch.from_pylist([], schema=segments.RECORDS), position)


def rest_of(prepared: Prepared, rows: int) -> Prepared:
    """A prepared lot without its first rows."""
    lot, beside = prepared.lot, prepared.lot.beside
    rest = replace(
        lot, positions=lot.positions[rows:], records=lot.records.slice(rows), beside=None if beside is None else lambda row: beside(row + rows)
    )
    return Prepared(rest, _rest(prepared.decoded, rows))


def _rest(decoded: Decoded, rows: int) -> Decoded:
    kept = np.arange(np.searchsorted(decoded.rows, rows), len(decoded.rows))
    refused = [each._replace(row=each.row - rows) for each in decoded.rejected if each.row >= rows]
    return Decoded(decoded.batch.take(pa.array(kept)), decoded.rows[kept] - rows, refused)


def words(flow: str, partition: int, rejects: Rejects) -> str:
    """Why a partition is paused and how to go on."""
    counted = ", ".join(f"{count:,} {reason}" for reason, count in rejects.by_reason().items())
    name = command_records.subject(flow, partition)
    return (
        f"{name} is paused: {len(rejects.numbers):,} of {rejects.span:,} consecutive rows are rejected ({counted}); look at them with "
        f"'tieout dlq ls --partition {partition}', mend their sender, then let the partition go on with 'tieout release {name} --reason ...'"
    )


def found(place: Place, flow: str, partition: int) -> Rejects | None:
    """The window of a partition that is paused; None where it is not.

    What pauses it is the last state record of its last interval, because a paused partition commits no other.
    """
    record = last(place, topics.state_topics(flow)[0], partition)
    if record is None or record["key"] != usage_state.REJECTS.encode():
        return None
    rejects = Rejects()
    usage_state.put_rejects_back(rejects, record["value"])
    return rejects if rejects.paused else None


def last(place: Place, topic: str, partition: int) -> dict[str, Any] | None:
    """The last record of a topic that only a flow's commits write; None where there is none."""
    reader = place.reader(topic, partition)
    end = reader.refresh()
    for back in _BACK:
        start = max(reader.start, end - back)
        lot = reader.lot(start, back, end)
        if lot.records.num_rows:
            return lot.record(lot.records.num_rows - 1)
    return None
