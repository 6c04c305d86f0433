"""The plan of a decoder: which columns come out of a writer's bodies for a reader's schema.

In: both schemas, as fastavro parses them. Out: a function that reads all fields of many rows and answers the reader's
columns. Resolution follows the Avro specification 1.12: fields by name or alias, defaults, unions branch by branch;
names of nested records need not agree. A type that cannot be read raises SchemaMismatch where it would always be met,
and breaks only the rows that meet it where it is one branch of a union.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from schemas import catalog, readers
from schemas.catalog import Avro
from schemas.cursor import WORD, Cursor
from schemas.faults import Fault
from schemas.names import full, kind_of
from schemas.readers import NUMBERS, Read, SchemaMismatch
from schemas.skip import Skip, least_bytes, skip_of


class Names(NamedTuple):
    """The named types of both schemas."""

    writer: dict[str, Avro]
    reader: dict[str, Avro]


_NO_NULL: Final = 64
"""Branches of a union from this one on take two bytes."""
_RUN: Final = 3
"""Fields that may be null and follow each other, from which on it is worth asking whether all of them are."""


class _Step(NamedTuple):
    """How a field of the writer is read, or passed over where the reader does not want it."""

    path: str
    place: int
    read: Read | None
    skip: Skip | None
    kind: pa.DataType | None
    nulls: bytes
    """The body where this field is null, and those behind it that may be, up to a word."""


Fields = Callable[[Cursor], Iterator[tuple[int, pa.Array | None]]]
"""Reads a record's fields one after the other: each column with its place; -1 where a field was passed over."""


def record(writer: Avro, reader: Avro, names: Names, path: str) -> Fields:
    """Read the writer's fields in its order; answer the reader's columns with their places in the reader."""
    sources = _sources(writer, reader)
    defaults = [
        (place, _default(field, names, path))
        for place, field in enumerate(reader["fields"])
        if place not in sources.values()
    ]
    steps: list[_Step] = []
    for field in writer["fields"]:  # in order: of several that cannot be read the first is named
        here = f"{path}.{field['name']}" if path else field["name"]
        place = sources.get(field["name"], -1)
        if place < 0:
            kind, optional, column, skip = None, True, None, skip_of(field["type"], names.writer)
        else:
            _, kind, optional = _target(reader["fields"][place]["type"], names)
            column, skip = value(field["type"], reader["fields"][place]["type"], names, here), None
        null = field["type"].index("null") if isinstance(field["type"], list) and "null" in field["type"] else _NO_NULL
        nulls = bytes([2 * null]) if optional and null < _NO_NULL else b""
        steps.append(_Step(here, place, column, skip, kind, nulls))
    for at in reversed(range(len(steps) - 1)):
        if steps[at].nulls:
            steps[at] = steps[at]._replace(nulls=(steps[at].nulls + steps[at + 1].nulls)[:WORD])

    def read(cursor: Cursor) -> Iterator[tuple[int, pa.Array | None]]:
        passed = 0
        for at, step in enumerate(steps):
            cursor.path = step.path
            if passed == at and len(step.nulls) >= _RUN:
                passed += cursor.passed_if(step.nulls)
            if at < passed:
                yield step.place, None if step.kind is None else pa.nulls(cursor.n, step.kind)
                continue
            passed += 1
            if step.skip is not None:
                step.skip(cursor, 0)
            yield step.place, None if step.read is None else step.read(cursor)
        for place, default in defaults:
            yield place, pa.nulls(cursor.n, default.type) if default.null_count else default.take(pa.array(np.zeros(cursor.n, np.int64)))

    return read


def _sources(writer: Avro, reader: Avro) -> dict[str, int]:
    """The reader's place of each field of the writer that it wants: by name, else by alias, each field once."""
    theirs = {field["name"] for field in writer["fields"]}
    sources = {field["name"]: place for place, field in enumerate(reader["fields"]) if field["name"] in theirs}
    for place, field in enumerate(reader["fields"]):
        if field["name"] not in theirs:
            free = [alias for alias in field.get("aliases", ()) if alias in theirs and alias not in sources]
            sources.update(dict.fromkeys(free[:1], place))
    return sources


