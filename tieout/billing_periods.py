"""The billing periods of a contract whose calendar changes: those of one calendar up to the change, then those of the next.

In: a contract's governing intervals. Out: something that is asked like a calendar. The period in which a change falls ends with it,
and the first one of the new calendar begins with it, so there are two short periods, or none where the change falls between two.
A billing period's label is that of its own calendar; no two periods of a contract have the same start. Source: docs/semantics.md section 5
(calendar).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from tieout.contract_book import Interval
from tieout.period import ALWAYS, Calendar, Period, local


class Part(NamedTuple):
    """A calendar, and from when on it counts."""

    since_us: int
    calendar: Calendar


@dataclass(frozen=True, slots=True)
class BillingPeriods:
    """Calendars one after the other."""

    parts: tuple[Part, ...]

    def containing(self, instant: int) -> Period:
        """The period that holds an instant."""
        return self._of(max(bisect_right(self.parts, instant, key=lambda part: part.since_us) - 1, 0), instant)

    def next(self, period: Period) -> Period:
        """The period that begins where this one ends."""
        return self.containing(period.end_us)

    def spanning(self, first: int, last: int) -> list[Period]:
        """All periods from the one that holds ``first`` to the one that holds ``last``."""
        periods = [self.containing(first)]
        while periods[-1].end_us <= last:
            periods.append(self.next(periods[-1]))
        return periods

    def start_of(self, label: str) -> int:
        """The instant at which the period of a label begins; of a label that no calendar gives any more, by the first one."""
        for number, part in enumerate(self.parts):
            start = part.calendar.start_of(label)
            if self.containing(start) == self._of(number, start) and self.containing(start)[0] == start and self.containing(start).label == label:
                return start
        return self.parts[0].calendar.start_of(label)

    def _of(self, number: int, instant: int) -> Period:
        calendar = self.parts[number].calendar
        period = calendar.containing(instant)
        if number + 1 == len(self.parts) or period.end_us <= self.parts[number + 1].since_us:
            return period
        until = self.parts[number + 1].since_us
        return period._replace(end_us=until, end_on=local(until - 1, calendar.time_zone).date() + timedelta(days=1))


def of(timeline: Sequence[Interval]) -> "Calendar | BillingPeriods":
    """A contract's billing periods: its calendar, where all its versions have the same one."""
    found = parts(timeline)
    return found[0].calendar if len(found) == 1 else BillingPeriods(found)


def parts(timeline: Sequence[Interval]) -> tuple[Part, ...]:
    """The calendars of a timeline in their order, each with the instant at which it comes into force."""
    found: list[Part] = []
    for interval in timeline:
        calendar = interval.version.billing.calendar
        if not found or found[-1].calendar != calendar:
            found.append(Part(interval.start_us if found else ALWAYS, calendar))
    return tuple(found)
