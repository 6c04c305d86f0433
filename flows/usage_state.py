"""What a commit of the usage flow writes so that its state can be restored, as versioned Arrow blobs.

In: what a batch changed (or the whole state). Out: records of ``_tieout.usage.state`` (key = kind of blob) and
``_tieout.usage.seen``; and back. A blob is one format byte and an Arrow IPC stream, never a pickle.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout.dedup import Entries
from tieout.holds import Held
from tieout.ids import EventKey
from tieout.rating.chains import Terms
from tieout.rating.rater import Application, Rater
from tieout.rating.tariff import Tariffs
from tieout.rejection import Rejects
from tieout.repricing_jobs import Job, Jobs
from tieout.usage import NO_CLOCK, UsageEvent
from tieout.usage_stage import Entry, Result, UsageState, restore_entry

FORMAT: Final = 2
FULL: Final = "full"
REJECTS: Final = "rejects"
JOBS: Final = "jobs"
PART_BYTES: Final = 700_000
SEEN_BYTES: Final = 900_000
_APPLICATION: Final = pa.schema([
    ("op", pa.string()), ("customer_id", pa.string()), ("source", pa.string()), ("id", pa.string()),
    ("contract_id", pa.string()), ("version", pa.int64()), ("charge_id", pa.string()), ("group", pa.list_(pa.string())),
    ("time", pa.int64()), ("position", pa.int64()), ("quantity", pa.string()), ("amount", pa.string()),
    ("text", pa.string()), ("cell", pa.int64()),
])
_HELD: Final = pa.schema([
    ("op", pa.string()), ("event", pa.string()), ("reason", pa.string()), ("at", pa.int64()),
    ("record_time", pa.int64()), ("value", pa.binary()), ("escalated", pa.bool_()), ("was_priced", pa.bool_()),
    ("taken_back", pa.string()), ("currency", pa.string()),
])
_BEGAN: Final = b"began"
_JOBS: Final = pa.schema([
    ("customer_id", pa.string()), ("contract_id", pa.string()), ("version", pa.int64()), ("time", pa.int64()), ("end_us", pa.int64()), ("identity", pa.uint64()),
])


class StateFormatError(ValueError):
    """A blob of another format than this build reads."""


def blob(table: pa.Table | pa.RecordBatch) -> bytes:
    """A table as bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return bytes([FORMAT]) + sink.getvalue().to_pybytes()


