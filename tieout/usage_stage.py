"""The usage stage: one fate for each event, and exact amounts for the priced ones.

In: a batch of decoded usage events with their record times, and the contract versions that came since. Out: rated
rows, holds, dead letters, exceptions, counts, and what a commit must write. The checks run in one order: decode,
ranges and time (rejected); identity (duplicate, conflict); then held; else priced.

A batch is divided by customer. Plain customers go by columns: tagged by an as-of join, priced by the kernel. The
customers of a correction, of several contracts or of charges that the kernel does not hold go event by event, in
order; everything that an event can touch belongs to its customer, so the two never meet.

Source: docs/semantics.md sections 1 to 4.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import wide
from tieout.contract_batch import ContractBatch, Refused, Taken
from tieout.contract_book import ContractBook
from tieout.contract_intake import bring_in
from tieout.contracts import ContractVersion
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Entries, Seen
from tieout.holds import NEEDS_A_PERSON, REMEDIES, Held, HoldRecord, Waiting
from tieout.ids import EventKey, Lanes, combine, of_strings
from tieout.rating.adjustments import QUANTITY
from tieout.rating.chains import Terms
from tieout.rating.rated import Fast, rated_rows
from tieout.rating.rater import Application, Rater
from tieout.rating.tariff import INACTIVE, SEVERAL, Tariff, Tariffs
from tieout.rejection import Rejects
from tieout.stage import Counts, DeadLetter, FinancialException
from tieout.usage import EVENTS, NO_CLOCK, Rejected, UsageEvent, clocks, coded, content_digests, identities, negative, out_of_range, records

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
DAY: Final = 86_400_000_000
HOUR: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The stage's settings, in microseconds."""

    horizon: int = 35 * DAY
    future_limit: int = 24 * HOUR
    hold_limit: int = 7 * DAY


@dataclass(frozen=True, slots=True)
class Original:
    """What the rated topic knows of an event that a correction names: one of its charges, at today's quantity."""

    customer_id: str
    contract_id: str
    contract_version: int
    charge_id: str
    group: tuple[str | None, ...] | None
    time: int
    quantity: int


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Rows of one partition in log order; ``events`` holds the decodable ones, ``rows`` their places among all."""

    positions: I64
    events: pa.RecordBatch
    rows: I64
    record_time: I64
    values: pa.Array
    undecodable: Sequence[Rejected] = ()
    originals: Mapping[tuple[str, EventKey], Sequence[Original]] = field(default_factory=dict)
    backdated: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """For versions that govern events priced before: how many, by (contract, version)."""
    ends_interval: bool = True
    """Whether what falls due by the clock alone (overdue holds, levels that open a period) is looked at after it."""

    @property
    def size(self) -> int:
        """How many rows there are, decodable or not."""
        return len(self.positions)


@dataclass(slots=True)
class UsageState:
    """The fold's state: everything that the stage remembers between batches of a partition."""

    limits: Limits = field(default_factory=Limits)
    clock: int = NO_CLOCK
    seen: Seen = field(init=False)
    book: ContractBook = field(default_factory=lambda: ContractBook(first_number=1))
    tariffs: Tariffs = field(init=False)
    rater: Rater = field(init=False)
    waiting: Waiting = field(default_factory=Waiting)
    voided: set[tuple[str, EventKey]] = field(default_factory=set)
    totals: Counts = field(default_factory=Counts)
    amounts: dict[str, int] = field(default_factory=dict)
    rejects: Rejects | None = None
    """What may pause the partition; None in a replay or a quote, which take what they are given."""

    def __post_init__(self) -> None:
        self.seen, self.tariffs = Seen(self.limits.horizon), Tariffs(self.book)
        self.rater = Rater(self.tariffs, self.governing_version)

    def take(self, versions: Iterable[ContractVersion | ContractBatch]) -> Taken:
        """Bring versions into force; after a restart, those that were: what was refused then is refused again."""
        return bring_in(self.book, self.tariffs, versions)

    def governing_version(self, contract_id: str, instant: int) -> int | None:
        """The version in force at an instant, unless it is suspended or terminated."""
        version = self.book.governing(contract_id, instant)
        return None if version is None or version.status in INACTIVE else version.version


class Entry(NamedTuple):
    """One change of what is priced event by event: an application entered, changed or left, or an event voided."""

    op: Literal["add", "alter", "void", "voided"]
    met: Application | None
    customer_id: str
    key: EventKey


