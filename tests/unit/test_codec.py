"""What the codec promises: every row by itself, a reason for each that is refused, and no figure ever changed."""

import io
import json
import math
import struct
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from schemas import catalog, decode, readers
from schemas.codec import Decoder, EncodeError, Encoder

BENCH = json.loads("""{"type":"record","name":"UsageEvent","namespace":"bench","fields":[
 {"name":"id","type":"string"}, {"name":"source","type":"string"}, {"name":"customer_id","type":"string"},
 {"name":"meter","type":"string"}, {"name":"time","type":{"type":"long","logicalType":"timestamp-micros"}},
 {"name":"quantity","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}},
 {"name":"attributes","type":{"type":"map","values":"string"}}]}""")
"""A producer's own schema: another name, more digits, no optional fields."""

USAGE = catalog.load("usage_event")


def body(avro: Any, record: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro), record)
    return out.getvalue()


def framed(number: int, avro: Any, record: Any) -> bytes:
    return b"\0" + struct.pack(">I", number) + body(avro, record)


def event(i: int, **changes: Any) -> dict[str, Any]:
    known = {
        "id": f"evt-{i}",
        "source": "gw",
        "customer_id": "acme",
        "meter": "tokens",
        "time": 1_700_000_000_000_000 + i,
    }
    return {**known, "quantity": Decimal(i) / 1000, "attributes": {"region": "eu"}, **changes}


def values(*rows: bytes | None) -> pa.Array:
    return pa.array(rows, pa.large_binary())


def record(*fields: tuple[str, Any], name: str = "R") -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": field, "type": kind} for field, kind in fields]}


GOOD = [framed(1, BENCH, event(i)) for i in range(6)]
HEAD = b"\0\0\0\0\1"


def bench_parts(**changes: bytes) -> bytes:
    """A bench event by its fields' own bytes, so that one can be broken."""
    parts = {
        "id": b"\x0aevt-1",
        "source": b"\x04gw",
        "customer_id": b"\x08acme",
        "meter": b"\x0ctokens",
        "time": b"\x02",
        "quantity": b"\x02\x01",
        "attributes": b"\x02\x02k\x02v\x00",
    }
    return HEAD + b"".join({**parts, **changes}.values())


