"""Rated records: the ids and columns of what was priced, whichever way it was.

In: the rows that the kernel priced, as columns, and the rows that were priced one by one. Out: one table in the order
of the batch's rows, an event's own record before the carries that follow from it, and the amounts by currency.

``rated_id`` hashes (usage, (((contract, charge, version), billing period), cause)), so that all but the usage is had from
its line; ``correlation_id`` (contract, charge, group, billing period). Source: docs/semantics.md section 1 (identity), docs/interfaces.md (rated usage).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids, money, wide
from tieout.ids import Lanes
from tieout.period import Calendar
from tieout.rating.chains import Chains, Priced, firsts, sorted_rows
from tieout.rating.lines import Line
from tieout.rating.moves import Amounts
from tieout.rating.rater import Rater, Row, group_lanes
from tieout.rating.tariff import Tariffs
from tieout.rating.tariff_columns import STATIC, TariffRows

I64 = npt.NDArray[np.int64]
KINDS: Final = ("usage", "reprice", "correction", "carry")
_KEY: Final = pa.struct([pa.field("source", pa.string(), nullable=False), pa.field("id", pa.string(), nullable=False)])
_CAUSE: Final = pa.struct([
    pa.field("kind", pa.dictionary(pa.int32(), pa.string()), nullable=False),
    pa.field("ref", pa.string()),
    pa.field("ref_source", pa.string()),
    pa.field("from_version", pa.int32()),
    pa.field("to_version", pa.int32()),
])
_EVENT: Final = pa.struct([
    pa.field("position", pa.int64()),
    pa.field("quantity", pa.decimal128(28, 9)),
    pa.field("attributes", pa.map_(pa.string(), pa.string()), nullable=False),
    pa.field("contract_id", pa.string()),
    pa.field("amount", pa.decimal128(38, 12)),
])
_FACTS: Final = [field.name for field in _EVENT]
_CAUSES: Final = {kind: ids.lanes(("cause", kind)) for kind in KINDS}
NO_GROUP: Final = ids.of_rows([(0, 0)])
_USED: Final = ["id", "source", "customer_id", "meter", "time", "quantity", "attributes", "contract_id", "amount"]
_OF_EVENTS: Final = ("customer_id", "meter")
"""What an event that the kernel prices has in common with its charge."""


class Rated(NamedTuple):
    """Rated records (all fields but ``batch_id``), and the sum of their amounts by currency in 10^-12."""

    table: pa.Table
    amounts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Fast:
    """Rows for the kernel: ``index`` into the batch's events, ``row`` their place in the log, one entry a row."""

    index: I64
    row: I64
    keys: Lanes
    time: I64
    tariffs: TariffRows
    start: I64
    label: pa.Array
    line: Line
    amount: pa.Array | None = None
    counted: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, rater: Rater, index: I64, row: I64, keys: Lanes, time: I64, tariff: I64) -> "Fast":
        """Place the rows in their billing periods and chains."""
        charges = rater.tariffs.charges
        found = charges.of(tariff)
        start, label = _periods(charges.calendars, found.calendar, time)
        line = rater.lines.of(tariff, start, lambda rows: _line(rater.chains, found.take(rows), start[rows]))
        return cls(index, row, keys, time, found, start, label, line)

    def priced(self, priced: Priced, counted: npt.NDArray[np.bool_]) -> "Fast":
        """Keep the rows that the kernel priced, with their amounts."""
        done = priced.done
        amount = wide.decimals(priced.high[done], priced.low[done], 38, 12)
        if done.all():
            return replace(self, amount=amount, counted=counted)
        at = np.nonzero(done)[0]
        return replace(self.take(at), amount=amount, counted=counted[at])

    def take(self, at: I64) -> "Fast":
        """Some of the rows, before they are priced."""
        return Fast(
            self.index[at], self.row[at], self.keys.take(at, axis=0), self.time[at], self.tariffs.take(at), self.start[at],
            self.label.take(pa.array(at)), self.line.take(at),
        )


