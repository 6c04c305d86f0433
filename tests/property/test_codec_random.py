"""The columnar codec against fastavro, on schemas and records that nobody chose."""

import datetime as dt
import io
import json
import random
import struct
from decimal import Decimal
from typing import Any

import fastavro
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import catalog
from schemas.codec import Decoder, Encoder

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
MICROS = st.integers(-(10**15), 4 * 10**15)
EDGES = [
    sign * (2**bits + step)
    for bits in (0, 7, 8, 31, 55, 63, 64, 71, 79, 119)
    for sign in (1, -1)
    for step in (-1, 0, 1)
]
"""Where a decimal needs one more byte."""
LEAVES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "string": ("string", st.text(max_size=12)),
    "bytes": ("bytes", st.binary(max_size=12)),
    "int": ("int", st.integers(-(2**31), 2**31 - 1)),
    "long": ("long", st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-200, 200))),
    "float": ("float", st.floats(width=32, allow_nan=False)),
    "double": ("double", st.floats(allow_nan=False)),
    "boolean": ("boolean", st.booleans()),
    "time": (
        {"type": "long", "logicalType": "timestamp-micros"},
        MICROS.map(lambda us: EPOCH + dt.timedelta(microseconds=us)),
    ),
    "millis": (
        {"type": "long", "logicalType": "timestamp-millis"},
        MICROS.map(lambda us: EPOCH + dt.timedelta(milliseconds=us // 1000)),
    ),
    "date": (
        {"type": "int", "logicalType": "date"},
        st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)),
    ),
}


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """Exact decimals; Python's own scaling would round them to 28 digits."""
    unscaled = st.one_of(
        st.integers(-(10**precision) + 1, 10**precision - 1),
        st.sampled_from(EDGES).map(lambda n: n if abs(n) < 10**precision else 0),
    )
    return unscaled.map(lambda n: Decimal((int(n < 0), tuple(int(d) for d in str(abs(n))), -scale)))


@st.composite
def types(  # noqa: C901, PLR0911 - one case a type
    draw: st.DrawFn, depth: int, names: list[str]
) -> tuple[Any, st.SearchStrategy[Any]]:
    """An Avro type, and the values that it can hold."""
    kinds = [*LEAVES, "decimal", "fixed_decimal", "fixed", "enum"]
    if depth > 0:
        kinds += ["record", "array", "map", "union", "union"]
    kind = draw(st.sampled_from(kinds))
    if kind in LEAVES:
        return LEAVES[kind]
    name = f"N{len(names)}"
    names.append(name)
    match kind:
        case "decimal":
            precision = draw(st.integers(1, 38))
            scale = draw(st.integers(0, precision))
            avro = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
            return avro, decimals(precision, scale)
        case "fixed_decimal":
            size = draw(st.integers(1, 20))
            precision = min(38, len(str(2 ** (8 * size - 1) - 1)) - 1)
            if precision == 0:
                return LEAVES["long"]
            avro = {"type": "fixed", "name": name, "size": size}
            return {**avro, "logicalType": "decimal", "precision": precision, "scale": 0}, decimals(precision, 0)
        case "fixed":
            size = draw(st.integers(0, 40))
            return {"type": "fixed", "name": name, "size": size}, st.binary(min_size=size, max_size=size)
        case "enum":
            symbols = [f"s{i}" for i in range(draw(st.integers(1, 5)))]
            return {"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols)
        case "array":
            inner, values = draw(types(depth - 1, names))
            return {"type": "array", "items": inner}, st.lists(values, max_size=4)
        case "map":
            inner, values = draw(types(depth - 1, names))
            return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=4), values, max_size=4)
        case "union":
            inner, values = draw(types(depth - 1, names).filter(lambda found: not isinstance(found[0], list)))
            order = ["null", inner] if draw(st.booleans()) else [inner, "null"]
            return order, st.one_of(st.none(), values, values)
        case _:
            return draw(records(depth - 1, names, name))


