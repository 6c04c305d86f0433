"""How usage is divided at the bounds of grants that become known after it was summed.

In: a contract's timeline, and sums that were made while fewer bounds were known. Out: where each of them lies, and which bounds
need the records themselves. A sum says only where its stretch begins, by the bounds of then. Where a bound is also where
versions change, a sum's version says on which side it lies: usage is priced again by the version that governs it, and what
leaves the old version comes with the new bounds. Where one version governs on both sides, its records have to be read again.
Source: docs/semantics.md section 5 (prepaid credits).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tieout.contract_book import Interval
from tieout.invoicing.credits import cuts
from tieout.invoicing.records import DIGEST, UsageSum
from tieout.period import Calendar, Period


class Span(NamedTuple):
    """A piece of a billing period in which a version governs."""

    start_us: int
    end_us: int


def cut_through(timeline: Sequence[Interval], calendar: Calendar, known: Sequence[int]) -> set[int]:
    """The starts of the billing periods in which a bound beside the ``known`` ones cuts through sums that were made without it.

    It does where a version governs both before and after it: such a version's sums do not say where their usage lies.
    """
    new = [bound for bound in cuts(timeline) if bound not in known]
    numbers = {interval.version.version for interval in timeline}
    return {
        period.start_us for bound in new for period in (calendar.containing(bound),)
        if any(_on_both_sides([*_spans(timeline, period, number)], bound) for number in numbers)
    }  # fmt: skip


def _on_both_sides(spans: Sequence[Span], bound: int) -> bool:
    return any(span.start_us < bound for span in spans) and any(span.end_us > bound for span in spans)


def moves(new: Iterable[UsageSum], old: Iterable[UsageSum]) -> list[UsageSum]:
    """What takes a billing period's sums from one division of its records to another, nothing in sum.

    Where they are not sums of the same records (some are gone from their topic) nothing is moved.
    """
    parts: dict[object, tuple[dict[object, UsageSum], list[UsageSum]]] = {}
    for given, sign in ((new, 1), (old, -1)):
        for one in given:
            signed = one if sign == 1 else one.negative()
            found, every = parts.setdefault(one.key[:4], ({}, []))
            found[one.key] = found[one.key].plus(signed) if one.key in found else signed
            every.append(signed)
    return [one for found, every in parts.values() if not _any(every) for one in found.values() if any(one[5:])]


def _any(sums: Sequence[UsageSum]) -> bool:
    """Whether anything is left of sums that should be nothing together."""
    return any(sum(column) for column in zip(*(one[5:9] for one in sums), strict=True)) or bool(sum(one.digest for one in sums) % DIGEST)


def in_stretches(timeline: Sequence[Interval], period: Period, bounds: Sequence[int], sums: Iterable[UsageSum]) -> list[UsageSum]:
    """The sums of a billing period, each in a stretch in which its version governs; what has left a version that governs nowhere lies together."""
    mine = list(sums)
    amounts: dict[object, int] = {}
    for one in mine if bounds else ():
        amounts[one.key[:4]] = amounts.get(one.key[:4], 0) + one.amount
    return [_in_stretch([*_spans(timeline, period, one.version)], period, bounds, one, left=amounts[one.key[:4]]) for one in mine] if bounds else mine


def _in_stretch(spans: Sequence[Span], period: Period, bounds: Sequence[int], one: UsageSum, left: int) -> UsageSum:
    if not spans:
        return one if left else one._replace(since_us=period.start_us)
    until = min((bound for bound in bounds if bound > one.since_us), default=period.end_us)
    if any(span.start_us < until and span.end_us > one.since_us for span in spans):
        return one
    before = [span for span in spans if span.end_us <= one.since_us]
    instant = before[-1].end_us - 1 if before else spans[0].start_us
    return one._replace(since_us=max((bound for bound in bounds if period.start_us < bound <= instant), default=period.start_us))


def _spans(timeline: Sequence[Interval], period: Period, number: int) -> Iterator[Span]:
    for interval in timeline:
        if interval.version.version == number and interval.start_us < period.end_us and interval.end_us > period.start_us:
            yield Span(max(interval.start_us, period.start_us), min(interval.end_us, period.end_us))