def _line(chains: Chains, tariffs: TariffRows, start: I64) -> Line:
    """What lines of ungrouped charges have."""
    period = ids.of_integers(start)
    correlation = ids.combine(ids.combine(tariffs.correlation, NO_GROUP), period)
    chain = ids.combine(ids.combine(tariffs.chain, NO_GROUP), period) if tariffs.by_version.any() else correlation
    return Line(chains.rows(chain), correlation, ids.combine(ids.combine(tariffs.identity, period), ids.of_rows([_CAUSES["usage"]])))


def _periods(calendars: list[Calendar], code: npt.NDArray[np.signedinteger[Any]], time: I64) -> tuple[I64, pa.Array]:
    """The start and label of each row's billing period."""
    start, label = np.empty(len(time), np.int64), np.empty(len(time), np.int32)
    words: dict[str, int] = {}
    used = np.flatnonzero(np.bincount(code)).tolist()
    for number in used:
        at = np.nonzero(code == number)[0] if len(used) > 1 else slice(None)
        periods = calendars[number].spanning(int(time[at].min()), int(time[at].max()))
        if len(periods) == 1:
            start[at], label[at] = periods[0].start_us, words.setdefault(periods[0].label, len(words))
            continue
        starts = np.array([p.start_us for p in periods], np.int64)
        names = np.array([words.setdefault(p.label, len(words)) for p in periods], np.int32)
        place = np.searchsorted(starts, time[at], side="right") - 1
        start[at], label[at] = starts[place], names[place]
    return start, pa.DictionaryArray.from_arrays(pa.array(label), pa.array(list(words), pa.string()))


def rated_rows(tariffs: Tariffs, events: pa.RecordBatch, positions: I64, fast: Fast, singles: list[Row], before: Sequence[pa.Table] = ()) -> Rated:
    """All rated records of a batch, in the order of its rows; ``positions`` are those of the rows in their topic.

    ``before`` are records that come before the first row.
    """
    tables = list(before)
    order = [np.full(table.num_rows, -1, np.int64) for table in tables]
    if len(fast.index):
        tables.append(_fast_table(events, positions, fast))
        order.append(fast.row)
    if singles:
        tables.append(_single_table(tariffs, singles))
        order.append(np.array([row.row for row in singles], np.int64))
    if not tables:
        return Rated(_empty(), {})
    if len(tables) == 1:
        rows = order[0]
        table = tables[0]
        if (np.diff(rows) < 0).any():
            table = table.take(pa.array(np.argsort(rows, kind="stable")))
    else:
        plain = [_plain(table) for table in tables]
        table = pa.concat_tables(plain).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
    return Rated(table, _amounts(table))


def _fast_table(events: pa.RecordBatch, positions: I64, fast: Fast) -> pa.Table:
    n = len(fast.index)
    chosen = events.select(_USED) if n == events.num_rows else _chosen(events, fast.index)
    rated = ids.combine(fast.keys, fast.line.usage)
    quantity, other = chosen["quantity"], pa.nulls(n, _EVENT.field("quantity").type)
    if fast.counted is not None and fast.counted.any():
        other = pc.if_else(pa.array(fast.counted), quantity, other)
        high, low = wide.lanes_of(quantity)
        quantity = wide.decimals(np.where(fast.counted, 0, high).astype(np.uint64), np.where(fast.counted, 10**9, low).astype(np.uint64), 28, 9)
    cause = pa.StructArray.from_arrays(
        [_constant("usage", n), pa.nulls(n, pa.string()), pa.nulls(n, pa.string()), pa.nulls(n, pa.int32()), pa.nulls(n, pa.int32())],
        fields=list(_CAUSE),
    )
    event = pa.StructArray.from_arrays([pa.array(positions[fast.row]), other, chosen["attributes"], chosen["contract_id"], chosen["amount"]], names=_FACTS)
    return _columns(chosen, fast, rated, cause, quantity, fast.amount, event)


