"""The invoices that would be made, offline: a contract's closes one after the other, each with what was known by then.

In: contract versions, usage events, tax facts, and the billing period that is asked for. Out: the documents of its close.
Every billing period from the contract's start closes at its end plus the grace. By then known are the events whose time
is not later (a correction's is when it was issued), and the versions recorded by then (those without ``recorded_at``
always); what becomes known later gives deltas on the close that follows. Invoices that thresholds make early come before
the close of their period. Source: docs/semantics.md section 5, docs/interfaces.md (invoice).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from tieout.contract_book import ContractBook, Interval
from tieout.contracts import ContractVersion
from tieout.invoicing.bill import bill
from tieout.invoicing.records import DIGEST, Account, Billed, Held, Invoice, UsageSum
from tieout.invoicing.tax import Taxes
from tieout.invoicing.thresholds import bill_early
from tieout.offline import grace
from tieout.period import Period, micros
from tieout.problems import ContractRefused, Problem
from tieout.quote import Case, RatedCase, rated_cases
from tieout.rating.adjustments import RATED


@dataclass(frozen=True, slots=True)
class Asked:
    """The documents of the asked billing period by contract, or why it is held."""

    invoices: tuple[Invoice, ...]
    held: Held | None = None


def invoices(versions: Sequence[ContractVersion], events: pa.RecordBatch, label: str, taxes: Taxes | None) -> Asked:
    """The documents that the close of one billing period makes; ContractRefused where there is no such period."""
    book = ContractBook(first_number=None)
    for version in sorted(versions, key=lambda v: (v.contract_id, v.version)):
        book.apply(version)
    closes = {name: _closes(name, book.intervals(name), label) for name in dict.fromkeys(v.contract_id for v in versions)}
    history = _History(versions, events, max((as_of for all_ in closes.values() for _, as_of in all_), default=0))
    found: list[Invoice] = []
    for name, all_ in closes.items():
        account = Account(name)
        for period, as_of in all_:
            rated = history.known_by(as_of)
            timeline = rated.timeline(name)
            if not timeline:
                continue
            for early in _early(account, rated, name, period, taxes):
                account = early.account
                found += early.invoices if period is all_[-1][0] else ()
            done = bill(account, timeline, period, _increments(account, rated.usage(name), period), taxes=taxes, as_of=as_of)
            if done.held is not None:
                return Asked((), done.held)
            account = done.account
            found += done.invoices if period is all_[-1][0] else ()
    return Asked(tuple(found))


def _early(account: Account, rated: RatedCase, name: str, period: Period, taxes: Taxes | None) -> Iterator[Billed]:
    """The bills that thresholds make within a period, each at the event that reaches one; events in the order of their times."""
    timeline = rated.timeline(name)
    thresholds = sorted({amount for interval in timeline for amount in interval.version.billing.thresholds})
    rows = sorted((row for row in rated.rows(name) if row.period == period and row.time < period.end_us), key=lambda row: row.time) if thresholds else []
    spent = 0
    for place, row in enumerate(rows):
        spent += row.amount
        if spent + RATED < min(thresholds) * RATED:  # no sum of rounded lines is that far from the exact one
            continue
        increments = _increments(account, rated.usage(name, rows[: place + 1]), period, only=True)
        done = bill_early(account, timeline, period, increments, taxes=taxes, as_of=row.time)
        if done.invoices:
            account = done.account
            yield done


def _closes(name: str, timeline: Sequence[Interval], label: str) -> list[tuple[Period, int]]:
    """A contract's billing periods up to the asked one, with the instants of their closes."""
    calendar = timeline[0].version.billing.calendar
    closes, period = [], calendar.containing(timeline[0].start_us)
    while period.start_us < timeline[-1].end_us and period.start_on.isoformat()[: len(label)] <= label:
        closes.append((period, period.end_us + grace(timeline, period)))
        if label in (period.label, period.start_on.isoformat()):
            return closes
        period = calendar.next(period)
    raise ContractRefused([Problem("period", "no_period", f"contract {name} has no billing period {label!r}; name it as in '2026-10', or by its first day")])


class _History:
    """The case as it was known at an instant; rated once where nothing that comes later changes the past."""

    def __init__(self, versions: Sequence[ContractVersion], events: pa.RecordBatch, through: int) -> None:
        self.versions, self.through = versions, through
        self.times = events["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        self.events = events
        self.changing = any(events[name].null_count < events.num_rows for name in ("corrects", "voids"))
        self.rated: dict[tuple[int, int], RatedCase] = {}

    def known_by(self, instant: int) -> RatedCase:
        """All that was known by an instant, rated."""
        known = [one for one in self.versions if one.recorded_at is None or micros(one.recorded_at) <= instant]
        as_of = instant if self.changing else self.through
        key = (len(known), as_of)
        if key not in self.rated:
            events = self.events.filter(pa.array(self.times <= as_of))
            self.rated[key] = _rated(Case(known, 0, events.num_rows, as_of), events)
        return self.rated[key]


def _rated(case: Case, events: pa.RecordBatch) -> RatedCase:
    found = next(rated_cases([case], events))
    if isinstance(found, ContractRefused):
        raise found
    return found


def _increments(account: Account, usage: Sequence[UsageSum], period: Period, *, only: bool = False) -> list[UsageSum]:
    """What the sums have grown by since they were last taken, up to a billing period, or of it alone."""
    first = period.start_us if only else 0
    taken = {one.key: one for one in account.usage if one.period_us >= first}
    latest = {one.key: one for one in usage if first <= one.period_us <= period.start_us}
    gone = [one for key, one in taken.items() if key not in latest]
    grown = [_less(one, taken.get(one.key)) for one in latest.values()]
    return [one for one in (*grown, *(_less(_empty(one), one) for one in gone)) if any(one[5:])]


def _empty(one: UsageSum) -> UsageSum:
    """A sum of the same key without records."""
    return one._replace(quantity=0, amount=0, live=0, records=0, digest=0)


def _less(latest: UsageSum, before: UsageSum | None) -> UsageSum:
    if before is None:
        return latest
    return latest._replace(
        quantity=latest.quantity - before.quantity, amount=latest.amount - before.amount, live=latest.live - before.live,
        records=latest.records - before.records, digest=(latest.digest - before.digest) % DIGEST,
    )  # fmt: skip
