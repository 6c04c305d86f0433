"""Prepaid credits: which grants a contract has, where they cut time, what they pay, what expires.

In: what each usage line costs net of coupons and of what commitments have paid before, by the stretches of its usage. Out: burns, in the order in which they were
recorded. Grants are used in one total order: priority ascending, expiry ascending (never last), granted before
purchased, created first, id. A grant pays only for usage whose event time lies in its validity, so sums of usage are kept
apart at the bounds of grants; it pays for nothing else, and not for tax. What a line costs less than was paid of it is
given back from the last burn backwards. Amounts are minor units. Source: docs/semantics.md section 4 (prepaid credits).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tieout import money
from tieout.contract_book import Interval
from tieout.contracts import ContractVersion
from tieout.invoicing import timeline as times
from tieout.invoicing.lines import minor
from tieout.invoicing.records import Broken, Burn, Line, LineKey, UsageSum
from tieout.period import Period, micros

FOREVER = 1 << 62


class Grant(NamedTuple):
    """A grant of a contract; fields in their order of use."""

    priority: int
    expires_us: int
    purchased: bool
    created: int
    grant_id: str
    begins_us: int
    amount: int
    currency: str
    legal_entity_id: str
    version: int
    """The version that says what it is."""

    def valid(self, instant: int) -> bool:
        """Whether usage of an instant may be paid."""
        return self.begins_us <= instant < self.expires_us


def grants(timeline: Sequence[Interval]) -> list[Grant]:
    """All grants of a contract in their order of use; the highest version that has a grant says what it is.

    One without a beginning of its own begins with the version that brings it, whose currency and legal entity are its own.
    """
    found: dict[str, Grant] = {}
    brought: dict[str, tuple[int, ContractVersion]] = {}
    starts = times.beginnings(timeline)
    for version in times.versions(timeline):
        for one in version.credits:
            place, by = brought.setdefault(one.grant_id, (len(brought), version))
            begins = starts[by.version] if one.effective_from is None else micros(one.effective_from)
            expires = FOREVER if one.expires_at is None else micros(one.expires_at)
            found[one.grant_id] = Grant(
                one.priority, expires, one.kind == "purchased", place, one.grant_id, begins, minor(one.amount, by.currency),
                by.currency, by.legal_entity_id, version.version,
            )  # fmt: skip
    return sorted(found.values())


def cuts(timeline: Sequence[Interval]) -> tuple[int, ...]:
    """The instants at which a grant begins or ends, in order: ``UsageSum.since_us`` is one of them or the period's start."""
    found = {at for grant in grants(timeline) for at in (grant.begins_us, grant.expires_us) if at != FOREVER}
    return tuple(sorted(found))


def payable(lines: Iterable[Line], sums: Mapping[LineKey, Sequence[UsageSum]]) -> dict[tuple[LineKey, int], int]:
    """What each usage line costs, split over its stretches by their rated amounts; 0 or more."""
    costs = net_costs((one.key, one.amount) for one in lines)
    return {place: part for key, cost in costs.items() for place, part in _split(key, cost, sums.get(key, ()))}


def net_costs(lines: Iterable[tuple[LineKey, int]]) -> dict[LineKey, int]:
    """What the usage lines of one billing period still cost, 0 or more, from all its lines.

    Off them go their coupons, and what a commitment takes off for it was paid before (``drawn``, ``relief``): that lowers
    the usage and minimum lines in its scope by largest remainder, so that a grant never pays what is prepaid already.
    """
    costs: dict[LineKey, int] = {}
    paid: list[tuple[LineKey, int]] = []
    for key, amount in lines:
        if key.kind in ("usage", "minimum"):
            costs[key] = costs.get(key, 0) + amount
        elif key.kind == "coupon" and key.ref[2] in ("usage", "minimum"):
            lowered = key._replace(kind=key.ref[2], ref=key.ref[3:])
            costs[lowered] = costs.get(lowered, 0) + amount
        elif key.kind == "commitment" and amount < 0:
            paid.append((key, -amount))
    for key, amount in paid:
        mine = [one for one, cost in costs.items() if cost > 0 and key.charge_id in ("", one.charge_id) and one.currency == key.currency]
        weights = [costs[one] for one in mine]
        for one, part in zip(mine, money.allocate(min(amount, sum(weights)), weights) if mine else (), strict=True):
            costs[one] -= part
    return {key: max(cost, 0) for key, cost in costs.items() if key.kind == "usage"}


