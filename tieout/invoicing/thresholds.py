"""Thresholds: usage that has reached an amount is invoiced before its billing period closes.

In: the account, the open billing period, and the sums of its usage since the last bill. Out: one document for each legal
entity with the usage lines so far (and their tax), once for each threshold of each period; or nothing. What counts is the
sum of the period's rounded usage lines in the contract's currency, billed early or not. Fees, minimums, commitments and
coupons wait for the close, which bills what the usage lines have changed by since as deltas.
Source: docs/semantics.md section 5, docs/interfaces.md (thresholds).
"""

from collections.abc import Sequence

from tieout.contract_book import Interval
from tieout.invoicing import timeline as times
from tieout.invoicing.bill import Computed, merged, settled
from tieout.invoicing.concessions import concession_lines
from tieout.invoicing.credits import cuts
from tieout.invoicing.division import in_stretches
from tieout.invoicing.lines import minor
from tieout.invoicing.records import Account, Billed, UsageSum
from tieout.invoicing.tax import Taxes, TaxMissing, taxed
from tieout.invoicing.usage_lines import by_line, usage_line
from tieout.period import Period


def bill_early(account: Account, timeline: Sequence[Interval], period: Period, usage: Sequence[UsageSum], *, taxes: Taxes | None, as_of: int) -> Billed:
    """Bill an open period's usage where it has reached a threshold; ``usage`` are increments of this period alone.

    Where none is reached (or the tax cannot be said) nothing is taken, and the increments stay with the caller.
    """
    version = times.at(timeline, as_of)
    if version is None or not version.billing.thresholds:
        return Billed(account)
    known = merged((*account.usage, *usage))
    mine = (one for one in known if one.period_us == period.start_us)
    behind = by_line(timeline, period, in_stretches(timeline, period, cuts(timeline), mine))
    lines = [usage_line(period, parts) for parts in behind.values()]
    spent = sum(one.amount for one in lines if one.key.currency == version.currency)
    amounts = {minor(amount, version.currency) for amount in version.billing.thresholds}
    reached = sorted(amount for amount in amounts if 0 < amount <= spent and (period.start_us, amount) not in account.thresholds)
    if not reached:
        return Billed(account)
    lines += concession_lines(account, period, tuple(lines))
    try:
        whole = lines if taxes is None else taxed(lines, version, period, taxes)
    except TaxMissing as missing:
        return Billed(account, held=missing.held)
    current = Computed(period, whole, {key: [one for one, _, _ in parts] for key, parts in behind.items()})
    done = settled(account, timeline, period, [current], known, taxes, as_of)
    billed = tuple((period.start_us, amount) for amount in reached)
    after = done.account._replace(
        closed_us=account.closed_us, version=account.version, broken=account.broken, thresholds=account.thresholds + billed,
    )  # fmt: skip
    return done._replace(account=after, broken=())