POISON = {
    "null value": (None, "undecodable", None),
    "empty value": (b"", "undecodable", None),
    "shorter than its frame": (b"\0\0\0", "undecodable", None),
    "frame only": (HEAD, "undecodable", "id"),
    "wrong magic byte": (b"\1" + GOOD[0][1:], "undecodable", None),
    "plain JSON": (b'{"id": "evt-1"}', "undecodable", None),
    "unknown schema id": (b"\0\0\0\3\xe7" + GOOD[0][5:], "schema_unknown", None),
    "highest schema id": (b"\0\xff\xff\xff\xff" + GOOD[0][5:], "schema_unknown", None),
    "truncated": (GOOD[0][:-1], "undecodable", "attributes"),
    "truncated in text": (GOOD[0][:8], "undecodable", "id"),
    "trailing byte": (GOOD[0] + b"\0", "undecodable", None),
    "negative length": (bench_parts(source=b"\x03gw"), "undecodable", "source"),
    "length of 2^62": (bench_parts(source=b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01gw"), "undecodable", "source"),
    "length that wraps 64 bits": (bench_parts(source=b"\xfe" + b"\xff" * 8 + b"\x01"), "undecodable", "source"),
    "varint without end": (bench_parts(time=b"\xff" * 12), "undecodable", "time"),
    "varint of 65 bits": (bench_parts(time=b"\xff" * 9 + b"\x03"), "undecodable", "time"),
    "bad UTF-8": (bench_parts(meter=b"\x0ctok\xff\xfes"), "undecodable", "meter"),
    "a surrogate in UTF-8": (bench_parts(meter=b"\x06\xed\xa0\x80"), "undecodable", "meter"),
    "half a character each": (bench_parts(source=b"\x02\xc3", customer_id=b"\x02\xa9"), "undecodable", "source"),
    "bad UTF-8 in a map": (bench_parts(attributes=b"\x02\x02\xff\x02v\x00"), "undecodable", "attributes"),
    "decimal of 29 digits": (
        bench_parts(quantity=b"\x18" + (10**28).to_bytes(12, "big")), "undecodable", "quantity",
    ),
    "decimal of 40 bytes": (bench_parts(quantity=b"\x50" + b"\x7f" * 40), "undecodable", "quantity"),
    "map of 2^40 entries": (bench_parts(attributes=b"\x80\x80\x80\x80\x80\x80\x01"), "undecodable", "attributes"),
    "map of -2^63 entries": (
        bench_parts(attributes=b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"), "undecodable", "attributes",
    ),
    "map without end": (bench_parts(attributes=b"\x02\x02k\x02v"), "undecodable", "attributes"),
}  # fmt: skip


@pytest.mark.parametrize("name", POISON)
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_broken_value_is_rejected_alone_and_its_neighbours_are_unchanged(name: str, place: int) -> None:
    poison, reason, path = POISON[name]
    decoder = Decoder(USAGE, {1: BENCH})
    whole = decoder.decode(values(*GOOD))
    mixed = decoder.decode(values(*GOOD[:place], poison, *GOOD[place:]))
    assert mixed.batch.equals(whole.batch)
    assert mixed.rows.tolist() == [i for i in range(7) if i != place]
    (refused,) = mixed.rejected
    assert (refused.row, refused.reason, refused.path) == (place, reason, path)
    assert ";" in refused.message, "a message says what is wrong and what to do"


def test_every_poison_at_once_leaves_every_good_row() -> None:
    rows = [row for poison, _, _ in POISON.values() for row in (poison, GOOD[2])]
    decoded = Decoder(USAGE, {1: BENCH}).decode(values(*rows))
    assert decoded.rows.tolist() == list(range(1, len(rows), 2))
    assert [refused.row for refused in decoded.rejected] == list(range(0, len(rows), 2))
    assert decoded.batch["id"].to_pylist() == ["evt-2"] * len(POISON)


def test_a_row_is_told_in_company_what_it_is_told_alone() -> None:
    cut = [GOOD[1][:length] for length in range(len(GOOD[1]))]
    flipped = [GOOD[1][:at] + bytes([GOOD[1][at] ^ 0x81]) + GOOD[1][at + 1 :] for at in range(5, len(GOOD[1]))]
    rows = [row for broken in (*cut, *flipped) for row in (broken, GOOD[2], GOOD[3])]
    decoder = Decoder(USAGE, {1: BENCH})
    found = decoder.decode(values(*rows))
    alone = [decoder.decode(values(row)) for row in rows]
    assert found.rejected == [refused._replace(row=i) for i, one in enumerate(alone) for refused in one.rejected]
    assert found.batch.to_pylist() == [row for one in alone for row in one.batch.to_pylist()]
    assert len({refused.path for refused in found.rejected}) == 8, "every field and the end of the body had its fault"


def test_fields_that_are_null_together_are_told_apart_where_the_body_ends_among_them() -> None:
    avro = record(("a", "int"), *((f"f{i}", ["null", "string"]) for i in range(12)), ("z", "int"))
    full = framed(7, avro, {"a": 1, **{f"f{i}": None for i in range(12)}, "z": 2})
    some = framed(7, avro, {"a": 1, **{f"f{i}": "x" if i in (3, 9) else None for i in range(12)}, "z": 2})
    decoder = Decoder(avro, {7: avro})
    found = decoder.decode(values(full, full[:10], full, full[:16], some))
    assert [(refused.row, refused.path) for refused in found.rejected] == [(1, "f4"), (3, "f10")]
    assert [row["z"] for row in found.batch.to_pylist()] == [2, 2, 2]
    assert [[i for i in range(12) if row[f"f{i}"]] for row in found.batch.to_pylist()] == [[], [], [3, 9]]


def test_another_producers_schema_is_read_into_the_catalogues_fields() -> None:
    decoded = Decoder(USAGE, {1: BENCH}).decode(values(*GOOD))
    assert decoded.batch.schema == catalog.arrow_schema("usage_event")
    row = decoded.batch.to_pylist()[4]
    assert row["quantity"] == Decimal("0.004")
    assert row["attributes"] == [("region", "eu")]
    assert [row[name] for name in ("contract_id", "amount", "corrects", "voids")] == [None] * 4


def test_writers_of_several_versions_are_read_in_one_batch_in_order() -> None:
    newer = {**BENCH, "fields": [{"name": "trace", "type": "string"}, *BENCH["fields"]]}
    rows = [framed(2, newer, {**event(i), "trace": "x" * i}) if i % 2 else framed(1, BENCH, event(i)) for i in range(9)]
    rows.insert(4, framed(9, BENCH, event(0)))
    decoded = Decoder(USAGE, {1: BENCH, 2: newer}).decode(values(*rows))
    assert decoded.batch["id"].to_pylist() == [f"evt-{i}" for i in range(9)]
    assert decoded.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert [(refused.row, refused.schema_id) for refused in decoded.rejected] == [(4, 9)]


def test_a_slice_of_values_with_nulls_is_read_like_a_copy_of_it() -> None:
    rows = values(GOOD[0], None, *GOOD[1:])
    decoder = Decoder(USAGE, {1: BENCH})
    for start in range(len(rows)):
        part = rows[start:]
        copy = pa.array(part.to_pylist(), pa.large_binary())
        one, two = decoder.decode(part), decoder.decode(copy)
        assert one.batch.equals(two.batch)
        assert one.rejected == two.rejected
    assert decoder.decode(rows.cast(pa.binary())).batch.equals(decoder.decode(rows).batch)


def test_no_values_give_an_empty_batch_of_the_same_columns() -> None:
    decoded = Decoder(USAGE, {1: BENCH}).decode(values())
    assert decoded.batch.num_rows == 0
    assert decoded.batch.schema == catalog.arrow_schema("usage_event")
    assert decoded.rejected == []


def test_a_batch_larger_than_one_buffer_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "LONGEST", 200)
    rows = [*GOOD, b"\0\0\0\0\1" + b"x" * 300, b"", *GOOD]
    decoded = Decoder(USAGE, {1: BENCH}).decode(values(*rows))
    assert decoded.rows.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]
    assert decoded.batch["id"].to_pylist() == [f"evt-{i}" for i in range(6)] * 2
    assert [refused.row for refused in decoded.rejected] == [6, 7]
    assert "305 bytes" in decoded.rejected[0].message


def test_a_writer_that_lacks_a_required_field_has_its_rows_rejected_with_that_field() -> None:
    older = {**BENCH, "fields": [field for field in BENCH["fields"] if field["name"] != "meter"]}
    row = framed(2, older, {key: value for key, value in event(1).items() if key != "meter"})
    decoded = Decoder(USAGE, {1: BENCH, 2: older}).decode(values(GOOD[0], row))
    assert decoded.rows.tolist() == [0]
    assert [(r.row, r.reason, r.path) for r in decoded.rejected] == [(1, "field_missing", "meter")]


def test_a_null_where_a_value_is_required_is_a_missing_field_of_that_row_only() -> None:
    loose = {
        **BENCH,
        "fields": [{**f, "type": ["null", f["type"]]} if f["name"] == "meter" else f for f in BENCH["fields"]],
    }
    rows = [framed(1, loose, event(1)), framed(1, loose, event(2, meter=None)), framed(1, loose, event(3))]
    decoded = Decoder(USAGE, {1: loose}).decode(values(*rows))
    assert decoded.batch["id"].to_pylist() == ["evt-1", "evt-3"]
    assert [(r.row, r.reason, r.path) for r in decoded.rejected] == [(1, "field_missing", "meter")]


@pytest.mark.parametrize(
    "kind",
    [
        {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6},
        {"type": "bytes", "logicalType": "decimal", "precision": 38},
        "bytes",
        "double",
        "string",
        ["null", {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 6}],
    ],
)
def test_a_quantity_of_another_scale_or_type_is_never_taken_for_ours(kind: Any) -> None:
    other = {**BENCH, "fields": [{**f, "type": kind} if f["name"] == "quantity" else f for f in BENCH["fields"]]}
    decoded = Decoder(USAGE, {1: other}).decode(values(GOOD[0]))
    assert [(r.reason, r.path) for r in decoded.rejected] == [("undecodable", "quantity")]
    assert decoded.batch.num_rows == 0


def test_milliseconds_are_read_as_microseconds_and_never_as_the_same_number() -> None:
    millis = record(("time", {"type": "long", "logicalType": "timestamp-millis"}))
    micros = record(("time", {"type": "long", "logicalType": "timestamp-micros"}))
    row = framed(1, millis, {"time": 1_700_000_000_123})
    assert Decoder(micros, {1: millis}).decode(values(row)).batch["time"].cast(pa.int64()).to_pylist() == [
        1_700_000_000_123_000
    ]
    finer = Decoder(millis, {1: micros}).decode(values(row))
    assert "instant would change" in finer.rejected[0].message
    far = HEAD + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    assert [r.row for r in Decoder(micros, {1: millis}).decode(values(row, far)).rejected] == [1]


@pytest.mark.parametrize(
    "unscaled", [0, 1, -1, 127, 128, -128, -129, 2**63 - 1, -(2**63), 2**63, 2**64, 10**28 - 1, -(10**28) + 1]
)
@pytest.mark.parametrize("padding", [0, 1, 5, 30])
def test_a_decimal_of_any_length_keeps_its_value(unscaled: int, padding: int) -> None:
    size = (unscaled.bit_length() + 8) // 8 + padding
    raw = bytes([2 * size]) + unscaled.to_bytes(size, "big", signed=True)
    row = HEAD + raw
    avro = record(("q", {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}))
    decoded = Decoder(avro, {1: avro}).decode(values(HEAD + b"\x02\x05", row))
    assert decoded.rejected == []
    found = decoded.batch["q"].to_pylist()[1]
    assert int(found.scaleb(9)) == unscaled


def test_an_empty_decimal_is_nought_as_fastavro_reads_it() -> None:
    avro = record(("q", {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}))
    assert Decoder(avro, {1: avro}).decode(values(HEAD + b"\0")).batch["q"].to_pylist() == [Decimal("0E-9")]


def test_a_symbol_that_the_reader_does_not_know_is_its_default_or_breaks_the_row() -> None:
    writer = record(("k", {"type": "enum", "name": "K", "symbols": ["a", "b", "z"]}))
    plain = record(("k", {"type": "enum", "name": "K", "symbols": ["b", "a"]}))
    safe = record(("k", {"type": "enum", "name": "K", "symbols": ["b", "a", "unknown"], "default": "unknown"}))
    rows = values(HEAD + b"\0", HEAD + b"\2", HEAD + b"\4", HEAD + b"\6", HEAD + b"\1")
    loose = Decoder(safe, {1: writer}).decode(rows)
    assert loose.batch["k"].to_pylist() == ["a", "b", "unknown"]
    assert [refused.row for refused in loose.rejected] == [3, 4]
    strict = Decoder(plain, {1: writer}).decode(rows)
    assert strict.batch["k"].to_pylist() == ["a", "b"]
    assert [refused.row for refused in strict.rejected] == [2, 3, 4]


def test_a_union_of_several_types_is_read_where_the_branch_fits() -> None:
    writer = record(("v", ["string", "null", "long", "bytes"]), ("n", "int"))
    reader = record(("v", ["null", "string"]), ("n", "int"))
    rows = [framed(1, writer, {"v": v, "n": i}) for i, v in enumerate(["a", None, 5, b"bytes", "z"])]
    rows += [HEAD + b"\x08\x00", HEAD + b"\x01\x00"]
    decoded = Decoder(reader, {1: writer}).decode(values(*rows))
    assert decoded.batch["v"].to_pylist() == ["a", None, "bytes", "z"]
    assert decoded.batch["n"].to_pylist() == [0, 1, 3, 4]
    assert [(r.row, r.path) for r in decoded.rejected] == [(2, "v"), (5, "v"), (6, "v")]


def test_a_renamed_field_is_found_by_its_alias_only_where_its_name_is_absent() -> None:
    writer = record(("a", "long"), ("b", "long"))
    reader = record(("b", "long"), ("c", "long"))
    reader["fields"][1]["aliases"] = ["a"]
    decoded = Decoder(reader, {1: writer}).decode(values(framed(1, writer, {"a": 1, "b": 2})))
    assert decoded.batch.to_pylist() == [{"b": 2, "c": 1}]
    greedy = record(("x", "long"), ("b", "long"))
    greedy["fields"][0]["aliases"] = ["b", "a"]
    assert Decoder(greedy, {1: writer}).decode(values(framed(1, writer, {"a": 1, "b": 2}))).batch["b"].to_pylist() == [
        2
    ]


def test_defaults_keep_every_digit() -> None:
    raw = (10**37 + 1).to_bytes(16, "big").decode("latin-1")
    reader = record(("n", "long"), ("d", {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 12}))
    reader["fields"][1]["default"] = raw
    decoded = Decoder(reader, {1: record(("n", "long"))}).decode(values(HEAD + b"\2"))
    assert decoded.batch["d"].to_pylist() == [Decimal("10000000000000000000000000.000000000001")]


def test_a_map_with_more_entries_than_columns_take_is_read_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ROUNDS", 8)
    many = {f"k{i}": "v" for i in range(50)}
    rows = [framed(1, BENCH, event(i, attributes=many if i == 1 else {"k": "v"})) for i in range(3)]
    decoded = Decoder(USAGE, {1: BENCH}).decode(values(*rows))
    assert decoded.rejected == []
    assert decoded.batch["id"].to_pylist() == ["evt-0", "evt-1", "evt-2"]
    assert dict(decoded.batch["attributes"].to_pylist()[1]) == many
    assert decoded.batch["quantity"].to_pylist()[1] == Decimal("0.001")


def test_a_list_of_items_without_bytes_cannot_fill_the_memory() -> None:
    writer = record(("nothing", {"type": "array", "items": "null"}), ("n", "int"))
    billion = b"\x80\xa8\xd6\xb9\x07\x00\x02"
    rows = values(HEAD + b"\x06\x00\x02", HEAD + billion, HEAD + b"\x00\x04")
    for reader in (writer, record(("n", "int"))):
        decoded = Decoder(reader, {1: writer}).decode(rows)
        assert decoded.batch["n"].to_pylist() == [1, 2]
        assert [refused.row for refused in decoded.rejected] == [1]


def test_a_body_whose_few_bytes_could_stand_for_anything_is_not_read_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(readers, "ROUNDS", 8)
    strings = {"type": "array", "items": "string"}
    writer = record(("many", strings), ("nothing", {"type": "array", "items": "null"}))
    rows = [framed(1, writer, {"many": ["x"] * n, "nothing": [None] * 3}) for n in (2, 20)]
    decoded = Decoder(writer, {1: writer}).decode(values(*rows))
    assert decoded.rows.tolist() == [0]
    assert [(refused.row, refused.path) for refused in decoded.rejected] == [(1, "many")]


ENDLESS = """
import pyarrow as pa
from schemas import readers
from schemas.codec import Decoder
readers.ROUNDS = 8
fixed = {"type": "fixed", "name": "F", "size": 1}
for items in ("boolean", "float", "double", fixed):
    fields = [{"name": "skipped", "type": {"type": "array", "items": items}}, {"name": "n", "type": "int"}]
    writer, reader = ({"type": "record", "name": "R", "fields": some} for some in (fields, fields[1:]))
    size = {"float": 4, "double": 8}.get(str(items), 1)
    body = bytes([2 * 9]) + bytes(9 * size) + bytes([254, *[255] * 7, 127])
    (refused,) = Decoder(reader, {1: writer}).decode(pa.array([bytes([0, 0, 0, 0, 1]) + body], pa.large_binary())).rejected
    assert refused.path == "skipped", refused
"""


def test_a_long_list_that_is_passed_over_and_whose_count_cannot_be_right_does_not_keep_its_reader_for_ever() -> None:
    subprocess.run([sys.executable, "-c", ENDLESS], check=True, timeout=60, cwd=Path(__file__).parents[2])  # noqa: S603 - own text


TREE: dict[str, Any] = {
    "type": "record",
    "name": "Tree",
    "fields": [
        {"name": "children", "type": {"type": "array", "items": "Tree"}},
        {"name": "next", "type": ["null", "Tree"]},
    ],
}


def test_a_field_that_contains_itself_is_passed_over_and_one_without_end_breaks_its_row() -> None:
    writer = record(("tree", TREE), ("n", "int"))
    leaf: dict[str, Any] = {"children": [], "next": None}
    tree = {"children": [leaf, {"children": [leaf], "next": leaf}], "next": leaf}
    bottomless = HEAD + b"\x00\x02" * 100_000
    decoded = Decoder(record(("n", "int")), {1: writer}).decode(
        values(framed(1, writer, {"tree": tree, "n": 5}), bottomless, framed(1, writer, {"tree": leaf, "n": 6}))
    )
    assert decoded.batch["n"].to_pylist() == [5, 6]
    assert [(r.row, r.path) for r in decoded.rejected] == [(1, "tree")]
    with pytest.raises(catalog.CatalogError, match="contains itself"):
        Decoder(writer, {1: writer})


def test_a_flood_of_broken_rows_leaves_the_good_ones() -> None:
    rng = np.random.default_rng(5)
    rows = [GOOD[i % 6] if i % 3 == 0 else HEAD + rng.bytes(60) for i in range(3000)]
    decoded = Decoder(USAGE, {1: BENCH}).decode(values(*rows))
    assert set(range(0, 3000, 3)) <= set(decoded.rows.tolist())
    assert decoded.batch.num_rows + len(decoded.rejected) == 3000


# ---- the encoder


RATED = catalog.load("rated_usage")


def rated(i: int, **changes: Any) -> dict[str, Any]:
    cause = {"kind": "usage", "ref": None, "ref_source": None, "from_version": None, "to_version": None}
    row = {
        "rated_id": f"r{i}",
        "correlation_id": "c",
        "batch_id": "usage-3-7",
        "usage": {"source": "gw", "id": f"evt-{i}"},
    }
    row |= {"cause": cause if i % 3 else {**cause, "kind": "carry", "ref": f"r{i - 1}", "from_version": i}}
    row |= {"customer_id": "acme", "contract_id": "c-acme", "contract_version": i, "charge_id": "tokens"}
    row |= {"product_id": "llm", "legal_entity_id": "us", "meter": "tokens", "billing_period": "2026-03"}
    row |= {"group": [None, "eu", "", *["x"] * i] if i % 2 else None, "time": 1_700_000_000_000_000 * (i - 2)}
    row |= {"quantity": Decimal(i - 3) / 1000, "amount": Decimal("-0.000000000001") * 10**i, "currency": "USD"}
    return row | changes


def rated_batch(count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([rated(i) for i in range(count)], schema=catalog.arrow_schema("rated_usage"))


def test_rated_usage_is_written_byte_for_byte_as_fastavro_writes_it() -> None:
    expected = [framed(RATED.id, RATED.avro, rated(i)) for i in range(9)]
    assert Encoder(RATED).encode(rated_batch(9)).to_pylist() == expected
    assert Encoder(RATED.avro, 5).encode(rated_batch(9)).to_pylist() == [b"\0\0\0\0\5" + row[5:] for row in expected]


def test_repeated_text_may_come_as_words_with_null_words_and_words_of_no_row() -> None:
    batch = rated_batch(9)
    expected = Encoder(RATED).encode(batch).to_pylist()
    columns = dict(zip(batch.schema.names, batch.columns, strict=True))
    for name in ("customer_id", "meter", "batch_id", "rated_id"):
        columns[name] = columns[name].dictionary_encode()
    words = pa.array(["EUR", "USD", *(f"unused{i}" for i in range(3000))])
    columns["currency"] = pa.DictionaryArray.from_arrays(pa.array([1] * 9, pa.int8()), words)
    refs = columns["cause"].field("ref")
    words = pa.array([None, *dict.fromkeys(ref for ref in refs.to_pylist() if ref is not None)])
    codes = [words.to_pylist().index(ref) for ref in refs.to_pylist()]
    cause = columns["cause"]
    fields = {cause.type.field(i).name: cause.field(i) for i in range(cause.type.num_fields)}
    fields["ref"] = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), words)
    columns["cause"] = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    columns["charge_id"] = columns["charge_id"].cast(pa.large_string())
    found = Encoder(RATED).encode(pa.RecordBatch.from_arrays(list(columns.values()), list(columns)))
    assert found.to_pylist() == expected


