"""What the columnar codec costs beside fastavro row by row, in one run on one machine.

In: seeded usage events (about 100 bytes) and rated usage, in batches of 25,000. Out: CPU-seconds per million rows, one
line each, and their ratio; the run fails when the two disagree on a byte or a value.
"""

import io
import time
from collections.abc import Callable
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from schemas import catalog
from schemas.codec import Decoder, Encoder

ROWS = 25_000
ROUNDS = 12
PER_UNIT = 10**9


def usage(rng: np.random.Generator) -> pa.RecordBatch:
    """Seeded events with three decimals and two attributes."""
    n = ROWS
    words = {
        "source": ["gateway-eu", "gateway-us"],
        "meter": ["tokens_in", "tokens_out", "requests"],
        "customer_id": [f"cust-{i:05d}" for i in range(2000)],
    }
    columns = {name: pa.array(rng.choice(found, n)) for name, found in words.items()}
    columns["id"] = pa.array([f"evt-{i:012d}" for i in range(n)])
    columns["time"] = pa.array(1_760_000_000_000_000 + np.cumsum(rng.integers(0, 9000, n)), pa.timestamp("us", "UTC"))
    columns["quantity"] = decimals(rng.integers(1, 10**7, n) * 10**6, catalog.arrow_schema("usage_event"), "quantity")
    values = pa.array(rng.choice(["eu", "us", "large", "small"], 2 * n))
    keys = pa.array(["region", "model"] * n)
    columns["attributes"] = pa.MapArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * 2), keys, values)
    return full(columns, "usage_event", n)


def rated(events: pa.RecordBatch, rng: np.random.Generator) -> pa.RecordBatch:
    """What the flow writes for the events: repeated text as words, hashes and ids as text."""
    n, schema = ROWS, catalog.arrow_schema("rated_usage")
    columns: dict[str, pa.Array] = {name: events[name].dictionary_encode() for name in ("customer_id", "meter")}
    for name, word in (
        ("batch_id", "usage-3-17"), ("charge_id", "tokens"), ("product_id", "llm"), ("legal_entity_id", "us-inc"),
        ("billing_period", "2026-10"), ("currency", "USD"),
    ):  # fmt: skip
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([word]))
    columns["contract_id"] = columns["customer_id"]
    for name in ("rated_id", "correlation_id"):
        columns[name] = pa.array([rng.bytes(16).hex() for _ in range(n)])
    columns["usage"] = pa.StructArray.from_arrays(
        [events["source"].dictionary_encode(), events["id"]], ["source", "id"]
    )
    kind = schema.field("cause").type
    cause = [pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array(["usage"]))]
    cause += [pa.nulls(n, kind.field(i).type) for i in range(1, kind.num_fields)]
    columns["cause"] = pa.StructArray.from_arrays(cause, fields=list(kind))
    columns["contract_version"] = pa.array(rng.integers(1, 4, n), pa.int32())
    columns["time"] = events["time"]
    columns["quantity"] = decimals(rng.integers(1, 10**7, n) * 10**6, schema, "quantity")
    columns["amount"] = decimals(rng.integers(-(10**15), 10**15, n), schema, "amount")
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))


def decimals(units: np.ndarray[Any, np.dtype[np.int64]], schema: pa.Schema, name: str) -> pa.Array:
    """Unscaled 64-bit values as a decimal column."""
    limbs = np.stack([units, units >> 63], axis=1)
    return pa.Array.from_buffers(schema.field(name).type, len(units), [None, pa.py_buffer(limbs)])


def full(columns: dict[str, pa.Array], name: str, rows: int) -> pa.RecordBatch:
    """All columns of a schema, those that are not given null."""
    schema = catalog.arrow_schema(name)
    arrays = [columns.get(field.name, pa.nulls(rows, field.type)) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def cost(work: Callable[[], object], rounds: int) -> float:
    """CPU-seconds per million rows, the median of some rounds."""
    spent = []
    for _ in range(rounds):
        start = time.process_time_ns()
        work()
        spent.append(time.process_time_ns() - start)
    return sorted(spent)[len(spent) // 2] / PER_UNIT / ROWS * 1_000_000


def row_by_row(schema: catalog.Schema, records: list[dict[str, Any]]) -> list[bytes]:
    """Fastavro's own writer, one body at a time."""
    parsed = fastavro.parse_schema(schema.avro)
    frame = b"\0" + schema.id.to_bytes(4, "big")
    found = []
    for record in records:
        out = io.BytesIO()
        out.write(frame)
        fastavro.schemaless_writer(out, parsed, record)
        found.append(out.getvalue())
    return found


def read_row_by_row(schema: catalog.Schema, values: list[bytes]) -> list[Any]:
    """Fastavro's own reader, one body at a time."""
    parsed = fastavro.parse_schema(schema.avro)
    return [fastavro.schemaless_reader(io.BytesIO(value[5:]), parsed, None) for value in values]


def measure(schema: catalog.Schema, batch: pa.RecordBatch) -> None:
    """Print what encoding and decoding a batch costs, both ways."""
    encoder, decoder = Encoder(schema), Decoder(schema, {schema.id: schema.avro})
    records = [plain(record, schema.avro) for record in batch.to_pylist()]
    values = encoder.encode(batch)
    bodies = row_by_row(schema, records)
    if values.to_pylist() != bodies or read_row_by_row(schema, bodies[:100]) != records[:100]:
        msg = f"{schema.name}: the columnar codec and fastavro disagree"
        raise AssertionError(msg)
    sides = {
        "encode": (lambda: encoder.encode(batch), lambda: row_by_row(schema, records)),
        "decode": (lambda: decoder.decode(values), lambda: read_row_by_row(schema, bodies)),
    }
    for name, (columns, rows) in sides.items():
        mine, theirs = cost(columns, ROUNDS), cost(rows, 1)
        print(
            f"{name} {schema.name:12} {values.nbytes // ROWS:4} bytes  columns {mine:6.2f}  "
            f"fastavro {theirs:6.2f}  CPU-s per million  ratio {theirs / mine:5.1f}"
        )


def plain(record: dict[str, Any], avro: catalog.Avro) -> dict[str, Any]:
    """A record with its maps as dicts."""
    maps = {
        field["name"] for field in avro["fields"] if isinstance(field["type"], dict) and field["type"]["type"] == "map"
    }
    names = [field["name"] for field in avro["fields"]]
    return {name: dict(record[name]) if name in maps else record.get(name) for name in names}


def main() -> None:
    """Measure the two topics that carry the load."""
    rng = np.random.default_rng(7)
    events = usage(rng)
    measure(catalog.load("usage_event"), events)
    measure(catalog.load("rated_usage"), rated(events, rng))


if __name__ == "__main__":
    main()
