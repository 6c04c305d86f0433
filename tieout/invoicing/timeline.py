"""A contract's governing intervals as invoicing reads them.

In: ``Interval`` rows of one contract, by start. Out: which version stands behind a sum, and which stretches of an
interval of time a term of the contract covers. Half-open, UTC microseconds. Source: docs/semantics.md sections 3 and 5.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from tieout.contract_book import Interval
from tieout.contracts import ContractVersion
from tieout.period import Calendar, Period
from tieout.rating.tariff import INACTIVE

T = TypeVar("T")


class Stretch(NamedTuple, Generic[T]):
    """A part of time in which a version governs, with the term of it that is looked at."""

    start_us: int
    end_us: int
    version: ContractVersion
    term: T

    @property
    def active(self) -> bool:
        """Whether anything is charged in it."""
        return self.version.status not in INACTIVE


def at(timeline: Sequence[Interval], instant: int) -> ContractVersion | None:
    """The version in force at an instant."""
    return next((i.version for i in timeline if i.start_us <= instant < i.end_us), None)


def active_at_end(timeline: Sequence[Interval], period: Period) -> ContractVersion | None:
    """The version in force at a period's end, None where it is suspended or terminated or there is none."""
    found = at(timeline, period.end_us - 1)
    return None if found is None or found.status in INACTIVE else found


def last_active(timeline: Sequence[Interval], period: Period) -> ContractVersion | None:
    """The version that was in force last within a period, suspended and terminated ones aside; None where there was none.

    A contract that ends or is suspended within a period keeps its terms for what it used before.
    """
    found = [i.version for i in timeline if i.start_us < period.end_us and i.end_us > period.start_us and i.version.status not in INACTIVE]
    return found[-1] if found else None


def numbered(timeline: Sequence[Interval], number: int, instant: int) -> ContractVersion:
    """The version of a number; where it governs nowhere any more, the one that stands in its place."""
    found = next((i.version for i in timeline if i.version.version == number), None)
    return found or at(timeline, instant) or timeline[-1].version


def versions(timeline: Sequence[Interval]) -> list[ContractVersion]:
    """The versions that govern anywhere, by number."""
    found = {i.version.version: i.version for i in timeline}
    return [found[number] for number in sorted(found)]


def beginnings(timeline: Sequence[Interval]) -> dict[int, int]:
    """The instant from which on each version governs first, by number."""
    return {i.version.version: i.start_us for i in reversed(timeline)}


def stretches(timeline: Sequence[Interval], term: Callable[[ContractVersion], T | None]) -> list[Stretch[T]]:
    """The intervals whose version has a term, suspended ones too, terminated ones not."""
    found = ((i, term(i.version)) for i in timeline if i.version.status != "terminated")
    return [Stretch(i.start_us, i.end_us, i.version, one) for i, one in found if one is not None]


def within(parts: Sequence[Stretch[T]], start_us: int, end_us: int) -> list[Stretch[T]]:
    """The stretches cut to a piece of time; those outside of it are left out."""
    cut = (part._replace(start_us=max(part.start_us, start_us), end_us=min(part.end_us, end_us)) for part in parts)
    return [part for part in cut if part.start_us < part.end_us]


def overlapping(calendar: Calendar, period: Period) -> Iterator[Period]:
    """The intervals of a calendar that share an instant with a billing period."""
    yield from calendar.spanning(period.start_us, period.end_us - 1)
