"""Prepaid credits: which grants a contract has, where they cut time, what they pay, what expires.

In: what each usage line costs net of coupons, by the stretches of its usage. Out: burns, in the order in which they were
recorded. Grants are used in one total order: priority ascending, expiry ascending (never last), granted before
purchased, created first, id. A grant pays only for usage whose event time lies in its validity, so sums of usage are kept
apart at the bounds of grants; it pays for nothing else, and not for tax. What a line costs less than was paid of it is
given back from the last burn backwards. Amounts are minor units. Source: docs/semantics.md section 4 (prepaid credits).
"""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from tieout import money
from tieout.contract_book import Interval
from tieout.contracts import Credit
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

    def valid(self, instant: int) -> bool:
        """Whether usage of an instant may be paid."""
        return self.begins_us <= instant < self.expires_us


def grants(timeline: Sequence[Interval]) -> list[Grant]:
    """All grants of a contract in their order of use; the highest version that has a grant says what it is."""
    found: dict[str, Grant] = {}
    created: dict[str, int] = {}
    first = timeline[0].start_us
    for version in sorted({i.version.version: i.version for i in timeline}.values(), key=lambda v: v.version):
        for one in version.credits:
            created.setdefault(one.grant_id, len(created))
            begins, expires = _bounds(one)
            found[one.grant_id] = Grant(
                one.priority, FOREVER if expires is None else expires, one.kind == "purchased", created[one.grant_id], one.grant_id,
                first if begins is None else begins, minor(Fraction(one.amount), version.currency), version.currency, version.legal_entity_id,
            )  # fmt: skip
    return sorted(found.values())


def _bounds(grant: Credit) -> tuple[int | None, int | None]:
    begins, expires = grant.effective_from, grant.expires_at
    return None if begins is None else micros(begins), None if expires is None else micros(expires)


def cuts(timeline: Sequence[Interval]) -> tuple[int, ...]:
    """The instants at which a grant begins or ends, in order: ``UsageSum.since_us`` is one of them or the period's start."""
    found = {at for interval in timeline for grant in interval.version.credits for at in _bounds(grant) if at is not None}
    return tuple(sorted(found))


def payable(lines: Iterable[Line], sums: Mapping[LineKey, Sequence[UsageSum]]) -> dict[tuple[LineKey, int], int]:
    """What each usage line costs net of its coupons, split over its stretches by their rated amounts; 0 or more."""
    costs: dict[LineKey, int] = {}
    for one in lines:
        lowers = one.key.kind == "coupon" and one.key.ref[2] == "usage"
        if one.key.kind == "usage" or lowers:
            usage = one.key._replace(kind="usage", ref=())
            costs[usage] = costs.get(usage, 0) + one.amount
    return {place: part for key, cost in costs.items() for place, part in _split(key, max(cost, 0), sums.get(key, ()))}


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
