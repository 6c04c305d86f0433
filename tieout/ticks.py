"""Ticks: how the clock of a partition moves on while nobody sends it usage.

In: ticks as they are seen, each with the end that the partition's input had after that, and how far the input has been
read. Out: the tick that counts. A tick is a record that a minute of time has begun; it says no more than ``min(at, record
time)``, the lesser of what its writer and what the broker took for the time, so a wrong or forged one is never ahead of
the broker. It counts once everything is read that was there when it was seen: what arrived before a minute began is never
made too late by it, however long the backlog. Source: docs/semantics.md section 1 (the clock).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from tieout.governance import Command

KIND: Final = "tick"
AUTHOR: Final = "ticker"
REASON: Final = "a minute has begun"
CLOCK: Final = "clock"
"""The type of a tick's subject; its id is the minute."""
MINUTE: Final = 60_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Tick(NamedTuple):
    """A tick: the instant up to which it moves a clock, its own time (UTC microseconds), and the position after it in the commands."""

    instant: int
    at: int
    position: int


def minute_of(instant: int) -> int:
    """The begin of the minute of an instant."""
    return instant // MINUTE * MINUTE


def command(minute: int) -> Command:
    """The tick of a minute that begins at ``minute``: always the same, so it has the same id whoever writes it."""
    name = (_EPOCH + timedelta(microseconds=minute)).strftime("%Y-%m-%dT%H:%MZ")
    return Command(KIND, CLOCK, name, AUTHOR, minute, REASON)


@dataclass(slots=True)
class Pending:
    """The tick that one partition has seen and that does not count yet; while there is one, later ticks are not looked at."""

    tick: Tick | None = None
    end: int = 0
    """The end of the partition's input, taken after the tick was seen."""
    reached: int = 0
    """The input is read up to here."""

    def see(self, tick: Tick, end: int) -> None:
        """Take note of a tick."""
        self.tick, self.end = tick, end

    @property
    def due(self) -> bool:
        """Whether a tick counts before the next row."""
        return self.tick is not None and self.reached >= self.end

    def take(self, reached: int) -> Tick | None:
        """The tick that counts before a row at this position, all rows before being read; it is taken once."""
        self.reached = max(self.reached, reached)
        if not self.due:
            return None
        tick, self.tick = self.tick, None
        return tick
