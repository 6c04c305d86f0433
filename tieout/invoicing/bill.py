"""Closing a billing period: from sums of rated usage to documents and the next account.

In: the account of a contract, its governing intervals, the billing period that closes, and the sums of rated usage since
the last bill. Out: one document for each legal entity and currency, and the next account; or why it is held.

One way for everything: the lines of a billing period are computed from the facts of today, and what they differ from
what stands billed is billed. So the close of a period also bills what late usage, corrections, contract versions that
came late, and documents taken back have changed in earlier ones. The order of a period's lines is that of
``tieout.rating.adjustments.ORDER``. Source: docs/semantics.md section 5.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tieout.contract_book import Interval
from tieout.contracts import ContractVersion
from tieout.invoicing import timeline as times
from tieout.invoicing.changes import changed, posted, untold
from tieout.invoicing.commitments import Counted, commitment_lines
from tieout.invoicing.concessions import concession_lines
from tieout.invoicing.coupons import coupon_lines
from tieout.invoicing.credits import Grant, breakage, burned, cuts, grants, payable
from tieout.invoicing.division import in_stretches
from tieout.invoicing.documents import credit_uses, divided, documents
from tieout.invoicing.fees import fee_lines
from tieout.invoicing.minimums import minimum_lines
from tieout.invoicing.purchases import bought_at, placed, purchase_lines, unbilled
from tieout.invoicing.records import Account, Billed, Burn, Line, LineKey, UsageSum
from tieout.invoicing.tax import Taxes, TaxMissing, taxed
from tieout.invoicing.usage_lines import Parts, by_line, usage_lines
from tieout.period import Period


class Computed(NamedTuple):
    """The lines of a billing period as they are today, and the sums behind its usage lines."""

    period: Period
    lines: list[Line]
    sums: Mapping[LineKey, Sequence[UsageSum]]


def bill(account: Account, timeline: Sequence[Interval], period: Period, usage: Sequence[UsageSum], *, taxes: Taxes | None, as_of: int, accepted: Sequence[UsageSum] = ()) -> Billed:
    """Close one billing period of one contract.

    ``timeline`` are the contract's governing intervals as they are known now (``ContractBook.intervals``). ``usage`` are
    the increments since the last bill, of this period and of earlier ones (late usage, corrections, re-pricing); later
    ones wait with the caller. ``taxes`` None makes no tax. ``as_of`` is the instant of the close: the clock that it waited
    for, never a wall clock. A period in which no version governs makes lines only for earlier ones. ``accepted`` is late
    usage of closed billing periods that the contract sends to an exception and finance has decided to bill; what comes
    for the same periods beside it or later waits for a decision of its own.
    """
    taken, late = _by_policy(account, timeline, usage, accepted)
    known = merged((*account.usage, *taken))
    moved = placed(account, timeline, period)
    try:
        current = _computed(moved, timeline, _touched(moved, timeline, period, taken), known, taxes)
    except TaxMissing as missing:
        return Billed(account, held=missing.held)
    return settled(moved, timeline, period, current, known, taxes, as_of)._replace(late=late)


def _by_policy(account: Account, timeline: Sequence[Interval], usage: Sequence[UsageSum], accepted: Sequence[UsageSum]) -> tuple[list[UsageSum], tuple[UsageSum, ...]]:
    """What is taken, and what goes to an exception: its period is closed and the contract says so, or it lies too far back."""
    taken: list[UsageSum] = []
    late: list[UsageSum] = []
    for one in usage:
        version = times.at(timeline, one.period_us) or timeline[0].version
        refused = one.period_us < account.kept_since_us or (one.period_us < account.closed_us and version.billing.late_usage == "exception")
        (late if refused else taken).append(one)
    for one in accepted:
        (late if one.period_us < account.kept_since_us else taken).append(one)
    return taken, tuple(late)


def merged(usage: Iterable[UsageSum]) -> tuple[UsageSum, ...]:
    """Sums of the same key as one."""
    found: dict[object, UsageSum] = {}
    for one in usage:
        found[one.key] = found[one.key].plus(one) if one.key in found else one
    return tuple(found.values())


def _touched(account: Account, timeline: Sequence[Interval], period: Period, taken: Sequence[UsageSum]) -> list[Period]:
    """The billing periods to compute again, in order: this one, those whose facts have moved, and what follows from them."""
    starts = {period.start_us, *(one.period_us for one in taken)} | {one.key.period_us for one in account.billed if one.released}
    calendar, granted = timeline[0].version.billing.calendar, _new_grants(account, timeline)
    new = [i.start_us for i in timeline if i.version.version > account.version] + [grant.begins_us for grant in granted]
    if new and account.version:
        starts |= {one.key.period_us for one in account.billed if one.end_us >= min(new)}  # what ends there falls due before it
        starts |= {at for at in (bought_at(grant, timeline) for grant in grants(timeline) if grant.purchased) if at < period.start_us}
        starts |= {one.key.period_us for one in account.billed if one.key.kind == "credit"}
        since = max(min(new), account.kept_since_us)
        starts |= {one.start_us for one in calendar.spanning(since, account.closed_us - 1)} if since < account.closed_us else set()  # also of what closed without a line
    starts |= unbilled(account)
    if any(i.version.commitments for i in timeline):
        starts |= {one.key.period_us for one in account.billed if one.key.period_us > min(starts)}
    standing = {one.key.period_us for one in account.billed}
    found = ((start, calendar.containing(start)) for start in starts)
    return sorted({mine for start, mine in found if start >= account.kept_since_us or mine.start_us in standing})


def _new_grants(account: Account, timeline: Sequence[Interval]) -> list[Grant]:
    """The grants that versions have brought since the last bill: their purchase, and what they may pay, is looked at again."""
    known = {grant.grant_id for i in timeline if i.version.version <= account.version for grant in i.version.credits}
    return [grant for grant in grants(timeline) if grant.grant_id not in known]


def _computed(account: Account, timeline: Sequence[Interval], periods: Sequence[Period], known: Sequence[UsageSum], taxes: Taxes | None) -> list[Computed]:
    """The lines of each of these billing periods as they are today."""
    spend = _spend(account, timeline)
    levels = frozenset(one.charge_id for one in known)
    bounds = cuts(timeline)
    current = []
    for period in periods:
        mine = (one for one in known if one.period_us == period.start_us)
        behind = by_line(timeline, period, in_stretches(timeline, period, bounds, mine))
        lines = _base_lines(timeline, period, behind, levels)
        spend[period] = [Counted(one.key.charge_id, one.key.kind, one.key.currency, one.amount) for one in lines]
        lines += commitment_lines(timeline, period, spend)
        lines += coupon_lines(timeline, period, lines)
        lines += purchase_lines(timeline, period, account.bought)
        lines += concession_lines(account, period, tuple(lines))
        sums = {key: [one for one, _, _ in parts] for key, parts in behind.items()}
        current.append(Computed(period, lines if taxes is None else taxed(lines, _speaking(timeline, period), period, taxes), sums))
    return current


def _base_lines(timeline: Sequence[Interval], period: Period, behind: Mapping[LineKey, Parts], levels: frozenset[str]) -> list[Line]:
    """Usage, fees and the charges' minimums: what commitments count."""
    lines = [*usage_lines(timeline, period, behind, levels), *fee_lines(timeline, period)]
    return [*lines, *minimum_lines(timeline, period, lines)]


