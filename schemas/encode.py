"""Arrow columns to framed Avro bodies, compiled from the schema; the bytes are those that fastavro writes.

In: a record batch whose columns are the schema's fields by name. Out: one framed value per row. Strings may come
dictionary-encoded: each word is then encoded once. A field with a default of null may be absent. Rows are the
product's own: a null where the schema has none, an unknown column, a number that does not fit are bugs and raise
EncodeError, naming the field.
"""

from collections.abc import Callable, Iterable, Mapping
from io import BytesIO
from typing import Any, Final

import fastavro
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import catalog
from schemas.catalog import Avro, Schema, non_null, nullable
from schemas.cursor import too_large
from schemas.names import collect, full, kind_of
from schemas.pieces import BLOCK, I32, Block, Mask, Piece, Pool, Words, masked, varint

I64 = npt.NDArray[np.int64]
Write = Callable[[Pool, pa.Array, Mask | None], list[Piece]]
"""Pieces of a column; where the mask is given, rows outside of it have no bytes."""

_WORDS_PER_ROW: Final = 2


class EncodeError(ValueError):
    """Columns that are not records of the schema."""


class Encoder:
    """Encodes record batches of one schema; every value carries the 5-byte frame with ``schema_id``."""

    def __init__(self, schema: Schema | Avro, schema_id: int | None = None) -> None:
        avro = schema.avro if isinstance(schema, Schema) else schema
        number = schema.schema_id if isinstance(schema, Schema) and schema_id is None else schema_id
        if number is None:
            msg = "a schema outside of the catalogue needs its id"
            raise EncodeError(msg)
        parsed = fastavro.parse_schema(avro)
        self.schema = pa.schema(list(catalog.arrow_type(parsed, {})))
        self._frame = b"\0" + number.to_bytes(4, "big")
        self._parsed = parsed
        self._write = _record(parsed, collect(parsed), "")

    def encode(self, batch: pa.RecordBatch) -> pa.LargeBinaryArray:
        """One framed value per row, in order."""
        pool = Pool()
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        pieces = self._write(pool, columns, batch.num_rows, None)
        return pool.join([self._frame, *pieces], batch.num_rows)

    def documents(self, rows: Iterable[Mapping[str, Any]]) -> pa.LargeBinaryArray:
        """The same bytes for a few records that are no columns: by fastavro, whose price has no fixed part.

        Maps are dicts. Bounds of numbers are the caller's: a decimal's scale is checked, its digits are not.
        """
        values = []
        for row in rows:
            out = BytesIO(self._frame)
            out.seek(len(self._frame))
            try:
                fastavro.schemaless_writer(out, self._parsed, row, strict_allow_default=True)
            except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
                msg = f"{self._parsed['name']}: a record does not fit its schema: {error!r}"
                raise EncodeError(msg) from error
            values.append(out.getvalue())
        return pa.array(values, pa.large_binary())


def _record(
    avro: Avro, named: dict[str, Avro], path: str
) -> Callable[[Pool, dict[str, pa.Array], int, Mask | None], list[Piece]]:
    fields: list[tuple[str, Write, pa.DataType, bool]] = []
    for field in avro["fields"]:
        here = f"{path}.{field['name']}" if path else field["name"]
        kind = catalog.arrow_type(field["type"], dict(named))
        optional = nullable(field["type"]) and field.get("default", "") is None
        fields.append((field["name"], _value(field["type"], named, here), kind, optional))
    known = {name for name, *_ in fields}

    def write(pool: Pool, columns: dict[str, pa.Array], rows: int, mask: Mask | None) -> list[Piece]:
        unknown = columns.keys() - known
        if unknown:
            msg = f"{path or 'record'}: the schema has no field {', '.join(sorted(unknown))}"
            raise EncodeError(msg)
        pieces: list[Piece] = []
        for name, value, kind, optional in fields:
            column = columns.get(name)
            if column is None:
                if not optional:
                    msg = f"field {path + '.' if path else ''}{name}: the batch has no such column"
                    raise EncodeError(msg)
                column = pa.nulls(rows, kind)
            pieces += value(pool, column, mask)
        return pieces

    return write


