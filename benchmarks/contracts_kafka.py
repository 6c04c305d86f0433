"""The usage flow on a broker with many contracts: what bringing them in, a restart and a million events cost.

``python -m benchmarks.contracts_kafka --customers 10000,1000000`` starts a broker; for each size it publishes three
versions for each customer (``benchmarks.contracts`` makes them), lets one cell bring them in, publishes a million
events of random customers (``--events``), and starts the cell anew: it restores, then prices them with exactly-once on.
Every size runs ``--repeat`` times, the sizes in turn, since what other processes do on the machine changes from minute
to minute. CPU-seconds are the cell's own; what importing and connecting costs is left out.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import contracts
from benchmarks.usage_kafka import _process, _result
from flows import codecs, kafka_topics, topics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.stack.broker import Broker
from schemas import segments
from tieout import ids
from tieout.usage import EVENTS
from tieout.usage_stage import Limits

PARTITIONS = 4
RUN = """
import dataclasses, json, os, resource, sys, time
from benchmarks.memory import resident
from flows import bytewax_engine, usage_live
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.kafka_place import KafkaPlace
bootstrap, prefix, partitions = sys.argv[1:]
place = KafkaPlace({"bootstrap.servers": bootstrap}, "cell", prefix)
mine = range(int(partitions))
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
cpu, wall = used(), time.monotonic()
restored = []
def start(*arguments):
    found = usage_live.USAGE.start(*arguments)
    restored.append((used() - cpu, time.monotonic() - wall))
    return found
live = usage_live.Live(Share(0, 1), rows=25_000, seconds=0.5, drain=True)
cell = usage_live.LiveCell(place, mine, live, FlowMetrics("usage", mine), bytewax_engine.run, lambda: False, print, flow=dataclasses.replace(usage_live.USAGE, start=start))
cell.attempt()
print(json.dumps({"restored": restored[0], "whole": (used() - cpu, time.monotonic() - wall), "peak_mb": resident("VmHWM"),
    "priced": sum(token.totals["priced"] for token in cell.tokens.values())}), flush=True)
os._exit(0)
"""


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--customers", default="10000,1000000", help="how many, several by commas; each has three versions")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name) / "broker")
        broker.start()
        try:
            for turn in range(options.repeat):
                for customers in map(int, options.customers.split(",")):
                    _measure(broker.bootstrap, f"c{customers}t{turn}.", customers, options.events)
        finally:
            broker.stop()


def _measure(bootstrap: str, prefix: str, customers: int, events: int) -> None:
    place = KafkaPlace({"bootstrap.servers": bootstrap}, "fill", prefix)
    kafka_topics.create(place.admin, prefix, PARTITIONS, 1, Limits())
    random = np.random.default_rng(1)
    ingress = KafkaIngress(place)
    first = 0
    for values in contracts.records(contracts.PER_CONTRACT * customers, customers, "shared", random):
        names = pa.array([f"c{number % customers:07d}" for number in range(first, first + len(values))])
        ingress.append(topics.CONTRACTS, _parted(values, names), f"contracts {first}")
        first += len(values)
    load = os.getloadavg()[0]
    brought = _result(_process(RUN, bootstrap, prefix, PARTITIONS))
    for number, (values, names) in enumerate(_usage(customers, events, random)):
        ingress.append(topics.USAGE, _parted(values, names), f"usage {number}")
    ingress.close()
    again = _result(_process(RUN, bootstrap, prefix, PARTITIONS))
    cpu, wall = (whole - restored for whole, restored in zip(again["whole"], again["restored"], strict=True))
    print(
        f"{customers:>9,} customers, {first:,} versions: brought in with {brought['whole'][0]:.1f} CPU-s in {brought['whole'][1]:.1f} s ({brought['peak_mb']:,.0f} MB), "
        f"restored with {again['restored'][0]:.1f} CPU-s in {again['restored'][1]:.1f} s; then {again['priced']:,} events priced, "
        f"{cpu / events * 1e6:.2f} CPU-s a million, {wall:.1f} s, peak {again['peak_mb']:,.0f} MB; load {load:.1f} to {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _usage(customers: int, events: int, random: np.random.Generator) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Framed events and their customers, lot by lot."""
    for first in range(0, events, contracts.LOT):
        batch = contracts.usage(first, random.integers(0, customers * len(contracts.METERS), contracts.LOT), random).events
        columns = {field.name: batch[field.name] for field in EVENTS}
        yield codecs.encode("usage_event", pa.RecordBatch.from_pydict(columns)), batch["customer_id"]


def _parted(values: pa.Array, customers: pa.Array) -> dict[int, pa.RecordBatch]:
    """Records by the partition of their customer."""
    home = ids.partitions_of(customers, PARTITIONS)
    parts = {}
    for partition in range(PARTITIONS):
        rows = pa.array(np.nonzero(home == partition)[0])
        parts[partition] = segments.records(values.take(rows), customers.take(rows), np.full(len(rows), contracts.START))
    return parts


if __name__ == "__main__":
    main()
