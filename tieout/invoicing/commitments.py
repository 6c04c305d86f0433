"""Commitments: what a customer owes at least over an interval, and what going beyond it costs.

In: a contract's timeline, a billing period, and the rounded lines of this and earlier billing periods. Out: lines of kinds
``commitment`` and ``overage``. A billing period belongs to the interval that holds its first instant (or the contract's,
if later). What counts are the rounded usage and minimum lines in scope (a charge's, or all), fees only with
``includes_base_fee``. For an interval with commitment A, carried C and counted U so far:

- postpaid: at the end of the interval (or of the contract) one line of ``A - U`` where that is above 0;
- prepaid: one line of A when the interval begins, and in each billing period one that takes off what usage drew from
  ``A + C``: so an interval bills ``max(A, U)`` either way;
- ``overage_factor``: ``(U - A - C) x (factor - 1)`` where that is above 0, in the billing period in which it arises;
- ``rollover``: what was paid and not used is C of the next interval of the term; a postpaid C takes off what goes beyond A;
- ``prorate``: A is each version's amount times its share of the interval by day; else that of the last version in it.

All but the true-up are running sums: a period's line is what they have changed by, ``r(sum to date) - r(sum before)``.
Source: docs/semantics.md section 4 (minimum commitment, overage).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Final, NamedTuple

from tieout.contract_book import Interval
from tieout.contracts import Charge, Commitment, ContractVersion
from tieout.invoicing.fees import share
from tieout.invoicing.lines import line, major, minor
from tieout.invoicing.records import Line
from tieout.invoicing.timeline import Stretch, stretches, within
from tieout.period import Calendar, Period, midnight

ZERO: Final = Fraction(0)


class Counted(NamedTuple):
    """A rounded line as a commitment sees it; the amount in minor units."""

    charge_id: str
    kind: str
    currency: str
    amount: int


Spend = Mapping[Period, Sequence[Counted]]
"""What was billed by billing period, each period's deltas within it."""


class _Sums(NamedTuple):
    """The running sums of an interval at a period's end."""

    paid: Fraction = ZERO
    drawn: Fraction = ZERO
    true_up: Fraction = ZERO
    relief: Fraction = ZERO
    overage: Fraction = ZERO


def commitment_lines(timeline: Sequence[Interval], period: Period, spend: Spend) -> Iterator[Line]:
    """The commitment and overage lines of a billing period; ``spend`` holds it and the earlier ones."""
    names = dict.fromkeys(c.commitment_id for i in timeline for c in i.version.commitments)
    for name in names:
        parts = stretches(timeline, lambda version, name=name: _part_of(version, name))  # type: ignore[misc]
        if not parts:
            continue
        interval = _interval(parts, _first(timeline, period))
        if _begun(within(parts, interval.start_us, interval.end_us), period):
            yield from _lines(timeline, parts, interval, period, spend)


def counting_since(timeline: Sequence[Interval], instant: int) -> int:
    """From when on billing periods count for a commitment whose interval has not ended by an instant; 0 where what is left rolls over."""
    starts = [instant]
    for name in dict.fromkeys(c.commitment_id for i in timeline for c in i.version.commitments):
        parts = stretches(timeline, lambda version, name=name: _part_of(version, name))  # type: ignore[misc]
        if any(part.term.rollover for part in parts):
            return 0
        if parts:
            starts.append(_interval(parts, instant).start_us)
    return min(starts)


def _part_of(version: ContractVersion, name: str) -> Commitment | None:
    return next((c for c in version.commitments if c.commitment_id == name), None)


def _first(timeline: Sequence[Interval], period: Period) -> int:
    return max(period.start_us, timeline[0].start_us)


def _begun(covered: Sequence[Stretch[Commitment]], period: Period) -> bool:
    """Whether anything of an interval was in force by a period's end; one that was suspended throughout owes nothing."""
    return any(part.active and part.start_us < period.end_us for part in covered)


def _interval(parts: Sequence[Stretch[Commitment]], instant: int) -> Period:
    """The commitment's interval that holds an instant, as the version in force there (or next, or last) has it."""
    part = next((one for one in parts if instant < one.end_us), parts[-1])
    term, billing = part.version.term, part.version.billing
    if "term" in (part.term.interval, part.term.scope):
        if term is None or term.end_on is None:
            msg = f"commitment {part.term.commitment_id}: the contract has no term with an end"
            raise AssertionError(msg)
        zone = billing.time_zone
        return Period(midnight(term.start_on, zone), midnight(term.end_on, zone), term.start_on, term.end_on, "term")
    return _calendar(part).containing(instant)


def _calendar(part: Stretch[Commitment]) -> Calendar:
    length = part.term.interval
    return part.version.billing.calendar if length == "term" else replace(part.version.billing.calendar, period=length)