def _value(avro: Avro, named: dict[str, Avro], path: str) -> Write:
    avro = full(avro, named)
    if isinstance(avro, list):
        return _union(avro, named, path)
    plain = _plain(avro, named, path)

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        column = _plain_nulls(column)
        if column.null_count and (mask is None or bool((_nulls(column) & mask).any())):
            msg = f"field {path}: a row has no value, and the schema has no null for it"
            raise EncodeError(msg)
        return plain(pool, column, mask)

    return plain if avro == "null" else write


def _nulls(column: pa.Array) -> Mask:
    if column.null_count in (0, len(column)):
        return np.full(len(column), column.null_count > 0)
    return column.is_null().to_numpy(zero_copy_only=False)


def _union(avro: list[Avro], named: dict[str, Avro], path: str) -> Write:
    inner = _plain(full(non_null(avro), named), named, path)
    branch = varint(next(i for i, b in enumerate(avro) if b != "null"))
    absent = varint(avro.index("null")) if "null" in avro else None

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        column = _plain_nulls(column)
        if absent is not None and column.null_count == len(column):
            return [masked(pool, absent, mask)]
        missing = _nulls(column) if column.null_count else None
        if missing is not None and mask is not None:
            missing &= mask
        if missing is None or not missing.any():
            return [masked(pool, branch, mask), *inner(pool, column, mask)]
        if absent is None:
            msg = f"field {path}: a row has no value, and the schema has no null for it"
            raise EncodeError(msg)
        present = ~missing if mask is None else mask & ~missing
        if not present.any():
            return [masked(pool, absent, mask)]
        head = np.where(present, pool.constant(branch), pool.constant(absent))
        if mask is not None:
            head = np.where(mask, head, Pool.EMPTY)
        return [head, *inner(pool, column, present)]

    return write


def _plain_nulls(column: pa.Array) -> pa.Array:
    """A dictionary may hold null as a word; then its rows' validity is looked up word by word."""
    if pa.types.is_dictionary(column.type) and column.dictionary.null_count:
        return column.dictionary_decode()
    return column


def _plain(avro: Avro, named: dict[str, Avro], path: str) -> Write:
    kind = kind_of(avro)
    wanted = catalog.arrow_type(avro, dict(named))
    if pa.types.is_decimal(wanted):
        return _decimal(avro, wanted, path)
    match kind:
        case "null":
            return lambda _pool, _column, _mask: []
        case "string" | "bytes":
            return _text(wanted, path)
        case "int" | "long":
            return _whole(wanted, path)
        case "float" | "double":
            return _real(wanted, path)
        case "boolean":
            return _boolean(path)
        case "enum":
            return _enum(avro, path)
        case "fixed":
            return _fixed(wanted, path)
        case "array":
            return _array(_value(avro["items"], named, f"{path}[]"), path)
        case "map":
            return _map(_value(avro["values"], named, f"{path}{{}}"), path)
        case _:
            return _struct(avro, named, path)


def _cast(column: pa.Array, wanted: pa.DataType, path: str) -> pa.Array:
    if column.type == wanted:
        return column
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        msg = f"field {path}: a column of {column.type} cannot be written as {wanted}: {error}"
        raise EncodeError(msg) from error


