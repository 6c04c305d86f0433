"""Closing a billing period: from sums of rated usage to documents and the next account."""

from collections.abc import Sequence

from tieout.contract_book import Interval
from tieout.invoicing.records import Account, Billed, UsageSum
from tieout.invoicing.tax import Taxes
from tieout.period import Period


def bill(account: Account, timeline: Sequence[Interval], period: Period, usage: Sequence[UsageSum], *, taxes: Taxes | None, as_of: int) -> Billed:
    """Close one billing period of one contract.

    ``timeline`` are the contract's governing intervals as they are known now (``ContractBook.intervals``). ``usage`` are
    the increments since the last bill, of this period and of earlier ones (late usage, corrections, re-pricing).
    ``taxes`` None makes no tax. ``as_of`` is the instant of the close: the clock that it waited for, never a wall clock.
    """
    raise NotImplementedError