def _chosen(events: pa.RecordBatch, rows: I64) -> pa.RecordBatch:
    """What is used of some events; a column in which nothing is given is not looked through."""
    at = pa.array(rows)
    columns = [pa.nulls(len(at), column.type) if column.null_count == len(column) else column.take(at) for column in map(events.column, _USED)]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema([events.schema.field(name) for name in _USED]))


def _caused(fast: Fast, causes: Lanes) -> Lanes:
    """The ids of records by their causes, one a row or one for all."""
    return ids.combine(fast.keys, ids.combine(ids.combine(fast.tariffs.identity, ids.of_integers(fast.start)), causes))


def _columns(chosen: pa.RecordBatch, fast: Fast, rated: Lanes, cause: pa.Array, quantity: pa.Array, amount: pa.Array, event: pa.Array) -> pa.Table:
    """Rated records of the events ``chosen``, one a row."""
    n, found = len(rated), fast.tariffs
    return pa.table({
        "rated_id": ids.hexadecimal(rated),
        "correlation_id": ids.hexadecimal(fast.line.correlation),
        "usage": pa.StructArray.from_arrays([chosen["source"], chosen["id"]], names=["source", "id"]),
        "cause": cause,
        **{name: chosen[name] if name in _OF_EVENTS else found.words(name) for name in STATIC},
        "contract_version": pa.array(found.version.astype(np.int32)),
        "group": pa.nulls(n, pa.list_(pa.string())),
        "billing_period": fast.label,
        "time": chosen["time"],
        "quantity": quantity,
        "amount": amount,
        "event": event,
    })


@dataclass(frozen=True, slots=True)
class Moved:
    """Events moved from one version to another by columns: ``events`` has their columns, the rest one entry an event."""

    events: pa.RecordBatch
    ref: str
    versions: tuple[I64, I64]
    fast: tuple[Fast, Fast]
    quantities: tuple[I64, I64]
    amounts: tuple[Amounts, Amounts]


@dataclass(frozen=True, slots=True)
class Carried:
    """What else moved with them: the terms of other versions, by event."""

    events: pa.RecordBatch
    fast: Fast
    amounts: Amounts
    causes: Lanes
    """The ids of the records that each follows from."""


def moved_tables(moved: Moved) -> tuple[list[pa.Table], Lanes]:
    """The two records of each moved event, and the ids of the first ones."""
    cause_lanes = ids.of_rows([reprice_cause(moved.ref)])
    n = moved.events.num_rows
    names = [_caused(fast, cause_lanes) for fast in moved.fast]
    cause = pa.StructArray.from_arrays(
        [_constant("reprice", n), pa.array([moved.ref] * n, pa.string()), pa.nulls(n, pa.string()), *(pa.array(v.astype(np.int32)) for v in moved.versions)],
        fields=list(_CAUSE),
    )
    tables = []
    for fast, rated, quantity, amounts in zip(moved.fast, names, (-moved.quantities[0], moved.quantities[1]), moved.amounts, strict=True):
        signed = wide.decimals((quantity >> np.int64(63)).view(np.uint64), quantity.view(np.uint64), 28, 9)
        tables.append(_columns(moved.events, fast, rated, cause, signed, wide.decimals(amounts.high, amounts.low, 38, 12), _no_facts(n)))
    return tables, names[0]


def carried_table(carried: Carried) -> pa.Table:
    """A carry for each event whose leaving and entering moved a term between."""
    n = carried.events.num_rows
    rated = _caused(carried.fast, ids.combine(ids.of_rows([_CAUSES["carry"]]), carried.causes))
    cause = pa.StructArray.from_arrays(
        [_constant("carry", n), ids.hexadecimal(carried.causes), pa.nulls(n, pa.string()), pa.nulls(n, pa.int32()), pa.nulls(n, pa.int32())], fields=list(_CAUSE)
    )
    zero = wide.decimals(np.zeros(n, np.uint64), np.zeros(n, np.uint64), 28, 9)
    return _columns(carried.events, carried.fast, rated, cause, zero, wide.decimals(carried.amounts.high, carried.amounts.low, 38, 12), _no_facts(n))


