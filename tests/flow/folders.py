"""Small folders of topics for the flow's tests: every kind of charge, disturbed usage, corrections and voids."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows import codecs, publish, topics
from sinks.ingress import Ingress
from sources.files import TopicReader
from tieout import usage_document

START = "2026-01-0"
CHARGES = [
    {"charge_id": "units", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}},
    {"charge_id": "tiers", "meter": "tokens", "group_by": ["region"], "price": {"model": "graduated", "tiers": [{"up_to": "100", "unit_price": "0.5"}, {"up_to": None, "unit_price": "0.25"}]}},
    {"charge_id": "volume", "meter": "gb", "price": {"model": "volume", "tiers": [{"up_to": "50", "unit_price": "2"}, {"up_to": None, "unit_price": "1"}]}},
    {"charge_id": "fee", "meter": "payments", "price": {"model": "percentage", "rate_percent": "1.5", "free_amount": "200", "fixed_per_event": "0.1"}},
    {"charge_id": "peak", "meter": "load", "aggregation": {"kind": "max"}, "price": {"model": "per_unit", "unit_price": "3"}},
    {"charge_id": "seats", "meter": "seats", "aggregation": {"kind": "sum", "carry_over": True}, "price": {"model": "per_unit", "unit_price": "7"}},
]
POISON = b"\x00\x00\x00\x00\x0b\xff"
METERS = [charge["meter"] for charge in CHARGES]


def contract(customer: str, version: int = 1, effective_from: str = "2025-12-01T00:00:00Z") -> dict:
    return {"contract_id": f"c-{customer}", "version": version, "customer_id": customer, "effective_from": effective_from, "charges": CHARGES}


def events(seed: int, rows: int, customers: int) -> list[dict]:
    """Usage with duplicates, conflicts, disorder, corrections and voids (some before their original)."""
    rnd = random.Random(seed)
    made: list[dict] = []
    for i in range(rows):
        kind = rnd.random()
        minute = i * 40_000 // rows + rnd.randrange(-300, 300)
        stamp = np.datetime64("2026-01-02T00:00:00") + np.timedelta64(minute, "m")
        base = {"id": f"e{i}", "source": f"s{i % 3}", "customer_id": f"k{rnd.randrange(customers)}", "time": f"{stamp}Z"}
        if made and kind < 0.04:
            made.append(rnd.choice(made[-200:]))
        elif made and kind < 0.05:
            made.append(rnd.choice(made[-200:]) | {"meter": "calls", "quantity": "99", "corrects": None, "voids": None})
        elif made and kind < 0.09:
            target = rnd.choice(made[-400:])
            key = {"source": target["source"], "id": target["id"]}
            what = {"voids": key} if kind < 0.07 else {"corrects": key, "quantity": str(rnd.randrange(0, 50))}
            made.append(base | what | {"customer_id": target["customer_id"], "meter": target["meter"]})
        else:
            made.append(base | {"meter": rnd.choice(METERS), "quantity": str(rnd.randrange(1, 4000) / 100), "attributes": {"region": rnd.choice(["eu", "us"])}})
    return made


def write(root: Path, usage: list[dict], contracts: list[dict], partitions: int = 2, poison_every: int = 0) -> None:
    documents = [usage_document.parse({name: value for name, value in event.items() if value is not None}) for event in usage]
    columns = usage_document.columns(documents)
    values = codecs.encode("usage_event", columns).to_pylist()
    for at in range(poison_every - 1, len(values), poison_every) if poison_every else ():
        values[at] = POISON
    stamps = np.maximum.accumulate(columns["time"].cast(pa.int64()).to_numpy(zero_copy_only=False))
    ingress = Ingress.open(root, partitions)
    try:
        publish.contracts(ingress, contracts, partitions, json.dumps(contracts))
        if usage:
            publish.usage(ingress, pa.array(values, pa.large_binary()), columns["customer_id"], stamps, partitions, f"{len(usage)} {stamps[0]}")
    finally:
        ingress.close()


def output(root: Path, partitions: int = 2, topic: str = topics.RATED) -> list[list[bytes]]:
    """The values of an output topic by partition, in order."""
    found = []
    for partition in range(partitions):
        reader = TopicReader(root, topic, partition)
        reader.refresh()
        found.append(reader.read(0, reader.end)["value"].to_pylist())
    return found


def rated(root: Path, partitions: int = 2) -> list[dict]:
    return [row for values in output(root, partitions) for row in codecs.own("rated_usage").decode(pa.array(values, pa.large_binary())).batch.to_pylist()]