@st.composite
def records(draw: st.DrawFn, depth: int, names: list[str], name: str) -> tuple[Any, st.SearchStrategy[Any]]:
    """A record type and its values."""
    found = [draw(types(depth, names)) for _ in range(draw(st.integers(1, 4)))]
    avro = {
        "type": "record",
        "name": name,
        "fields": [{"name": f"f{i}", "type": kind} for i, (kind, _) in enumerate(found)],
    }
    return avro, st.fixed_dictionaries({f"f{i}": values for i, (_, values) in enumerate(found)})


@st.composite
def batches(draw: st.DrawFn) -> tuple[Any, list[dict[str, Any]]]:
    """A schema and some records of it."""
    avro, values = draw(records(2, [], "Top"))
    return avro, draw(st.lists(values, max_size=7))


def framed(number: int, avro: Any, record: dict[str, Any]) -> bytes:
    """A body as fastavro writes it, in its frame."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(avro))), record)
    return b"\0" + struct.pack(">I", number) + out.getvalue()


def as_arrow(value: Any, avro: Any) -> Any:
    """What Arrow's ``to_pylist`` gives for a record of fastavro's."""
    if isinstance(avro, list):
        return None if value is None else as_arrow(value, next(b for b in avro if b != "null"))
    kind = avro["type"] if isinstance(avro, dict) else avro
    if kind == "record":
        return {f["name"]: as_arrow(value[f["name"]], f["type"]) for f in avro["fields"]}
    if kind == "array":
        return [as_arrow(item, avro["items"]) for item in value]
    if kind == "map":
        return [(key, as_arrow(item, avro["values"])) for key, item in value.items()]
    if kind == "float":
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


@settings(max_examples=250, deadline=None)
@given(batches())
def test_what_fastavro_writes_is_read_into_the_same_records(batch: tuple[Any, list[dict[str, Any]]]) -> None:
    avro, rows = batch
    values = pa.array([framed(7, avro, row) for row in rows], pa.large_binary())
    decoded = Decoder(avro, {7: avro}).decode(values)
    assert decoded.rejected == []
    assert decoded.rows.tolist() == list(range(len(rows)))
    parsed = fastavro.parse_schema(avro)
    read = [fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed, None) for value in values.to_pylist()]
    assert decoded.batch.to_pylist() == [as_arrow(row, avro) for row in read]
    decoded.batch.validate(full=True)


@settings(max_examples=250, deadline=None)
@given(batches(), st.integers(0, 3), st.integers(0, 3))
def test_columns_are_written_to_the_bytes_that_fastavro_writes(
    batch: tuple[Any, list[dict[str, Any]]], before: int, after: int
) -> None:
    avro, rows = batch
    encoder = Encoder(avro, 7)
    arrow = pa.RecordBatch.from_pylist([as_arrow(row, avro) for row in rows], schema=encoder.schema)
    end = max(before, len(rows) - after)
    expected = [framed(7, avro, row) for row in rows]
    assert encoder.encode(arrow).to_pylist() == expected
    assert encoder.encode(arrow.slice(before, end - before)).to_pylist() == expected[before:end]


@settings(max_examples=150, deadline=None)
@given(batches())
def test_what_is_decoded_is_encoded_to_the_same_bytes_with_strings_as_words_too(
    batch: tuple[Any, list[dict[str, Any]]],
) -> None:
    avro, rows = batch
    values = pa.array([framed(7, avro, row) for row in rows], pa.large_binary())
    decoded = Decoder(avro, {7: avro}).decode(values).batch
    columns = [c.dictionary_encode() if c.type in (pa.string(), pa.binary()) else c for c in decoded.columns]
    encoder = Encoder(avro, 7)
    assert encoder.encode(decoded).to_pylist() == values.to_pylist()
    assert encoder.encode(pa.RecordBatch.from_arrays(columns, decoded.schema.names)).to_pylist() == values.to_pylist()


@settings(max_examples=100, deadline=None)
@given(batches(), st.integers(0, 2**32))
def test_many_rows_of_few_kinds_are_written_and_read_like_each_of_them(
    batch: tuple[Any, list[dict[str, Any]]], seed: int
) -> None:
    avro, kinds = batch
    each = [framed(7, avro, row) for row in kinds]
    chosen = random.Random(seed).choices(range(len(kinds)), k=300) if kinds else []  # noqa: S311 - an order, no secret
    values = pa.array([each[i] for i in chosen], pa.large_binary())
    decoder, encoder = Decoder(avro, {7: avro}), Encoder(avro, 7)
    few = decoder.decode(pa.array(each, pa.large_binary())).batch.to_pylist()
    many = decoder.decode(values).batch
    assert many.to_pylist() == [few[i] for i in chosen]
    words = [c.dictionary_encode() if c.type in (pa.string(), pa.binary()) else c for c in many.columns]
    assert encoder.encode(many).equals(values)
    assert encoder.encode(pa.RecordBatch.from_arrays(words, many.schema.names)).equals(values)


WIDER = {"int": ["int", "long", "float", "double"], "long": ["long", "double"], "float": ["float", "double"]}


@st.composite
def evolved(draw: st.DrawFn) -> tuple[Any, Any, list[dict[str, Any]]]:
    """A writer's schema, a reader's that follows from it, and records of the writer."""
    avro, rows = draw(batches())
    fields = []
    for field in avro["fields"]:
        change = draw(st.sampled_from(["keep", "drop", "optional", "wider", "rename"]))
        kind = field["type"]
        name = isinstance(kind, str)
        if change == "drop":
            continue
        if change == "optional" and not isinstance(kind, list):
            fields.append({**field, "type": ["null", kind], "default": None})
        elif change == "wider" and name and kind in WIDER:
            fields.append({**field, "type": draw(st.sampled_from(WIDER[kind]))})
        elif change == "rename":
            fields.append({**field, "name": f"new_{field['name']}", "aliases": [field["name"]]})
        else:
            fields.append(field)
    fields.append({"name": "added", "type": ["null", "string"], "default": None})
    fields.append({"name": "counted", "type": "long", "default": 12})
    fields.append({"name": "tags", "type": {"type": "map", "values": "string"}, "default": {"a": "b"}})
    return avro, {**avro, "fields": draw(st.permutations(fields))}, rows


@settings(max_examples=250, deadline=None)
@given(evolved())
def test_an_older_writer_is_resolved_as_fastavro_resolves_it(case: tuple[Any, Any, list[dict[str, Any]]]) -> None:
    writer, reader, rows = case
    values = pa.array([framed(7, writer, row) for row in rows], pa.large_binary())
    decoded = Decoder(reader, {7: writer}).decode(values)
    assert decoded.rejected == []
    one, two = fastavro.parse_schema(writer), fastavro.parse_schema(reader)
    expected = [fastavro.schemaless_reader(io.BytesIO(value[5:]), one, two) for value in values.to_pylist()]
    assert decoded.batch.to_pylist() == [as_arrow(row, reader) for row in expected]


def varint(value: int) -> bytes:
    """One zigzag varint, the slow way."""
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


def entries(pairs: list[tuple[str, str]], blocks: list[int], *, sized: bool) -> bytes:
    """A map of strings, cut into blocks."""
    out, at = b"", 0
    for size in [*blocks, len(pairs)]:
        block = pairs[at : at + size]
        at += len(block)
        if block:
            body = b"".join(varint(len(t.encode())) + t.encode() for pair in block for t in pair)
            out += varint(-len(block)) + varint(len(body)) + body if sized else varint(len(block)) + body
    return out + b"\0"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=6),
            st.lists(st.integers(1, 3), max_size=3),
            st.booleans(),
        ),
        max_size=6,
    )
)
def test_maps_in_several_blocks_with_or_without_sizes_are_read(
    rows: list[tuple[list[tuple[str, str]], list[int], bool]],
) -> None:
    avro = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "m", "type": {"type": "map", "values": "string"}}, {"name": "n", "type": "long"}],
    }
    values = [
        b"\0\0\0\0\7" + entries(pairs, blocks, sized=sized) + varint(i) for i, (pairs, blocks, sized) in enumerate(rows)
    ]
    decoded = Decoder(avro, {7: avro}).decode(pa.array(values, pa.large_binary()))
    assert decoded.rejected == []
    assert decoded.batch.to_pylist() == [{"m": pairs, "n": i} for i, (pairs, _, _) in enumerate(rows)]


USAGE = catalog.load("usage_event")
EVENTS = [
    {
        "id": f"evt-{i}",
        "source": "gateway",
        "customer_id": "acme",
        "meter": "tokens",
        "time": EPOCH + dt.timedelta(seconds=i),
        "quantity": Decimal(i) / 1000 if i % 3 else None,
        "attributes": {"region": "eu", "modèle": "grand"} if i % 2 else {},
        "contract_id": None,
        "amount": Decimal(-i),
        "corrects": {"source": "s", "id": "i"} if i % 4 == 0 else None,
        "voids": None,
    }
    for i in range(8)
]


def raw(avro: Any) -> Any:
    """A schema without logical types, so that fastavro rounds and refuses nothing by meaning."""
    if isinstance(avro, list):
        return [raw(item) for item in avro]
    if isinstance(avro, dict):
        return {key: raw(item) for key, item in avro.items() if key not in ("logicalType", "precision", "scale")}
    return avro


RAW = fastavro.parse_schema(raw(USAGE.avro))


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, 7),
    st.lists(st.tuples(st.integers(5, 200), st.integers(0, 255)), max_size=3),
    st.one_of(st.none(), st.integers(5, 90)),
    st.binary(max_size=3),
)
def test_a_damaged_body_is_read_as_fastavro_reads_it_or_rejected_alone(
    place: int, changes: list[tuple[int, int]], cut: int | None, tail: bytes
) -> None:
    values = [framed(11, USAGE.avro, event) for event in EVENTS]
    body = bytearray(values[place])
    for at, byte in changes:
        body[5 + at % (len(body) - 5)] = byte
    values[place] = bytes(body[:cut]) + tail
    decoded = Decoder(USAGE, {11: USAGE.avro}).decode(pa.array(values, pa.large_binary()))
    whole = Decoder(USAGE, {11: USAGE.avro}).decode(
        pa.array([framed(11, USAGE.avro, event) for event in EVENTS], pa.large_binary())
    )
    others = [i for i in range(len(values)) if i != place]
    mine = decoded.rows.tolist()
    assert [row for row in mine if row != place] == others
    kept = decoded.batch.take(pa.array([mine.index(i) for i in others]))
    assert kept.equals(whole.batch.take(pa.array(others)))
    if place in mine:
        stream = io.BytesIO(values[place][5:])
        record = fastavro.schemaless_reader(stream, RAW, None)
        assert stream.read() == b""
        row = decoded.batch.slice(mine.index(place), 1)
        assert row["time"].cast(pa.int64())[0].as_py() == record["time"]
        for name in ("id", "source", "customer_id", "meter", "contract_id"):
            assert row[name][0].as_py() == record[name]
        quantity = record["quantity"]
        unscaled = None if quantity is None else int.from_bytes(quantity, "big", signed=True)
        found = row["quantity"][0].as_py()
        assert (None if found is None else int(found.scaleb(9))) == unscaled
        assert dict(row["attributes"][0].as_py()) == record["attributes"]
    else:
        assert [refused.row for refused in decoded.rejected] == [place]
        assert decoded.rejected[0].reason in ("undecodable", "schema_unknown", "field_missing")
        assert decoded.rejected[0].message
