"""How one Avro value of every row becomes a column: numbers, text, decimals, enums, lists and maps.

In: the writer's and the reader's type of one field. Out: a function from a cursor to an Arrow array of the reader's
type. Promotion and enum defaults follow the Avro specification 1.12, "Schema Resolution". Two things that it lets
pass are refused here, because a figure or an instant would change: a decimal of another scale, and instants of a finer
unit read as a coarser one.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.catalog import Avro
from schemas.cursor import Cursor
from schemas.faults import Fault
from schemas.names import kind_of

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Read = Callable[[Cursor], pa.Array]
NUMBERS: Final = {"int": 0, "long": 1, "float": 2, "double": 3}
ROUNDS: Final = 4096
"""Items of one list or map that are read by columns; a longer one is read on its own."""
_FLOAT_BYTES: Final = 4


class SchemaMismatch(ValueError):
    """A writer's type that cannot be read as the reader's; ``path`` is the field, ``missing`` that it is not there."""

    def __init__(self, path: str, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.missing = missing


def number(writer: Avro, reader: Avro, kind: pa.DataType, path: str) -> Read:
    """int, long, float, double and what is made of them: instants and dates."""
    name = kind_of(writer)
    if name in ("float", "double"):
        return _real(_FLOAT_BYTES if name == "float" else 8, kind)
    factor = _factor(writer, reader, path)
    store = pa.int32() if kind == pa.date32() else pa.int64()

    def whole(cursor: Cursor) -> pa.Array:
        value = cursor.int32() if name == "int" else cursor.long()
        if factor > 1:
            limit = np.int64((2**63 - 1) // factor)
            cursor.blame((value > limit) | (value < -limit), Fault.VARINT)
            value = np.where(cursor.fault > 0, 0, value) * factor
        if pa.types.is_temporal(kind):
            return pa.array(value.astype(store.to_pandas_dtype(), copy=False)).view(kind)
        return pa.array(value).cast(kind, safe=False)

    return whole


def _factor(writer: Avro, reader: Avro, path: str) -> int:
    """1,000 where milliseconds are read as microseconds, else 1; a plain number is taken as the reader's unit."""
    theirs = writer.get("logicalType") if isinstance(writer, dict) else None
    mine = reader.get("logicalType") if isinstance(reader, dict) else None
    if theirs is None or mine is None or theirs == mine:
        return 1
    if (theirs, mine) == ("timestamp-millis", "timestamp-micros"):
        return 1000
    msg = f"field {path}: the writer's {theirs} cannot be read as {mine}; an instant would change"
    raise SchemaMismatch(path, msg)


def _real(size: int, kind: pa.DataType) -> Read:
    def real(cursor: Cursor) -> pa.Array:
        begin, _ = cursor.fixed(size)
        word = cursor.buffer.words[begin]
        value = word.astype(np.uint32).view(np.float32) if size == _FLOAT_BYTES else word.view(np.float64)
        return pa.array(value).cast(kind, safe=False)

    return real


def boolean(cursor: Cursor) -> pa.Array:
    """One byte, 0 or 1; anything else breaks the row."""
    begin, length = cursor.fixed(1)
    value = np.where(length > 0, cursor.buffer.bytes[begin], 0)
    cursor.blame(value > 1, Fault.BOOLEAN, begin)
    return pa.array(value == 1)


def text(cursor: Cursor) -> pa.Array:
    """A string."""
    return cursor.texts(*cursor.span(), utf8=True)


def binary(cursor: Cursor) -> pa.Array:
    """Bytes."""
    return cursor.texts(*cursor.span(), utf8=False)


def fixed(writer: Avro, reader: Avro, path: str) -> Read:
    """A run of bytes of one size."""
    size = writer["size"]
    if size != reader["size"]:
        msg = f"field {path}: fixed({size}) cannot be read as fixed({reader['size']})"
        raise SchemaMismatch(path, msg)

    def read(cursor: Cursor) -> pa.Array:
        begin, _ = cursor.fixed(size)
        at = np.minimum(begin[:, None] + np.arange(size), len(cursor.buffer.bytes) - 1)
        raw = np.ascontiguousarray(cursor.buffer.bytes[at])
        return pa.Array.from_buffers(pa.binary(size), cursor.n, [None, pa.py_buffer(raw)])

    return read


def decimal(writer: Avro, reader: Avro, path: str) -> Read:
    """A decimal of the same scale and any precision; its digits are checked by value against the reader's."""
    theirs = writer if isinstance(writer, dict) and writer.get("logicalType") == "decimal" else None
    scale = reader.get("scale", 0)
    if theirs is None or theirs.get("scale", 0) != scale:
        found = f"decimal of scale {theirs.get('scale', 0)}" if theirs else f"plain {kind_of(writer)}"
        msg = f"field {path}: the writer's {found} cannot be read as decimal of scale {scale}; a figure would change"
        raise SchemaMismatch(path, msg)
    precision = reader["precision"]
    if kind_of(writer) == "fixed":
        size = writer["size"]
        return lambda cursor: cursor.decimals(*cursor.fixed(size), precision, scale)
    return lambda cursor: cursor.decimals(*cursor.span(), precision, scale)