def blobs(kind: str, table: pa.Table) -> list[tuple[str, bytes]]:
    """A table as records of one kind, each of a size that a broker takes; nothing where it has no rows."""
    rows = max(1, table.num_rows * PART_BYTES // max(table.nbytes, 1))
    return [(kind, blob(table.slice(at, rows))) for at in range(0, table.num_rows, rows)]


def table_of(raw: bytes) -> pa.Table:
    """The table of a blob; StateFormatError names the format that is needed."""
    if raw[0] != FORMAT:
        msg = f"state blob of format {raw[0]}, this build reads {FORMAT}; run the release that wrote it, or rebuild the state"
        raise StateFormatError(msg)
    return pa.ipc.open_stream(pa.py_buffer(raw)[1:]).read_all()


def entries_blobs(entries: Entries) -> list[bytes]:
    """Identities to remember, each blob of a size that a broker takes; nothing where there are none."""
    rows = len(entries.position)
    if not rows:
        return []
    first = {"remembered_at": str(entries.remembered_at[0]), "position": str(entries.position[0])}
    raw = blob(pa.table({
        "high": entries.keys[:, 0], "low": entries.keys[:, 1], "digest": entries.digest,
        **_steps("remembered_at", entries.remembered_at), **_steps("position", entries.position),
    }, metadata=first))
    if len(raw) <= SEEN_BYTES or rows == 1:
        return [raw]
    return [*entries_blobs(entries.slice(0, rows // 2)), *entries_blobs(entries.slice(rows // 2, rows))]


def entries_of(raw: bytes) -> Entries:
    """And back."""
    table = table_of(raw)
    keys = np.stack([table["high"].to_numpy(), table["low"].to_numpy()], axis=1)
    return Entries(keys, table["digest"].to_numpy(), _of_steps(table, "remembered_at"), _of_steps(table, "position"))


def _steps(name: str, values: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.uint8]]:
    """What a column rises by from row to row, by bytes: most are zero, and columns of zeros are left out."""
    step = np.diff(values, prepend=values[:1])
    folded = (step << 1 ^ step >> 63).astype("<i8").view(np.uint8).reshape(-1, 8)  # small whatever its sign
    return {f"{name}_{place}": np.ascontiguousarray(folded[:, place]) for place in range(8) if folded[:, place].any()}


def _of_steps(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    folded = np.zeros((table.num_rows, 8), np.uint8)
    for place in range(8):
        if f"{name}_{place}" in table.column_names:
            folded[:, place] = table[f"{name}_{place}"].to_numpy()
    odd_even = folded.view("<i8")[:, 0]
    step = (odd_even >> 1 & np.int64(2**63 - 1)) ^ -(odd_even & 1)
    return np.cumsum(step) + int(table.schema.metadata[name.encode()])


def changes(state: UsageState, result: Result) -> list[tuple[str, bytes]]:
    """What a batch changed, as (kind, blob)."""
    rows = [*((held, "add") for held in result.held), *((held, "remove") for held in result.unheld)]
    return [
        *blobs("terms", _terms_table(result.terms)),
        *blobs("journal", _journal_table(result.journal)),
        *blobs("held", _held_table(_final(state, rows))),
        *blobs("levels", _levels_table(state.rater, state.rater.take_touched_levels())),
        *_jobs_blobs(state.jobs, whole=False),
        *_rejects_blobs(state.rejects, whole=False),
    ]


def _final(state: UsageState, rows: Iterable[tuple[Held, str]]) -> Iterator[tuple[Held, str]]:
    """Of each event only whether it waits now: it may have come and gone within the batch."""
    seen = set()
    for held, _ in rows:
        name = (held.event.customer_id, held.event.key)
        if name not in seen:
            seen.add(name)
            now = state.waiting.find(*name)
            yield (now, "add") if now is not None else (held, "remove")


def whole(state: UsageState) -> list[tuple[str, bytes]]:
    """The full state but for identities, which have a log of their own."""
    journal = [Entry("add", met, customer, key) for (customer, key), all_ in state.rater.events.items() for met in all_]
    journal += [Entry("voided", None, customer, key) for customer, key in sorted(state.voided)]
    state.rater.take_touched_levels()
    return [
        (FULL, b""),
        *blobs("terms", _terms_table(state.rater.chains.all_terms())),
        *blobs("journal", _journal_table(journal)),
        *blobs("held", _held_table((held, "add") for held in state.waiting.all())),
        *blobs("levels", _levels_table(state.rater, set(state.rater.levels))),
        *_jobs_blobs(state.jobs, whole=True),
        *_rejects_blobs(state.rejects, whole=True),
    ]


def restore(state: UsageState, blobs: Iterable[tuple[str, bytes]], clock: int) -> None:
    """Put the blobs of all commits back, in their order; contracts are known already."""
    terms: list[Terms] = []
    entries: list[Entry] = []
    levels: dict[tuple[object, ...], dict[tuple[int, int], int]] = {}
    held: dict[tuple[str, EventKey], Held] = {}
    rejects: bytes | None = None
    for kind, raw in blobs:
        match kind:
            case _ if kind == FULL:
                terms, entries, levels, held, rejects = [], [], {}, {}, None
                state.jobs = Jobs()
            case _ if kind == JOBS:
                state.jobs = _jobs_of(raw)
            case _ if kind == REJECTS:
                rejects = raw
            case "terms":
                terms.append(_terms_of(raw))
            case "journal":
                entries += _journal_of(raw, state.tariffs)
            case "held":
                for op, waits in _held_of(raw):
                    name = (waits.event.customer_id, waits.event.key)
                    held.pop(name, None)
                    if op == "add":
                        held[name] = waits
            case _:
                levels.update(_levels_of(raw))
    rater = state.rater
    rater.clock = clock
    for entry in entries:
        restore_entry(state, entry)
    rater.rows = []
    for place, found in levels.items():
        if place in rater.levels:
            rater.levels[place].terms = found
    rater.take_touched_levels()
    rater.chains.take_changes()
    if terms:
        rater.chains.restore(Terms(
            np.concatenate([t.keys for t in terms]), np.concatenate([t.rank for t in terms]),
            pa.concat_arrays([t.quantity for t in terms]), np.concatenate([t.live for t in terms]),
        ))
    for waits in sorted(held.values(), key=lambda waits: waits.at):
        state.waiting.add(waits)
    if rejects is not None and state.rejects is not None:
        put_rejects_back(state.rejects, rejects)


def _jobs_blobs(jobs: Jobs, *, whole: bool) -> list[tuple[str, bytes]]:
    """All jobs where one has changed: they are few, and each record stands for all."""
    changed = jobs.take_change()
    if not (jobs.queue or jobs.began != NO_CLOCK if whole else changed):
        return []
    table = pa.Table.from_pylist([asdict(job) for job in jobs.queue], schema=_JOBS)
    return [(JOBS, blob(table.replace_schema_metadata({_BEGAN: str(jobs.began)})))]


def _jobs_of(raw: bytes) -> Jobs:
    table = table_of(raw)
    return Jobs([Job(**row) for row in table.to_pylist()], int((table.schema.metadata or {}).get(_BEGAN, NO_CLOCK)))  # earlier releases do not say it


def _rejects_blobs(rejects: Rejects | None, *, whole: bool) -> list[tuple[str, bytes]]:
    """The window where it has changed, in a full state where it is not empty; a commit's last, so that a pause is found at the end."""
    if rejects is None:
        return []
    changed = rejects.take_change()
    if not (len(rejects.numbers) if whole else changed):
        return []
    columns = {"row": pa.array(rejects.numbers), "reason": pa.array(rejects.reasons, pa.string())}
    return [(REJECTS, blob(pa.table(columns, metadata={"paused": str(int(rejects.paused))})))]


def put_rejects_back(rejects: Rejects, raw: bytes) -> None:
    """The window of such a blob."""
    table = table_of(raw)
    rejects.put_back(table["row"].to_numpy(), table["reason"].to_pylist(), paused=table.schema.metadata[b"paused"] == b"1")


def _terms_table(terms: Terms) -> pa.Table:
    return pa.table({
        "high": terms.keys[:, 0], "low": terms.keys[:, 1], "rank": terms.rank, "quantity": terms.quantity, "live": terms.live,
    })


def _terms_of(raw: bytes) -> Terms:
    table = table_of(raw)
    keys = np.stack([table["high"].to_numpy(), table["low"].to_numpy()], axis=1)
    return Terms(keys, table["rank"].to_numpy(), table["quantity"].combine_chunks(), table["live"].to_numpy())


def _journal_table(journal: Iterable[Entry]) -> pa.Table:
    return pa.Table.from_pylist([_entry_row(entry) for entry in journal], schema=_APPLICATION)


def _entry_row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"op": entry.op, "customer_id": entry.customer_id, "source": entry.key.source, "id": entry.key.event_id}
    met = entry.met
    if met is not None:
        row |= {
            "contract_id": met.tariff.contract.contract_id, "version": met.tariff.contract.version,
            "charge_id": met.tariff.charge.charge_id, "group": None if met.group is None else list(met.group),
            "time": met.time, "position": met.position, "quantity": str(met.quantity),
            "amount": None if met.amount is None else str(met.amount), "text": met.text, "cell": met.cell,
        }
    return row


def _journal_of(raw: bytes, tariffs: Tariffs) -> Iterator[Entry]:
    for row in table_of(raw).to_pylist():
        key = EventKey(row["source"], row["id"])
        met = None
        if row["contract_id"] is not None:
            tariff = tariffs.find(row["contract_id"], row["version"], row["charge_id"])
            group = None if row["group"] is None else tuple(row["group"])
            amount = None if row["amount"] is None else int(row["amount"])
            met = Application(
                key, tariff, group, tariff.calendar.containing(row["time"]), row["time"], row["position"],
                int(row["quantity"]), amount, row["text"], row["cell"],
            )
        yield Entry(row["op"], met, row["customer_id"], key)


def _held_table(rows: Iterable[tuple[Held, str]]) -> pa.Table:
    return pa.Table.from_pylist([
        {
            "op": op, "event": json.dumps(_event_row(held.event)), "reason": held.reason, "at": held.at,
            "record_time": held.record_time, "value": held.value, "escalated": held.escalated,
            "was_priced": held.was_priced, "taken_back": None if held.taken_back is None else str(held.taken_back[0]),
            "currency": None if held.taken_back is None else held.taken_back[1],
        }
        for held, op in rows
    ], schema=_HELD)


def _event_row(event: UsageEvent) -> list[Any]:
    corrects = None if event.corrects is None else list(event.corrects)
    voids = None if event.voids is None else list(event.voids)
    return [
        *event.key, event.customer_id, event.meter, event.time, event.quantity, event.attributes, event.contract_id,
        event.amount, corrects, voids, event.position,
    ]


def _held_of(raw: bytes) -> Iterator[tuple[str, Held]]:
    for row in table_of(raw).to_pylist():
        source, name, customer, meter, time, quantity, attributes, contract, amount, corrects, voids, position = json.loads(row["event"])
        event = UsageEvent(
            EventKey(source, name), customer, meter, time, quantity, attributes, contract, amount,
            None if corrects is None else EventKey(*corrects), None if voids is None else EventKey(*voids), position,
        )
        taken_back = None if row.get("taken_back") is None else (int(row["taken_back"]), row["currency"])  # earlier releases do not say it
        yield row["op"], Held(event, row["reason"], row["at"], row["record_time"], row["value"], row["escalated"], row["was_priced"], taken_back)


def _levels_table(rater: Rater, places: Iterable[tuple[object, ...]]) -> pa.Table:
    rows = [
        {"place": json.dumps(place), "terms": json.dumps([[*key, amount] for key, amount in rater.levels[place].terms.items()])}
        for place in sorted(places, key=repr)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([("place", pa.string()), ("terms", pa.string())]))


def _levels_of(raw: bytes) -> Iterator[tuple[tuple[object, ...], dict[tuple[int, int], int]]]:
    for row in table_of(raw).to_pylist():
        contract, charge, group = json.loads(row["place"])
        terms = {(start, version): amount for start, version, amount in json.loads(row["terms"])}
        yield (contract, charge, None if group is None else tuple(group)), terms