@dataclass(slots=True)
class Result:
    """What a batch came to, and what its commit must write to restore the state."""

    rated: pa.Table
    holds: list[HoldRecord]
    dead_letters: list[DeadLetter]
    exceptions: list[FinancialException]
    counts: Counts
    clock: int
    entries: Entries
    terms: Terms
    journal: list[Entry]
    held: list[Held]
    unheld: list[Held]


@dataclass(slots=True)
class _Work:
    """One call of ``step``: the state with what the batch has come to so far."""

    state: UsageState
    batch: UsageBatch
    counts: Counts
    clock: I64
    dead: list[DeadLetter] = field(default_factory=list)
    holds: list[HoldRecord] = field(default_factory=list)
    exceptions: list[FinancialException] = field(default_factory=list)
    met: dict[tuple[str, EventKey], list[Application]] = field(default_factory=dict)
    journal: list[Entry] = field(default_factory=list)

    def clock_at(self, row: int) -> int:
        return int(self.clock[row]) if 0 <= row < len(self.clock) else self.state.clock


def step(state: UsageState, batch: UsageBatch, versions: Sequence[ContractVersion] | Taken = ()) -> Result:
    """Fold one batch into the state; ``versions`` count before its first row, taken already or to be taken. Raises nothing for bad input.

    Where a row pauses the partition, the batch ends with it: ``counts.received`` is how many rows were taken.
    """
    batch, (kept, clock, rejected) = _until_paused(state, batch, _admitted(state, batch))
    rows = batch.rows[kept]
    counts = Counts(received=batch.size)
    work = _Work(state, batch, counts, clock)
    state.rater.rows = []
    state.waiting.added, state.waiting.removed = [], []
    work.dead += [DeadLetter(int(batch.positions[r.row]), r.reason, r.message, r.path) for r in rejected]
    counts.rejected += len(rejected)
    _take_versions(work, versions)
    events = coded(batch.events)
    words = of_strings(events["customer_id"].dictionary)
    customers = words[events["customer_id"].indices.to_numpy()]
    keys = combine(customers, identities(events["source"], events["id"]))[kept]
    verdicts = state.seen.judge(
        keys, content_digests(events, customers)[kept], _times(events)[kept], clock[rows], batch.positions[rows]
    )
    _refuse_repeats(work, events, kept, verdicts.kind, verdicts.first_position)
    new = verdicts.kind == NEW
    fast = _price(work, events, kept[new], keys[new], words)
    state.clock = int(clock[-1]) if len(clock) else state.clock
    if batch.ends_interval:
        state.rater.clock = max(state.clock, 0)  # within an interval it stands, however the interval is cut
        state.rater.open_periods(batch.size)
        _escalate(work)
    state.seen.sweep(state.clock)
    rated = rated_rows(state.tariffs, events, fast, state.rater.rows)
    for currency, amount in rated.amounts.items():
        state.amounts[currency] = state.amounts.get(currency, 0) + amount
    state.totals.add(counts)
    broken = counts.broken()
    if broken or state.totals.waiting != state.waiting.count:
        msg = f"fates do not add up: {broken or 'waiting'}; this is a bug in the stage, nothing was committed"
        raise AssertionError(msg)
    return Result(
        rated.table, work.holds, sorted(work.dead, key=lambda d: d.position), work.exceptions, counts, state.clock,
        verdicts.entries, state.rater.chains.take_changes(), work.journal, state.waiting.added, state.waiting.removed,
    )


class Singles(NamedTuple):
    """What events came to that were judged one by one: their holds, dead letters and exceptions."""

    holds: list[HoldRecord]
    dead_letters: list[DeadLetter]
    exceptions: list[FinancialException]


def one_by_one(state: UsageState, events: Sequence[UsageEvent], clock: I64) -> Singles:
    """Judge and price new events in their order without columns: for few of them, as in a quote.

    An event's ``position`` is its row in ``clock``; its rated rows are left in ``state.rater.rows``.
    """
    batch = UsageBatch(np.arange(len(clock)), _no_events(), np.empty(0, np.int64), clock, pa.nulls(len(clock), pa.large_binary()))
    work = _Work(state, batch, Counts(), clock)
    for event in events:
        state.rater.clock = work.clock_at(event.position)
        _decide(work, event, event.position)
    return Singles(work.holds, work.dead, work.exceptions)


