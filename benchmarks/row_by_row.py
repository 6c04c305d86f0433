"""The same work one event at a time, as it is written without columns: the measure beside the usage flow.

In: a folder of topics. Each usage record is decoded by fastavro, looked up in a dict of identities, tagged and priced
with decimals, and its rated record encoded by fastavro. It knows no corrections, holds or conflicts, and commits
nothing: a lower bound for a row-by-row flow. ``oracle`` prices the same events with the tests' oracle.
"""

import argparse
import io
import json
import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro

from flows import contract_records, topics
from flows.commands.files import folder
from flows.file_place import FilePlace
from schemas import catalog
from sources.files import TopicReader
from tests import oracle
from tieout import money
from tieout.contracts import ContractVersion
from tieout.rating.adjustments import compile_price


def main() -> None:
    """Print CPU-seconds per million events of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir")
    parser.add_argument("--events", type=int, default=50_000, help="usage records to take")
    options = parser.parse_args()
    root, partitions = folder(options.dir)
    schema = catalog.load("usage_event")
    writers = {schema.schema_id: schema.avro, **FilePlace(root).writers()}
    parsed = {number: fastavro.parse_schema(avro) for number, avro in writers.items()}
    values = [value for p in range(partitions) for value in _values(root, topics.USAGE, p, options.events // partitions)]
    versions = [version for p in range(partitions) for version in contract_records.decode(_column(root, topics.CONTRACTS, p))]
    row = _timed(_rows, values, versions, parsed, fastavro.parse_schema(schema.avro))
    events = [_document(value, parsed, schema.avro) for value in values]
    plain = _timed(oracle.charges, [_plain(version) for version in versions], [event for event in events if event])
    print(json.dumps({"row by row": row / len(values) * 1e6, "oracle": plain / len(values) * 1e6, "events": len(values)}))


def _timed(function: Any, *arguments: Any) -> float:
    before = time.process_time()
    function(*arguments)
    return time.process_time() - before


def _column(root: Path, topic: str, partition: int) -> Any:
    reader = TopicReader(root, topic, partition)
    reader.refresh()
    return reader.read(reader.start, reader.end)["value"]


def _values(root: Path, topic: str, partition: int, limit: int) -> list[bytes]:
    return list(_column(root, topic, partition)[:limit].to_pylist())


def _decode(value: bytes, parsed: dict[int, Any], reader: Any) -> dict[str, Any]:
    writer = parsed[int.from_bytes(value[1:5], "big")]
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), writer, reader)  # type: ignore[return-value,no-any-return]


def _document(value: bytes, parsed: dict[int, Any], reader: Any) -> dict[str, Any] | None:
    try:
        event = _decode(value, parsed, reader)
    except Exception:  # noqa: BLE001 - whatever a poisoned body does to fastavro
        return None
    return {name: (field.isoformat() if name == "time" else str(field) if isinstance(field, Decimal) else field) for name, field in event.items()}


def _plain(version: ContractVersion) -> dict[str, Any]:
    charges = [
        {
            "charge_id": charge.charge_id, "meter": charge.meter, "reset": charge.reset, "included_quantity": str(charge.included_quantity),
            "price": {"model": charge.price.model} | {
                name: [{"up_to": tier.up_to, "unit_price": str(tier.unit_price), "flat_fee": str(tier.flat_fee)} for tier in figure] if name == "tiers" else str(figure)
                for name in ("unit_price", "tiers", "size", "price", "free_units") if (figure := getattr(charge.price, name, None)) is not None
            },
        }
        for charge in version.charges
    ]
    end = None if version.effective_to is None else version.effective_to.isoformat()
    return {"contract_id": version.contract_id, "version": version.version, "customer_id": version.customer_id, "effective_from": version.effective_from.isoformat(), "effective_to": end, "charges": charges}


def _rows(values: list[bytes], versions: list[ContractVersion], parsed: dict[int, Any], reader: Any) -> int:
    of_customer: dict[str, list[ContractVersion]] = defaultdict(list)
    for version in sorted(versions, key=lambda version: -version.version):
        of_customer[version.customer_id].append(version)
    rated = fastavro.parse_schema(catalog.load("rated_usage").avro)
    seen: set[tuple[str, str, str]] = set()
    prices: dict[tuple[str, int, str], Any] = {}
    running: dict[tuple[object, ...], int] = defaultdict(int)
    size = 0
    for value in values:
        try:
            event = _decode(value, parsed, reader)
        except Exception:  # noqa: BLE001 - whatever a poisoned body does to fastavro
            continue
        key = (event["customer_id"], event["source"], event["id"])
        if key in seen or event["quantity"] is None:
            continue
        seen.add(key)
        version = next((v for v in of_customer.get(event["customer_id"], ()) if v.effective_from <= event["time"]), None)
        charge = None if version is None else next((c for c in version.charges if c.meter == event["meter"]), None)
        if version is None or charge is None:
            continue
        name = (version.contract_id, version.version, charge.charge_id)
        price = prices.get(name) or prices.setdefault(name, compile_price(charge))
        period = f"{event['time']:%Y-%m}"
        place = (*name, period) if charge.reset == "contract_version" else (version.contract_id, charge.charge_id, period)
        before = running[place]
        after = running[place] = before + money.units(event["quantity"], money.QUANTITY_SCALE)
        amount = price.at(after) - (price.at(before) if before else 0)
        out = io.BytesIO()
        fastavro.schemaless_writer(out, rated, {
            "rated_id": "0" * 32, "correlation_id": "0" * 32, "batch_id": "batch", "usage": {"source": event["source"], "id": event["id"]},
            "cause": {"kind": "usage", "ref": None, "ref_source": None, "from_version": None, "to_version": None},
            "customer_id": event["customer_id"], "contract_id": version.contract_id, "contract_version": version.version,
            "charge_id": charge.charge_id, "product_id": charge.charge_id, "legal_entity_id": "default", "meter": event["meter"],
            "group": None, "billing_period": period, "time": event["time"], "quantity": event["quantity"],
            "amount": money.decimal(amount, money.RATED_SCALE), "currency": version.currency,
        })
        size += len(out.getvalue())
    return size


if __name__ == "__main__":
    main()
