"""A quote: usage priced against contracts offline, with the lines that an invoice would have.

In: cases of contract versions and usage events. Out: each event's fate and amount, the lines of every billing period
without tax, and what prepaid credits pay of them. The rules of usage (section 2) and prices (section 4) are those of the
usage stage itself, the lines those of invoicing. A quote knows everything from the start, so it has no deltas; it shows no
invoices that a threshold would make early.

Source: docs/semantics.md sections 4 and 5, docs/interfaces.md (quote in batch).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import dedup
from tieout.contract_book import ContractBook, Interval
from tieout.contract_calendar import calendar_problems
from tieout.contract_currency import currency_problems
from tieout.contracts import ContractVersion
from tieout.dedup import CONFLICT, DUPLICATE
from tieout.invoicing.credits import balances, grants, shown
from tieout.invoicing.records import Account, CreditUse, Line, UsageSum
from tieout.invoicing.supported import problems
from tieout.invoicing.wire import amount_text, credit_documents, exact_text, line_document
from tieout.offline import HOUR, bills, usage_sums
from tieout.period import Period
from tieout.problems import ContractRefused
from tieout.rating.adjustments import RATED
from tieout.rating.rater import Row
from tieout.usage import NO_CLOCK, Rejected, UsageEvent, clocks, content_digests, negative, out_of_range, records
from tieout.usage_stage import Limits, UsageState, one_by_one


@dataclass(frozen=True, slots=True)
class Case:
    """One question: these versions, these rows of the events, known and closed as of an instant."""

    versions: Sequence[ContractVersion]
    first: int
    count: int
    as_of: int | None = None
    period: Period | None = None


class EventAnswer(NamedTuple):
    """What became of one event; amount in 10^-12."""

    event_id: str
    fate: str
    reason: str | None
    amount: int


class QuotedContract(NamedTuple):
    """What a contract's billing periods come to: lines without tax, and what its grants paid."""

    contract_id: str
    lines: tuple[Line, ...]
    credits: tuple[tuple[str, CreditUse], ...]
    """By currency and grant, in the order of use."""


@dataclass(slots=True)
class Quote:
    """The answer to a case."""

    events: list[EventAnswer] = field(default_factory=list)
    contracts: list[QuotedContract] = field(default_factory=list)


def quote(cases: Sequence[Case], events: pa.RecordBatch) -> Iterator[Quote | ContractRefused]:
    """Answer cases in order; ``events`` holds the rows of all of them. A refused contract answers for its case."""
    for rated in rated_cases(cases, events):
        yield rated if isinstance(rated, ContractRefused) else Quote(rated.answers(), list(rated.quoted()))


def rated_cases(cases: Sequence[Case], events: pa.RecordBatch) -> Iterator["RatedCase | ContractRefused"]:
    """Each case with its events priced, in order."""
    bad, rejected = out_of_range(events, np.arange(events.num_rows))
    by_row = {found.row: found for found in rejected}
    digests = content_digests(events)
    places = np.zeros(events.num_rows, np.int64)  # within the case
    for case in cases:
        places[case.first : case.first + case.count] = np.arange(case.count)
    singles = records(events, places)
    below = negative(events)
    for case in cases:
        rows = slice(case.first, case.first + case.count)
        try:
            rated = RatedCase(case, singles[rows], by_row, bad[rows].copy(), below[rows])
            rated.rate(digests[rows])
            yield rated
        except ContractRefused as refused:
            yield refused


