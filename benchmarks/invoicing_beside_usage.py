"""Whether a close of many contracts starves the usage flow: what a million events cost with and without it, in one run.

``python -m benchmarks.invoicing_beside_usage`` starts a broker with so many contracts (``--contracts``: two usage charges and
a monthly fee each) whose January was priced and is due. Then a usage cell prices February in turns of ``--events``, each in a
process of its own that drains a backlog; in every second pair of turns an invoicing cell closes January beside it on the
same topics, in the others it stands still between two of its commits. Printed are, by turn, the usage cell's CPU-seconds a
million events (what importing and restoring cost is left out), its commits and the longest time between two of them; then
the ratio, and what the whole close has cost the invoicing cell.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import contracts as some
from benchmarks.invoicing import _contracts
from benchmarks.usage_kafka import _process, _result
from flows import codecs, invoicing_topics, kafka_topics, topics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.stack.broker import Broker
from schemas import segments
from tieout import ids
from tieout.usage import EVENTS
from tieout.usage_stage import Limits

PREFIX = "b1."
PARTITIONS = 4
LOT = 50_000
JANUARY, FEBRUARY = (int(np.datetime64(day, "us").astype(np.int64)) for day in ("2026-01-05T00:00:00", "2026-02-03T00:00:00"))
METERS = pa.array(["calls", "tokens"])
COMMON = """
from flows import machine
machine.settle()  # as the command line does
import dataclasses, json, os, resource, sys, time
from pathlib import Path
from benchmarks.memory import resident
from flows import bytewax_engine
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.invoicing_live import INVOICING
from flows.kafka_place import KafkaPlace
from flows.usage_live import USAGE, Live, LiveCell
bootstrap, prefix, partitions, *more = sys.argv[1:]
def used():
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime
def run(flow, drain, stopped):
    mine = range(int(partitions))
    place = KafkaPlace({"bootstrap.servers": bootstrap}, "bench", prefix, flow=flow.name)
    cell = LiveCell(place, mine, Live(Share(0, 1), drain=drain), FlowMetrics(flow.name, mine, fates=flow.fates), bytewax_engine.run, stopped, print, flow=flow)
    cell.attempt()
    return cell
"""
USAGE_CELL = COMMON + """
began, commits = [], []
def start(*arguments):
    found = USAGE.start(*arguments)
    began.append((used(), time.monotonic()))
    return found
def interval(*arguments):
    commits.append(time.monotonic())
    return USAGE.interval(*arguments)
run(dataclasses.replace(USAGE, start=start, interval=interval), True, lambda: False)
cpu, at = began[0]
print(json.dumps({"cpu": used() - cpu, "from": at, "to": time.monotonic(), "commits": len(commits), "gap": max(b - a for a, b in zip([at, *commits], commits))}), flush=True)
os._exit(0)
"""
INVOICING_CELL = COMMON + """
told, go, stop = (Path(more[0]) / name for name in ("told", "go", "stop"))
file = told.open("w", buffering=1)
def interval(cell, closed, seconds):
    file.write(json.dumps([time.monotonic(), sum(one.wait is None for one in closed), sum(seconds.values())]) + chr(10))
    while not go.exists():
        time.sleep(0.02)
    return INVOICING.interval(cell, closed, seconds)
run(dataclasses.replace(INVOICING, interval=interval), False, stop.exists)
print(json.dumps({"cpu": used(), "peak_mb": resident("VmHWM")}), flush=True)
os._exit(0)
"""


def main() -> None:
    """Fill a broker, then measure turn by turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contracts", type=int, default=100_000, help="how many close at once")
    parser.add_argument("--events", type=int, default=400_000, help="usage events of a turn")
    parser.add_argument("--customers", type=int, default=10_000, help="whose they are")
    parser.add_argument("--turns", type=int, default=3, help="how many with the close, and as many without")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name) / "broker")
        broker.start()
        try:
            _measure(broker.bootstrap, options, Path(name))
        finally:
            broker.stop()


def _measure(bootstrap: str, options: argparse.Namespace, folder: Path) -> None:
    place = KafkaPlace({"bootstrap.servers": bootstrap, "log_level": 2}, "fill", PREFIX)
    kafka_topics.create(place.admin, PREFIX, PARTITIONS, 1, Limits())
    invoicing_topics.create(place.admin, PREFIX, PARTITIONS, 1, Limits())
    ingress, random = KafkaIngress(place), np.random.default_rng(1)
    began = time.monotonic()
    _fill(ingress, options.contracts)
    _use(ingress, options, random, 0)
    _usage_cell(bootstrap)
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores; {options.contracts:,} contracts made and January priced in {time.monotonic() - began:.0f} s", flush=True)
    closing = Closing(bootstrap, folder)
    try:
        spent: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(2 * options.turns):
            beside = turn % 4 in (1, 2)  # one without, two with, two without: what drifts falls on both
            _use(ingress, options, random, turn + 1)
            closing.let(go=beside)
            found = _usage_cell(bootstrap)
            closing.let(go=False)
            spent[beside].append(found["cpu"] / options.events * 1e6)
            print(
                f"{'closing' if beside else 'alone':>8} {spent[beside][-1]:6.2f} CPU-s/M  {found['to'] - found['from']:5.1f} s, {found['commits']} commits, at most {found['gap']:.2f} s apart; "
                f"{closing.between(found['from'], found['to']):,} contracts closed meanwhile; load {os.getloadavg()[0]:.2f}",
                flush=True,
            )
        ratio = np.mean(spent[True]) / np.mean(spent[False])
        print(f"the usage flow costs {ratio:.3f} times as much while contracts close: {np.mean(spent[True]):.2f} and {np.mean(spent[False]):.2f} CPU-s/M", flush=True)
        closing.finish(options.contracts)
    finally:
        closing.end()
        ingress.close()


