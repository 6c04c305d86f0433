"""A quote: usage priced against contracts offline, with the lines that an invoice would have.

In: cases of contract versions and usage events. Out: each event's fate and amount, and the lines of every billing
period: usage, flat fees, minimums. The rules of usage (section 2) and prices (section 4) are those of the usage stage
itself; only the lines are made here. Commitments, coupons, prepaid credits, thresholds and rate cards are refused by
name, because this release does not price them.

Source: docs/semantics.md sections 4 and 5, docs/interfaces.md (quote in batch).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import dedup, ids, money
from tieout.contract_book import ContractBook, Interval
from tieout.contracts import Charge, ContractRefused, ContractVersion, Flat, Problem
from tieout.dedup import CONFLICT, DUPLICATE
from tieout.period import Calendar, Period
from tieout.rating.adjustments import QUANTITY, RATED
from tieout.rating.rater import Row, chain_pair
from tieout.rating.tariff import INACTIVE, Group, kind_of
from tieout.usage import NO_CLOCK, Rejected, UsageEvent, clocks, content_digests, negative, out_of_range, records
from tieout.usage_stage import Limits, UsageState, one_by_one

HOUR: Final = 3_600_000_000


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


@dataclass(frozen=True, slots=True)
class Line:
    """One invoice line without tax; exact amounts in 10^-12, ``amount`` in minor units of the currency."""

    contract_id: str
    charge_id: str
    group: Group | None
    kind: str
    start_us: int
    end_us: int
    period: str
    period_start_us: int
    versions: tuple[int, ...]
    quantity: int
    usage_exact: int
    exact: Fraction
    currency: str
    legal_entity_id: str

    @property
    def line_id(self) -> str:
        """Derived from what the line is."""
        return ids.text(("line", self.contract_id, self.charge_id, *(self.group or ()), self.kind, self.period, self.start_us, self.end_us))

    @property
    def correlation_id(self) -> str:
        """Contract, charge, group and billing period as one id, carried to the ledger."""
        high, low = chain_pair(ids.pair_of(ids.of_text(self.contract_id), ids.of_text(self.charge_id)), self.group, self.period_start_us)
        return f"{high:016x}{low:016x}"

    @property
    def amount(self) -> int:
        """The rounded amount in minor units."""
        scaled = self.exact * 10 ** money.minor_unit(self.currency)
        return money.round_ratio(scaled.numerator, scaled.denominator)


@dataclass(slots=True)
class Quote:
    """The answer to a case."""

    events: list[EventAnswer] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)


def quote(cases: Sequence[Case], events: pa.RecordBatch) -> Iterator[Quote | ContractRefused]:
    """Answer cases in order; ``events`` holds the rows of all of them. A refused contract answers for its case."""
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
            yield _Answer(case, singles[rows], by_row, bad[rows].copy(), below[rows]).answer(digests[rows])
        except ContractRefused as refused:
            yield refused


class _Answer:
    """One case being answered."""

    def __init__(self, case: Case, events: list[UsageEvent], rejected: dict[int, Rejected], bad: npt.NDArray[Any], below: npt.NDArray[Any]) -> None:
        self.case, self.bad, self.below, self.events = case, bad, below, events
        self.reasons = {row - case.first: found.reason for row, found in rejected.items() if case.first <= row < case.first + case.count} if rejected else {}
        self.state = UsageState(Limits(), book=ContractBook(first_number=None))
        for version in sorted(case.versions, key=lambda v: (v.contract_id, v.version)):
            _supported(version)
            self.state.tariffs.take(self.state.book, self.state.book.apply(version).versions)

    def answer(self, digests: npt.NDArray[Any]) -> Quote:
        time = np.array([event.time for event in self.events], np.int64)
        as_of = self.case.as_of if self.case.as_of is not None else self._last_close(time)
        fates = self._judge(digests, time, np.minimum(time, as_of))
        self.state.rater.clock = max(self._through(as_of) - 1, 0)
        self.state.rater.open_periods(len(time))
        amounts: dict[tuple[str, str, str], int] = defaultdict(int)
        for row in self.state.rater.rows:
            amounts[row.tariff.contract.customer_id, row.key.source, row.key.event_id] += row.amount
        answers = []
        for event, (fate, reason) in zip(self.events, fates, strict=True):
            name = (event.customer_id, event.key.source, event.key.event_id)
            amount = amounts.pop(name, 0) if fate == "priced" else 0
            answers.append(EventAnswer(event.key.event_id, fate, reason, amount))
        return Quote(answers, list(self._lines(as_of)))

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
        ends = [p.end_us for name in self._contracts() for p in self._periods(name, as_of)]
        return max(ends, default=as_of)

    def _contracts(self) -> list[str]:
        return list(dict.fromkeys(version.contract_id for version in self.case.versions))

    def _periods(self, contract_id: str, as_of: int) -> list[Period]:
        """The billing periods with events, and all in which a version is in force that close by ``as_of``."""
        intervals = self._intervals(contract_id)
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

    def _intervals(self, contract_id: str) -> tuple[Interval, ...]:
        return self.state.book.intervals(contract_id)

    def _lines(self, as_of: int) -> Iterator[Line]:
        by_contract: dict[str, dict[tuple[int, str, Group | None], list[Row]]] = {}
        for row in self.state.rater.rows:
            place = (row.period.start_us, row.tariff.charge.charge_id, row.group)
            by_contract.setdefault(row.tariff.contract.contract_id, {}).setdefault(place, []).append(row)
        for contract_id in self._contracts():
            rows = by_contract.get(contract_id, {})
            for period in self._periods(contract_id, as_of):
                lines = [_usage_line(found) for (start, _, _), found in rows.items() if start == period.start_us]
                last = self._in_force(contract_id, period)
                lines += self._quiet_lines(last, period, {line.charge_id for line in lines if self._live(rows, period, line.charge_id)})
                lines += self._fees(contract_id, period)
                yield from lines
                yield from _minimums(lines, last, period)

    def _live(self, rows: dict[tuple[int, str, Group | None], list[Row]], period: Period, charge_id: str) -> bool:
        """Whether a charge has a price from its events in the period, voided ones aside."""
        found = [row for (start, charge, _), all_ in rows.items() if (start, charge) == (period.start_us, charge_id) for row in all_]
        customer = found[0].tariff.contract.customer_id
        return any((customer, row.key) not in self.state.voided or row.tariff.kind == "level" for row in found)

    def _in_force(self, contract_id: str, period: Period) -> ContractVersion | None:
        return self.state.book.governing(contract_id, period.end_us - 1)

    def _quiet_lines(self, version: ContractVersion | None, period: Period, busy: set[str]) -> list[Line]:
        """One line of P(0) for each usage charge whose period closes without live events."""
        if version is None or version.status in INACTIVE:
            return []
        lines = []
        for charge in version.charges:
            if isinstance(charge.price, Flat) or charge.charge_id in busy:
                continue
            tariff = self.state.tariffs.find(version.contract_id, version.version, charge.charge_id)
            if tariff.kind == "level" and any(place[:2] == (version.contract_id, charge.charge_id) for place in self.state.rater.levels):
                continue
            amount = 0 if tariff.price is None or kind_of(charge) == "amount" else tariff.price.at(0)
            lines.append(_line(version, charge, "usage", period, period.start_us, period.end_us, Fraction(amount, RATED)))
        return lines

    def _fees(self, contract_id: str, period: Period) -> Iterator[Line]:
        """Flat fees that fall due in the period: intervals that begin in it (advance) or end in it (arrears)."""
        intervals = self._intervals(contract_id)
        names = dict.fromkeys(c.charge_id for i in intervals for c in i.version.charges if isinstance(c.price, Flat))
        for name in names:
            seen: set[int] = set()
            for interval in intervals:
                charge = _fee(interval.version, name)
                if charge is None:
                    continue
                for due in _due(interval.version, charge, period):
                    if due.start_us not in seen:
                        seen.add(due.start_us)
                        yield from self._stretches(intervals, name, due, period)

    def _stretches(self, intervals: tuple[Interval, ...], name: str, due: Period, period: Period) -> Iterator[Line]:
        """Each version's stretch of a fee's interval, a service period of its own, prorated over the full interval."""
        for interval in intervals:
            charge = _fee(interval.version, name)
            start, end = max(interval.start_us, due.start_us), min(interval.end_us, due.end_us)
            if charge is None or start >= end or not isinstance(charge.price, Flat) or interval.version.status in INACTIVE:
                continue
            share = _share(interval.version.billing.calendar, charge, start, end, due)
            discount = 1 - Fraction(charge.discount_percent) / 100
            yield _line(interval.version, charge, "fee", period, start, end, Fraction(charge.price.amount) * share * discount)


def _supported(version: ContractVersion) -> None:
    """Refuse what a quote would have to leave out."""
    parts = {
        "commitments": version.commitments, "coupons": version.coupons, "credits": version.credits,
        "billing.thresholds": version.billing.thresholds, "rate_card": version.rate_card,
    }
    problems = [
        Problem(path, "not_supported", "this release does not price it; quote the contract without it")
        for path, given in parts.items()
        if given
    ]
    if problems:
        raise ContractRefused(problems)


def _usage_line(rows: list[Row]) -> Line:
    amount = sum(row.amount for row in rows)
    last = rows[-1]
    line = _line(last.tariff.contract, last.tariff.charge, "usage", last.period, last.period.start_us, last.period.end_us, Fraction(amount, RATED))
    versions = tuple(sorted({row.tariff.contract.version for row in rows}))
    return replace(line, group=last.group, versions=versions, quantity=sum(row.quantity for row in rows), usage_exact=amount)


def _line(version: ContractVersion, charge: Charge, kind: str, period: Period, start: int, end: int, exact: Fraction) -> Line:
    return Line(
        version.contract_id, charge.charge_id, None, kind, start, end, period.label, period.start_us, (version.version,),
        QUANTITY if kind == "fee" else 0, 0, exact, version.currency, charge.legal_entity_id or version.legal_entity_id,
    )


def _minimums(lines: list[Line], version: ContractVersion | None, period: Period) -> Iterator[Line]:
    """What a charge's minimum adds to the sum of its rounded lines."""
    for charge in version.charges if version is not None and version.status not in INACTIVE else ():
        if charge.minimum is None or version is None:
            continue
        scale = 10 ** money.minor_unit(version.currency)
        billed = sum(line.amount for line in lines if line.charge_id == charge.charge_id)
        missing = Fraction(charge.minimum) - Fraction(billed, scale)
        if missing > 0:
            yield _line(version, charge, "minimum", period, period.start_us, period.end_us, missing)