class RatedCase:
    """One case: its events judged and priced, its contracts' billing periods."""

    def __init__(self, case: Case, events: list[UsageEvent], rejected: dict[int, Rejected], bad: npt.NDArray[Any], below: npt.NDArray[Any]) -> None:
        self.case, self.bad, self.below, self.events = case, bad, below, events
        self.reasons = {row - case.first: found.reason for row, found in rejected.items() if case.first <= row < case.first + case.count} if rejected else {}
        self.state = UsageState(Limits(), book=ContractBook(first_number=None))
        self.fates: list[tuple[str, str | None]] = []
        self.as_of = 0
        versions = sorted(case.versions, key=lambda v: (v.contract_id, v.version))
        for version in versions:
            _supported(version, [one for one in versions if one.contract_id == version.contract_id])
            self.state.tariffs.take(self.state.book, self.state.book.apply(version).versions)
            changed = currency_problems(self.timeline(version.contract_id))
            if changed:
                raise ContractRefused(changed)

    def rate(self, digests: npt.NDArray[Any]) -> None:
        """Judge the events and price them, as of the case's instant."""
        time = np.array([event.time for event in self.events], np.int64)
        self.as_of = self.case.as_of if self.case.as_of is not None else self._last_close(time)
        self.fates = self._judge(digests, time, np.minimum(time, self.as_of))
        self.state.rater.clock = max(self._through(self.as_of) - 1, 0)
        self.state.rater.open_periods(len(time))

    def answers(self) -> list[EventAnswer]:
        """What became of each event."""
        amounts: dict[tuple[str, str, str], int] = defaultdict(int)
        for row in self.state.rater.rows:
            amounts[row.tariff.contract.customer_id, row.key.source, row.key.event_id] += row.amount
        answers = []
        for event, (fate, reason) in zip(self.events, self.fates, strict=True):
            name = (event.customer_id, event.key.source, event.key.event_id)
            amount = amounts.pop(name, 0) if fate == "priced" else 0
            answers.append(EventAnswer(event.key.event_id, fate, reason, amount))
        return answers

    def quoted(self) -> Iterator[QuotedContract]:
        """Every contract billed to the case's instant, period by period."""
        for name in self.contracts():
            timeline, periods = self.timeline(name), self.periods(name, self.as_of)
            if not periods:
                continue
            done = list(bills(name, timeline, periods, self.usage(name)))
            lines = tuple(line for one in done for line in (*(line for invoice in one.invoices for line in invoice.lines), *one.quiet))
            yield QuotedContract(name, lines, _credits(timeline, done[-1].account, self.as_of))

    def usage(self, contract_id: str, rows: Sequence[Row] | None = None) -> list[UsageSum]:
        """The sums of a contract's rated usage, or of some rows of it."""
        mine = self.rows(contract_id) if rows is None else rows
        return usage_sums(self.state.tariffs, mine, self.state.voided, self.timeline(contract_id))

    def rows(self, contract_id: str) -> list[Row]:
        """A contract's rated rows."""
        return [row for row in self.state.rater.rows if row.tariff.contract.contract_id == contract_id]

    def _judge(self, digests: npt.NDArray[Any], time: npt.NDArray[Any], record: npt.NDArray[Any]) -> list[tuple[str, str | None]]:
        """Each event's fate: the checks in their order, then one by one."""
        state, limits = self.state, self.state.limits
        fates: list[tuple[str, str | None]] = [("priced", None)] * len(self.events)
        for row, reason in self.reasons.items():
            fates[row] = ("rejected", reason)
        for row in np.nonzero(self.below & ~self.bad)[0].tolist():
            if not state.tariffs.signed(self.events[row].customer_id, self.events[row].meter):
                fates[row], self.bad[row] = ("rejected", "quantity_negative"), True
        for row in np.nonzero(~self.bad & (time > record + limits.future_limit))[0].tolist():
            fates[row], self.bad[row] = ("rejected", "too_early"), True
        clock = clocks(NO_CLOCK, time, record, ~self.bad)
        for row in np.nonzero(~self.bad & (time < clock - limits.horizon))[0].tolist():
            fates[row], self.bad[row] = ("rejected", "too_late"), True
        good = np.nonzero(~self.bad)[0]
        names = [(event.customer_id, event.key) for event in self.events]
        kinds = dedup.few(limits.horizon, names, digests.tolist(), np.maximum(time, clock).tolist(), clock.tolist(), good.tolist())
        new = []
        for row, kind in zip(good.tolist(), kinds, strict=True):
            if kind in (DUPLICATE, CONFLICT):
                fates[row] = ("duplicate" if kind == DUPLICATE else "conflict", None)
            else:
                new.append(self.events[row])
        singles = one_by_one(state, new, clock)
        for dead in singles.dead_letters:
            fates[dead.position] = ("rejected", dead.reason)
        for held in state.waiting.all():
            fates[held.event.position] = ("held", held.reason)
        return fates

    def _last_close(self, time: npt.NDArray[Any]) -> int:
        """The end of the last touched billing period plus its grace."""
        ends = [self.case.period.end_us] if self.case.period else []
        grace = 0
        for version in self.case.versions:
            grace = max(grace, version.billing.grace_hours * HOUR)
            if len(time):
                ends.append(version.billing.calendar.containing(int(time[~self.bad].max(initial=0))).end_us)
            elif not ends:
                ends.append(version.billing.calendar.containing(version.effective_from_us).end_us)
        return max(ends, default=0) + grace

    def _through(self, as_of: int) -> int:
        """The end of the last period that is quoted."""
        ends = [p.end_us for name in self.contracts() for p in self.periods(name, as_of)]
        return max(ends, default=as_of)

    def contracts(self) -> list[str]:
        """The contracts of the case, in the order in which they were given."""
        return list(dict.fromkeys(version.contract_id for version in self.case.versions))

    def periods(self, contract_id: str, as_of: int) -> list[Period]:
        """The billing periods with events, and all in which a version is in force that close by ``as_of``."""
        intervals = self.timeline(contract_id)
        if not intervals:
            return []
        calendar = intervals[0].version.billing.calendar
        if self.case.period is not None:
            return [self.case.period]
        touched = {row.period for row in self.state.rater.rows if row.tariff.contract.contract_id == contract_id}
        found: dict[int, Period] = {period.start_us: period for period in touched}
        for interval in intervals:
            grace = interval.version.billing.grace_hours * HOUR
            period = calendar.containing(interval.start_us)
            while period.start_us < interval.end_us and period.end_us + grace <= as_of:
                found[period.start_us] = period
                period = calendar.next(period)
        return [found[start] for start in sorted(found)]

    def timeline(self, contract_id: str) -> tuple[Interval, ...]:
        """A contract's governing intervals."""
        return self.state.book.intervals(contract_id)