def test_an_optional_column_may_be_absent() -> None:
    batch = rated_batch(4).drop_columns(["group"])
    expected = [framed(RATED.id, RATED.avro, rated(i, group=None)) for i in range(4)]
    assert Encoder(RATED).encode(batch).to_pylist() == expected


def test_no_rows_are_written_as_no_values() -> None:
    assert Encoder(RATED).encode(rated_batch(0)).to_pylist() == []


def test_single_documents_are_written_as_their_columns_are() -> None:
    whole = catalog.arrow_schema("rated_usage").names
    rows = [rated(i) for i in range(9)]
    assert Encoder(RATED).documents(rows).to_pylist() == Encoder(RATED).encode(rated_batch(9)).to_pylist()
    assert "event" in whole and "event" not in rows[0]  # what has a default may be left out
    assert Encoder(RATED).documents([]).to_pylist() == []
    assert Encoder(RATED).documents([]).type == pa.large_binary()


@pytest.mark.parametrize(
    "changes",
    [{"meter": None}, {"quantity": Decimal("0.0000000001")}, {"quantity": 0.5}, {"surprise": 1}, {"time": "now"}],
)
def test_a_document_that_does_not_fit_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(EncodeError, match="does not fit its schema"):
        Encoder(RATED).documents([rated(1, **changes)])
    with pytest.raises(EncodeError, match="meter"):
        Encoder(RATED).documents([{name: value for name, value in rated(1).items() if name != "meter"}])