def _fee(version: ContractVersion, name: str) -> Charge | None:
    return next((c for c in version.charges if c.charge_id == name and isinstance(c.price, Flat)), None)


def _due(version: ContractVersion, charge: Charge, period: Period) -> list[Period]:
    """The fee's intervals that fall due in a billing period."""
    calendar = replace(version.billing.calendar, period=charge.interval or version.billing.period)
    spanning = calendar.spanning(period.start_us, period.end_us)
    if charge.timing == "advance":
        return [p for p in spanning if period.start_us <= p.start_us < period.end_us]
    first = calendar.containing(period.start_us - 1)
    return [p for p in (first, *spanning) if period.start_us < p.end_us <= period.end_us]


def _share(calendar: Calendar, charge: Charge, start: int, end: int, due: Period) -> Fraction:
    """Covered over full interval, by day in the contract's zone or by second."""
    if charge.proration == "none":
        return Fraction(1)
    if charge.proration == "second":
        return Fraction(end - start, due.end_us - due.start_us)
    days = calendar.days(due)
    covered = sum(1 for day in days[:-1] if start <= day < end)
    return Fraction(covered, len(days) - 1)


def answer_document(answer: Quote) -> dict[str, Any]:
    """A quote as the JSON document of docs/interfaces.md."""
    currency = answer.lines[0].currency if answer.lines else "USD"
    minor = money.minor_unit(currency)
    exact = sum((line.exact for line in answer.lines), Fraction(0))
    total = sum(line.amount for line in answer.lines)
    return {
        "events": [
            {"id": e.event_id, "fate": e.fate, "reason": e.reason, "amount": exact_text(Fraction(e.amount, RATED))} for e in answer.events
        ],
        "lines": [_line_document(line) for line in answer.lines],
        "total_exact": exact_text(exact),
        "total": format(money.decimal(total, minor), "f"),
        "credits": [],
        "amount_due": format(money.decimal(total, minor), "f"),
    }


def _line_document(line: Line) -> dict[str, Any]:
    return {
        "line_id": line.line_id, "correlation_id": line.correlation_id, "contract_id": line.contract_id, "charge_id": line.charge_id,
        "group": None if line.group is None else list(line.group), "kind": line.kind, "period": line.period,
        "service_period": {"start": _time_text(line.start_us), "end": _time_text(line.end_us)}, "delta_of": None,
        "contract_versions": list(line.versions), "legal_entity_id": line.legal_entity_id,
        "quantity": exact_text(Fraction(line.quantity, QUANTITY)),
        "usage_amount_exact": exact_text(Fraction(line.usage_exact, RATED)), "amount_exact": exact_text(line.exact),
        "amount": format(money.decimal(line.amount, money.minor_unit(line.currency)), "f"), "currency": line.currency,
    }


def _time_text(instant: int) -> str:
    return str(np.datetime64(instant, "us")) + "Z"


def exact_text(value: Fraction) -> str:
    """An exact figure: a decimal where it is one, else a fraction ``n/d``."""
    scale = value.denominator.bit_length()  # 2^n and 5^n divide 10^n, and n is at most this
    if 10**scale % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    units = value.numerator * 10**scale // value.denominator
    text = format(money.decimal(units, scale), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