def _no_facts(n: int) -> pa.Array:
    return pa.nulls(n, pa.struct([pa.field(field.name, field.type) for field in _EVENT]))


def _single_table(tariffs: Tariffs, rows: list[Row]) -> pa.Table:
    found = tariffs.charges.of(np.array([row.tariff.number for row in rows], np.int64))
    rated = row_ids(tariffs, rows)
    correlation = ids.combine(found.correlation, ids.of_rows([group_lanes(row.group) for row in rows]))
    correlation = ids.combine(correlation, ids.of_integers(np.array([row.period.start_us for row in rows], np.int64)))
    names = ids.hexadecimal(rated)
    parents = _parents(tariffs, rows)
    refs = [row.ref.event_id if row.ref else row.change.ref if row.change else parent for row, parent in zip(rows, parents, strict=True)]
    cause = pa.StructArray.from_arrays(
        [
            pa.array([KINDS.index(row.cause) for row in rows], pa.int32()),
            pa.array(refs, pa.string()),
            pa.array([row.ref.source if row.ref else None for row in rows], pa.string()),
            pa.array([row.change.from_version if row.change else None for row in rows], pa.int32()),
            pa.array([row.change.to_version if row.change else None for row in rows], pa.int32()),
        ],
        names=["kind", "ref", "ref_source", "from_version", "to_version"],
    )
    kind = pa.DictionaryArray.from_arrays(cause.field("kind"), pa.array(KINDS))
    cause = pa.StructArray.from_arrays([kind, *(cause.field(i) for i in range(1, 5))], fields=list(_CAUSE))
    usage = pa.StructArray.from_arrays(
        [pa.array([row.key.source for row in rows]), pa.array([row.key.event_id for row in rows])], names=["source", "id"]
    )
    return pa.table({
        "rated_id": names,
        "correlation_id": ids.hexadecimal(correlation),
        "usage": usage,
        "cause": cause,
        **{name: found.words(name) for name in STATIC},
        "contract_version": pa.array(found.version.astype(np.int32)),
        "group": pa.array([None if row.group is None else list(row.group) for row in rows], pa.list_(pa.string())),
        "billing_period": pa.array([row.period.label for row in rows]),
        "time": pa.array([row.time for row in rows], pa.int64()).cast(pa.timestamp("us", "UTC")),
        "quantity": wide.decimals_of([row.quantity for row in rows], 28, 9),
        "amount": wide.decimals_of([row.amount for row in rows], 38, 12),
        "event": pa.array([_facts(row) for row in rows], _EVENT),
    })


def _facts(row: Row) -> dict[str, Any] | None:
    """What a single row tells of its event beside what all records tell."""
    event = row.event
    if event is None:
        return None if row.new_quantity is None else {"quantity": money.decimal(row.new_quantity, money.QUANTITY_SCALE), "attributes": []}
    other = event.quantity if event.quantity != row.quantity else None
    return {
        "position": event.position, "quantity": None if other is None else money.decimal(other, money.QUANTITY_SCALE),
        "attributes": list(event.attributes.items()), "contract_id": event.contract_id,
        "amount": None if event.amount is None else money.decimal(event.amount, money.RATED_SCALE),
    }


def row_ids(tariffs: Tariffs, rows: list[Row]) -> Lanes:
    """The rated ids of single rows: first what events and corrections caused, then the carries that follow."""
    causes = []
    parents = [row.parent for row in rows if row.parent is not None]
    known = dict(zip(map(id, parents), _own_ids(tariffs, parents).tolist(), strict=True)) if parents else {}
    for row in rows:
        if row.parent is not None:
            causes.append(tuple(ids.combine(ids.of_rows([_CAUSES["carry"]]), ids.of_rows([known[id(row.parent)]]))[0].tolist()))
        else:
            causes.append(_own_cause(row))
    return _ids(tariffs, rows, ids.of_rows(causes))


