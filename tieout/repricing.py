"""Priced events looked at again because a version governs the past: out of the old version's sum, into the new one's.

In: slices of jobs, each some rated records of one customer. Out: for each event that today's versions judge otherwise
one signed pair in its own service period, or a hold, or a rejection; nothing where nothing changes. It looks only at
what is in force now, so it does not matter how many versions came since, or in which order.

Source: docs/semantics.md section 3 (a backdated version).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import fates, wide
from tieout.fates import Work
from tieout.holds import Held
from tieout.ids import Lanes, combine, of_strings
from tieout.names import NONE
from tieout.rating.adjustments import QUANTITY
from tieout.rating.history import Known, known
from tieout.rating.moves import Amounts, Shifted, shift
from tieout.rating.rated import Carried, Fast, Moved, carried_table, moved_tables
from tieout.rating.rater import Application, Change
from tieout.rating.tariff import Tariff
from tieout.repricing_jobs import Job, Slice
from tieout.stage import DeadLetter
from tieout.usage import identities

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def reprice(work: Work, slices: Sequence[Slice]) -> list[pa.Table]:
    """Look at what the slices hold, and let their jobs go on; the records of what moved by columns."""
    tables: list[pa.Table] = []
    for part in slices:
        if part.rows.num_rows:
            made, left = by_columns(work, part)
            tables += made
            for event in known(left) if left.num_rows else ():
                _again(work, part.job, event)
    if slices:
        work.state.jobs.advance(list(slices))
    return tables


def _again(work: Work, job: Job, found: Known) -> None:
    """Judge one event again; its live applications become those of the tariffs that it meets now."""
    state, event = work.state, found.event
    name = (event.customer_id, event.key)
    if name in state.voided or not found.live:
        return
    reason, tariffs = fates.judged(state, event)
    old = [state.tariffs.find(*place) for place in found.live]
    new = () if reason else tariffs
    numbers = {tariff.number for tariff in new}
    if numbers == {tariff.number for tariff in old}:
        return
    stay = [tariff for tariff in old if tariff.number in numbers]
    gone = [_live(work, found, tariff) for tariff in old if tariff.number not in numbers]
    come = [state.rater.meet(event, tariff) for tariff in new if tariff not in stay]
    before = len(state.rater.rows)
    for out, into, change in _pairs(job, gone, come):
        if out is not None and into is not None:
            state.rater.move(out, into, change, -1)
        elif out is not None:
            state.rater.leave(out, change, -1)
        elif into is not None:
            state.rater.enter_again(into, change, -1)
    for met in gone:
        fates.forget(work, event.customer_id, met)
    for met in come:
        fates.remember(work, event.customer_id, met)
    work.met[name] = [*(_live(work, found, tariff) for tariff in stay), *come]
    if reason is not None:
        _withdraw(work, found, reason, -sum(row.amount for row in state.rater.rows[before:]), {tariff.contract.currency for tariff in old})


def _withdraw(work: Work, found: Known, reason: str, amount: int, currencies: set[str]) -> None:
    """Hold an event that was priced, or reject it where its contract waives such usage; ``amount`` is what went with it."""
    event = found.event
    work.counts.withdrawn += 1
    if reason == "waived":
        work.counts.rejected += 1
        work.dead.append(DeadLetter(event.position, "waived", fates.WAIVED, value=b""))  # where its topic no longer keeps it
    else:
        taken_back = (amount, next(iter(currencies))) if len(currencies) == 1 else None
        fates.wait(work, Held(event, reason, max(work.state.clock, 0), event.time, b"", was_priced=True, taken_back=taken_back))


def _live(work: Work, found: Known, tariff: Tariff) -> Application:
    """An application as it is kept, or as running quantities know it."""
    event = found.event
    kept = work.state.rater.events.get((event.customer_id, event.key), ())
    return next((met for met in kept if met.tariff.number == tariff.number), None) or work.state.rater.meet(event, tariff)


def _pairs(job: Job, gone: list[Application], come: list[Application]) -> Iterator[tuple[Application | None, Application | None, Change]]:
    """Applications of the same charge of a contract together, with the versions before and after."""
    before = {met.tariff.contract.contract_id: met.tariff.contract.version for met in gone}
    after = {met.tariff.contract.contract_id: met.tariff.contract.version for met in come}
    waiting = {(met.tariff.contract.contract_id, met.tariff.charge.charge_id): met for met in come}
    for out in gone:
        contract = out.tariff.contract.contract_id
        into = waiting.pop((contract, out.tariff.charge.charge_id), None)
        yield out, into, Change(job.ref, before[contract], after.get(contract))
    for (contract, _), into in waiting.items():
        yield None, into, Change(job.ref, before.get(contract), after[contract])


class _Plain(NamedTuple):
    """Events that columns can judge: their records' rows, and one entry an event."""

    rows: Mask
    """Which records of the slice are theirs."""
    first: I64
    """The record of each event's usage."""
    version: I64
    """The version under which it is live now."""


