"""A backdated amendment: what it costs to price one customer's past again, and whether others wait for it.

``python -m benchmarks.repricing --events 100000,1000000`` fills one partition with a customer's usage of three months
and prices it; then an amendment from the first of these months comes together with new usage of other customers. A row
tells the CPU-seconds of the run that prices the past again (and of the same run without the amendment), the peaks of
its memory (as a whole, of anonymous pages and of mapped files: the latter the machine takes back when it needs them),
and in how many of the intervals in which the past was looked at new usage was committed as well.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from flows import codecs, publish
from sinks.ingress import Ingress
from tieout.usage import EVENTS

START = 1_767_225_600_000_000  # 2026-01-01
SPAN = 90 * 86_400_000_000
OTHERS = 100_000
RUN = """
from flows import machine
machine.settle()  # as the command line does
import json, sys, threading, time
from pathlib import Path
from benchmarks.memory import resident
from flows import local_engine, topics, usage
from flows.file_place import FilePlace
from flows import token as tokens
place = FilePlace(Path(sys.argv[1]))
peaks = {"RssAnon": 0, "RssFile": 0}
def watch():
    while True:
        for name in peaks:
            peaks[name] = max(peaks[name], resident(name))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
before = time.process_time()
pipeline = usage.pipeline(place, range(1), rows=int(sys.argv[2]))
first = pipeline.cells[0].token.sequence
local_engine.run(pipeline)
cpu = time.process_time() - before
reader = place.reader(usage.TOKEN, 0)
made = [token for token in tokens.all_of(reader) if token.sequence > first]
print(json.dumps({"cpu": cpu, "anonymous_mb": peaks["RssAnon"], "mapped_mb": peaks["RssFile"], "peak_mb": resident("VmHWM"),
    "slices": sum(token.counts["slices"] > 0 for token in made), "both": sum(token.counts["slices"] > 0 and token.counts["received"] > 0 for token in made),
    "received": sum(token.counts["received"] for token in made), "rated": made[-1].written["usage.rated.v1"]}))
"""


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="100000,1000000", help="how many of the customer's, several by commas")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; {OTHERS:,} new events of other customers meanwhile, in lots of 2,500")
    with tempfile.TemporaryDirectory() as name:
        for size in map(int, options.events.split(",")):
            root = Path(name) / "topics"
            _contracts(root, [_version("acme", 1, "0.01"), *(_version(f"k{i}", 1, "0.01") for i in range(100))])
            _usage(root, "first", ["acme"], size, START)
            _run(root, 25_000)
            shutil.copytree(root, Path(name) / "plain")
            for folder, amended in ((Path(name) / "plain", False), (root, True)):
                if amended:
                    _contracts(folder, [_version("acme", 2, "0.008")])
                _usage(folder, "then", [f"k{i}" for i in range(100)], OTHERS, START + SPAN)
            without, found = _run(Path(name) / "plain", 2500), _run(root, 2500)
            print(
                f"{size:>10,} events again: {found['cpu']:6.2f} CPU-s ({without['cpu']:.2f} without the amendment), peak {found['peak_mb']:.0f} MB (anonymous {found['anonymous_mb']:.0f}, mapped files {found['mapped_mb']:.0f}; without {without['peak_mb']:.0f}: {without['anonymous_mb']:.0f}, {without['mapped_mb']:.0f}), "
                f"{found['rated'] - without['rated']:,} records more, {found['slices']} slices, new usage in {found['both']} of these intervals, {found['received']:,} received",
                flush=True,
            )
            shutil.rmtree(root)
            shutil.rmtree(Path(name) / "plain")


def _version(customer: str, number: int, price: str) -> dict:
    tiers = [{"up_to": "1000000", "unit_price": price}, {"up_to": None, "unit_price": "0.005"}]
    charges = [{"charge_id": meter, "meter": meter, "price": {"model": "graduated", "tiers": tiers}} for meter in ("tokens", "calls", "gb")]
    return {"contract_id": f"c-{customer}", "version": number, "customer_id": customer, "effective_from": "2026-01-01T00:00:00Z", "charges": charges}


def _contracts(root: Path, documents: list[dict]) -> None:
    ingress = Ingress.open(root, 1)
    publish.contracts(ingress, documents, 1, json.dumps(documents))
    ingress.close()


def _words(values: list[str], codes: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(values)).cast(pa.string())


def _usage(root: Path, name: str, customers: list[str], rows: int, start: int) -> None:
    ingress = Ingress.open(root, 1)
    number = np.arange(rows)
    time = start + number * (SPAN // rows if len(customers) == 1 else 1000)
    columns = {
        "id": pa.array([f"{name}-{i:08}" for i in range(rows)]), "source": _words(["gateway"], number * 0), "customer_id": _words(customers, number % len(customers)),
        "meter": _words(["tokens", "calls", "gb"], number % 3), "time": pa.array(time).cast(pa.timestamp("us", "UTC")),
        "quantity": pa.array(number % 997).cast(pa.decimal128(19, 0)).cast(pa.decimal128(28, 9)),
        "attributes": pa.MapArray.from_arrays(pa.array(np.arange(rows + 1).astype(np.int32)), _words(["region"], number * 0), _words(["eu", "us"], number % 2)),
        **{field.name: pa.nulls(rows, field.type) for field in EVENTS if field.name in ("contract_id", "amount", "corrects", "voids")},
    }
    values = codecs.encode("usage_event", pa.RecordBatch.from_pydict(columns))
    publish.usage(ingress, values, columns["customer_id"], time, 1, name)
    ingress.close()


def _run(root: Path, rows: int) -> dict:
    done = subprocess.run([sys.executable, "-c", RUN, str(root), str(rows)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
