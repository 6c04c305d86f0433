"""Flat fees: one line for each version's stretch of a fee's interval.

In: a contract's timeline and a billing period. Out: the fees that fall due in it. An interval paid in advance falls due
in the billing period of its first instant that the contract covers, one in arrears in that of its last: so a start or an
end in mid-interval has its fee too. Each version's stretch is a service period of its own; its share is covered over full
interval, by day (the days whose beginning it holds, in the contract's zone) or by second; a suspended stretch costs
nothing. A fee that is not prorated costs its interval once, however many versions share it: what the first of them says
in advance, the last in arrears. Rounded once, per line. Source: docs/semantics.md sections 4 (proration) and 5.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from tieout.contract_book import Interval
from tieout.contracts import Charge, ContractVersion, Flat
from tieout.invoicing.lines import line
from tieout.invoicing.records import Line
from tieout.invoicing.timeline import Stretch, overlapping, stretches, within
from tieout.period import Calendar, Period
from tieout.rating.adjustments import QUANTITY, net


def fee_lines(timeline: Sequence[Interval], period: Period) -> Iterator[Line]:
    """The fee lines of a billing period, by charge in the order in which the contract's versions name them."""
    names = dict.fromkeys(c.charge_id for i in timeline for c in i.version.charges if isinstance(c.price, Flat))
    for name in names:
        parts = stretches(timeline, lambda version, name=name: _fee(version, name))  # type: ignore[misc]
        for calendar in dict.fromkeys(_calendar(part) for part in parts):
            mine = [part for part in parts if _calendar(part) == calendar]
            for due in overlapping(calendar, period):
                covered = within(mine, due.start_us, due.end_us)
                if covered and _is_due(covered, period):
                    yield from (_line(part, calendar, due, period) for part in _charged(covered))


def _fee(version: ContractVersion, name: str) -> Charge | None:
    return next((c for c in version.charges if c.charge_id == name and isinstance(c.price, Flat)), None)


def _calendar(part: Stretch[Charge]) -> Calendar:
    billing = part.version.billing
    return replace(billing.calendar, period=part.term.interval or billing.period)


def _is_due(covered: list[Stretch[Charge]], period: Period) -> bool:
    active = next((part for part in covered if part.active), None)
    if active is None:
        return False
    instant = active.start_us if active.term.timing == "advance" else covered[-1].end_us - 1
    return period.start_us <= instant < period.end_us


def _charged(covered: list[Stretch[Charge]]) -> list[Stretch[Charge]]:
    """The stretches that have a line: the active ones, those that are not prorated as one."""
    active = [part for part in covered if part.active]
    whole = [part for part in active if part.term.proration == "none"]
    if not whole:
        return active
    chosen = whole[0] if whole[0].term.timing == "advance" else whole[-1]
    one = chosen._replace(start_us=whole[0].start_us, end_us=whole[-1].end_us)
    return sorted([one, *(part for part in active if part.term.proration != "none")], key=lambda part: part.start_us)


def _line(part: Stretch[Charge], calendar: Calendar, due: Period, period: Period) -> Line:
    charge, service = part.term, (part.start_us, part.end_us)
    amount = charge.price.amount if isinstance(charge.price, Flat) else 0
    exact = Fraction(amount) * net(charge) * share(calendar, charge.proration, service, due)
    return line(part.version, charge, "fee", period, service, exact)._replace(quantity=QUANTITY)


def share(calendar: Calendar, proration: str, covered: tuple[int, int], whole: Period) -> Fraction:
    """Covered over full interval: by day in the contract's zone, by second, or 1 with ``none``."""
    start, end = covered
    if proration == "none":
        return Fraction(1)
    if proration == "second":
        return Fraction(end - start, whole.end_us - whole.start_us)
    days = calendar.days(whole)
    return Fraction(sum(1 for day in days[:-1] if start <= day < end), len(days) - 1)
