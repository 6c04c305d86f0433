"""Billing offline: from rated rows to sums of usage, and from those to one bill after the other.

In: the rows of a rater, the contract's timeline and its billing periods. Out: bills in the order of their closes. Used by
quotes and by ``tieout invoice``; the invoicing flow folds rated records into the same sums.
Source: docs/semantics.md section 5.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Final

from tieout.contract_book import Interval
from tieout.ids import EventKey
from tieout.invoicing.bill import bill
from tieout.invoicing.credits import cuts
from tieout.invoicing.records import DIGEST, Account, Billed, UsageSum
from tieout.invoicing.tax import Taxes
from tieout.period import Period
from tieout.rating.rated import row_ids
from tieout.rating.rater import Row
from tieout.rating.tariff import Tariffs

HOUR: Final = 3_600_000_000


def usage_sums(tariffs: Tariffs, rows: Sequence[Row], voided: Container[tuple[str, EventKey]], timeline: Sequence[Interval]) -> list[UsageSum]:
    """The sums behind one contract's rows, in the order in which the rows first meet them."""
    bounds = cuts(timeline)
    found: dict[object, UsageSum] = {}
    names = row_ids(tariffs, list(rows)).tolist() if rows else []
    for row, (high, low) in zip(rows, names, strict=True):
        contract, start = row.tariff.contract, row.period.start_us
        place = bisect_right(bounds, row.time)
        since = max(bounds[place - 1], start) if place else start
        live = row.tariff.kind == "level" or (contract.customer_id, row.key) not in voided
        one = UsageSum(
            row.tariff.charge.charge_id, row.group, start, contract.version, since, row.quantity, row.amount, int(live), 1, (high << 64 | low) % DIGEST,
        )  # fmt: skip
        found[one.key] = found[one.key].plus(one) if one.key in found else one
    return list(found.values())


def bills(contract_id: str, timeline: Sequence[Interval], periods: Iterable[Period], usage: Sequence[UsageSum], taxes: Taxes | None = None) -> Iterator[Billed]:
    """One bill a period, each at the end of its grace; stops at the first that is held."""
    account = Account(contract_id)
    for period in periods:
        mine = [one for one in usage if one.period_us == period.start_us]
        done = bill(account, timeline, period, mine, taxes=taxes, as_of=period.end_us + grace(timeline, period))
        yield done
        if done.held is not None:
            return
        account = done.account


def grace(timeline: Sequence[Interval], period: Period) -> int:
    """How long a period waits after its end: the longest grace of the versions in force in it."""
    hours = [i.version.billing.grace_hours for i in timeline if i.start_us < period.end_us and i.end_us > period.start_us]
    return max(hours, default=0) * HOUR