def _default(field: Avro, names: Names, path: str) -> pa.Array:
    if "default" not in field:
        here = f"{path}.{field['name']}" if path else field["name"]
        raise SchemaMismatch(here, f"the writer's schema lacks field {here}, which has no default", missing=True)
    return column_of([default_value(field["default"], field["type"], names.reader)], field["type"], names.reader)


def default_value(
    default: Any,
    avro: Avro,
    named: dict[str, Avro],
) -> Any:
    """A schema's JSON default as a value; bytes and decimals are written as text of code points."""
    avro = full(avro, named)
    if isinstance(avro, list):
        return None if default is None else default_value(default, next(b for b in avro if b != "null"), named)
    match kind_of(avro):
        case "bytes" | "fixed":
            raw = default.encode("latin-1")
            if isinstance(avro, dict) and avro.get("logicalType") == "decimal":
                return decimal_of(raw, avro.get("scale", 0))
            return raw
        case "record":
            given = {field["name"]: default.get(field["name"], field.get("default")) for field in avro["fields"]}
            return {f["name"]: default_value(given[f["name"]], f["type"], named) for f in avro["fields"]}
        case "array":
            return [default_value(item, avro["items"], named) for item in default]
        case "map":
            return {key: default_value(item, avro["values"], named) for key, item in default.items()}
        case _:
            return default


def decimal_of(raw: bytes, scale: int) -> Decimal:
    """An unscaled value of any length, exactly: Python's own scaling would round to 28 digits."""
    sign, digits, _ = Decimal(int.from_bytes(raw, "big", signed=True)).as_tuple()
    return Decimal((sign, digits, -scale))


def column_of(values: list[Any], avro: Avro, named: dict[str, Avro]) -> pa.Array:
    """Python values as a column of the type that the codec gives them; for few rows."""
    kind = catalog.arrow_type(avro, dict(named))
    avro = full(avro, named)
    if isinstance(avro, list):
        avro = full(catalog.non_null(avro), named)
    missing = pa.array([value is None for value in values], pa.bool_())
    match kind_of(avro):
        case "enum":
            codes = pa.array([None if v is None else avro["symbols"].index(v) for v in values], pa.int32())
            return pa.DictionaryArray.from_arrays(codes, pa.array(avro["symbols"], pa.string()))
        case "record" if avro["fields"]:
            fields = avro["fields"]
            columns = [_field(values, field, named) for field in fields]
            return pa.StructArray.from_arrays(columns, fields=list(kind), mask=missing)
        case "array":
            inner = column_of([item for value in values for item in value or ()], avro["items"], named)
            return pa.ListArray.from_arrays(_ends(values), inner, type=kind, mask=missing)
        case "map":
            entries = [entry for value in values for entry in (value or {}).items()]
            inner = column_of([item for _, item in entries], avro["values"], named)
            keys = pa.array([key for key, _ in entries], pa.string())
            return pa.MapArray.from_arrays(_ends(values), keys, inner, type=kind, mask=missing)
        case _:
            return pa.array(values, kind)


def _field(values: list[Any], field: Avro, named: dict[str, Avro]) -> pa.Array:
    return column_of([None if value is None else value[field["name"]] for value in values], field["type"], named)


def _ends(values: list[Any]) -> pa.Array:
    return pa.array(np.cumsum([0, *(len(value or ()) for value in values)]), pa.int32())


def value(writer: Avro, reader: Avro, names: Names, path: str) -> Read:
    """How a value of the writer's type becomes a column of the reader's."""
    writer = full(writer, names.writer)
    inner, kind, optional = _target(reader, names)
    if isinstance(writer, list):
        return _union(writer, (inner, kind, optional), names, path)
    if writer == "null":
        if not optional:
            raise SchemaMismatch(path, f"field {path}: the writer has null only, and a value is required", missing=True)
        return lambda cursor: pa.nulls(cursor.n, kind)
    return _plain(writer, inner, kind, names, path)


def _target(reader: Avro, names: Names) -> tuple[Avro, pa.DataType, bool]:
    """The reader's type without null, its column, and whether it may be null."""
    reader = full(reader, names.reader)
    inner = full(catalog.non_null(reader), names.reader) if isinstance(reader, list) else reader
    return inner, catalog.arrow_type(inner, dict(names.reader)), catalog.nullable(reader)


