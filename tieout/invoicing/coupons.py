"""Coupons: percents one after the other, then fixed amounts, off the rounded lines of a billing period.

In: the period's lines (usage, fees, minimums, commitments, overage). Out: one line for each coupon and line that it
lowers, with that line's charge, group, service period and legal entity. A coupon takes its share of what the earlier
ones have left, never more; its amount is rounded once and split over the lines that are above 0 by largest remainder.
The version that was active last in the period says which coupons there are (of a fee that is due before the currency in
which it is charged begins, its own version); one with ``until`` counts for billing periods
that begin before it. Source: docs/semantics.md section 4 (coupons).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain

from tieout import money
from tieout.contract_book import Interval
from tieout.contracts import ContractVersion, Coupon
from tieout.invoicing import timeline as times
from tieout.invoicing.lines import major, minor
from tieout.invoicing.records import Line
from tieout.period import Period, micros


def coupon_lines(timeline: Sequence[Interval], period: Period, lines: Sequence[Line]) -> Iterator[Line]:
    """The coupon lines of a billing period, currency by currency; amounts are 0 or below."""
    for currency in dict.fromkeys(one.key.currency for one in lines):
        mine = [one for one in lines if one.key.currency == currency]
        version = _saying(timeline, period, currency, mine)
        if version is not None and version.coupons:
            yield from _lines(version, period, mine)


def _saying(timeline: Sequence[Interval], period: Period, currency: str, mine: Sequence[Line]) -> ContractVersion | None:
    """The version that says which coupons there are: the last active one, else (a fee that is due before its currency begins) that of the lines."""
    last = times.last_active(timeline, period)
    if last is None or last.currency == currency:
        return last
    return times.numbered(timeline, max(version for one in mine for version in one.versions), period.end_us - 1)


def _lines(version: ContractVersion, period: Period, mine: Sequence[Line]) -> Iterator[Line]:
    left = [one.amount for one in mine]
    valid = [one for one in version.coupons if one.until is None or period.start_us < micros(one.until)]
    percents = ((one, _percent(one)) for one in valid if one.percent is not None)
    for coupon, share in chain(percents, ((one, None) for one in valid if one.amount is not None)):
        base = sum(left)
        exact = major(base, version.currency) * share if share is not None else min(Fraction(coupon.amount or 0), major(base, version.currency))
        weights = [max(amount, 0) for amount in left]
        off = minor(exact, version.currency)
        if base <= 0 or off <= 0:
            continue
        for place, part in enumerate(money.allocate(off, weights)):
            if part:
                yield _line(mine[place], coupon, version, exact * Fraction(weights[place], sum(weights)), part, fixed=share is None)
            left[place] -= part


def _percent(coupon: Coupon) -> Fraction:
    return Fraction(coupon.percent or 0) / 100


def _line(lowered: Line, coupon: Coupon, version: ContractVersion, exact: Fraction, amount: int, *, fixed: bool) -> Line:
    key = lowered.key._replace(kind="coupon", ref=(coupon.coupon_id, "amount" if fixed else "percent", lowered.key.kind, *lowered.key.ref))
    return lowered._replace(
        key=key, kind="coupon", versions=(version.version,), quantity=0, usage_exact=0, exact=-exact, amount=-amount, tiers=(),
        usage_count=0, usage_digest=0,
    )
