"""Framed Avro bodies to Arrow columns, compiled from the writer's and the reader's schema.

In: values as they lie in a topic (byte 0, schema id in four bytes, body). Out: the good rows as a record batch of the
reader's schema, their places in the input, and each rejected row with its reason, the byte and the field. Writer
versions may be mixed in one batch, and learnt while values come: who has a registry asks ``unknown_ids`` before each
batch and adds what it fetched; who has none rejects values with an unknown id. A row that the columns cannot take is
shown to fastavro, whose word counts: if it reads the whole body, the row is good.
Source: docs/semantics.md section 2, the fate "rejected"; docs/decisions/0004-schema-ids.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import catalog
from schemas.alone import Alone
from schemas.catalog import Avro
from schemas.cursor import Buffer, Cursor
from schemas.faults import MESSAGES, Broken, Fault
from schemas.names import collect
from schemas.plan import Fields, Names, record
from schemas.readers import SchemaMismatch, joined

I64 = npt.NDArray[np.int64]
FRAME: Final = 5
_FEW: Final = 8
LONGEST: Final = 2**30
"""Bytes that are read as one buffer; positions inside of it are 32-bit numbers."""
_ASK: Final = (Fault.TRUNCATED, Fault.NEGATIVE_LENGTH, Fault.UTF8, Fault.TRAILING, Fault.MANY)
"""Faults on which fastavro is as strict as the columns are; on the others it would guess, round or fill the memory."""


class Refused(NamedTuple):
    """Why one value was rejected: its row in the input, a reason code, and what a person needs to repair it."""

    row: int
    reason: str
    message: str
    path: str | None
    schema_id: int | None


class Refusal(NamedTuple):
    """Why all values of one writer are rejected."""

    reason: str
    message: str
    path: str | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """The good rows, their places in the input (rising), and the rejected ones, by place."""

    batch: pa.RecordBatch
    rows: I64
    rejected: list[Refused]


_RUN: Final = 64
"""Rows of a run, on average, from which on runs are worth putting together."""


class Decoder:
    """Decodes the values of one topic into the reader's schema; ``writers`` are the writers' schemas by id."""

    def __init__(self, reader: catalog.Schema | Avro, writers: Mapping[int, Avro]) -> None:
        self._reader = fastavro.parse_schema(reader.avro if isinstance(reader, catalog.Schema) else reader)
        self.schema = pa.schema(list(catalog.arrow_type(self._reader, {})))
        self._plans: dict[int, _Plan | Refusal] = {}
        for number, writer in writers.items():
            self.add_writer(number, writer)

    def unknown_ids(self, values: pa.Array) -> list[int]:
        """Ids in the frames of a batch that no writer is known for, rising; values without a frame have none."""
        return [number for number in _distinct(_frame_ids(values)) if number not in self._plans]

    def add_writer(self, schema_id: int, writer: Avro) -> None:
        """Learn a writer's schema; an id stands for one schema for ever, so what is known already stays."""
        if schema_id not in self._plans:
            self._plans[schema_id] = _plan(fastavro.parse_schema(writer), self._reader, self.schema)

    def refuse_writer(self, schema_id: int, why: str) -> None:
        """Reject the values of an id that is known and cannot be read."""
        self._plans.setdefault(schema_id, Refusal("undecodable", why, None))

    def decode(self, values: pa.Array) -> Decoded:
        """Decode a batch of binary values; no row is lost, moved or changed by another."""
        if values.nbytes > LONGEST and len(values) > 1:
            half = len(values) // 2
            first, second = self.decode(values[:half]), self.decode(values[half:])
            places = [first.rows, second.rows + half]
            moved = [refused._replace(row=refused.row + half) for refused in second.rejected]
            return self._together([first.batch, second.batch], places, first.rejected + moved)
        buffer = Buffer(values)
        size = buffer.end - buffer.start
        head = buffer.words[buffer.start].byteswap() >> np.uint64(24)
        framed = (size >= FRAME) & (head < 2**32) & (size < LONGEST)
        number = np.where(framed, head.view(np.int64), -1)
        parts: list[pa.RecordBatch] = []
        places = []
        rejected: list[Refused] = []
        for schema_id in _distinct(number):
            rows = np.nonzero(number == schema_id)[0]
            plan = self._plans.get(schema_id)
            if schema_id < 0:
                rejected += [_unframed(buffer, row) for row in rows.tolist()]
            elif plan is None:
                message = f"schema id {schema_id} is not known here; register its schema, or repair the producer"
                rejected += [Refused(row, "schema_unknown", message, None, schema_id) for row in rows.tolist()]
            elif isinstance(plan, Refusal):
                rejected += [Refused(row, *plan, schema_id) for row in rows.tolist()]
            else:
                for batch, good in plan.decode(buffer, rows, schema_id, rejected):
                    parts.append(batch)
                    places.append(good)
        return self._together(parts, places, rejected)

    def read(self, value: bytes) -> dict[str, Any] | None:
        """One framed value as a record, by fastavro, where a batch would cost more; None where it cannot be read."""
        plan = self._plans.get(int.from_bytes(value[1:FRAME]))
        return plan.alone.read(value[FRAME:]) if isinstance(plan, _Plan) else None

    def _together(self, parts: list[pa.RecordBatch], places: list[I64], rejected: list[Refused]) -> Decoded:
        """Parts of a batch, back in the order of the input."""
        rejected.sort(key=lambda refused: refused.row)
        if not parts:
            columns = [pa.array([], field.type) for field in self.schema]
            return Decoded(_batch(columns, self.schema, 0), np.zeros(0, np.int64), rejected)
        if len(parts) == 1:
            return Decoded(parts[0], places[0], rejected)
        place = np.concatenate(places)
        order = pa.array(np.argsort(place, kind="stable"))
        columns = [joined([part.column(i) for part in parts], order) for i in range(len(self.schema))]
        return Decoded(_batch(columns, self.schema, len(place)), np.sort(place), rejected)