def replaced(name: str, column: pa.Array) -> pa.RecordBatch:
    batch = rated_batch(len(column))
    return batch.set_column(batch.schema.names.index(name), name, column)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("meter", pa.array(["a", None]), "field meter: a row has no value"),
        ("meter", pa.array(["a", None]).dictionary_encode(), "field meter: a row has no value"),
        ("quantity", pa.array([1, 2], pa.decimal128(38, 6)), "a figure would change"),
        ("quantity", pa.array([1, 2]), "a figure would change"),
        ("quantity", pa.array([Decimal(10) ** 19, 0], pa.decimal128(38, 9)), "more digits"),
        ("contract_version", pa.array([2**31, 0]), "field contract_version"),
        ("group", pa.array(["a", "b"]), "field group: a column of string is not a list"),
        ("cause", pa.array(["a", "b"]), "field cause: a column of string is not a struct"),
    ],
)
def test_columns_that_are_not_records_of_the_schema_are_refused_with_the_field(
    name: str, column: pa.Array, message: str
) -> None:
    with pytest.raises(EncodeError, match=message):
        Encoder(RATED).encode(replaced(name, column))


def test_absent_unknown_and_misspelt_columns_are_refused() -> None:
    with pytest.raises(EncodeError, match="field meter: the batch has no such column"):
        Encoder(RATED).encode(rated_batch(1).drop_columns(["meter"]))
    with pytest.raises(EncodeError, match="no field surprise"):
        Encoder(RATED).encode(rated_batch(1).append_column("surprise", pa.array([1])))


