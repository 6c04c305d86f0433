"""Usage lines: one a charge, group and billing period, from the sums of its rated amounts.

In: the sums of one billing period. Out: lines whose ``usage_exact`` is the rated amount behind them; and for each usage
charge of the version in force at the period's end that has no live events, one line of ``P(0)``, without group. A charge
whose legal entity or currency changes within the period has a line for each. Source: docs/semantics.md sections 4 and 5.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

from tieout.contract_book import Interval
from tieout.contracts import Charge, ContractVersion, Flat, PerUnit
from tieout.invoicing import timeline as times
from tieout.invoicing.lines import line, minor
from tieout.invoicing.records import DIGEST, Line, LineKey, UsageSum
from tieout.invoicing.tiers import tiers_used
from tieout.period import Period
from tieout.rating.adjustments import RATED, compile_price
from tieout.rating.kinds import kind_of

Parts = list[tuple[UsageSum, ContractVersion, Charge]]


def by_line(timeline: Sequence[Interval], period: Period, sums: Iterable[UsageSum]) -> dict[LineKey, Parts]:
    """The sums behind each usage line of a period, with the version and charge that they were priced by."""
    found: dict[LineKey, Parts] = {}
    for one in sums:
        version = times.numbered(timeline, one.version, period.end_us - 1)
        charge = _charge(timeline, version, one.charge_id)
        empty = line(version, charge, "usage", period, (period.start_us, period.end_us), Fraction(0), group=one.group)
        found.setdefault(empty.key, []).append((one, version, charge))
    return found


def usage_lines(timeline: Sequence[Interval], period: Period, found: Mapping[LineKey, Parts], levels: frozenset[str]) -> list[Line]:
    """The usage lines of a period; ``levels`` are the charges that ever had usage."""
    lines = {key: usage_line(period, parts) for key, parts in found.items()}
    for quiet in _quiet(timeline, period, _busy(found), levels):
        dead = lines.get(quiet.key)
        lines[quiet.key] = quiet if dead is None else _with(dead, quiet.exact)
    return list(lines.values())


def _busy(found: Mapping[LineKey, Parts]) -> set[str]:
    """The charges with live events."""
    counts: dict[str, int] = {}
    for parts in found.values():
        for one, _, _ in parts:
            counts[one.charge_id] = counts.get(one.charge_id, 0) + one.live
    return {charge for charge, count in counts.items() if count > 0}


def usage_line(period: Period, parts: Parts) -> Line:
    """The line of the sums behind it."""
    amount = sum(one.amount for one, _, _ in parts)
    _, version, charge = max(parts, key=lambda part: part[1].version)
    made = line(version, charge, "usage", period, (period.start_us, period.end_us), Fraction(amount, RATED), group=parts[0][0].group)
    versions = tuple(sorted({one.version for one, _, _ in parts}))
    quantity = sum(one.quantity for one, _, _ in parts)
    return made._replace(
        versions=versions, quantity=quantity, usage_exact=amount, tiers=tiers_used(charge, quantity) if len(versions) == 1 else (),
        usage_count=sum(one.records for one, _, _ in parts), usage_digest=sum(one.digest for one, _, _ in parts) % DIGEST,
    )


def _with(dead: Line, more: Fraction) -> Line:
    exact = dead.exact + more
    return dead._replace(exact=exact, amount=minor(exact, dead.key.currency))


def _quiet(timeline: Sequence[Interval], period: Period, busy: set[str], levels: frozenset[str]) -> Iterator[Line]:
    version = times.active_at_end(timeline, period)
    for charge in version.charges if version is not None else ():
        kind = kind_of(charge)
        if version is None or kind == "fee" or charge.charge_id in busy or (kind == "level" and charge.charge_id in levels):
            continue
        amount = 0 if kind in ("walked", "amount") or isinstance(charge.price, PerUnit) else compile_price(charge).at(0)
        yield line(version, charge, "usage", period, (period.start_us, period.end_us), Fraction(amount, RATED))


def _charge(timeline: Sequence[Interval], version: ContractVersion, name: str) -> Charge:
    """The charge of a version; where re-pricing has taken everything out of a charge that is gone, one without a price."""
    named = (charge for one in (version, *(i.version for i in timeline)) for charge in one.charges if charge.charge_id == name)
    return next(named, None) or Charge(charge_id=name, price=Flat(model="flat", amount=Decimal(0)))