def _supported(version: ContractVersion, of_contract: Sequence[ContractVersion]) -> None:
    """Refuse what a quote would have to leave out."""
    found = problems(version) + calendar_problems([of_contract[0], version])
    if found:
        raise ContractRefused(found)


def _credits(timeline: Sequence[Interval], account: Account, as_of: int) -> tuple[tuple[str, CreditUse], ...]:
    """What every grant has paid, in the order of use, and its balance as it is told at ``as_of``."""
    all_ = grants(timeline)
    left = balances(all_, account.burns, account.broken)
    paid = {grant.grant_id: sum(one.amount for one in account.burns if one.grant_id == grant.grant_id) for grant in all_}
    return tuple((grant.currency, CreditUse(grant.grant_id, paid[grant.grant_id], shown(grant, left[grant.grant_id], as_of))) for grant in all_)


def answer_document(answer: Quote) -> dict[str, Any]:
    """A quote as the JSON document of docs/interfaces.md; what is in several currencies has no one total."""
    lines = [(contract.contract_id, line) for contract in answer.contracts for line in contract.lines]
    paid = [use for contract in answer.contracts for use in contract.credits]
    totals = [_totals(currency, [line for _, line in lines], paid) for currency in dict.fromkeys(line.key.currency for _, line in lines)]
    one = _totals("USD", (), ()) if not totals else totals[0] if len(totals) == 1 else dict.fromkeys(_FIGURES)
    return {
        "events": [
            {"id": e.event_id, "fate": e.fate, "reason": e.reason, "amount": exact_text(Fraction(e.amount, RATED))} for e in answer.events
        ],
        "lines": [line_document(line, contract_id) for contract_id, line in lines],
        "total_exact": one["total_exact"], "total": one["total"],
        "credits": [document for currency, use in paid for document in credit_documents([use], currency)],
        "amount_due": one["amount_due"],
    } | ({"totals": totals} if len(totals) > 1 else {})  # fmt: skip


_FIGURES: Final = ("total_exact", "total", "amount_due")


def _totals(currency: str, lines: Sequence[Line], paid: Sequence[tuple[str, CreditUse]]) -> dict[str, str | None]:
    """What the lines of one currency come to, and what is due of it."""
    mine = [line for line in lines if line.key.currency == currency]
    total = sum(line.amount for line in mine)
    applied = sum(use.applied for of, use in paid if of == currency)
    exact = exact_text(sum((line.exact for line in mine), Fraction(0)))
    return {"currency": currency, "total_exact": exact, "total": amount_text(total, currency), "amount_due": amount_text(total - applied, currency)}
