"""CloudEvents in Kafka's binary mode: what a usage event leaves empty is in the record's headers.

In: decoded usage events and the headers of their records. Out: the same events with the empty ones of ``id``,
``source``, ``customer_id``, ``meter`` (empty text) and ``time`` (0) filled from ``ce_id``, ``ce_source``,
``ce_subject``, ``ce_type`` and ``ce_time``; which rows were filled; and rows whose header cannot be read. What the body
says stands, whatever the headers say. Source: docs/interfaces.md (usage event).
"""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.codec import Decoded
from tieout.contracts import instant
from tieout.period import micros
from tieout.usage import Rejected

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_HEADERS: Final = {"id": "ce_id", "source": "ce_source", "customer_id": "ce_subject", "meter": "ce_type", "time": "ce_time"}
_FINER: Final = re.compile(r"\.\d{6}\d*[1-9]")
"""Fractions of a second beyond the microsecond."""


@dataclass(frozen=True, slots=True)
class Filled:
    """Events with what their headers say, which rows of them that changed, and which cannot be read (rows of the lot)."""

    batch: pa.RecordBatch
    filled: Mask
    rejected: list[Rejected]


def fill(decoded: Decoded, headers: pa.ListArray) -> Filled:
    """Fill what events leave empty; ``headers`` are those of every row of the lot, null where it has none."""
    batch, filled = decoded.batch, np.zeros(decoded.batch.num_rows, np.bool_)
    rejected: list[Rejected] = []
    if headers.null_count == len(headers):
        return Filled(batch, filled, rejected)
    given = headers.take(pa.array(decoded.rows))
    owner = np.repeat(np.arange(len(given)), pc.list_value_length(given).fill_null(0).to_numpy(zero_copy_only=False))
    pairs = given.flatten()
    for name, header in _HEADERS.items():
        empty = _empty(batch[name])
        at = np.nonzero(_mask(pc.equal(pairs.field("key"), header)) & empty[owner])[0] if empty.any() else owner[:0]
        at = at[_mask(pc.greater(pc.binary_length(pairs.field("value").take(pa.array(at))), 0))]
        if len(at):
            rows, last = np.unique(owner[at][::-1], return_index=True)
            values, unread = _values(name, pairs.field("value").take(pa.array(at[::-1][last])))
            rejected += [Rejected(int(decoded.rows[rows[row]]), "field_invalid", f"header {header}: {why}; repair the producer", name) for row, why in unread.items()]
            filled[rows] = True
            batch = _with(batch, name, rows, values)
    return Filled(batch, filled, rejected)


def _empty(column: pa.Array) -> Mask:
    if pa.types.is_timestamp(column.type):
        return _mask(pc.equal(column.cast(pa.int64()), 0))
    return _mask(pc.equal(pc.binary_length(column), 0))


def _mask(column: pa.Array) -> Mask:
    found: Mask = column.fill_null(False).to_numpy(zero_copy_only=False)
    return found


def _values(name: str, raw: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Headers' values as their field holds them, and why some cannot be read, by row."""
    if name != "time":
        try:
            return raw.cast(pa.string()), {}
        except pa.ArrowInvalid:  # not UTF-8: one of them, so each is looked at
            pass
    values: list[str | int | None] = []
    unread: dict[int, str] = {}
    for row, each in enumerate(raw.to_pylist()):  # a time is text: Arrow reads few of its forms, and rounds
        try:
            values.append(_instant(each.decode()) if name == "time" else each.decode())
        except ValueError as error:
            values.append(None)
            unread[row] = str(error)
    return pa.array(values, pa.int64() if name == "time" else pa.string()), unread


def _instant(text: str) -> int:
    if _FINER.search(text):
        msg = f"{text!r} is finer than a microsecond"
        raise ValueError(msg)
    return micros(instant(text))


def _with(batch: pa.RecordBatch, name: str, rows: I64, values: pa.Array) -> pa.RecordBatch:
    """A batch with the values of some rows in a column; a null leaves the row as it is."""
    at = batch.schema.get_field_index(name)
    column = batch.column(at)
    read = _mask(values.is_valid())
    mask = np.zeros(len(column), np.bool_)
    mask[rows[read]] = True
    return batch.set_column(at, batch.schema.field(at), pc.replace_with_mask(column, pa.array(mask), values.drop_null().cast(column.type)))