def _split(key: LineKey, cost: int, sums: Sequence[UsageSum]) -> list[tuple[tuple[LineKey, int], int]]:
    by_stretch: dict[int, int] = {}
    for one in sums:
        by_stretch[one.since_us] = by_stretch.get(one.since_us, 0) + one.amount
    stretches = sorted(by_stretch) or [key.period_us]
    weights = [max(by_stretch.get(at, 0), 0) for at in stretches]
    if not any(weights):
        weights[-1] = 1
    return [((key, at), part) for at, part in zip(stretches, money.allocate(cost, weights), strict=True)]


def burned(old: Sequence[Burn], costs: Mapping[tuple[LineKey, int], int], all_: Sequence[Grant], broken: Sequence[Broken]) -> tuple[Burn, ...]:
    """The burns after the costs of some lines have changed: undone where they fell, paid where they rose, by time."""
    burns = _undone(old, costs)
    paid: dict[tuple[LineKey, int], int] = {}
    balance = {grant.grant_id: grant.amount for grant in all_}
    for one in burns:
        paid[one.key, one.since_us] = paid.get((one.key, one.since_us), 0) + one.amount
        balance[one.grant_id] = balance.get(one.grant_id, 0) - one.amount
    for gone in broken:
        balance[gone.grant_id] = balance.get(gone.grant_id, 0) - gone.amount
    for (key, since), cost in sorted(costs.items(), key=lambda item: item[0][1]):
        left = cost - paid.get((key, since), 0)
        for grant in all_:
            part = min(left, balance[grant.grant_id]) if grant.valid(since) and grant.currency == key.currency else 0
            if part > 0:
                burns.append(Burn(grant.grant_id, key, since, part))
                balance[grant.grant_id] -= part
                left -= part
    return tuple(burns)


def _undone(old: Sequence[Burn], costs: Mapping[tuple[LineKey, int], int]) -> list[Burn]:
    """Give back what was paid beyond the costs of today, the last burn first."""
    over: dict[tuple[LineKey, int], int] = {}
    for one in old:
        over[one.key, one.since_us] = over.get((one.key, one.since_us), 0) + one.amount
    excess = {place: paid - costs[place] for place, paid in over.items() if place in costs and paid > costs[place]}
    kept: list[Burn] = []
    for one in reversed(old):
        back = min(one.amount, excess.get((one.key, one.since_us), 0))
        if back:
            excess[one.key, one.since_us] -= back
        if one.amount > back:
            kept.append(one._replace(amount=one.amount - back))
    return kept[::-1]


def given_back(old: Sequence[Burn], costs: Mapping[LineKey, int]) -> tuple[Burn, ...]:
    """The burns after some usage lines cost less, whatever the stretch: the last burn of a line is undone first."""
    over = {key: sum(one.amount for one in old if one.key == key) - cost for key, cost in costs.items()}
    kept = []
    for one in reversed(old):
        back = min(one.amount, max(over.get(one.key, 0), 0))
        if back:
            over[one.key] -= back
        if one.amount > back:
            kept.append(one._replace(amount=one.amount - back))
    return tuple(kept[::-1])


def balances(all_: Sequence[Grant], burns: Sequence[Burn], broken: Sequence[Broken]) -> dict[str, int]:
    """What is left of each grant."""
    left = {grant.grant_id: grant.amount for grant in all_}
    gone = [(one.grant_id, one.amount) for one in burns] + [(one.grant_id, one.amount) for one in broken]
    for name, amount in gone:
        left[name] = left.get(name, 0) - amount
    return left


def shown(grant: Grant, balance: int, as_of: int) -> int:
    """The balance as it is told: 0 for a grant that has expired or not yet begun."""
    return balance if grant.valid(as_of) else 0


def breakage(all_: Sequence[Grant], burns: Sequence[Burn], broken: Sequence[Broken], period: Period) -> list[Broken]:
    """What expires with a billing period that closes: the balances of grants that end by its end."""
    left = balances(all_, burns, broken)
    return [
        Broken(grant.grant_id, "purchased" if grant.purchased else "granted", left[grant.grant_id], grant.expires_us, grant.legal_entity_id, grant.currency)
        for grant in all_
        if grant.expires_us <= period.end_us and left[grant.grant_id]
    ]