def _spend(account: Account, timeline: Sequence[Interval]) -> dict[Period, list[Counted]]:
    """What stands billed by billing period, for the commitments (if any)."""
    spend: dict[Period, list[Counted]] = {}
    calendar = timeline[0].version.billing.calendar
    for one in account.billed if any(i.version.commitments for i in timeline) else ():
        counted = Counted(one.key.charge_id, one.key.kind, one.key.currency, one.amount)
        spend.setdefault(calendar.containing(one.key.period_us), []).append(counted)
    return spend


def _speaking(timeline: Sequence[Interval], period: Period) -> ContractVersion:
    """The version that speaks for a period as a whole: the one at its end, else the last before it."""
    return times.at(timeline, period.end_us - 1) or [i for i in timeline if i.start_us < period.end_us or i is timeline[0]][-1].version


def settled(account: Account, timeline: Sequence[Interval], period: Period, current: Sequence[Computed], known: tuple[UsageSum, ...], taxes: Taxes | None, as_of: int) -> Billed:
    """Bill what differs from what stands billed, pay it with credits, and put it into documents."""
    lines = [one for of in current for one in of.lines]
    keys, starts = {one.key for one in lines}, {of.period.start_us for of in current}
    billed = {one.key: one for one in account.billed}
    gone = [one for one in account.billed if one.key.period_us in starts and one.key not in keys]
    new = sorted(changed(account.contract_id, lines, billed, gone), key=lambda one: one.key.period_us)
    all_ = grants(timeline)
    burns = _paid(account, current, all_, starts)
    uses = credit_uses(all_, account, burns, as_of)
    told, quiet = divided(new, uses)
    after = posted(billed, told, {one.key: one.end_us for one in lines}) | {one.key: untold(one) for one in quiet if one.key not in billed}
    version = _speaking(timeline, period)
    treatment = None if taxes is None else taxes.payer(version.customer_id, period.end_us - 1).treatment
    invoices = tuple(documents(account, version, period, told, uses, treatment, as_of))
    broken = tuple(breakage(all_, burns, account.broken, period))
    following = account._replace(
        closed_us=max(account.closed_us, period.end_us), version=max(account.version, *(i.version.version for i in timeline)),
        issued=account.issued + len(invoices), usage=known, billed=tuple(after.values()), burns=burns, broken=account.broken + broken,
    )
    return Billed(following, invoices, broken=broken, quiet=tuple(quiet))


def _paid(account: Account, current: Sequence[Computed], all_: Sequence[Grant], starts: set[int]) -> tuple[Burn, ...]:
    """The burns after what these billing periods cost now; what is no longer there costs nothing."""
    if not all_:
        return account.burns
    costs = {(one.key, one.since_us): 0 for one in account.burns if one.key.period_us in starts}
    for of in current:
        costs |= payable(of.lines, of.sums)
    return burned(account.burns, costs, all_, account.broken)