class Closing:
    """The invoicing cell's process, which goes on between two commits as it is let."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.folder = folder
        self.let(go=True)
        self.process = _process(INVOICING_CELL, bootstrap, PREFIX, PARTITIONS, folder)
        while not any(closed for _, closed, _ in self.commits()):
            self._alive()
        self.let(go=False)

    def commits(self) -> list[tuple[float, int, float]]:
        """When, how many closed contracts, how many seconds the interval took."""
        told = self.folder / "told"
        return [tuple(json.loads(line)) for line in told.read_text().splitlines(keepends=True) if line.endswith("\n")] if told.exists() else []

    def let(self, *, go: bool) -> None:
        """Whether it may go on."""
        if go:
            (self.folder / "go").touch()
        else:
            (self.folder / "go").unlink(missing_ok=True)

    def between(self, start: float, end: float) -> int:
        """How many contracts closed between two instants."""
        return sum(closed for at, closed, _ in self.commits() if start <= at <= end)

    def finish(self, contracts: int) -> None:
        """Let it close the rest, and print what all of it has cost."""
        self.let(go=True)
        while sum(closed for _, closed, _ in self.commits()) < contracts:
            self._alive()
        (self.folder / "stop").touch()
        found, commits = _result(self.process), self.commits()
        print(
            f"{contracts:,} contracts closed: {found['cpu']:.1f} CPU-s with the start, peak {found['peak_mb']:,.0f} MB, "
            f"{len(commits)} intervals, the longest {max(seconds for *_, seconds in commits):.2f} s; load {os.getloadavg()[0]:.2f}",
            flush=True,
        )

    def _alive(self) -> None:
        if self.process.poll() is not None:
            _result(self.process)
            raise RuntimeError("the invoicing cell has ended")
        time.sleep(0.2)

    def end(self) -> None:
        """End it, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _usage_cell(bootstrap: str) -> dict[str, Any]:
    return _result(_process(USAGE_CELL, bootstrap, PREFIX, PARTITIONS))


def _fill(ingress: KafkaIngress, contracts: int) -> None:
    """The contracts, and three events of January for each."""
    names = np.array([f"k{number:07d}" for number in range(contracts)])
    homes = ids.partitions_of(pa.array(names), PARTITIONS)
    for partition in range(PARTITIONS):
        mine = names[homes == partition].tolist()
        for first in range(0, len(mine), LOT // 5):
            ingress.append(topics.CONTRACTS, {partition: _contracts(mine[first : first + LOT // 5])}, "contracts")
    for number, (meter, quantity) in enumerate((("calls", 17), ("tokens", 140), ("calls", 3))):
        for first in range(0, contracts, LOT):
            some_names = names[first : first + LOT]
            n = len(some_names)
            moments = JANUARY + number * 86_400_000_000 + np.arange(n)
            _put(ingress, f"j{number}-{first}", some_names, np.full(n, METERS.index(meter).as_py()), moments, np.full(n, quantity))


def _use(ingress: KafkaIngress, options: argparse.Namespace, random: np.random.Generator, turn: int) -> None:
    """A turn's events, one in twenty of them twice."""
    for first in range(0, options.events, LOT):
        n = min(LOT, options.events - first)
        fresh = np.arange(n)
        again = random.choice(n, n // 20, replace=False)
        fresh[again] = np.maximum(again - 100, 0)
        customers = random.integers(0, options.customers, n)[fresh]
        names = np.char.add("k", np.char.zfill(customers.astype(str), 7))
        moments = FEBRUARY + turn * 86_400_000_000 + (first + fresh) * 2_000
        _put(ingress, f"f{turn}-{first}", names, random.integers(0, 2, n)[fresh], moments, random.integers(1, 1000, n)[fresh], fresh)


def _put(ingress: KafkaIngress, name: str, names: np.ndarray, meters: np.ndarray, moments: np.ndarray, quantities: np.ndarray, ordinal: np.ndarray | None = None) -> None:
    n = len(names)
    customers = pa.array(names)
    columns = {
        "id": pa.array([f"{name}-{number:07d}-7b1f-8c9d" for number in (np.arange(n) if ordinal is None else ordinal).tolist()]),
        "source": pa.array(["gateway"] * n), "customer_id": customers, "meter": METERS.take(pa.array(meters)),
        "time": pa.array(moments).cast(pa.timestamp("us", "UTC")), "quantity": some._decimal(pa.array(quantities * 10**9), 28, 9),  # noqa: SLF001
        "attributes": pa.MapArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(["region"] * n), pa.array(["eu"] * n)).cast(EVENTS.field("attributes").type),
    }  # fmt: skip
    batch = pa.RecordBatch.from_arrays([columns.get(field.name, pa.nulls(n, field.type)) for field in EVENTS], schema=EVENTS)
    values, homes = codecs.encode("usage_event", batch), ids.partitions_of(customers, PARTITIONS)
    parts = {}
    for partition in range(PARTITIONS):
        rows = np.nonzero(homes == partition)[0]
        at = pa.array(rows)
        parts[partition] = segments.records(values.take(at), customers.take(at), moments[rows])
    ingress.append(topics.USAGE, parts, name)


if __name__ == "__main__":
    main()
