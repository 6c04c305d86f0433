"""Invoicing as a fold: increments of rated usage in, closed billing periods out.

In: contract versions, increments, and the clock that everything up to it is complete for. Out: documents, contract by
contract in the order of (period end, contract), so many at a time. A billing period is due when the clock has passed its end
plus the contract's grace. It then waits for its customer's held usage, and for facts that are missing (tax; a version that
cannot be billed); what it waits for is part of the state. What is due is a consequence of the state and of what was read:
a run that begins again goes on with the same contract.

Every bill is checked: what was rated is what the lines bill plus what is still open. Source: docs/semantics.md section 5,
section 8 (control total 2).
"""

import heapq
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tieout import late_usage
from tieout.contract_batch import ContractBatch
from tieout.contract_book import ContractBook, Interval
from tieout.contract_terms import ContractTerms
from tieout.held_usage import HeldUsage
from tieout.increments import Divided, Increment
from tieout.invoicing import notes
from tieout.invoicing import timeline as times
from tieout.invoicing.bill import bill
from tieout.invoicing.credits import cuts, grants
from tieout.invoicing.division import cut_through, moves
from tieout.invoicing.pruning import dated, forgot, pruned, remembering
from tieout.invoicing.records import Account, Billed, Invoice, UsageSum
from tieout.invoicing.supported import unsupported
from tieout.invoicing.tax import Taxes
from tieout.invoicing.thresholds import bill_early
from tieout.late_usage import Late
from tieout.names import NONE
from tieout.offline import grace
from tieout.period import Calendar, Period

SumKey = tuple[object, ...]
HELD = "usage_held"
"""The reason of a period that waits for usage that is held."""


class Wait(NamedTuple):
    """Why a contract's next billing period is due and not closed: ``since`` by the clock, ``known`` what was known when it was last tried."""

    reason: str
    subject: str
    message: str
    since: int
    known: tuple[int, int] = (0, 0)


class Ask(NamedTuple):
    """Somebody asks that a billing period which has closed is billed again now; ``after`` is the last contract looked at."""

    label: str
    contract_id: str | None
    after: str = ""


class TakeBack(NamedTuple):
    """What to take back of a document: these lines, or these amounts off lines in minor units, or (neither) all of it."""

    invoice_id: str
    lines: tuple[str, ...] = ()
    amounts: tuple[tuple[str, int], ...] = ()


class Closed(NamedTuple):
    """What looking at a contract's billing period came to: documents, or what it waits for now; ``ended`` is a wait that is over."""

    contract_id: str
    customer_id: str
    period: Period
    as_of: int
    billed: Billed
    wait: Wait | None = None
    ended: Wait | None = None
    at_risk: int = 0
    """Rated usage that waits with the period, in 10^-12 of ``currency``."""
    currency: str | None = None
    early: bool = False
    """Whether it is no close: a threshold made it before the period's end, or a document is taken back."""
    late: tuple[Late, ...] = ()
    """Late usage that the contract sends to finance, and that nobody has decided about."""
    accepted: tuple[Late, ...] = ()
    """Late usage that finance had accepted, and that is billed with this."""