def test_a_symbol_outside_of_the_enum_is_refused() -> None:
    avro = record(("k", {"type": "enum", "name": "K", "symbols": ["a", "b"]}))
    assert Encoder(avro, 1).encode(pa.record_batch({"k": ["b", "a"]})).to_pylist() == [HEAD + b"\2", HEAD + b"\0"]
    with pytest.raises(EncodeError, match="field k: 'c' is not one of a, b"):
        Encoder(avro, 1).encode(pa.record_batch({"k": ["b", "c"]}))


def test_a_schema_outside_of_the_catalogue_needs_an_id() -> None:
    with pytest.raises(EncodeError, match="needs its id"):
        Encoder(BENCH)


def test_not_a_number_and_infinities_survive() -> None:
    avro = record(("f", "float"), ("d", "double"))
    numbers = [float("inf"), float("-inf"), float("nan"), -0.0]
    batch = pa.record_batch({"f": pa.array(numbers, pa.float32()), "d": pa.array(numbers)})
    encoded = Encoder(avro, 1).encode(batch)
    assert encoded.to_pylist() == [framed(1, avro, {"f": n, "d": n}) for n in numbers]
    found = Decoder(avro, {1: avro}).decode(encoded).batch["d"].to_pylist()
    assert found[:2] == numbers[:2]
    assert math.isnan(found[2])