def by_columns(work: Work, part: Slice) -> tuple[list[pa.Table], pa.RecordBatch]:
    """Judge again what is plain and move it a chain at a time: the records made, and the records of the other events."""
    state, rows = work.state, part.rows
    corrected = {name[1] for name in work.batch.originals if name[0] == part.job.customer_id}
    plain = _plain(rows, {key.event_id for key in corrected})
    first, columns = plain.first, state.book.columns
    if not len(first):
        return [], rows
    time = rows["time"].cast(pa.int64()).to_numpy()[first]
    words = of_strings(pa.array([part.job.customer_id]))
    governs = state.tariffs.tag(words, np.zeros(len(first), np.int64), time)
    meters = pc.dictionary_encode(rows["meter"].take(pa.array(first)))
    codes, names = meters.indices.to_numpy().astype(np.int64), meters.dictionary.to_pylist()
    contracts = pc.dictionary_encode(rows["contract_id"].take(pa.array(first)))
    contract = np.array([columns.contracts.find(name) for name in contracts.dictionary.to_pylist()], np.int64)[contracts.indices.to_numpy()]
    pairs, again = np.unique(np.stack([contract, plain.version], axis=1), axis=0, return_inverse=True)
    before = np.array([columns.row_of(int(owner), int(number)) for owner, number in pairs], np.int64)[again.ravel()]
    old = state.tariffs.solo(before, codes, names)
    new = np.full(len(first), NONE, np.int64)
    governed = np.nonzero(governs >= 0)[0]
    new[governed] = state.tariffs.solo(governs[governed], codes[governed], names)
    judged = (old >= 0) & (new >= 0)
    moves = np.nonzero(judged & (old != new))[0]
    made: list[pa.Table] = []
    if len(moves):
        made, done = _move(work, part, first[moves], time[moves], old[moves], new[moves])
        judged[moves] = done
    return made, rows.filter(pa.array(~_of_events(plain, judged)))


def _plain(rows: pa.RecordBatch, corrected: set[str]) -> _Plain:
    """The events whose records show one charge of one contract and no correction."""
    n = rows.num_rows
    usage, cause = rows["usage"], rows["cause"]
    source, name = (_codes(usage.field(part)) for part in ("source", "id"))
    fresh = np.r_[True, (source[1:] != source[:-1]) | (name[1:] != name[:-1])]
    first = np.nonzero(fresh)[0]
    kind = pc.cast(cause.field("kind"), pa.string())
    version = rows["contract_version"].to_numpy().astype(np.int64)
    leaves = np.asarray(pc.equal(kind, "reprice")) & (cause.field("from_version").fill_null(-1).to_numpy() == version)
    charge, contract = _codes(rows["charge_id"]), _codes(rows["contract_id"])
    of = np.cumsum(fresh) - 1
    event = rows["event"]
    own = np.asarray(pc.equal(kind, "usage"))
    odd = np.asarray(pc.equal(kind, "correction")) | (charge != charge[first][of]) | (contract != contract[first][of])
    odd |= (own != fresh) | np.asarray(event.field("contract_id").is_valid()) & own
    good = np.add.reduceat(odd, first) == 0
    good &= np.add.reduceat(np.where(leaves, -1, 1), first) == 1
    last = np.r_[first[1:], n] - 1
    good &= ~leaves[last]
    if corrected:
        good &= ~np.asarray(pc.is_in(usage.field("id").take(pa.array(first)), pa.array(sorted(corrected))))
    return _Plain(good[of], first[good], version[last[good]])


def _codes(column: pa.Array) -> npt.NDArray[np.int32]:
    found: npt.NDArray[np.int32] = pc.dictionary_encode(column).indices.to_numpy()
    return found


def _of_events(plain: _Plain, chosen: Mask) -> Mask:
    """The records of some of the plain events; an event's lie together, its usage first."""
    at = np.nonzero(plain.rows)[0]
    owner = np.searchsorted(plain.first, at, side="right") - 1
    found = np.zeros(len(plain.rows), np.bool_)
    found[at] = chosen[owner]
    return found


