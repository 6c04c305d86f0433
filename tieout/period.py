"""Billing periods: a contract's calendar in its own time zone.

In: instants as UTC microseconds. Out: half-open periods ``[start, end)`` by week, month, quarter or year, from any
anchor day; an anchor past a month's end is clipped to it and comes back in the next month. A local midnight that does
not exist (a clock change) is the first instant after the gap. Source: docs/semantics.md section 1.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

Length = Literal["week", "month", "quarter", "year"]
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MONTHS: Final = {"month": 1, "quarter": 3, "year": 12}
_MICROSECOND: Final = timedelta(microseconds=1)


class Period(NamedTuple):
    """One billing period; instants in UTC microseconds, dates in the contract's zone."""

    start_us: int
    end_us: int
    start_on: date
    end_on: date
    label: str


@dataclass(frozen=True, slots=True)
class Calendar:
    """How a contract divides time."""

    period: Length = "month"
    anchor_day: int = 1
    anchor_month: int = 1
    anchor_weekday: int = 1
    time_zone: str = "UTC"

    def containing(self, instant: int) -> Period:
        """The period that holds an instant."""
        return _containing(self, local(instant, self.time_zone).date())

    def next(self, period: Period) -> Period:
        """The period that begins where this one ends."""
        return _containing(self, period.end_on)

    def spanning(self, first: int, last: int) -> list[Period]:
        """All periods from the one that holds ``first`` to the one that holds ``last``."""
        periods = [self.containing(first)]
        while periods[-1].end_us <= last:
            periods.append(self.next(periods[-1]))
        return periods

    def days(self, period: Period) -> list[int]:
        """The instants at which the period's days begin, and its end last."""
        count = (period.end_on - period.start_on).days
        return [midnight(period.start_on + timedelta(days=i), self.time_zone) for i in range(count + 1)]

    def bucket_start(self, instant: int, size: Literal["hour", "day"]) -> int:
        """The instant at which the local hour or day of an instant began."""
        here = local(instant, self.time_zone)
        if size == "day":
            return midnight(here.date(), self.time_zone)
        into = (here.minute * 60 + here.second) * 1_000_000 + here.microsecond
        return instant - into


def local(instant: int, zone: str) -> datetime:
    """An instant in a zone."""
    return (EPOCH + timedelta(microseconds=instant)).astimezone(ZoneInfo(zone))


def micros(moment: datetime) -> int:
    """An aware moment as UTC microseconds."""
    return (moment - EPOCH) // _MICROSECOND


@lru_cache(maxsize=65536)
def midnight(day: date, zone: str) -> int:
    """The first instant of a local day."""
    start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    instant = micros(start.astimezone(UTC))
    if local(instant, zone).date() == day and local(instant - 1, zone).date() < day:
        return instant
    low, high = instant - 86_400_000_000, instant + 86_400_000_000  # a clock change at midnight: find where the day begins
    while low < high:
        middle = (low + high) // 2
        if local(middle, zone).date() >= day:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=65536)
def _containing(calendar: Calendar, day: date) -> Period:
    if calendar.period == "week":
        start = day - timedelta(days=(day.isoweekday() - calendar.anchor_weekday) % 7)
        return _period(calendar, start, start + timedelta(days=7))
    step = _MONTHS[calendar.period]
    anchor = calendar.anchor_month if step > 1 else 1
    month = day.year * 12 + day.month - 1
    month -= (month - (anchor - 1)) % step
    if _anchored(month, calendar.anchor_day) > day:
        month -= step
    return _period(calendar, _anchored(month, calendar.anchor_day), _anchored(month + step, calendar.anchor_day))


def _anchored(month: int, anchor_day: int) -> date:
    year, place = divmod(month, 12)
    return date(year, place + 1, min(anchor_day, monthrange(year, place + 1)[1]))


def _period(calendar: Calendar, start: date, end: date) -> Period:
    monthly = calendar.period == "month" and start.day == 1
    label = f"{start:%Y-%m}" if monthly else start.isoformat()
    return Period(midnight(start, calendar.time_zone), midnight(end, calendar.time_zone), start, end, label)


@cache
def known_zone(name: str) -> bool:
    """Whether a time zone is one of IANA's."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True