def test_values_under_a_null_struct_are_not_written() -> None:
    inner = {
        "type": "record",
        "name": "In",
        "fields": [{"name": "a", "type": "string"}, {"name": "l", "type": {"type": "array", "items": "int"}}],
    }
    avro = record(("s", ["null", inner]), ("n", "int"))
    struct_ = pa.StructArray.from_arrays(
        [pa.array(["x", "hidden", "y"]), pa.array([[1, 2], [3], []], pa.list_(pa.int32()))],
        names=["a", "l"],
        mask=pa.array([False, True, False]),
    )
    batch = pa.RecordBatch.from_arrays([struct_, pa.array([1, 2, 3], pa.int32())], names=["s", "n"])
    rows = [{"s": {"a": "x", "l": [1, 2]}, "n": 1}, {"s": None, "n": 2}, {"s": {"a": "y", "l": []}, "n": 3}]
    assert Encoder(avro, 1).encode(batch).to_pylist() == [framed(1, avro, row) for row in rows]
    assert Encoder(avro, 1).encode(batch.slice(1)).to_pylist() == [framed(1, avro, row) for row in rows[1:]]


@pytest.mark.parametrize("others", [[], ["good"], ["broken"], ["good", "broken"]])
def test_a_count_that_cannot_be_right_is_told_by_its_list_whatever_stands_beside_it(others):
    schema = {"type": "record", "name": "R", "fields": [{"name": "l", "type": {"type": "array", "items": {"type": "record", "name": "S", "fields": [{"name": "x", "type": "long"}]}}}]}
    frame = b"\0\0\0\0\7"
    rows = {"good": frame + b"\x04\x02\x04\x00", "broken": frame}
    bad = frame + b"\x02\x02" + b"\x80\x80\x40"  # an item, then a block of more items than there are bytes
    decoded = Decoder(schema, {7: schema}).decode(pa.array([bad, *(rows[name] for name in others)], pa.large_binary()))
    assert decoded.rejected[0].path == "l"
    assert [one.row for one in decoded.rejected] == [0, *(place for place, name in enumerate(others, 1) if name == "broken")]


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}