def _text(wanted: pa.DataType, path: str) -> Write:
    def plain(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
        if not large:
            column = _cast(column, wanted, path)
        _, ends, data = column.buffers()
        dtype = np.int64 if large else np.int32
        offsets = np.frombuffer(ends, dtype, len(column) + 1, column.offset * dtype().itemsize)
        first, last = int(offsets[0]), int(offsets[-1])
        raw = memoryview(data)[first:last] if data is not None else b""
        length = np.diff(offsets)
        least = int(length.min())
        if least <= BLOCK and least == length.max():
            body: Piece = Block(np.frombuffer(raw, np.uint8).reshape(len(column), -1)) if len(raw) else b""
            return [masked(pool, varint(least), mask), masked(pool, body, mask)]
        body = np.arange(len(column)) + pool.add(raw, offsets.astype(np.int64) - first)
        return [masked(pool, pool.longs(length.astype(np.int64)), mask), masked(pool, body, mask)]

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not len(column):
            return [b""]
        if not pa.types.is_dictionary(column.type):
            return plain(pool, column, mask)
        words = column.dictionary
        if len(words) > _WORDS_PER_ROW * len(column) or words.null_count:
            return plain(pool, column.dictionary_decode(), mask)
        if not len(words):
            return [b""]
        own, codes = Pool(), _codes(column)
        encoded = own.join(plain(own, words, None), len(words))
        if codes.min() == codes.max():
            return [masked(pool, encoded[int(codes[0])].as_py(), mask)]
        return [masked(pool, Words(encoded, codes), mask)]

    return write


def _codes(column: pa.Array) -> I32:
    codes = column.indices
    if codes.null_count:
        codes = codes.fill_null(0)
    return codes.to_numpy().astype(np.int32, copy=False)


def _whole(wanted: pa.DataType, path: str) -> Write:
    store = pa.int32() if wanted in (pa.int32(), pa.date32()) else pa.int64()

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        numbers = _cast(column, wanted, path).view(store)
        offset = numbers.offset * store.bit_width // 8
        value = np.frombuffer(numbers.buffers()[1], store.to_pandas_dtype(), len(numbers), offset)
        return [masked(pool, pool.longs(value.astype(np.int64)), mask)]

    return write


def _real(wanted: pa.DataType, path: str) -> Write:
    size = wanted.bit_width // 8

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        column = _cast(column, wanted, path)
        return [masked(pool, _run(column, size), mask)]

    return write


def _run(column: pa.Array, size: int) -> Piece:
    """Values of equal size as they lie in memory."""
    data = column.buffers()[1]
    raw = memoryview(data)[column.offset * size : (column.offset + len(column)) * size] if data is not None else b""
    return Block(np.frombuffer(raw, np.uint8).reshape(len(column), size)) if len(raw) else b""


def _boolean(path: str) -> Write:
    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        column = _cast(column, pa.bool_(), path)
        if column.null_count:
            column = column.fill_null(False)
        true = column.to_numpy(zero_copy_only=False)
        return [masked(pool, np.where(true, pool.constant(b"\1"), pool.constant(b"\0")), mask)]

    return write


def _enum(avro: Avro, path: str) -> Write:
    symbols = {symbol: place for place, symbol in enumerate(avro["symbols"])}

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not pa.types.is_dictionary(column.type):
            column = _cast(column, pa.string(), path).dictionary_encode()
        words = column.dictionary.to_pylist() or [None]
        places = np.array([symbols.get(word, -1) for word in words], np.int64)[_codes(column)]
        wrong = places < 0
        if wrong.any():
            wrong &= ~_nulls(column) if mask is None else mask
        if wrong.any():
            word = column[int(np.argmax(wrong))].as_py()
            msg = f"field {path}: {word!r} is not one of {', '.join(symbols)}"
            raise EncodeError(msg)
        return [masked(pool, pool.longs(np.maximum(places, 0)), mask)]

    return write


def _fixed(wanted: pa.DataType, path: str) -> Write:
    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        return [masked(pool, _run(_cast(column, wanted, path), wanted.byte_width), mask)]

    return write


def _decimal(avro: Avro, wanted: pa.DataType, path: str) -> Write:
    size = avro["size"] if kind_of(avro) == "fixed" else None
    limit = min(10**wanted.precision, 2 ** (8 * size - 1) if size else 2**127)

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not pa.types.is_decimal128(column.type) or column.type.scale != wanted.scale:
            msg = f"field {path}: a column of {column.type} is not {wanted}; a figure would change"
            raise EncodeError(msg)
        limbs = np.frombuffer(column.buffers()[1], np.uint64, 2 * len(column), column.offset * 16).reshape(-1, 2)
        if column.null_count:
            limbs = np.where(_nulls(column)[:, None], np.uint64(0), limbs)
        low, high = np.ascontiguousarray(limbs[:, 0]), np.ascontiguousarray(limbs[:, 1])
        wrong = too_large(high, low, limit)
        if (wrong if mask is None else wrong & mask).any():
            msg = f"field {path}: a value has more digits than {wanted} holds"
            raise EncodeError(msg)
        numbers = pool.decimals(high, low) if size is None else _sized(pool, limbs, size)
        return [masked(pool, numbers, mask)]

    return write


def _sized(pool: Pool, limbs: npt.NDArray[np.uint64], size: int) -> I64:
    """Big-endian two's complement of a fixed number of bytes, the sign in front."""
    whole = np.ascontiguousarray(limbs[:, ::-1]).byteswap().view(np.uint8).reshape(-1, 16)
    if size > 16:
        sign = np.where(whole[:, :1] > 127, 255, 0).astype(np.uint8)
        whole = np.concatenate([np.repeat(sign, size - 16, axis=1), whole], axis=1)
    end = np.arange(1, len(whole) + 1) * whole.shape[1]
    return pool.rows(whole.ravel(), end - size, end)


def _blocks(pool: Pool, column: pa.Array, parts: list[tuple[Write, pa.Array]], mask: Mask | None) -> list[Piece]:
    """One block a row: how many items, the items, and the end; an item is a value of each part."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    counts = np.diff(offsets)
    filled = counts > 0 if mask is None else (counts > 0) & mask
    end = masked(pool, b"\0", mask)
    if not filled.any():
        return [end]

    def items(into: Pool, some: Mask | None) -> list[Piece]:
        return [piece for write, values in parts for piece in write(into, values.slice(first, last - first), some)]

    if (counts == 1).all():  # an item's pieces are its row's
        return [masked(pool, varint(1), mask), *items(pool, mask), end]
    own = Pool()
    joined = own.join(items(own, None), last - first)
    ends = np.frombuffer(joined.buffers()[1], np.int64)
    body = np.arange(len(counts)) + pool.add(memoryview(joined.buffers()[2]), ends[offsets - first])
    head = pool.longs(counts)
    if filled.all():
        return [head, body, end]
    return [masked(pool, head, filled), masked(pool, body, filled), end]


def _array(item: Write, path: str) -> Write:
    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
            msg = f"field {path}: a column of {column.type} is not a list"
            raise EncodeError(msg)
        if not len(column):
            return [b""]
        return _blocks(pool, column, [(item, column.values)], mask)

    return write


def _map(item: Write, path: str) -> Write:
    key = _text(pa.string(), path)

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not pa.types.is_map(column.type):
            msg = f"field {path}: a column of {column.type} is not a map"
            raise EncodeError(msg)
        if not len(column):
            return [b""]
        return _blocks(pool, column, [(key, column.keys), (item, column.items)], mask)

    return write


def _struct(avro: Avro, named: dict[str, Avro], path: str) -> Write:
    fields = _record(avro, named, path)

    def write(pool: Pool, column: pa.Array, mask: Mask | None) -> list[Piece]:
        if not pa.types.is_struct(column.type):
            msg = f"field {path}: a column of {column.type} is not a struct"
            raise EncodeError(msg)
        columns: dict[str, Any] = {column.type.field(i).name: column.field(i) for i in range(column.type.num_fields)}
        return fields(pool, columns, len(column), mask)

    return write
