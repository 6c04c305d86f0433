"""The ticks among the commands, read once for all partitions of a process.

In: the topic of commands and, where the route flow feeds the usage topic, the last tokens of its partitions. Out: the
newest tick after a position of the commands, or none. Of several ticks only the newest matters, so the topic is read from
its end backwards until one is found. Behind the route flow a tick is shown only when the clocks of all its partitions
have reached it: a position of the commands in a token then says which ticks counted, and a replay needs no more than that.
Source: docs/semantics.md section 1 (the clock).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa

from flows import codecs, command_records, topics
from flows import token as tokens
from flows.pipeline import Heads, Place, Reader, let_go
from sources.errors import SourceError
from sources.lot import Lot
from tieout.ticks import Pending, Tick
from tieout.usage import NO_CLOCK

NAME: Final = f"{command_records.NAME}#tick"
"""The topic, as a token names how far ticks have counted."""
LOOK_SECONDS: Final = 5.0
"""Between two looks for ticks, of which there is one a minute."""
_BACK: Final = 64


@dataclass(slots=True)
class TickTopic:
    """Ticks as they are looked for now and then."""

    commands: Reader
    feeding: Heads | None = None
    """The tokens of the flow that feeds the partitions."""
    steady: Callable[[], float] = time.monotonic
    newest: Tick | None = None
    _looked_at: float | None = field(default=None, init=False)

    @classmethod
    def of(cls, place: Place, feeding: str | None = None) -> "TickTopic":
        """The ticks of a place, where they may be held back by a flow that feeds the partitions."""
        return cls(place.reader(topics.COMMANDS, 0), None if feeding is None else place.heads(topics.state_topics(feeding)[2]))

    def after(self, position: int) -> Tick | None:
        """The newest tick beyond a position of the commands, none where there is none."""
        now = self.steady()
        if self._looked_at is None or now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._look()
        return self.newest if self.newest is not None and self.newest.position > position else None

    def _look(self) -> None:
        known = 0 if self.newest is None else self.newest.position
        end = self.commands.refresh()
        limit = None if self.feeding is None else least_clock(self.feeding)
        if end > known and limit != NO_CLOCK:
            self.newest = newest(self.commands, known, end, limit) or self.newest

    def close(self) -> None:
        """Let the clients go."""
        let_go(self.commands)
        if self.feeding is not None:
            self.feeding.close()


@dataclass(slots=True)
class PartitionTicks:
    """What one partition of a flow makes of the ticks."""

    topic: TickTopic
    end: Callable[[], int]
    """The end of the partition's input now, open transactions included."""
    _pending: Pending = field(default_factory=Pending, init=False)

    def before(self, lot: Lot, position: int, clock: int) -> Tick | None:
        """The tick that counts before a lot, where it moves the clock; ticks have counted up to a position."""
        if self._pending.tick is None:
            seen = self.topic.after(position)
            if seen is not None and seen.instant > clock:
                self._pending.see(seen, self.end())
        tick = self._pending.take(int(lot.positions[0]) if len(lot.positions) else lot.end)
        return tick if tick is not None and tick.instant > clock else None

    def read(self, end: int) -> None:
        """Take note that the input is read up to an end."""
        self._pending.reached = max(self._pending.reached, end)

    @property
    def due(self) -> bool:
        """Whether a tick counts now, without input."""
        return self._pending.due

    def close(self) -> None:
        """Let the clients go."""
        self.topic.close()


def least_clock(feeding: Heads) -> int:
    """The least clock of a flow's partitions, by their last tokens; ``NO_CLOCK`` while one has none."""
    values = feeding.values()
    if any(value is None for value in values):
        return NO_CLOCK
    return min(token.clock for token in tokens.decode(pa.array(values, pa.large_binary())))


def newest(commands: Reader, start: int, end: int, limit: int | None = None) -> Tick | None:
    """The last tick between two positions of the commands, of those up to an instant where a limit is given."""
    low, rows = end, _BACK
    start = max(start, commands.start)
    while low > start:
        high, low, rows = low, max(start, low - rows), 4 * rows
        found = [tick for tick in _between(commands, low, high) if limit is None or tick.instant <= limit]
        if found:
            return found[-1]
    return None


def _between(commands: Reader, start: int, end: int) -> Iterator[Tick]:
    at = start
    while at < end:
        lot = commands.lot(at, end - at, end)
        if lot.end <= at:
            msg = f"{topics.COMMANDS}: records {at} to {end - 1} are missing; restore the topic from a backup"
            raise SourceError(msg)
        yield from _ticks(lot)
        at = lot.end


def _ticks(lot: Lot) -> Iterator[Tick]:
    """The ticks of a lot, each with the lesser of its own time and its record's."""
    decoded = codecs.own(command_records.SCHEMA).decode(lot.records["value"])
    chosen = command_records.are_ticks(decoded.batch)
    at = decoded.batch["at"].cast(pa.int64()).to_numpy()[chosen]
    rows = decoded.rows[chosen]
    instants = np.minimum(at, lot.records["timestamp"].to_numpy()[rows])
    yield from map(Tick, instants.tolist(), at.tolist(), (lot.positions[rows] + 1).tolist())