@pytest.mark.parametrize("company", [b"\x02\x05", b"\x18" + b"\0" * 11 + b"\x05"])
def test_an_empty_decimal_is_nought_whatever_byte_follows_it(company: bytes) -> None:
    avro = record(("q", DECIMAL), ("n", "long"))
    rows = values(HEAD + b"\0" + b"\xff\x0f", HEAD + company + b"\x02")
    decoded = Decoder(avro, {1: avro}).decode(rows)
    assert decoded.rejected == []
    assert decoded.batch.to_pylist() == [{"q": Decimal("0E-9"), "n": -1024}, {"q": Decimal("5E-9"), "n": 1}]


def test_rows_that_are_all_read_on_their_own_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ROUNDS", 8)
    strings = {"type": "array", "items": "string"}
    avro = record(("a", strings), ("b", strings))
    rows = [{"a": [], "b": ["x"] * 20}, {"a": ["y"] * 20, "b": []}]
    decoded = Decoder(avro, {1: avro}).decode(values(*(framed(1, avro, row) for row in rows)))
    assert decoded.rows.tolist() == [0, 1]
    assert decoded.batch.to_pylist() == rows


def test_of_several_fields_that_cannot_be_read_the_first_is_named() -> None:
    writer, reader = record(("a", "null"), ("b", "string")), record(("a", "string"), ("b", "long"))
    (refused,) = Decoder(reader, {1: writer}).decode(values(HEAD + b"\0")).rejected
    assert (refused.reason, refused.path) == ("field_missing", "a")


def test_a_number_that_is_cut_off_is_told_so_whatever_row_lies_behind_it() -> None:
    avro = record(("n", "long"))
    cut = HEAD + b"\xff" * 9
    decoder = Decoder(avro, {1: avro})
    (alone,) = decoder.decode(values(cut)).rejected
    assert decoder.decode(values(cut, b"{}")).rejected[0] == alone


def test_a_null_word_where_a_value_is_required_is_refused() -> None:
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["a", None]))
    with pytest.raises(EncodeError, match="field k: a row has no value"):
        Encoder(record(("k", "string")), 1).encode(pa.RecordBatch.from_arrays([words], ["k"]))
