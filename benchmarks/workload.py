"""The reference workload U1 on files: its dump converted into a folder of topics, before any clock starts.

In: the dump of the workload's generator (topic, key and value of every record, each after its 4-byte length) and the
writer schemas beside it. Out: a folder that ``tieout run usage`` reads. Contracts convert to this project's documents
(reset by contract version, UTC, monthly); usage is taken as it is, with its own writer schema.
"""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from flows import codecs, publish
from sinks.ingress import Ingress


def records(dump: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Topic, key and value of every record of a dump."""
    data = memoryview(dump.read_bytes())
    at = 0
    parts: list[bytes] = []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        parts.append(bytes(data[at + 4 : at + 4 + size]))
        at += 4 + size
        if len(parts) == 3:
            yield parts[0].decode(), parts[1], parts[2]
            parts = []


def document(record: dict[str, Any], meters: list[str]) -> dict[str, Any]:
    """A contract of the workload as this project's document."""
    charges = [
        {
            "charge_id": meter, "meter": meter, "reset": "contract_version",
            "price": {"model": "graduated", "tiers": [
                {"up_to": None if tier["up_to"] is None else str(tier["up_to"]), "unit_price": str(tier["unit_price"])}
                for tier in record["rates"][meter]
            ]},
        }
        for meter in meters
    ]
    return {
        "contract_id": record["contract_id"], "version": record["version"], "customer_id": record["customer_id"],
        "currency": record["currency"], "effective_from": record["effective_from"].isoformat(), "charges": charges,
    }


def convert(dump: Path, schemas: Path, root: Path, partitions: int) -> int:
    """Write a dump into a folder; the number of usage records."""
    contract = fastavro.parse_schema(json.loads((schemas / "contract.avsc").read_text()))
    usage_schema = json.loads((schemas / "usage.avsc").read_text())
    values, keys, documents = [], [], []
    for topic, key, value in records(dump):
        if topic == "usage":
            values.append(value)
            keys.append(key.decode())
        else:
            record = fastavro.schemaless_reader(io.BytesIO(value[5:]), contract)
            documents.append(document(record, sorted(record["rates"])))
    ingress = Ingress.open(root, partitions)
    publish.contracts(ingress, documents, partitions, "workload")
    column = pa.array(values, pa.large_binary())
    decoded = codecs.decoder("usage_event", {1: usage_schema}).decode(column)
    record_time = np.zeros(len(values), np.int64)
    record_time[decoded.rows] = decoded.batch["time"].cast(pa.int64()).to_numpy()
    np.maximum.accumulate(record_time, out=record_time)
    publish.usage(ingress, column, pa.array(keys), record_time, partitions, "workload")
    ingress.close()
    (root / "schemas").mkdir(exist_ok=True)
    (root / "schemas" / "1.avsc").write_text(json.dumps(usage_schema))
    return len(values)
