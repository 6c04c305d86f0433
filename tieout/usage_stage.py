"""The usage stage: one fate for each event, and exact amounts for the priced ones.

In: a batch of decoded usage events with their record times, and the contract versions that came since. Out: rated
rows, holds, dead letters, exceptions, counts, and what a commit must write. The checks run in one order: decode,
ranges and time (rejected); identity (duplicate, conflict); then held; else priced.

A batch is divided by customer. Plain customers go by columns: tagged by an as-of join, priced by the kernel. The
customers of a correction, of several contracts or of charges that the kernel does not hold go event by event, in
order; everything that an event can touch belongs to its customer, so the two never meet.

Source: docs/semantics.md sections 1 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import fates, wide
from tieout.contract_batch import Refused, Taken
from tieout.contract_diff import text_of
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Entries
from tieout.fates import UsageBatch, Work
from tieout.holds import Held, HoldRecord
from tieout.ids import Lanes, combine, of_strings
from tieout.period import EPOCH
from tieout.rating.adjustments import QUANTITY
from tieout.rating.chains import Terms
from tieout.rating.rated import Fast, rated_rows
from tieout.rating.tariff import SEVERAL
from tieout.repricing import reprice
from tieout.repricing_jobs import Beyond
from tieout.stage import Counts, DeadLetter, FinancialException
from tieout.usage import EVENTS, NO_CLOCK, Rejected, UsageEvent, clocks, coded, content_digests, identities, negative, out_of_range, records
from tieout.usage_state import DAY, HOUR, Entry, Limits, UsageState, restore_entry

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

__all__ = ["DAY", "HOUR", "Entry", "Limits", "Result", "UsageBatch", "UsageState", "one_by_one", "restore_entry", "step"]

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)


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
    slices: int
    """How many slices of re-pricing were looked at."""


def step(state: UsageState, batch: UsageBatch, versions: Sequence[ContractVersion] | Taken = ()) -> Result:
    """Fold one batch into the state; ``versions`` count before its first row, taken already or to be taken. Raises nothing for bad input.

    Where a row pauses the partition, the batch ends with it: ``counts.received`` is how many rows were taken.
    """
    state.clock = max(state.clock, batch.tick)
    batch, (kept, clock, rejected) = _until_paused(state, batch, _admitted(state, batch))
    rows = _some(batch.rows, kept)
    counts = Counts(received=batch.size)
    work = Work(state, batch, counts, clock)
    state.rater.rows = []
    state.waiting.added, state.waiting.removed = [], []
    work.dead += [DeadLetter(int(batch.positions[r.row]), r.reason, r.message, r.path) for r in rejected]
    counts.rejected += len(rejected)
    _take_versions(work, versions)
    fates.waive_held(work, batch.waived)
    moved = reprice(work, batch.slices)
    events = coded(batch.events)
    words = of_strings(events["customer_id"].dictionary)
    customers = words.take(events["customer_id"].indices.to_numpy(), axis=0)
    keys, digests = combine(customers, identities(events["source"], events["id"])), content_digests(events, words)
    verdicts = state.seen.judge(
        _some(keys, kept), _some(digests, kept), _some(_times(events), kept), _some(clock, rows), _some(batch.positions, rows)
    )
    _refuse_repeats(work, events, kept, verdicts.kind, verdicts.first_position)
    fast = _price(work, events, kept[verdicts.kind == NEW], verdicts.entries.keys, words)
    if state.jobs.began == NO_CLOCK and state.totals.received == state.totals.rejected and len(kept):
        state.jobs.begin(int(clock[rows[0]]) - state.limits.horizon)
    state.clock = int(clock[-1]) if len(clock) else state.clock
    if batch.ends_interval:
        state.rater.clock = max(state.clock, 0)  # within an interval it stands, however the interval is cut
        state.rater.open_periods(batch.size)
        fates.escalate(work)
    state.seen.sweep(state.clock)
    rated = rated_rows(state.tariffs, events, batch.positions, fast, state.rater.rows, moved)
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
        len(batch.slices),
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
    work = Work(state, batch, Counts(), clock)
    for event in events:
        state.rater.clock = work.clock_at(event.position)
        fates.decide(work, event, event.position)
    return Singles(work.holds, work.dead, work.exceptions)


@cache
def _no_events() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=EVENTS)


def _some(values: npt.NDArray[_Kind], rows: I64) -> npt.NDArray[_Kind]:
    """The values of some rows, which rise: all of them, nearly always."""
    return values if len(rows) == len(values) else values.take(rows, axis=0)


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


def _refuse_repeats(work: Work, events: pa.RecordBatch, kept: I64, kind: npt.NDArray[np.int8], first: I64) -> None:
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


def _take_versions(work: Work, versions: Sequence[ContractVersion] | Taken) -> None:
    """Bring contract versions into force, try again what waited for them, and look again at what they change in the past."""
    state, columns = work.state, work.state.book.columns
    taken = versions if isinstance(versions, Taken) else state.take(versions)
    work.exceptions += [_contract_exception(work, "contract_refused", refused) for _, refused in sorted(taken.refused.items())]
    rows = taken.rows
    if not len(rows):
        return
    work.exceptions += [_beyond_exception(work, found) for found in state.open_jobs(rows)]
    if state.rater.levels:
        names = [columns.contracts.text(contract) for contract in columns.contract[rows].tolist()]
        state.rater.govern_levels({name: f"{name}/{number}" for name, number in zip(names, columns.number[rows].tolist(), strict=True)}, -1)
    if not state.waiting.count:
        return
    waiting = {columns.customers.find(name): name for name in state.waiting.by_customer}
    touched = columns.customer_of_rows(rows)
    last = {customer: row for customer, row in zip(touched.tolist(), rows.tolist(), strict=True) if customer in waiting}
    for customer, row in last.items():
        ref = f"{columns.contracts.text(int(columns.contract[row]))}/{int(columns.number[row])}"
        for held in state.waiting.of(waiting[customer]):
            if held.reason != "original_unknown":
                fates.try_again(work, held, ref)


def _contract_exception(work: Work, kind: str, version: Refused) -> FinancialException:
    name = f"{version.contract_id} version {version.version}"
    return FinancialException(kind, "contract_version", name, version.customer_id, version.message, max(work.state.clock, 0))


def _beyond_exception(work: Work, found: Beyond) -> FinancialException:
    """That what a version changes further back than the limit stays as it was."""
    name, days = f"{found.contract_id}/{found.version}", work.state.limits.reprice_limit // DAY
    start, end = (text_of(EPOCH + timedelta(microseconds=instant)) for instant in (found.start_us, found.end_us))
    stretch = f"from {start} to {end}"
    message = (
        f"{name} governs usage {stretch}, more than {days} days before the partition's clock: what was priced there stays as it was, later usage is "
        f"priced again; work out the difference from your own archive and settle it by a credit or an invoice of its own, then resolve, or waive it"
    )
    return FinancialException("reprice_limit", "contract_version", name, found.customer_id, message, work.state.clock, (f"not priced again {stretch}",))


def _price(work: Work, events: pa.RecordBatch, new: I64, keys: Lanes, words: Lanes) -> Fast:
    """Price the events that are new: by columns where the kernel can, the rest event by event in order.

    ``words`` are the hashes of the distinct customers.
    """
    state, batch = work.state, work.batch
    customers, time, rows = events["customer_id"], _some(_times(events), new), _some(batch.rows, new)
    version = state.tariffs.tag(words, _some(customers.indices.to_numpy(), new), time)
    slow = (version == SEVERAL) | _some(_one_by_one(work, events, customers), new)
    tariff = np.full(len(rows), -1, np.int64)
    governed = np.nonzero((version >= 0) & ~slow)[0]
    if len(governed):
        meter = events["meter"]
        tariff[governed] = state.tariffs.solo(_some(version, governed), meter.indices.to_numpy().take(_some(new, governed)), meter.dictionary.to_pylist())
    columnar = np.nonzero(tariff >= 0)[0]
    fast = Fast.of(state.rater, _some(new, columnar), _some(rows, columnar), _some(keys, columnar), _some(time, columnar), _some(tariff, columnar))
    fast, done = _by_columns(work, events, fast)
    slow |= tariff < 0
    slow[columnar[~done]] = True
    singles = np.nonzero(slow)[0]
    if len(singles):
        chosen = events.take(pa.array(new[singles]))
        for event, row in zip(records(chosen, batch.positions[rows[singles]]), rows[singles].tolist(), strict=True):
            fates.decide(work, event, row)
    return fast


def _one_by_one(work: Work, events: pa.RecordBatch, customers: pa.DictionaryArray) -> Mask:
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


def _by_columns(work: Work, events: pa.RecordBatch, fast: Fast) -> tuple[Fast, Mask]:
    """Price rows with the kernel; the mask says which it did, the others it left."""
    state, found = work.state, fast.tariffs
    quantity, fits = wide.narrow(events["quantity"])
    q = np.where(found.count, QUANTITY, _some(quantity, fast.index))
    usual = found.count | (_some(fits, fast.index) & (q <= found.safe))
    number = np.where(usual, found.price, -1)
    priced = state.rater.chains.price(state.tariffs.table, fast.line.chain, found.rank, number, q)
    work.counts.priced += int(priced.done.sum())
    return fast.priced(priced, found.count), priced.done


