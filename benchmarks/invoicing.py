"""Many contracts that close at once: what it costs, how much memory it takes, and how long an interval lasts meanwhile.

``python -m benchmarks.invoicing --contracts 100000`` writes a folder of one partition with so many contracts (two usage
charges, one of them graduated, and a monthly fee) and three events of January for each, prices them with the usage flow, and
lets the clock pass the end of January plus the grace. Then the invoicing flow, in a process of its own, reads it all and makes
the invoices. Printed are its CPU-seconds from start to end, of which for what, its peak memory, and its longest interval.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.memory import resident
from flows import codecs, contract_records, invoicing, local_engine, publish, topics, usage
from flows.file_place import FilePlace
from schemas import segments
from sinks.ingress import Ingress
from tieout import usage_document
from tieout.contracts import parse_contract

PART = 10_000
ROWS = 25_000
CHARGES = [
    {"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}},
    {"charge_id": "tokens", "meter": "tokens", "price": {"model": "graduated", "tiers": [{"up_to": "100", "unit_price": "0.5"}, {"up_to": None, "unit_price": "0.25"}]}},
    {"charge_id": "base", "price": {"model": "flat", "amount": "20.00"}, "interval": "month", "timing": "arrears"},
]
EVENTS = [("calls", "2026-01-10T00:00:00Z", "17"), ("tokens", "2026-01-11T00:00:00Z", "140.5"), ("calls", "2026-01-12T00:00:00Z", "3")]


def main() -> None:
    """Make the folder, price it, and measure the close."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contracts", type=int, default=100_000, help="how many contracts close at once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _measure(Path(options.one))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        began = time.process_time()
        _write(root, options.contracts)
        pipeline = usage.pipeline(FilePlace(root), [0], rows=ROWS)
        local_engine.run(pipeline)
        print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; made and priced in {time.process_time() - began:.1f} CPU-s", flush=True)
        for cell in pipeline.cells.values():
            cell.close()  # type: ignore[attr-defined]
        subprocess.run([sys.executable, "-m", "benchmarks.invoicing", "--one", str(root)], check=True)


def _write(root: Path, contracts: int) -> None:
    ingress = Ingress.open(root, 1)
    try:
        for first in range(0, contracts, PART):
            names = [f"k{number:07d}" for number in range(first, min(first + PART, contracts))]
            ingress.append(topics.CONTRACTS, {0: _contracts(names)}, f"contracts {first}")
        for first in range(0, contracts, PART):
            names = [f"k{number:07d}" for number in range(first, min(first + PART, contracts))]
            _use(ingress, [(name, *event) for event in EVENTS for name in names], f"usage {first}")
        _use(ingress, [("k0000000", "calls", "2026-02-05T00:00:00Z", "1")], "february")
    finally:
        ingress.close()


def _contracts(names: list[str]) -> pa.RecordBatch:
    """One version after the other, all alike but for their names."""
    given = parse_contract({"contract_id": "c", "version": 1, "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": CHARGES})
    batch = codecs.own("contract_version").decode(contract_records.encode([given])).batch.take(pa.array(np.zeros(len(names), np.int64)))
    columns = {name: batch[name] for name in batch.schema.names}
    columns |= {"contract_id": pa.array([f"c-{name}" for name in names]), "customer_id": pa.array(names)}
    values = codecs.encode("contract_version", pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema))
    return segments.records(values, pa.array(names), np.zeros(len(names), np.int64))


def _use(ingress: Ingress, rows: list[tuple[str, str, str, str]], source: str) -> None:
    documents = [
        usage_document.parse({"id": f"{source} {at}", "source": "s", "customer_id": customer, "meter": meter, "time": instant, "quantity": quantity})
        for at, (customer, meter, instant, quantity) in enumerate(rows)
    ]
    columns = usage_document.columns(documents)
    stamps = columns["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
    publish.usage(ingress, codecs.encode("usage_event", columns), columns["customer_id"], stamps, 1, source)


def _measure(root: Path) -> None:
    began = time.process_time()
    cell = invoicing.InvoicingCell.start(FilePlace(root), 0)
    longest: list[float] = []
    steps: dict[str, float] = {}

    def heard(_token: object, _closed: object, seconds: dict[str, float]) -> None:
        longest.append(sum(seconds.values()))
        for name, spent in seconds.items():
            steps[name] = steps.get(name, 0) + spent

    cell.on_commit = heard  # type: ignore[assignment]
    local_engine.run(invoicing.pipeline({0: cell}, rows=ROWS))
    spent, token = time.process_time() - began, cell.token
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in steps.items())
    print(
        f"{token.totals['closed']:,} contracts closed: {spent:.1f} CPU-s, {spent / token.totals['closed'] * 1e6:.0f} us a contract (wall by step: {told} s); "
        f"{token.sequence} intervals, the longest {max(longest):.2f} s, peak {resident('VmHWM'):,} MB; load {os.getloadavg()[0]:.2f}",
        flush=True,
    )



if __name__ == "__main__":
    main()