def _frame_ids(values: pa.Array) -> I64:
    """The ids of the values that have a frame, read where they lie: nothing is copied but the ids."""
    raw = values.cast(pa.large_binary()) if values.type != pa.large_binary() else values
    if not len(raw) or raw.buffers()[2] is None:
        return np.empty(0, np.int64)
    offsets = np.frombuffer(raw.buffers()[1], np.int64, len(raw) + 1, raw.offset * 8)
    data = np.frombuffer(raw.buffers()[2], np.uint8)
    framed = np.diff(offsets) >= FRAME
    if raw.null_count:
        framed &= raw.is_valid().to_numpy(zero_copy_only=False)
    start = offsets[:-1] if framed.all() else offsets[:-1][framed]
    if not len(start):
        return np.empty(0, np.int64)
    numbers = np.ndarray((len(data) - 3,), ">u4", buffer=raw.buffers()[2], strides=(1,))
    zero = data[start] == 0
    return numbers[(start if zero.all() else start[zero]) + 1].astype(np.int64)


def _distinct(number: I64) -> list[int]:
    """The numbers that occur, rising: nearly always one or two, so they are struck out one by one and nothing is sorted."""
    found: list[int] = []
    while len(number) and len(found) < _FEW:
        found.append(int(number[0]))
        number = number[number != found[-1]]
    return sorted([*found, *np.unique(number).tolist()])


def _batch(columns: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not columns:  # a record without fields: Arrow counts rows by a column
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _left(column: pa.Array, rows: I64, gone: list[int]) -> pa.Array:
    """A column of these rising rows without those that have gone since.

    Where few have gone, the runs between them are put together, which costs an eighth of taking row by row.
    """
    if not gone:
        return column
    at = np.searchsorted(rows, np.sort(gone))
    if len(at) * _RUN > len(rows):
        return column.take(pa.array(np.delete(np.arange(len(rows)), at)))
    return pa.concat_arrays([column.slice(begin, end - begin) for begin, end in zip([0, *at + 1], [*at, len(rows)], strict=True)])


def _unframed(buffer: Buffer, row: int) -> Refused:
    start, end = int(buffer.start[row]), int(buffer.end[row])
    todo = "send an Avro body with its 5-byte frame"
    if buffer.null is not None and buffer.null[row]:
        message = f"the record has no value; {todo}"
    elif end == start:
        message = f"the value is empty; {todo}"
    elif end - start < FRAME:
        message = f"the value has {end - start} bytes, less than its 5-byte frame; {todo}"
    elif end - start >= LONGEST:
        message = f"the value has {end - start} bytes, more than {LONGEST}; {todo} of one event"
    else:
        message = f"the first byte is {buffer.raw[start]}, not 0; {todo}"
    return Refused(row, "undecodable", message, None, None)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How one writer's bodies are read: by columns, and what they refuse alone."""

    fields: Fields
    alone: Alone
    schema: pa.Schema

    def decode(
        self, buffer: Buffer, rows: I64, schema_id: int, rejected: list[Refused]
    ) -> list[tuple[pa.RecordBatch, I64]]:
        """The good rows in one part or two, each with its places; what is refused is added to ``rejected``."""
        parts: list[tuple[pa.RecordBatch, I64]] = []
        columns, left, broken = self._columns(Cursor(buffer, rows, buffer.start[rows] + FRAME, buffer.end[rows]))
        if len(left):
            parts.append((_batch(columns, self.schema, len(left)), left))
        saved = {}
        for refused in sorted(broken):  # they are found field by field, and told in their order
            record_ = self.alone.read(buffer.body(refused.row, FRAME)) if refused.fault in _ASK else None
            if record_ is None:
                rejected.append(_refused(refused, schema_id))
            else:
                saved[refused.row] = record_
        if saved:
            columns = self.alone.columns(list(saved.values()))
            parts.append((_batch(columns, self.schema, len(saved)), np.array(list(saved), np.int64)))
        return parts

    def _columns(self, cursor: Cursor) -> tuple[list[pa.Array], I64, list[Broken]]:
        """The columns of the rows that are good, these rows, and the others, which go as soon as a field is read."""
        read: dict[int, tuple[pa.Array, I64, int]] = {}
        broken: list[Broken] = []
        for place, column in self.fields(cursor):
            read[place] = column, cursor.rows, len(broken)
            broken += cursor.shed()
        cursor.path = ""
        cursor.blame(cursor.pos != cursor.end, Fault.TRAILING)
        broken += cursor.shed()
        gone = [one.row for one in broken]
        columns = [_left(column, rows, gone[before:]) for _, (column, rows, before) in sorted(read.items()) if column is not None]
        return columns, cursor.rows, broken


def _refused(broken: Broken, schema_id: int) -> Refused:
    path = broken.path or None
    where = f"byte {broken.at} of the value"
    message = f"{f'field {path}: ' if path else ''}{MESSAGES[broken.fault]} ({where}); repair the producer"
    reason = "field_missing" if broken.fault == Fault.MISSING else "undecodable"
    return Refused(broken.row, reason, message, path, schema_id)


def _plan(writer: Avro, reader: Avro, schema: pa.Schema) -> _Plan | Refusal:
    names = Names(collect(writer), collect(reader))
    try:
        return _Plan(record(writer, reader, names, ""), Alone(writer, reader), schema)
    except SchemaMismatch as mismatch:
        reason = "field_missing" if mismatch.missing else "undecodable"
        return Refusal(reason, f"{mismatch}; write with a schema that has it", mismatch.path or None)