def _own_ids(tariffs: Tariffs, rows: list[Row]) -> Lanes:
    return _ids(tariffs, rows, ids.of_rows([_own_cause(row) for row in rows]))


def _own_cause(row: Row) -> tuple[int, int]:
    if row.change is not None:
        return reprice_cause(row.change.ref, brought_back=row.change.from_version is None)
    return ids.lanes(("cause", row.cause, *row.ref)) if row.ref else _CAUSES[row.cause]


def reprice_cause(ref: str, *, brought_back: bool = False) -> ids.Pair:
    """The cause of what a version moves; an event that it brings back it may move on later, which is another cause."""
    return ids.lanes(("cause", "reprice", ref, "brought back")) if brought_back else ids.lanes(("cause", "reprice", ref))


def _ids(tariffs: Tariffs, rows: list[Row], causes: Lanes) -> Lanes:
    number = np.array([row.tariff.number for row in rows], np.int64)
    customer = pa.array([row.tariff.contract.customer_id for row in rows])
    source, name = pa.array([row.key.source for row in rows]), pa.array([row.key.event_id for row in rows])
    keys = ids.combine(ids.of_strings(customer), ids.combine(ids.of_strings(source), ids.of_strings(name)))
    period = ids.of_integers(np.array([row.period.start_us for row in rows], np.int64))
    return ids.combine(keys, ids.combine(ids.combine(tariffs.charges.lanes("identity", number), period), causes))


def _parents(tariffs: Tariffs, rows: list[Row]) -> list[str | None]:
    parents = [row.parent for row in rows if row.parent is not None]
    names = iter(ids.hexadecimal(_own_ids(tariffs, parents)).to_pylist() if parents else ())
    return [next(names) if row.parent is not None else None for row in rows]


def _constant(word: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([word]), safe=False)


def _plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as strings, so that tables of one batch can be put together."""
    columns = {
        name: table[name].cast(pa.string()) if pa.types.is_dictionary(table.schema.field(name).type) else table[name]
        for name in table.column_names
        if name not in ("cause", "event")
    }
    cause = table["cause"].combine_chunks()
    kind = cause.field("kind").cast(pa.string())
    columns["cause"] = pa.StructArray.from_arrays(
        [kind, *(cause.field(i) for i in range(1, 5))], names=[field.name for field in _CAUSE]
    )
    facts = table["event"].combine_chunks()
    kinds = [field.type for field in _EVENT]
    columns["event"] = pa.StructArray.from_arrays([column.cast(kind) for column, kind in zip(_fields(facts), kinds, strict=True)], names=_FACTS, mask=facts.is_null())
    return pa.table({name: columns[name] for name in table.column_names})


def _fields(column: pa.StructArray) -> list[pa.Array]:
    return [column.field(i) for i in range(column.type.num_fields)]


def _amounts(table: pa.Table) -> dict[str, int]:
    """The exact sum of the amounts of each currency; the table has rows."""
    currency = table["currency"].combine_chunks()
    encoded = currency if pa.types.is_dictionary(currency.type) else currency.dictionary_encode()
    order, codes = sorted_rows(encoded.indices.to_numpy())
    first = firsts(codes)
    names = encoded.dictionary.take(pa.array(codes[first])).to_pylist()
    return dict(zip(names, wide.signed_sums(wide.lanes_of(table["amount"].combine_chunks()), order, first), strict=True))


def _empty() -> pa.Table:
    return pa.table({"rated_id": pa.array([], pa.string())})


def amounts_by(batch: pa.RecordBatch, columns: tuple[str, ...]) -> dict[tuple[str, ...], Decimal]:
    """The exact sums of rated amounts by some string columns."""
    sums: dict[tuple[str, ...], Decimal] = {}
    keys = zip(*(batch[name].to_pylist() for name in columns), strict=True)
    for key, amount in zip(keys, batch["amount"].to_pylist(), strict=True):
        sums[key] = money.sum_exact(sums.get(key), amount)
    return sums
