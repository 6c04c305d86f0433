"""Four releases of the usage event and of rated usage: two before this one (N-2, N-1), this one (N), and the next (N+1)."""

import copy
import io
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import fastavro

from schemas import catalog

NAMES = ("N-2", "N-1", "N", "N+1")
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}


def usage_event() -> dict[str, Any]:
    """The event has grown: contract and amount, then corrections, then what the next release adds."""
    now = catalog.load("usage_event").avro
    newer = copy.deepcopy(now)
    more = {
        "type": "record", "name": "Origin", "doc": "Where it was measured.",
        "fields": [{"name": "host", "type": "string", "doc": "The host."}, {"name": "weights", "type": {"type": "array", "items": DECIMAL}, "doc": "Weights."}],
    }  # fmt: skip
    newer["fields"].insert(2, {"name": "origin", "type": ["null", more], "doc": "Where it was measured.", "default": None})
    newer["fields"].append({"name": "trace", "type": ["null", "string"], "doc": "The sender's trace.", "default": None})
    return {
        "N-2": without(now, "contract_id", "amount", "corrects", "voids"),
        "N-1": without(now, "corrects", "voids"),
        "N": now,
        "N+1": newer,
    }


def rated_usage() -> dict[str, Any]:
    """Groups came first, then corrections by another source; the next release adds a cause and a field."""
    now = catalog.load("rated_usage").avro
    older = copy.deepcopy(now)
    place = next(field for field in older["fields"] if field["name"] == "cause")
    place["type"] = without(place["type"], "ref_source")
    oldest = without(copy.deepcopy(older), "group")
    kind = next(field for field in oldest["fields"] if field["name"] == "cause")["type"]["fields"][0]["type"]
    kind["symbols"] = ["usage", "reprice", "correction", "unknown"]
    newer = copy.deepcopy(now)
    next(field for field in newer["fields"] if field["name"] == "cause")["type"]["fields"][0]["type"]["symbols"].append("rebate")
    newer["fields"].append({"name": "tax_code", "type": ["null", "string"], "doc": "The tax code.", "default": None})
    return {"N-2": oldest, "N-1": older, "N": now, "N+1": newer}


def without(avro: dict[str, Any], *names: str) -> dict[str, Any]:
    return {**avro, "fields": [field for field in avro["fields"] if field["name"] not in names]}


def framed(number: int, avro: Any, record: dict[str, Any]) -> bytes:
    """A value as a producer of that schema writes it."""
    out = io.BytesIO()
    out.write(b"\0" + struct.pack(">I", number))
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro), record)
    return out.getvalue()


def read(value: bytes, writer: Any, reader: Any) -> dict[str, Any]:
    """The same value as fastavro resolves it for a reader."""
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(writer), fastavro.parse_schema(reader))


def event(i: int, **changes: Any) -> dict[str, Any]:
    """An event that says only what every release can say."""
    known = {
        "id": f"evt-{i}", "source": f"gw-{i % 3}", "customer_id": f"k{i % 7}", "meter": "calls", "time": datetime(2026, 1, 5, 0, i % 60, tzinfo=UTC),
        "quantity": Decimal(i % 50 + 1) / 8, "attributes": {"region": ("eu", "us")[i % 2], "model": "large"},
    }  # fmt: skip
    return {**known, **changes}