@dataclass(slots=True)
class Closing:
    """All contracts of a partition."""

    holds: HeldUsage
    accounts: MutableMapping[str, Account] = field(default_factory=dict)
    book: ContractBook = field(default_factory=ContractBook)
    terms: ContractTerms = field(default_factory=ContractTerms)
    pending: dict[str, dict[SumKey, UsageSum]] = field(default_factory=dict)
    """Increments that no bill has taken, in the order in which they came."""
    aside: dict[str, dict[str, Late]] = field(default_factory=dict)
    """Late usage that contracts send to finance, by exception: still open; what is accepted waits for its contract's next bill."""
    closed: dict[str, int] = field(default_factory=dict)
    """The end of the last closed billing period."""
    waits: dict[str, Wait] = field(default_factory=dict)
    touched: dict[tuple[str, int], None] = field(default_factory=dict)
    """Billing periods of contracts with thresholds that got increments since those were last looked at."""
    asks: list[Ask] = field(default_factory=list)
    open: int = 0
    """What is rated and not billed, in 10^-12 over all currencies."""
    reprice_limit: int = 2**62
    """For how long a closed billing period may still change, in microseconds: then it leaves its account."""
    _due: list[tuple[int, str, int]] = field(default_factory=list)
    _ready: list[tuple[int, str]] = field(default_factory=list)
    _listed: set[str] = field(default_factory=set)
    _next: dict[str, Period] = field(default_factory=dict)
    _cuts: dict[str, tuple[int, ...]] = field(default_factory=dict)

    # what comes in

    def learn(self, batch: ContractBatch) -> set[tuple[str, int]]:
        """Take contract versions in; what is refused was told of by the usage flow.

        Answers the billing periods of contracts whose sums a bound of a grant cuts through that was not known before: of their
        usage the records have to be read again.
        """
        names, credited = batch.columns["contract_id"].to_pylist(), batch.columns["credits"].to_pylist()
        summed = {name for name, given in zip(names, credited, strict=True) if self._summed(name) and (given or self.terms.by_contract[name].granted)}
        before = {name: cuts(self.book.intervals(name)) for name in sorted(summed)}
        self.book.take(batch)
        for contract in self.terms.take(batch):
            self._cuts.pop(contract, None)
            self.schedule(contract)
        return {(name, start) for name, known in before.items() for start in cut_through(self.book.intervals(name), self._calendar(name), known)}

    def _summed(self, contract: str) -> bool:
        return contract in self.terms.by_contract and (contract in self.pending or contract in self.closed)

    def take(self, increments: Iterable[Increment]) -> None:
        """Add increments to what is pending."""
        for contract, _, one in increments:
            mine = self.pending.get(contract)
            if mine is None:
                mine = self.pending[contract] = {}
            known = mine.get(one.key)
            mine[one.key] = one if known is None else known.plus(one)
            self.open += one.amount
            if self.terms.by_contract[contract].thresholds:
                self.touched[contract, one.period_us] = None
            if contract not in self._next:
                self.schedule(contract)

    def decide(self, exception_id: str, decision: str, author: str) -> Late | None:
        """What somebody decided about late usage; None where it has no effect, or the usage is another partition's."""
        decided = late_usage.decide(self.aside, exception_id, decision, author)
        if decided is not None and decided.contract_id not in self._next:
            self.schedule(decided.contract_id)
        return decided

    def divide_again(self, contract: str, start: int, sums: Iterable[UsageSum]) -> list[Increment]:
        """Move what is summed of a billing period to where its records lie by the bounds of today; what moved, nothing in sum."""
        mine = (*self.account(contract).usage, *self.waiting(contract))
        found = [Increment(contract, "", one) for one in moves(sums, (one for one in mine if one.period_us == start))]
        self.take(found)
        return found

    def divided(self, contract: str) -> Divided:
        """How a contract divides time; LookupError where no version of it is known."""
        if contract not in self.terms.by_contract:
            msg = f"contract {contract} has rated usage and no version; restore the contract topic from a backup"
            raise LookupError(msg)
        if self.terms.by_contract[contract].granted and contract not in self._cuts:
            self._cuts[contract] = cuts(self.book.intervals(contract))
        return Divided(self._calendar(contract), self._cuts.get(contract, ()))

    # when

    def schedule(self, contract: str) -> None:
        """Find a contract's next billing period; none where it is over and nothing is pending."""
        number = self.book.columns.contracts.find(contract)
        stretches = [] if number == NONE else self.book.columns.stretches(number)
        self._next.pop(contract, None)
        if not stretches:
            return
        period = self._calendar(contract).containing(self.closed.get(contract) or stretches[0].start_us)
        if period.start_us >= stretches[-1].end_us and not self.pending.get(contract) and not late_usage.accepted(self.aside, contract):
            return
        self._next[contract] = period
        if contract not in self._listed:
            heapq.heappush(self._due, (period.end_us + self.terms.by_contract[contract].least_grace, contract, period.end_us))

    def advance(self, clock: int, known: int) -> None:
        """Let what is due now line up; ``known`` counts what the reference data says so far."""
        self._line_up(clock)
        for contract, wait in self.waits.items():
            if contract not in self._listed and self._may_go_on(contract, wait, clock, known):
                self._list(contract, self._next[contract])

    def _line_up(self, clock: int) -> None:
        """What has come due and waits for nothing."""
        again = []
        while self._due and self._due[0][0] <= clock:
            _, contract, end = heapq.heappop(self._due)
            period = self._next.get(contract)
            if period is None or period.end_us != end or contract in self._listed or contract in self.waits:
                continue
            at = end + self._grace(contract, period)
            if at <= clock:
                self._list(contract, period)
            else:
                again.append((at, contract, end))
        for entry in again:
            heapq.heappush(self._due, entry)

    def _list(self, contract: str, period: Period) -> None:
        self._listed.add(contract)
        heapq.heappush(self._ready, (period.end_us, contract))

    def _may_go_on(self, contract: str, wait: Wait, clock: int, known: int) -> bool:
        if wait.reason == HELD:
            return self.holds.holding_up(self.terms.by_contract[contract].customer_id, contract, self._next[contract], clock) is None
        return wait.known != (known, self._version(contract))

    @property
    def unfinished(self) -> bool:
        """Whether something can be closed, or billed again, now."""
        return bool(self._ready or self.asks)

    def _version(self, contract: str) -> int:
        columns = self.book.columns
        return int(columns.number[columns.last[columns.contracts.find(contract)]])

    def _calendar(self, contract: str) -> Calendar:
        found = self.terms.by_contract[contract].calendar
        return self.book.intervals(contract)[0].version.billing.calendar if found is None else found

    def _grace(self, contract: str, period: Period) -> int:
        terms = self.terms.by_contract[contract]
        return terms.most_grace if terms.most_grace == terms.least_grace else grace(self.book.intervals(contract), period)

    # closing

    def close(self, clock: int, known: int, most: int, taxes: Taxes | None) -> list[Closed]:
        """Close what is due, so many contracts at most; what was asked for comes after it."""
        found: list[Closed] = []
        self._look_ahead(most)
        while self._ready and len(found) < most:
            end, contract = heapq.heappop(self._ready)
            self._listed.discard(contract)
            if end != self._next[contract].end_us:  # a version has moved it meanwhile
                self.schedule(contract)
            else:
                found.append(self._close(contract, clock, known, taxes))
            self._line_up(clock)
        return found + self._again(clock, most - len(found), taxes)

    def _look_ahead(self, most: int) -> None:
        """Read the versions of the contracts that come next together."""
        first = [heapq.heappop(self._ready) for _ in range(min(most, len(self._ready)))]
        self.book.look_up(contract for _, contract in first)
        for entry in first:
            heapq.heappush(self._ready, entry)

    def _close(self, contract: str, clock: int, known: int, taxes: Taxes | None) -> Closed:
        """Close a contract's next period, or let it wait."""
        terms, period = self.terms.by_contract[contract], self._next[contract]
        before = self.waits.pop(contract, None)
        timeline = self.book.intervals(contract)
        at = clock if before is not None else period.end_us + self._grace(contract, period)
        looked = Closed(contract, terms.customer_id, period, at, Billed(self.account(contract)), ended=before)
        blocked = self.holds.holding_up(terms.customer_id, contract, period, clock)
        if blocked is not None:
            msg = f"usage {blocked.usage.event_id!r} of source {blocked.usage.source!r} is held ({blocked.reason}); settle it, or the period closes without it when it has been held for the limit"
            self.waits[contract] = Wait(HELD, blocked.usage.event_id, msg, clock if before is None else before.since)
            return looked._replace(wait=self.waits[contract])
        stuck = unsupported(timeline, looked.billed.account)
        done = looked if stuck is not None else self._billed(looked, timeline, clock, taxes)
        held = ("contract_unsupported", f"{contract}/{self._version(contract)}", stuck) if stuck is not None else done.billed.held
        if held is not None:
            wait = Wait(held[0], held[1], held[2], clock if before is None else before.since, (known, self._version(contract)))
            self.waits[contract] = wait
            waiting = sum(one.amount for one in self.pending.get(contract, {}).values() if one.period_us <= period.start_us)
            waiting += sum(lot.amount for lot in late_usage.accepted(self.aside, contract, period.start_us))
            return looked._replace(wait=wait, at_risk=waiting, currency=timeline[-1].version.currency)
        self.schedule(contract)
        return done

    def account(self, contract: str) -> Account:
        """A contract's account; an empty one before its first close."""
        return self.accounts.get(contract) or Account(contract)

    def _billed(self, looked: Closed, timeline: Sequence[Interval], clock: int, taxes: Taxes | None) -> Closed:
        """Bill a period; what was taken leaves what is pending and what was set aside, unless the bill is held."""
        contract, period, account = looked.contract_id, looked.period, looked.billed.account
        mine = self.pending.get(contract, {})
        taken = [one for one in mine.values() if one.period_us <= period.start_us]
        accepted = late_usage.accepted(self.aside, contract, period.start_us)
        sums = [one for lot in accepted for one in lot.sums]
        done = bill(account, timeline, period, taken, taxes=taxes, as_of=looked.as_of, accepted=sums)
        if done.held is not None:
            return looked._replace(billed=done)
        done = done._replace(account=pruned(done.account, timeline, period.end_us - self.reprice_limit))
        self._settle(account, (*taken, *sums), done, {key: one for key, one in mine.items() if one.period_us > period.start_us})
        new = tuple(late_usage.lots((contract, looked.customer_id), timeline, self._calendar(contract), done.late, account.kept_since_us, clock))
        late_usage.replaced(self.aside, contract, accepted, new)
        return looked._replace(billed=done, currency=timeline[-1].version.currency, late=new, accepted=tuple(accepted))

    def _settle(self, account: Account, taken: Sequence[UsageSum], done: Billed, left: dict[SumKey, UsageSum]) -> None:
        """Take a bill over: ``left`` stays pending."""
        contract = account.contract_id
        self._check(account, taken, done)
        if left:
            self.pending[contract] = left
        else:
            self.pending.pop(contract, None)
        self.accounts[contract] = done.account
        self.closed[contract] = done.account.closed_us

    def _check(self, before: Account, taken: Sequence[UsageSum], done: Billed) -> None:
        """Control total 2 for one bill: a break is a bug, and nothing of it may be committed."""
        came = before.open_amount + sum(one.amount for one in taken)
        left = done.account.open_amount + sum(one.amount for one in done.late)
        billed = usage_of(done.invoices)
        if came != left + billed:
            msg = f"contract {before.contract_id}: {came} was open, {billed} is billed and {left} is left; this is a bug in invoicing, nothing was committed"
            raise AssertionError(msg)
        self.open -= billed

    # before the end of a period

    def early(self, clock: int, taxes: Taxes | None) -> list[Closed]:
        """Bill usage that has reached a threshold, of the open periods that got some."""
        found = []
        touched, self.touched = self.touched, {}
        for contract, start in touched:
            if start >= self.closed.get(contract, 0) and contract not in self.waits:
                found += self._early(contract, self._calendar(contract).containing(start), clock, taxes)
        return found

    def _early(self, contract: str, period: Period, clock: int, taxes: Taxes | None) -> list[Closed]:
        account, mine = self.account(contract), self.pending.get(contract, {})
        taken = [one for one in mine.values() if one.period_us == period.start_us]
        done = bill_early(account, self.book.intervals(contract), period, taken, taxes=taxes, as_of=clock)
        if done.held is not None or not done.invoices:
            return []
        self._settle(account, taken, done, {key: one for key, one in mine.items() if one.period_us != period.start_us})
        return [Closed(contract, self.terms.by_contract[contract].customer_id, period, clock, done, early=True)]

    # taking documents back

    def forgot(self, invoice: Invoice) -> bool:
        """Whether the notes of a document are needed to take more of it back."""
        return forgot(self.account(invoice.contract_id), invoice)

    def take_back(self, invoice: Invoice, wanted: TakeBack, clock: int, before: Iterable[Invoice] = ()) -> Closed:
        """Void a document or credit parts of it, which notes ``before`` may have done too; ReleaseRefused where that cannot be."""
        contract = invoice.contract_id
        account, timeline = remembering(self.account(contract), invoice, before), self.book.intervals(contract)
        version = times.at(timeline, invoice.period.end_us - 1) or timeline[-1].version
        if wanted.lines:
            done = notes.credit_lines(account, version, invoice, wanted.lines, grants(timeline), clock)
        elif wanted.amounts:
            done = notes.credit_amounts(account, version, invoice, dict(wanted.amounts), clock)
        else:
            done = notes.void(account, version, invoice, grants(timeline), clock)
        billed = Billed(dated(done.account, invoice), (done.document,))
        self._settle(account, (), billed, self.pending.get(contract, {}))
        return Closed(contract, invoice.customer_id, invoice.period, clock, billed, early=True)

    # asked for

    def _again(self, clock: int, most: int, taxes: Taxes | None) -> list[Closed]:
        """Bill closed periods again that somebody asks for: what came late, and what was taken back."""
        found: list[Closed] = []
        while self.asks and most > 0:
            ask = self.asks[0]
            names = sorted(name for name in self.closed if name > ask.after and ask.contract_id in (None, name))
            for name in names[:most]:
                one = self._asked(ask.label, name, clock, taxes)
                found += [] if one is None else [one]
            looked = min(len(names), most)
            most -= looked
            if looked == len(names):
                del self.asks[0]
            else:
                self.asks[0] = ask._replace(after=names[looked - 1])
        return found

    def _asked(self, label: str, contract: str, clock: int, taxes: Taxes | None) -> Closed | None:
        period = self.labelled(contract, label)
        account, timeline = self.account(contract), self.book.intervals(contract)
        if period is None or contract in self.waits or not self.billable(contract, label) or unsupported(timeline, account) is not None:
            return None
        done = self._billed(Closed(contract, self.terms.by_contract[contract].customer_id, period, clock, Billed(account)), timeline, clock, taxes)
        if done.billed.held is not None:
            return None
        self.schedule(contract)
        return done

    def billable(self, contract: str, label: str) -> bool:
        """Whether anything has come for a closed billing period, or before it, that is not billed, or was taken back."""
        period = self.labelled(contract, label)
        if period is None:
            return False
        waiting = any(one.period_us <= period.start_us for one in self.pending.get(contract, {}).values()) or late_usage.accepted(self.aside, contract, period.start_us)
        return bool(waiting) or any(one.released for one in self.account(contract).billed)

    def labelled(self, contract: str, label: str) -> Period | None:
        """A closed billing period of a contract by its name; None where it has none, or has not closed it."""
        number = self.book.columns.contracts.find(contract)
        calendar = self._calendar(contract)
        period = calendar.containing(self.book.columns.stretches(number)[0].start_us)
        while period.end_us <= self.closed[contract]:
            if label in (period.label, period.start_on.isoformat()):
                return period
            period = calendar.next(period)
        return None

    def recount(self) -> int:
        """What is open, summed up from the whole state."""
        return sum(self.open_of(name) for name in {*self.pending, *self.aside, *self.accounts})

    def open_of(self, contract: str) -> int:
        """What of a contract is rated and not billed, summed up from the state."""
        return sum(one.amount for one in self.waiting(contract)) + self.account(contract).open_amount

    def waiting(self, contract: str) -> Iterator[UsageSum]:
        """What of a contract no bill has taken: pending, or set aside."""
        yield from self.pending.get(contract, {}).values()
        for lot in self.aside.get(contract, {}).values():
            yield from lot.sums


def usage_of(invoices: Iterable[Invoice]) -> int:
    """The rated amount that documents bill, in 10^-12."""
    return sum(line.usage_exact for invoice in invoices for line in invoice.lines)