def _lines(timeline: Sequence[Interval], parts: Sequence[Stretch[Commitment]], interval: Period, period: Period, spend: Spend) -> Iterator[Line]:
    covered = within(parts, interval.start_us, interval.end_us)
    terms = _terms(covered, period)
    version, commitment = terms.version, terms.term
    carried = _carried(timeline, parts, interval, spend) if commitment.rollover else ZERO
    latest = _sums(timeline, covered, interval, period, spend, carried)
    earlier = [p for p in sorted(spend) if p.start_us < period.start_us and _belongs(timeline, p, interval)]
    before = _sums(timeline, covered, interval, earlier[-1], spend, carried) if earlier else _Sums()
    charge = next((c for c in version.charges if c.charge_id == commitment.scope), None)
    for part, sign in (("paid", 1), ("drawn", -1), ("true_up", 1), ("relief", -1), ("overage", 1)):
        to_date, billed = sign * getattr(latest, part), sign * getattr(before, part)
        if to_date != billed:
            yield _made(terms, charge, period, part, (to_date, billed))


def _made(terms: Stretch[Commitment], charge: Charge | None, period: Period, part: str, sums: tuple[Fraction, Fraction]) -> Line:
    version, commitment = terms.version, terms.term
    kind, to_date, billed = "overage" if part == "overage" else "commitment", *sums
    made = line(
        version, charge, kind, period, (period.start_us, period.end_us), to_date - billed,  # type: ignore[arg-type]
        ref=(commitment.commitment_id, part),
    )  # fmt: skip
    amount = minor(to_date, version.currency) - minor(billed, version.currency)
    return made._replace(amount=amount, obligation_id=commitment.obligation_id or made.obligation_id)


def _terms(covered: Sequence[Stretch[Commitment]], period: Period) -> Stretch[Commitment]:
    """The last stretch that has begun by the period's end."""
    return [part for part in covered if part.start_us < period.end_us][-1]


def _belongs(timeline: Sequence[Interval], period: Period, interval: Period) -> bool:
    return interval.start_us <= _first(timeline, period) < interval.end_us


def _sums(timeline: Sequence[Interval], covered: Sequence[Stretch[Commitment]], interval: Period, period: Period, spend: Spend, carried: Fraction) -> _Sums:
    """The interval's running sums at a billing period's end."""
    if not _begun(covered, period):
        return _Sums()
    terms = _terms(covered, period)
    commitment, currency = terms.term, terms.version.currency
    amount = _amount(covered, terms, interval)
    periods = [p for p in spend if p.start_us <= period.start_us and _belongs(timeline, p, interval)]
    used = major(sum(one.amount for p in periods for one in spend[p] if _counts(one, commitment, currency)), currency)
    over = max(ZERO, used - amount - carried) * (Fraction(commitment.overage_factor) - 1) if commitment.overage_factor is not None else ZERO
    if commitment.kind == "prepaid":
        return _Sums(paid=amount, drawn=max(ZERO, min(amount + carried, used)), overage=over)
    ended = covered[-1].end_us <= period.end_us
    return _Sums(
        true_up=max(ZERO, amount - used) if ended else ZERO, relief=min(carried, max(ZERO, used - amount)), overage=over,
    )  # fmt: skip


def _counts(one: Counted, commitment: Commitment, currency: str) -> bool:
    scoped = commitment.scope in ("contract", "term", one.charge_id)
    return scoped and one.currency == currency and (one.kind in ("usage", "minimum") or (one.kind == "fee" and commitment.includes_base_fee))


def _amount(covered: Sequence[Stretch[Commitment]], terms: Stretch[Commitment], interval: Period) -> Fraction:
    if not terms.term.prorate:
        return Fraction(terms.term.amount)
    calendar = terms.version.billing.calendar
    return sum((Fraction(p.term.amount) * share(calendar, "day", (p.start_us, p.end_us), interval) for p in covered if p.active), ZERO)


def _carried(timeline: Sequence[Interval], parts: Sequence[Stretch[Commitment]], interval: Period, spend: Spend) -> Fraction:
    """What earlier intervals of the same term paid and did not use."""
    carried, done = ZERO, {interval.start_us}
    for period in sorted(spend):
        own = _interval(parts, _first(timeline, period))
        if own.start_us >= interval.start_us or own.start_us in done:
            continue
        done.add(own.start_us)
        covered = within(parts, own.start_us, own.end_us)
        last = max(p for p in spend if _belongs(timeline, p, own))
        if not _begun(covered, last):
            continue
        sums = _sums(timeline, covered, own, last, spend, carried)
        if _terms(covered, last).term.kind == "prepaid":
            carried = sums.paid + carried - sums.drawn
        else:
            carried += sums.true_up - sums.relief
    return carried