@cache
def _no_events() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=EVENTS)


def restore_entry(state: UsageState, entry: Entry) -> None:
    """Apply one journal entry to a state that is being restored; what it emits is thrown away by the caller."""
    name = (entry.customer_id, entry.key)
    if entry.op == "voided":
        state.voided.add(name)
        state.rater.events.pop(name, None)
        return
    met = entry.met
    if met is None:
        msg = f"journal entry {entry.op} of {entry.key} names no application"
        raise AssertionError(msg)
    if entry.op == "add":
        state.rater.add(met, 0)
        state.rater.events.setdefault(name, []).append(met)
        return
    known = next(m for m in state.rater.events[name] if m.place == met.place)
    if entry.op == "alter":
        state.rater.alter(known, met.quantity, entry.key, 0)
    else:
        state.rater.void(known, entry.key, 0)


def _times(events: pa.RecordBatch) -> I64:
    return events["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)


_Admitted = tuple[I64, I64, list[Rejected]]


def _admitted(state: UsageState, batch: UsageBatch) -> _Admitted:
    """Which of the decoded events pass ranges and time; the clock at every row of the batch; the rejected."""
    events, rows = batch.events, batch.rows
    bad, rejected = out_of_range(events, rows)
    rejected = [*batch.undecodable, *rejected]
    below = negative(events) & ~bad
    for i in np.nonzero(below)[0].tolist():
        customer, meter = events["customer_id"][i].as_py(), events["meter"][i].as_py()
        if not state.tariffs.signed(customer, meter):
            message = "'quantity' is below 0; only carried and weighted meters go down, others are corrected or voided"
            rejected.append(Rejected(int(rows[i]), "quantity_negative", message, "quantity"))
            bad[i] = True
    time = _times(events)
    record = batch.record_time[rows]
    early = ~bad & (time > record + state.limits.future_limit)
    for i in np.nonzero(early)[0].tolist():
        message = f"event time is more than {state.limits.future_limit // HOUR} h after its record time; check the sender's clock"
        rejected.append(Rejected(int(rows[i]), "too_early", message, "time"))
    bad |= early
    counts, all_time = np.zeros(batch.size, np.bool_), np.zeros(batch.size, np.int64)
    counts[rows], all_time[rows] = ~bad, time
    clock = clocks(state.clock, all_time, batch.record_time, counts)
    late = ~bad & (time < clock[rows] - state.limits.horizon)
    for i in np.nonzero(late)[0].tolist():
        message = f"event time is more than {state.limits.horizon // DAY} days behind the partition's clock; correct it by hand"
        rejected.append(Rejected(int(rows[i]), "too_late", message, "time"))
    return np.flatnonzero(~(bad | late)), clock, rejected


def _until_paused(state: UsageState, batch: UsageBatch, admitted: _Admitted) -> tuple[UsageBatch, _Admitted]:
    """The batch up to the row at which too many are rejected: all of it, nearly always."""
    kept, clock, rejected = admitted
    if state.rejects is None or not rejected:
        return batch, admitted
    first = state.totals.received
    ordered = sorted(rejected, key=lambda r: r.row)
    numbers = first + np.array([r.row for r in ordered], np.int64)
    last = state.rejects.take(numbers, [r.reason for r in ordered], first + batch.size)
    if last is None:
        return batch, admitted
    n = last - first + 1
    batch = replace(batch, positions=batch.positions[:n], record_time=batch.record_time[:n], values=batch.values.slice(0, n))
    kept = kept[: np.searchsorted(batch.rows[kept], n)]
    return batch, (kept, clock[:n], [r for r in rejected if r.row < n])


def _refuse_repeats(work: _Work, events: pa.RecordBatch, kept: I64, kind: npt.NDArray[np.int8], first: I64) -> None:
    """Count duplicates; a conflict is an exception that carries both payloads, the first delivery stands."""
    work.counts.duplicate += int((kind == DUPLICATE).sum())
    conflicts = np.nonzero(kind == CONFLICT)[0]
    work.counts.conflict += len(conflicts)
    for i, stands in zip(kept[conflicts].tolist(), first[conflicts].tolist(), strict=True):
        row = int(work.batch.rows[i])
        position = int(work.batch.positions[row])
        source, event_id = events["source"][i].as_py(), events["id"][i].as_py()
        message = f"event {event_id!r} of source {source!r} came again with other content; the first delivery stands"
        work.exceptions.append(
            FinancialException(
                "usage_conflict", "usage_event", event_id, events["customer_id"][i].as_py(), message,
                work.clock_at(row), (f"source {source}",), (stands, position),
            )
        )


def _take_versions(work: _Work, versions: Sequence[ContractVersion] | Taken) -> None:
    """Bring contract versions into force, then try again what waited for them."""
    state, columns = work.state, work.state.book.columns
    taken = versions if isinstance(versions, Taken) else state.take(versions)
    found = [(order, _contract_exception(work, "contract_refused", refused)) for order, refused in taken.refused.items()]
    for (contract, number), risk in work.batch.backdated.items():
        at = np.nonzero(taken.rows == state.book.row(contract, number))[0]
        if len(at):
            message = (
                f"version {number} of contract {contract} governs {risk} events that are already "
                "priced; it applies to new events only, correct the priced ones by hand"
            )
            customer = columns.customers.text(int(columns.customer_of_rows(taken.rows[at])[0]))
            found.append((int(taken.order[at[0]]), _contract_exception(work, "contract_backdated", Refused(contract, number, customer, message))))
    work.exceptions += [exception for _, exception in sorted(found, key=lambda one: one[0])]
    if not state.waiting.count or not len(taken.rows):
        return
    waiting = {columns.customers.find(name): name for name in state.waiting.by_customer}
    touched = columns.customer_of_rows(taken.rows)
    for customer in dict.fromkeys(touched[np.isin(touched, list(waiting))].tolist()):
        for held in state.waiting.of(waiting[customer]):
            if held.reason != "original_unknown":
                _try_again(work, held)


def _contract_exception(work: _Work, kind: str, version: Refused) -> FinancialException:
    name = f"{version.contract_id} version {version.version}"
    return FinancialException(kind, "contract_version", name, version.customer_id, version.message, max(work.state.clock, 0))


def _price(work: _Work, events: pa.RecordBatch, new: I64, keys: Lanes, words: Lanes) -> Fast:
    """Price the events that are new: by columns where the kernel can, the rest event by event in order.

    ``words`` are the hashes of the distinct customers.
    """
    state, batch = work.state, work.batch
    customers, time, rows = events["customer_id"], _times(events)[new], batch.rows[new]
    version = state.tariffs.tag(words, customers.indices.to_numpy()[new], time)
    slow = (version == SEVERAL) | _one_by_one(work, events, customers)[new]
    tariff = np.full(len(rows), -1, np.int64)
    governed = np.nonzero((version >= 0) & ~slow)[0]
    if len(governed):
        meter = events["meter"]
        tariff[governed] = state.tariffs.solo(version[governed], meter.indices.to_numpy()[new[governed]], meter.dictionary.to_pylist())
    columnar = np.nonzero(tariff >= 0)[0]
    fast = Fast.of(state.tariffs, new[columnar], rows[columnar], keys[columnar], time[columnar], tariff[columnar])
    fast, done = _by_columns(work, events, fast)
    slow |= tariff < 0
    slow[columnar[~done]] = True
    singles = np.nonzero(slow)[0]
    if len(singles):
        chosen = events.take(pa.array(new[singles]))
        for event, row in zip(records(chosen, batch.positions[rows[singles]]), rows[singles].tolist(), strict=True):
            _decide(work, event, row)
    return fast


def _one_by_one(work: _Work, events: pa.RecordBatch, customers: pa.DictionaryArray) -> Mask:
    """Events of the customers that need theirs in order: corrections, waiting corrections; and those that name a contract."""
    slow = np.zeros(events.num_rows, np.bool_)
    marked = work.state.waiting.customers_waiting_for_originals()
    for name in ("corrects", "voids"):
        column = events[name]
        if column.null_count < len(column):
            marked |= set(customers.filter(column.is_valid()).to_pylist())
    if marked:
        codes = [i for i, name in enumerate(customers.dictionary.to_pylist()) if name in marked]
        slow |= np.isin(customers.indices.to_numpy(), np.array(codes, np.int64))
    named = events["contract_id"]
    if named.null_count < len(named):
        slow |= named.is_valid().to_numpy(zero_copy_only=False)
    return slow


def _by_columns(work: _Work, events: pa.RecordBatch, fast: Fast) -> tuple[Fast, Mask]:
    """Price rows with the kernel; the mask says which it did, the others it left."""
    state, found = work.state, fast.tariffs
    quantity, fits = wide.narrow(events["quantity"])
    q = np.where(found.count, QUANTITY, quantity[fast.index])
    usual = found.count | (fits[fast.index] & (q <= found.safe))
    number = np.where(usual, found.price, -1)
    chain = state.rater.chains.rows(fast.chain_keys)
    priced = state.rater.chains.price(state.tariffs.table, chain, found.rank, number, q)
    work.counts.priced += int(priced.done.sum())
    return fast.priced(priced, found.count), priced.done


def _decide(work: _Work, event: UsageEvent, row: int) -> None:
    """Hold an event, or price it, or apply it to its original; then let corrections go that waited for it."""
    state = work.state
    if event.original is not None:
        _correct(work, event, row)
        return
    reason, tariffs = _tariffs(state, event)
    if reason == "waived":
        _waive(work, event)
        return
    if reason is not None:
        _hold(work, event, reason, row)
    else:
        _enter(work, event, tariffs, row)
    _release_corrections(work, event, row)


def _tariffs(state: UsageState, event: UsageEvent) -> tuple[str | None, tuple[Tariff, ...]]:
    """Why an event cannot be priced (or ``waived``), or the tariffs that it meets."""
    contracts = state.book.contracts_of(event.customer_id)
    if not contracts:
        return "no_customer", ()
    if event.contract_id is not None:
        contracts = tuple(c for c in contracts if c == event.contract_id)
    governing = [v for c in contracts if (v := state.book.governing(c, event.time)) is not None]
    if not governing:
        return "no_contract", ()
    metering = [v for v in governing if state.tariffs.of_contract(v, event.meter)]
    if len(metering) > 1:
        return "contract_ambiguous", ()
    if not metering:
        return ("contract_inactive" if all(v.status in INACTIVE for v in governing) else "no_charge"), ()
    version = metering[0]
    if version.status in INACTIVE and version.billing.inactive_usage != "price":
        return ("waived" if version.billing.inactive_usage == "waive" else "contract_inactive"), ()
    met = tuple(t for t in state.tariffs.of_contract(version, event.meter) if t.matches(event.attributes))
    if not met:
        return "no_charge", ()
    if not all(t.prices(event.attributes, event.quantity or 0, event.amount) for t in met):
        return "no_price", ()
    return None, met


def _enter(work: _Work, event: UsageEvent, tariffs: tuple[Tariff, ...], row: int) -> None:
    """Price an event under its tariffs."""
    state = work.state
    work.counts.priced += 1
    for tariff in tariffs:
        met = state.rater.meet(event, tariff)
        state.rater.add(met, row)
        work.met.setdefault((event.customer_id, event.key), []).append(met)
        if tariff.kind not in ("sum", "count"):
            state.rater.events.setdefault((event.customer_id, event.key), []).append(met)
            work.journal.append(Entry("add", met, event.customer_id, met.key))


def _hold(work: _Work, event: UsageEvent, reason: str, row: int) -> None:
    value = work.batch.values[row].as_py() or b""
    held = Held(event, reason, work.clock_at(row), int(work.batch.record_time[row]), value)
    _wait(work, held)


def _wait(work: _Work, held: Held) -> None:
    work.counts.held += 1
    held.escalated = held.reason in NEEDS_A_PERSON
    work.state.waiting.add(held)
    work.holds.append(HoldRecord(held, "held", held.at))
    if held.escalated:
        work.exceptions.append(_hold_exception(held, held.at))


def _hold_exception(held: Held, at: int) -> FinancialException:
    event = held.event
    message = f"event {event.key.event_id!r} of source {event.key.source!r}: {REMEDIES[held.reason]}"
    evidence = (f"source {event.key.source}", f"hold {held.hold_id}")
    return FinancialException(f"hold_{held.reason}", "usage_event", event.key.event_id, event.customer_id, message, at, evidence, (event.position,))


def _leave(work: _Work, held: Held, state_name: str) -> None:
    work.counts.released += 1
    work.state.waiting.remove(held)
    work.holds.append(HoldRecord(held, state_name, max(work.state.clock, held.at)))


def _try_again(work: _Work, held: Held) -> None:
    """Release a held event when its reason has gone; at its own event time, past dedup and the time checks."""
    state = work.state
    reason, tariffs = _tariffs(state, held.event)
    if reason == held.reason:
        return
    quantity = held.event.quantity
    if reason is None and quantity is not None and quantity < 0 and not state.tariffs.signed(held.event.customer_id, held.event.meter):
        reason = "no_charge"
        if held.reason == reason:
            return
    _leave(work, held, "waived" if reason == "waived" else "released")
    if reason == "waived":
        work.counts.rejected += 1
        work.dead.append(DeadLetter(held.event.position, "waived", "usage after suspension or end is waived by the contract", value=held.value))
    elif reason is not None:
        _wait(work, replace(held, reason=reason, at=max(state.clock, held.at)))
    else:
        _enter(work, held.event, tariffs, -1)


def _waive(work: _Work, event: UsageEvent) -> None:
    work.counts.rejected += 1
    message = "the contract is suspended or terminated and waives such usage; nothing to do"
    work.dead.append(DeadLetter(event.position, "waived", message))


def _correct(work: _Work, event: UsageEvent, row: int) -> None:
    """Apply a correction or void to its original, or hold it until the original arrives."""
    if event.original is None:
        msg = "only corrections and voids come here"
        raise AssertionError(msg)
    if _applied(work, event, row):
        work.counts.priced += 1
    else:
        _hold(work, event, "original_unknown", row)


def _applied(work: _Work, event: UsageEvent, row: int) -> bool:
    """Whether the original was found, and so changed."""
    state = work.state
    original = event.original
    name = (event.customer_id, original)
    if name in state.voided:
        return True
    held = state.waiting.find(event.customer_id, original) if original else None
    if held is not None and held.event.original is None:
        if event.voids is not None:
            _void_held(work, held)
        else:
            state.waiting.replace(held, replace(held.event, quantity=event.quantity))
        return True
    found = _live(work, event)
    if not found:
        return False
    for met in found:
        if event.voids is not None:
            state.rater.void(met, event.key, row)
        else:
            state.rater.alter(met, event.quantity or 0, event.key, row)
        if met.tariff.kind not in ("sum", "count"):
            work.journal.append(Entry("void" if event.voids else "alter", met, event.customer_id, met.key))
    if event.voids is not None:
        _forget(work, event.customer_id, event.voids)
    return True


def _void_held(work: _Work, held: Held) -> None:
    _leave(work, held, "released")
    work.counts.priced += 1
    _forget(work, held.event.customer_id, held.event.key)


def _forget(work: _Work, customer_id: str, key: EventKey) -> None:
    work.state.voided.add((customer_id, key))
    work.state.rater.events.pop((customer_id, key), None)
    work.journal.append(Entry("voided", None, customer_id, key))


def _live(work: _Work, event: UsageEvent) -> list[Application]:
    """The live applications of an event's original: of this batch, of the kept events, of the rated topic."""
    state = work.state
    original = event.original
    if original is None:
        return []
    name = (event.customer_id, original)
    found = work.met.get(name)
    if found is None:
        found = list(state.rater.events.get(name, ()))
        for known in work.batch.originals.get(name, ()):
            tariff = state.tariffs.find(known.contract_id, known.contract_version, known.charge_id)
            if tariff.kind in ("sum", "count"):
                period = tariff.calendar.containing(known.time)
                found.append(Application(original, tariff, known.group, period, known.time, -1, known.quantity))
        work.met[name] = found
    return found


def _release_corrections(work: _Work, event: UsageEvent, row: int) -> None:
    """Let go the corrections that waited for this event, in the order in which they were held."""
    for held in list(work.state.waiting.by_original.get((event.customer_id, event.key), ())):
        if _applied(work, held.event, row):
            _leave(work, held, "released")
            work.counts.priced += 1


def _escalate(work: _Work) -> None:
    """Open an exception for what has waited longer than the limit."""
    state = work.state
    oldest = state.waiting.oldest_silent()
    if oldest is None or state.clock - oldest < state.limits.hold_limit:
        return
    for held in state.waiting.all():
        if not held.escalated and state.clock - held.at >= state.limits.hold_limit:
            held.escalated = True
            state.waiting.added.append(held)
            work.exceptions.append(_hold_exception(held, state.clock))