def enum(writer: Avro, reader: Avro) -> Read:
    """A symbol by its index; a symbol that the reader does not know is its default, or breaks the row."""
    known = {symbol: place for place, symbol in enumerate(reader["symbols"])}
    fallback = known.get(reader.get("default"), -1)
    codes = np.array([*(known.get(symbol, fallback) for symbol in writer["symbols"]), -1], np.int32)
    words = pa.array(reader["symbols"], pa.string())
    size = len(writer["symbols"])

    def read(cursor: Cursor) -> pa.Array:
        begin, same = cursor.pos, cursor.same()
        if same is not None and 0 <= same < size and codes[same] >= 0:
            return pa.DictionaryArray.from_arrays(pa.array(np.full(cursor.n, codes[same])), words)
        index = cursor.long() if same is None else np.full(cursor.n, same)
        code = codes[np.where((index >= 0) & (index < size), index, size)]
        cursor.blame(code < 0, Fault.INDEX, begin)
        return pa.DictionaryArray.from_arrays(pa.array(np.maximum(code, 0)), words)

    return read


def array(item: Read, kind: pa.DataType, width: int) -> Read:
    """A list; ``width`` is the least size of an item in bytes."""

    def read(cursor: Cursor) -> pa.Array:
        counts, columns = items(cursor, lambda part: [item(part)], width)
        values = columns[0] if columns else pa.array([], kind.value_type)
        return pa.ListArray.from_arrays(_offsets(counts), values, type=kind)

    return read


def mapping(value: Read, kind: pa.DataType) -> Read:
    """A map, its entries in the order of the body."""

    def entry(part: Cursor) -> list[pa.Array]:
        return [text(part), value(part)]

    def read(cursor: Cursor) -> pa.Array:
        counts, columns = items(cursor, entry, 1)
        keys, values = columns or [pa.array([], pa.string()), pa.array([], kind.item_type)]
        return pa.MapArray.from_arrays(_offsets(counts), keys, values, type=kind)

    return read


def _offsets(counts: I64) -> pa.Array:
    if len(counts) and (counts == counts[0]).all():  # adding up costs more than all the rest of a list
        return pa.array(np.arange(len(counts) + 1, dtype=np.int32) * np.int32(counts[0]))
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def items(cursor: Cursor, read: Callable[[Cursor], list[pa.Array]], width: int) -> tuple[I64, list[pa.Array] | None]:
    """The items of every row's blocks, in row order, and how many each row has.

    Item by item: the first of all rows, the second of those that have one, and so on. A count that the rest of the
    body cannot hold breaks its row before anything is made for it.
    """
    counts, left = np.zeros(cursor.n, np.int64), np.zeros(cursor.n, np.int64)
    pieces: list[list[pa.Array]] = []
    places: list[I64] = []
    going, path = cursor.fault == 0, cursor.path
    while True:
        heads = going & (left == 0)
        if heads.any():
            _blocks(cursor, heads, width, counts, left)
            going &= left > 0
        if not going.any():
            break
        reading = going
        if cursor.whole(going):
            reading = np.ones(cursor.n, np.bool_)
            pieces.append(read(cursor))
        else:
            part = cursor.part(reading)
            pieces.append(read(part))
            cursor.merge(reading, part)
        cursor.path = path
        places.append(np.nonzero(reading)[0])
        counts += reading
        left -= going
        going &= cursor.fault == 0
        if len(pieces) >= ROUNDS:
            cursor.blame(going, Fault.COUNT if width == 0 else Fault.MANY)
            break
    if not pieces or not pieces[0]:
        return counts, None
    if len(pieces) == 1:
        return counts, pieces[0]
    order = pa.array(np.argsort(np.concatenate(places), kind="stable"))
    return counts, [joined(column, order) for column in zip(*pieces, strict=True)]


def joined(parts: Sequence[pa.Array], order: pa.Array) -> pa.Array:
    """The rows of all parts in another order; where none has a value nothing is moved."""
    kind = parts[0].type
    if all(part.null_count == len(part) for part in parts):
        return pa.nulls(len(order), kind)
    if pa.types.is_struct(kind) and kind.num_fields and not any(part.null_count for part in parts):
        columns = [joined([part.field(i) for part in parts], order) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(columns, fields=list(kind))
    return pa.concat_arrays(parts).take(order)


def _blocks(cursor: Cursor, heads: Mask, width: int, had: I64, left: I64) -> None:
    """Set how many items are left in the blocks that begin in some of the rows."""
    if cursor.whole(heads):  # a broken row reads as nothing, and leaving it out costs more
        left[:] = _counts(cursor, width, had)
        return
    part = cursor.part(heads)
    left[heads] = _counts(part, width, had[heads])
    cursor.merge(heads, part)


def _counts(cursor: Cursor, width: int, had: I64) -> I64:
    """Read a block's count in each row (and its size in bytes, where the count is negative): 0 at the end or in a broken row."""
    begin, same = cursor.pos, cursor.same()
    if same == 0:
        return np.zeros(cursor.n, np.int64)
    count = cursor.long() if same is None else np.full(cursor.n, same)
    negative = count < 0
    if negative.any():
        sized = cursor.part(negative)
        sized.long()
        cursor.merge(negative, sized)
        count = np.where(negative, -count, count)
    most = cursor.end - cursor.pos if width else ROUNDS - had
    if width > 1:
        most //= width
    cursor.blame((count < 0) | (count > most), Fault.COUNT, begin)
    return np.where(cursor.fault > 0, 0, count)
