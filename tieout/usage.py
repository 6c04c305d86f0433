"""Usage events as the domain sees them: columns for the kernels, one frozen record for what is done one by one.

In: a decoded batch in ``EVENTS``. Out: which rows are out of range or time (with a reason code, the field's path and
what to do), the partition's clock at each row, and the two hashes of a row: its identity and its content digest.
Source: docs/semantics.md sections 1 (the clock) and 2 (the order of checks, the content digest).
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids, wide
from tieout.ids import EventKey, Lanes

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_KEY = pa.struct([("source", pa.string()), ("id", pa.string())])
EVENTS: Final = pa.schema([
    ("id", pa.string()),
    ("source", pa.string()),  # with id the identity
    ("customer_id", pa.string()),
    ("meter", pa.string()),
    ("time", pa.timestamp("us", "UTC")),  # event time
    ("quantity", pa.decimal128(28, 9)),  # null only for a void
    ("attributes", pa.map_(pa.string(), pa.string())),
    ("contract_id", pa.string()),  # null: the only match
    ("amount", pa.decimal128(38, 12)),  # for dynamic prices
    ("corrects", _KEY),
    ("voids", _KEY),
])
NO_CLOCK: Final = -(2**62)
EARLIEST: Final = 0  # 1970-01-01
LATEST: Final = 253_402_300_800_000_000  # 10000-01-01
QUANTITY_LIMIT: Final = 10**28


class Rejected(NamedTuple):
    """Why one row was rejected: its place in the batch, a reason of the closed list, and what to do."""

    row: int
    reason: str
    message: str
    path: str | None


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One usage event. Quantity in 10^-9, amount in 10^-12, instants in UTC microseconds."""

    key: EventKey
    customer_id: str
    meter: str
    time: int
    quantity: int | None
    attributes: dict[str, str]
    contract_id: str | None
    amount: int | None
    corrects: EventKey | None
    voids: EventKey | None
    position: int

    @property
    def original(self) -> EventKey | None:
        """The event that this one corrects or voids."""
        return self.corrects or self.voids

    def lanes(self) -> tuple[int, int]:
        """The identity's hash."""
        return key_lanes(self.key)


def key_lanes(key: EventKey) -> tuple[int, int]:
    """The hash of one identity; the same as ``identities`` gives for a column."""
    pair = identities(pa.array([key.source]), pa.array([key.event_id]))
    return int(pair[0, 0]), int(pair[0, 1])


def identities(source: pa.Array, event_id: pa.Array) -> Lanes:
    """The hash of (source, id), row by row."""
    return ids.combine(ids.of_strings(_encoded(source)), ids.of_strings(event_id))


def clocks(start: int, time: I64, record_time: I64, counts: Mask) -> I64:
    """The partition's clock at each row: the largest ``min(event time, record time)`` of the counted rows so far."""
    if not len(time):
        return time
    steps = np.where(counts, np.minimum(time, record_time), NO_CLOCK)
    steps[0] = max(int(steps[0]), start)
    return np.maximum.accumulate(steps)


def coded(events: pa.RecordBatch) -> pa.RecordBatch:
    """The same with customers and meters as codes of their distinct words: hashed and looked up once a word."""
    for name in ("customer_id", "meter"):
        events = events.set_column(events.schema.get_field_index(name), name, _encoded(events[name]))
    return events


def content_digests(events: pa.RecordBatch, customers: Lanes | None = None) -> npt.NDArray[np.uint64]:
    """64 bits over what an event says besides its identity: resolved fields, decimals normalised.

    ``customers`` are the hashes of the distinct customers where they are known already.

    Fields enter by a sum over their hashes, each with its place, and so do map entries, whose order does not matter; a
    field that is null adds nothing, so a field added later counts only where it is given.
    """
    numbers = np.stack(wide.lanes_of(events["quantity"]), axis=1)
    if events["quantity"].null_count:
        numbers[events["quantity"].is_null().to_numpy(zero_copy_only=False)] = 1 << 63  # no quantity has this upper lane
    time = events["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
    out = ids.combine(ids.of_integers(time), numbers)[:, 0] + _map_sums(events["attributes"])
    for place, name in enumerate(("customer_id", "meter")):
        column = _encoded(events[name])
        words = customers if name == "customer_id" and customers is not None else ids.of_strings(column.dictionary)
        out += ids.combine(words, ids.of_integers(np.array([place])))[:, 0].take(column.indices.to_numpy())
    for place, name in enumerate(("contract_id", "amount", "corrects", "voids")):
        column = events[name]
        if column.null_count < len(column):
            out += _rare(column, place)
    return out


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    """A column's words as codes; a column of one word, as of an attribute that all events have alike, is compared and not looked up."""
    if pa.types.is_dictionary(column.type):
        return column
    if _alike(column):
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(column), np.int32)), column.slice(0, 1), safe=False)
    return pc.dictionary_encode(column)


def _alike(column: pa.Array) -> bool:
    """Whether all rows of a column are surely the same word: each as long as the one before it, byte by byte the same."""
    if column.type != pa.string() or not len(column) or column.null_count:
        return False
    ends = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1, 4 * column.offset)
    size = int(ends[1] - ends[0])
    if not size or (np.diff(ends) != size).any():
        return False
    raw = np.frombuffer(column.buffers()[2], np.uint8)[ends[0] : ends[-1]]
    return bool((raw[size:] == raw[:-size]).all())


