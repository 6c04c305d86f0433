"""Purchases of prepaid credits: one line in the billing period in which a purchased grant begins.

In: a contract's timeline and a billing period. Out: lines of kind ``credit`` over the grants' amounts, by the legal entity
and in the currency of the version that brings the grant. A purchase is not taxed, not discounted, counts for no commitment
and is paid by no grant: tax and commitments belong to the usage that the grant pays for later. A grant that begins before
the contract is bought when the contract begins. Where that billing period has left the account, what is not billed yet stands in the
period that closes; what was billed there is remembered, so nothing is billed twice. Source: docs/semantics.md section 5 (prepaid credits).
"""

from collections.abc import Collection, Iterable, Iterator, Sequence

from tieout.contract_book import Interval
from tieout.invoicing.credits import Grant, grants
from tieout.invoicing.lines import major
from tieout.invoicing.records import Account, Bought, Line, LineKey, Posted
from tieout.period import Period


def purchase_lines(timeline: Sequence[Interval], period: Period, known: Iterable[Bought]) -> Iterator[Line]:
    """The purchases of a billing period, in the order in which grants are used; ``known`` are those of which the account knows no more."""
    bought = {one.grant_id: one for one in known}
    for grant in grants(timeline):
        mine = bought.get(grant.grant_id, Bought(grant.grant_id))
        amount = grant.amount - mine.billed
        if grant.purchased and amount and period.start_us <= (mine.period_us or bought_at(grant, timeline)) < period.end_us:
            key = LineKey(period.start_us, "", None, "credit", (grant.grant_id,), period.start_us, grant.legal_entity_id, grant.currency)
            yield Line(
                key, period.end_us, period.label, (grant.version,), 0, 0, major(amount, grant.currency), amount,
                kind="credit", start_us=period.start_us,
            )  # fmt: skip


def bought_at(grant: Grant, timeline: Sequence[Interval]) -> int:
    """The instant whose billing period has the purchase."""
    return max(grant.begins_us, timeline[0].start_us)


def unbilled(account: Account) -> set[int]:
    """Where the billing periods begin in which a purchase has a place and does not stand yet."""
    standing = {(one.key.ref, one.key.period_us) for one in account.billed if one.key.kind == "credit"}
    return {one.period_us for one in account.bought if one.period_us and ((one.grant_id,), one.period_us) not in standing}


def placed(account: Account, timeline: Sequence[Interval], period: Period) -> Account:
    """The account with a place for what is not billed of purchases whose own billing period has gone: the one that closes."""
    if not account.kept_since_us:
        return account
    calendar, standing = timeline[0].version.billing.calendar, {one.key.period_us for one in account.billed}
    there = calendar.containing(max(period.start_us, min(account.kept_since_us, account.closed_us - 1)))
    bought = {one.grant_id: one for one in account.bought}
    for grant in grants(timeline):
        mine, at = bought.get(grant.grant_id, Bought(grant.grant_id)), bought_at(grant, timeline)
        gone = at < account.kept_since_us and calendar.containing(at).start_us not in standing
        if grant.purchased and gone and not mine.period_us and grant.amount != mine.billed:
            bought[grant.grant_id] = mine._replace(period_us=there.start_us)
    return account._replace(bought=tuple(bought.values()))


def left(bought: Iterable[Bought], billed: Iterable[Posted], gone: Collection[int]) -> tuple[Bought, ...]:
    """Purchases after billing periods have gone: what was billed in them is remembered, a sum for each grant."""
    found = {one.grant_id: one._replace(period_us=0) if one.period_us in gone else one for one in bought}
    for one in billed:
        if one.key.kind == "credit" and one.key.period_us in gone:
            (name,) = one.key.ref
            mine = found.get(name, Bought(name))
            found[name] = mine._replace(billed=mine.billed + one.amount)
    return tuple(found.values())