def _move(work: Work, part: Slice, rows: I64, time: I64, old: I64, new: I64) -> tuple[list[pa.Table], Mask]:
    """Move events from their old tariffs to their new ones; the records, and which events it did."""
    state = work.state
    records = part.rows.take(pa.array(rows))
    usage, event = records["usage"], records["event"]
    events = pa.record_batch({"id": usage.field("id"), "source": usage.field("source"), "customer_id": records["customer_id"], "meter": records["meter"], "time": records["time"]})
    keys = combine(of_strings(records["customer_id"]), identities(events["source"], events["id"]))
    given = pc.coalesce(event.field("quantity"), records["quantity"])
    quantity, fits = wide.narrow(given)
    minus, index = np.full(len(rows), -1, np.int64), np.arange(len(rows))
    fasts = tuple(Fast.of(state.rater, index, minus, keys, time, tariff) for tariff in (old, new))
    quantities = tuple(np.where(fast.tariffs.count, QUANTITY, quantity) for fast in fasts)
    chains = [fast.line.chain for fast in fasts]
    able = fits & (quantity >= 0) & (chains[0] == chains[1])
    for fast, each in zip(fasts, quantities, strict=True):
        able &= ~fast.tariffs.by_version & (fast.tariffs.price >= 0) & (each <= fast.tariffs.safe)
    lanes = [np.zeros((len(rows), 2), np.uint64) for _ in fasts]
    done, carries = np.zeros(len(rows), np.bool_), []
    at = np.nonzero(able)[0]
    group = np.stack([chains[0][at], fasts[0].tariffs.version[at], fasts[1].tariffs.version[at]], axis=1)
    _, again = np.unique(group, axis=0, return_inverse=True)
    order = np.argsort(again.ravel(), kind="stable")
    for members in np.split(at[order], np.cumsum(np.bincount(again.ravel()))[:-1]) if len(at) else ():
        found = _shift(work, int(chains[0][members[0]]), fasts, quantities, members, old)
        if found is not None:
            done[members] = True
            for lane, amounts in zip(lanes, (found.out, found.into), strict=True):
                lane[members, 0], lane[members, 1] = amounts.high, amounts.low
            carries += [(members, version, amounts) for version, amounts in found.carries.items()]
    if not done.any():
        return [], done
    which = np.nonzero(done)[0]
    names = np.zeros((len(rows), 2), np.uint64)
    moved = Moved(
        events.take(pa.array(which)), part.job.ref, (fasts[0].tariffs.version[which], fasts[1].tariffs.version[which]),
        (fasts[0].take(which), fasts[1].take(which)), (quantities[0][which], quantities[1][which]),
        (Amounts(lanes[0][which, 0], lanes[0][which, 1]), Amounts(lanes[1][which, 0], lanes[1][which, 1])),
    )
    tables, names[which] = moved_tables(moved)
    for members, version, amounts in carries:
        tables.append(_carried(work, events, keys, time, names, members, int(old[members[0]]), version, amounts))
    return tables, done


def _shift(work: Work, chain: int, fasts: tuple[Fast, ...], quantities: tuple[I64, ...], members: I64, old: I64) -> Shifted | None:
    """Move one group: events of one chain with the same versions before and after."""
    state = work.state
    versions = int(fasts[0].tariffs.version[members[0]]), int(fasts[1].tariffs.version[members[0]])
    return shift(
        state.rater.chains, state.tariffs.table, chain, versions, (quantities[0][members], quantities[1][members]),
        lambda version: _price_number(work, int(old[members[0]]), version),
    )


def _price_number(work: Work, tariff: int, version: int) -> int:
    """The number of the price of the same charge in another version, -1 where the kernel has none."""
    state = work.state
    number = _sibling(work, tariff, version)
    return -1 if number is None else int(state.tariffs.charges.of(np.array([number], np.int64)).price[0])


def _sibling(work: Work, tariff: int, version: int) -> int | None:
    """The number of the same charge in another version of its contract."""
    tariffs = work.state.tariffs
    found = tariffs.charges.of(np.array([tariff], np.int64))
    other = tariffs.get(found.words("contract_id")[0].as_py(), version, found.words("charge_id")[0].as_py())
    return None if other is None else other.number


def _carried(
    work: Work, events: pa.RecordBatch, keys: Lanes, time: I64, names: Lanes, members: I64, tariff: int, version: int, amounts: Amounts,
) -> pa.Table:
    """The carries of one term."""
    at = np.nonzero((amounts.high != 0) | (amounts.low != 0))[0]
    chosen = members[at]
    other = np.full(len(chosen), _sibling(work, tariff, version), np.int64)
    fast = Fast.of(work.state.rater, np.arange(len(chosen)), np.full(len(chosen), -1, np.int64), keys[chosen], time[chosen], other)
    return carried_table(Carried(events.take(pa.array(chosen)), fast, amounts.take(at), names[chosen]))