def _map_sums(column: pa.MapArray) -> npt.NDArray[np.uint64]:
    offsets = column.offsets.to_numpy()
    first, last = int(offsets[0]), int(offsets[-1])
    keys, values = (_encoded(part.slice(first, last - first)) for part in (column.keys, column.items))
    running = np.zeros(last - first + 1, np.uint64)
    np.cumsum(_pair_hashes(keys, values), out=running[1:])
    return running[offsets[1:] - first] - running[offsets[:-1] - first]


def _pair_hashes(left: pa.DictionaryArray, right: pa.DictionaryArray) -> npt.NDArray[np.uint64]:
    """64 bits of each row's ordered pair of words; once a pair of distinct words where these pairs are fewer than the rows."""
    if len(left.dictionary) * len(right.dictionary) >= len(left):
        return ids.combine(ids.of_strings(left), ids.of_strings(right))[:, 0]
    n = len(right.dictionary)
    first, second = ids.of_strings(left.dictionary), ids.of_strings(right.dictionary)
    pairs = ids.combine(first.repeat(n, axis=0), np.tile(second, (len(first), 1)))[:, 0]
    return pairs.take(left.indices.to_numpy().astype(np.int64) * n + right.indices.to_numpy())


def _rare(column: pa.Array, place: int) -> npt.NDArray[np.uint64]:
    """Fields that most events lack: hashed one by one, zero where null."""
    out = np.zeros(len(column), np.uint64)
    for row in np.nonzero(column.is_valid().to_numpy(zero_copy_only=False))[0].tolist():
        value = column[row].as_py()
        parts = tuple(value.values()) if isinstance(value, dict) else (str(value),)  # an amount's column has one scale
        out[row] = ids.lanes((place, *parts))[0]
    return out


def out_of_range(events: pa.RecordBatch, rows: I64) -> tuple[Mask, list[Rejected]]:
    """Rows whose fields are missing or impossible, whatever the contracts say; ``rows`` are their places."""
    n = events.num_rows
    bad = np.zeros(n, np.bool_)
    rejected: list[Rejected] = []

    def reject(mask: Mask, reason: str, path: str, message: str) -> None:
        rejected.extend(Rejected(int(rows[i]), reason, message, path) for i in np.nonzero(mask & ~bad)[0].tolist())
        bad[mask] = True

    for name in ("id", "source", "customer_id", "meter"):
        column = events[name] if not pa.types.is_dictionary(events[name].type) else events[name].cast(pa.string())
        empty = pc.binary_length(column).to_numpy(zero_copy_only=False) == 0
        if empty.any():
            reject(empty, "field_missing", name, f"'{name}' is empty; every usage event needs it")
    time = events["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
    reject((time < EARLIEST) | (time >= LATEST), "field_invalid", "time", "'time' must lie in the years 1970 to 9999")
    corrects, voids = _given(events["corrects"]), _given(events["voids"])
    quantity = _given(events["quantity"])
    reject(~quantity & ~voids, "field_missing", "quantity", "'quantity' is required unless 'voids' is given")
    if corrects.any() or voids.any():
        reject(corrects & voids, "field_invalid", "corrects", "an event either corrects or voids another; split it in two")
    if _given(events["amount"]).any():
        negative = wide.lanes_of(events["amount"])[0] >> np.uint64(63) == 1
        reject(negative & _given(events["amount"]), "field_invalid", "amount", "'amount' is negative; void the event instead")
    return bad, rejected


def _given(column: pa.Array) -> Mask:
    if column.null_count == 0:
        return np.ones(len(column), np.bool_)
    if column.null_count == len(column):
        return np.zeros(len(column), np.bool_)
    return _mask(column.is_valid())


def _mask(column: pa.Array) -> Mask:
    return column.fill_null(False).to_numpy(zero_copy_only=False)


def negative(events: pa.RecordBatch) -> Mask:
    """Rows with a quantity below 0."""
    if events.num_rows == 0:
        return np.zeros(0, np.bool_)
    return (wide.lanes_of(events["quantity"])[0] >> np.uint64(63) == 1) & _given(events["quantity"])


def records(events: pa.RecordBatch, positions: I64) -> list[UsageEvent]:
    """Rows as single events: for what cannot be done by columns."""
    quantities, amounts = wide.integers(events["quantity"]), wide.integers(events["amount"])
    times = events["time"].cast(pa.int64()).to_pylist()
    columns = [events[name].to_pylist() for name in ("source", "id", "customer_id", "meter", "contract_id", "attributes", "corrects", "voids")]
    return [
        UsageEvent(
            EventKey(source, event_id), customer, meter, time, quantity, dict(attributes or ()), contract, amount,
            _key(corrects), _key(voids), position,
        )
        for source, event_id, customer, meter, contract, attributes, corrects, voids, time, quantity, amount, position in zip(
            *columns, times, quantities, amounts, positions.tolist(), strict=True
        )
    ]


def _key(value: dict[str, str] | None) -> EventKey | None:
    return None if value is None else EventKey(value["source"], value["id"])