def _union(writer: list[Avro], target: tuple[Avro, pa.DataType, bool], names: Names, path: str) -> Read:
    """The branch of each row, then the rows of each branch on their own; mostly all rows are of one branch."""
    kind = target[1]
    branches = _branches(writer, target, names, path)

    def read(cursor: Cursor) -> pa.Array:
        begin, same = cursor.pos, cursor.same()
        if same is not None and 0 <= same < len(branches):
            only = branches[same]
            if not isinstance(only, Fault):
                return only(cursor)
        chosen = np.full(cursor.n, same) if same is not None else cursor.long()
        cursor.blame((chosen < 0) | (chosen >= len(branches)), Fault.INDEX, begin)
        for number, branch in enumerate(branches):
            if isinstance(branch, Fault):
                cursor.blame(chosen == number, branch, begin)
        sound = cursor.fault == 0
        parts: list[pa.Array] = []
        places = np.zeros(cursor.n, np.int64)
        for number, branch in enumerate(branches):
            mine = sound & (chosen == number)
            if isinstance(branch, Fault) or not mine.any():
                continue
            if cursor.whole(mine):
                return branch(cursor)
            part = cursor.part(mine)
            places[mine] = np.arange(part.n) + sum(map(len, parts))
            parts.append(branch(part))
            cursor.merge(mine, part)
        cursor.path = path
        if not parts:
            return pa.nulls(cursor.n, kind)
        return readers.joined(parts, pa.array(places))

    return read


def _branches(
    writer: list[Avro], target: tuple[Avro, pa.DataType, bool], names: Names, path: str
) -> list[Read | Fault]:
    """How each branch of the writer's union is read, or the fault of a row that has it."""
    inner, kind, optional = target
    branches: list[Read | Fault] = []
    problem: SchemaMismatch | None = None
    for branch in writer:
        if branch == "null":
            branches.append((lambda cursor: pa.nulls(cursor.n, kind)) if optional else Fault.MISSING)
            continue
        try:
            branches.append(_plain(full(branch, names.writer), inner, kind, names, path))
        except SchemaMismatch as mismatch:
            problem = problem or mismatch
            branches.append(Fault.INDEX)
    if problem is not None and all(isinstance(branch, Fault) for branch in branches):
        raise problem
    return branches


def _plain(
    writer: Avro, reader: Avro, kind: pa.DataType, names: Names, path: str
) -> Read:
    theirs, mine = kind_of(writer), kind_of(reader)
    if pa.types.is_decimal(kind):
        return readers.decimal(writer, reader, path)
    if theirs in NUMBERS and mine in NUMBERS and NUMBERS[theirs] <= NUMBERS[mine]:
        return readers.number(writer, reader, kind, path)
    if theirs in ("string", "bytes") and mine in ("string", "bytes"):
        return readers.text if mine == "string" else readers.binary
    if theirs != mine:
        raise SchemaMismatch(path, f"field {path or 'record'}: the writer's {theirs} cannot be read as {mine}")
    match theirs:
        case "boolean":
            return readers.boolean
        case "enum":
            return readers.enum(writer, reader)
        case "fixed":
            return readers.fixed(writer, reader, path)
        case "array":
            item = value(writer["items"], reader["items"], names, f"{path}[]")
            return readers.array(item, kind, least_bytes(writer["items"], names.writer))
        case "map":
            return readers.mapping(value(writer["values"], reader["values"], names, f"{path}{{}}"), kind)
        case "null":
            return lambda cursor: pa.nulls(cursor.n)
        case _:
            return _struct(writer, reader, kind, names, path)


def _struct(writer: Avro, reader: Avro, kind: pa.DataType, names: Names, path: str) -> Read:
    fields = list(kind)
    read = record(writer, reader, names, path)

    def struct(cursor: Cursor) -> pa.Array:
        columns: list[pa.Array] = [None] * len(fields)
        for place, column in read(cursor):
            if place >= 0:
                columns[place] = column
        return pa.StructArray.from_arrays(columns, fields=fields) if fields else pa.array([{}] * cursor.n, kind)

    return struct
