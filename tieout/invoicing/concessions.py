"""Concessions: amounts that credit notes took off lines, as far as their lines still have them.

In: the lines of a billing period as they are today, coupons included, and what credit notes by amount took off lines of it. Out:
one line for each line that was lowered, of what was taken off it, at most what it comes to net of its coupons. So a line that is
corrected downwards afterwards gives back its concession as far as nothing is left to lower: a line is never credited more than
whole, in whatever order concessions and corrections come. A concession lowers the tax base; it is no usage, counts for no
commitment, and no grant gives anything back for it. Source: docs/semantics.md section 5 (after the close).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tieout.invoicing.lines import major
from tieout.invoicing.records import Account, Line, LineKey, Posted, line_id
from tieout.period import Period

CONCESSION: Final = "concession"
"""The kind of its key; on a document its lines are deltas of the line that they lower, or of one another."""


def concession_lines(account: Account, period: Period, lines: Iterable[Line]) -> Iterator[Line]:
    """The concessions of a billing period; amounts are 0 or below."""
    given = _given(account, period)
    if not given:
        return
    standing = net((one.key, one.amount) for one in lines)
    for one in lines:
        if one.key in given:
            off = -min(given[one.key], max(standing[one.key], 0))
            yield one._replace(
                key=key_of(one.key), kind="delta", quantity=0, usage_exact=0, exact=major(off, one.key.currency), amount=off, tiers=(),
                usage_count=0, usage_digest=0,
            )  # fmt: skip


def key_of(key: LineKey) -> LineKey:
    """The key of the concession on a line."""
    return key._replace(kind=CONCESSION, ref=("credit note", key.kind, *key.ref))


def lowered(key: LineKey) -> LineKey:
    """The key of the line that a concession or a coupon lowers; of any other line its own."""
    if key.kind == CONCESSION:
        return key._replace(kind=key.ref[1], ref=key.ref[2:])
    return key._replace(kind=key.ref[2], ref=key.ref[3:]) if key.kind == "coupon" else key


def net(lines: Iterable[tuple[LineKey, int]]) -> dict[LineKey, int]:
    """What lines come to net of their coupons and concessions, in minor units."""
    found: dict[LineKey, int] = {}
    for key, amount in lines:
        found[lowered(key)] = found.get(lowered(key), 0) + amount
    return found


def left_of(billed: Mapping[LineKey, Posted], key: LineKey) -> int | None:
    """What of a line that lowers no other stands billed, net; 0 or more, None where it has left the account."""
    if key not in billed:
        return None
    return max(net((one.key, one.amount) for one in billed.values() if one.key.period_us == key.period_us)[key], 0)


def given(old: Posted | None, line: Line, amount: int, named: str) -> Posted:
    """What stands of the concession on a line after ``amount`` more (or less) of it, in minor units; ``named`` is the document's line."""
    if old is None:
        exact = major(-amount, line.key.currency)
        return Posted(
            key_of(line.key), line.end_us, line.period, line.versions, 0, 0, (exact.numerator, exact.denominator), -amount, line.tax_code,
            line.product_id, line.obligation_id, 0, 0, named, 1,
        )  # fmt: skip
    exact = major(old.amount - amount, line.key.currency)
    return old._replace(exact=(exact.numerator, exact.denominator), amount=old.amount - amount, times=old.times + 1)


def _given(account: Account, period: Period) -> dict[LineKey, int]:
    """What was taken off the lines of a billing period by amount, but for lines that were taken back whole since."""
    whole = {one.line_id for one in account.released if one.whole}
    off: dict[str, int] = {}
    for one in account.released:
        if not one.whole and one.line_id not in whole:
            off[one.line_id] = off.get(one.line_id, 0) + one.amount
    found: dict[LineKey, int] = {}
    for posted in account.billed if off else ():
        if posted.key.period_us == period.start_us:
            total = sum(off.get(line_id(account.contract_id, posted.key, times), 0) for times in range(posted.times))
            found |= {posted.key: total} if total else {}
    return found
