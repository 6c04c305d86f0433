"""The usage flow on a broker with exactly-once on: CPU-seconds per million events of the cell's own process, and memory.

``python -m benchmarks.usage_kafka --workload DIR`` starts a broker, lets the reference workload's own generator fill
it (``DIR/gen.py``), converts the contracts before the clock starts, drains the backlog with one cell and lets the
workload's own check (``DIR/check.py``) compare with its oracle. Beside it, from the same run: polling alone, and
producing alone, which are the floor of a client in Python.
"""

import argparse
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fastavro
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from benchmarks import workload
from flows import kafka_topics, publish, topics, usage
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.stack.broker import Broker
from schemas import catalog
from sources import kafka
from tieout.usage_stage import Limits

PREFIX = "u1."
RUN = """
from flows import machine
machine.settle()  # as the command line does
import json, os, resource, sys, time
from importlib import import_module
from benchmarks.memory import resident
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
bootstrap, prefix, installation, engine, rows, seconds, cell, cells, partitions, schema = sys.argv[1:]
engine = import_module(f"flows.{engine}_engine")
place = KafkaPlace({"bootstrap.servers": bootstrap}, installation, prefix, {1: json.load(open(schema))})
share = Share(int(cell), int(cells))
mine = share.partitions(int(partitions))
live = LiveCell(place, mine, Live(share, rows=int(rows), seconds=float(seconds), drain=True), FlowMetrics("usage", mine), engine.run, lambda: False, print)
at = time.monotonic()
start = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
before = start()
live.attempt()
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "start": before, "wall": time.monotonic() - at, "peak_mb": resident("VmHWM"),
    "events": sum(t.totals["received"] for t in live.tokens.values()), "commits": sum(t.sequence for t in live.tokens.values())}), flush=True)
os._exit(0)
"""
EDGE = """
import json, resource, sys, time
from confluent_kafka import Producer
from flows.kafka_place import KafkaPlace
from flows import topics
bootstrap, prefix, partitions = sys.argv[1:]
place = KafkaPlace({"bootstrap.servers": bootstrap}, "edge", prefix)
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
before, polled, values = used(), 0, []
for partition in range(int(partitions)):
    stream = place.stream(topics.USAGE, partition, 0, 25_000, 60.0)
    end = place.reader(topics.USAGE, partition).refresh()
    while stream.position < end or stream.gathered:
        lot = stream.poll(0.0, end)
        if lot is None:
            time.sleep(0.01)
        else:
            polled += len(lot.positions)
            values = lot.records["value"].to_pylist()
    stream.close()
poll = used() - before
producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "batch.size": 1_000_000, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000, "enable.idempotence": True})
bodies, made = [value + b"x" * 150 for value in values], 0  # about the size of a rated record
before = used()
while made < polled:
    for body in bodies:
        producer.produce(prefix + "edge", body, b"c000000", made % int(partitions))
    made += len(bodies)
    producer.poll(0)
    if made % 100_000 < len(bodies):
        producer.flush()
producer.flush()
print(json.dumps({"poll": poll / polled * 1e6, "produce": (used() - before) / made * 1e6, "events": polled}))
"""


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", type=Path, required=True, help="the folder of the reference workload")
    parser.add_argument("--bootstrap", help="a running broker with the workload in it; without, one is started and filled")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--engines", default="bytewax,local")
    parser.add_argument("--intervals", default="25000:0.5", help="rows:seconds, several by commas")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--cells", default="1", help="how many cells share them, several by commas")
    parser.add_argument("--customers", type=int, default=10_000)
    parser.add_argument("--spread", action="store_true", help="spread the times over two months")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.bootstrap:
            _measure(options, options.bootstrap, folder)
            return
        broker = Broker(folder / "broker")
        broker.start()
        try:
            _measure(options, broker.bootstrap, folder)
        finally:
            broker.stop()


def _measure(options: argparse.Namespace, bootstrap: str, folder: Path) -> None:
    place = KafkaPlace({"bootstrap.servers": bootstrap}, "fill", PREFIX)
    oracle = fill(place, bootstrap, options, folder)
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, {options.events:,} events, {options.partitions} partitions, {options.customers:,} customers", flush=True)
    place.admin.create_topics([NewTopic(f"{PREFIX}edge", options.partitions, 1)])[f"{PREFIX}edge"].result()
    _process("from flows import bytewax_engine, flow_metrics, kafka_place, local_engine, machine, usage_live").communicate()  # bytecode is written once
    edge = _result(_process(EDGE, bootstrap, PREFIX, options.partitions))
    print(f"{'poll alone':>20} {edge['poll']:.2f}, produce alone {edge['produce']:.2f} CPU-s/M", flush=True)
    runs = itertools.product(options.engines.split(","), options.intervals.split(","), map(int, options.cells.split(",")))
    for number, (engine, interval, cells) in enumerate(runs):
        rows, _, seconds = interval.partition(":")
        fresh_outputs(place, options.partitions)
        schema = options.workload / "schemas" / "usage.avsc"
        started = [_process(RUN, bootstrap, PREFIX, f"run{number}", engine, rows, seconds, cell, cells, options.partitions, schema) for cell in range(cells)]
        found = [_result(process) for process in started]
        millions = sum(one["events"] for one in found) / 1e6
        verdict = check(bootstrap, options.workload, oracle, folder)
        print(
            f"{engine:>10} {interval:>9} {cells} cells {sum(one['cpu'] for one in found) / millions:6.2f} CPU-s/M (imports: {sum(one['start'] for one in found):.1f} s of it)  "
            f"{max(one['wall'] for one in found):5.1f} s  {max(one['peak_mb'] for one in found):5.0f} MB  {sum(one['commits'] for one in found):4} commits  exact {verdict['exact']}, lost {verdict['lost']}, doubled {verdict['duplicated']}, mispriced {verdict['mispriced_totals']} of {verdict['of']}",
            flush=True,
        )


def fill(place: KafkaPlace, bootstrap: str, options: argparse.Namespace, folder: Path) -> Path:
    """The workload in the broker, its contracts converted; the path of its oracle."""
    oracle, reference, partitions = folder / "oracle.json", options.workload, options.partitions
    raw = f"{PREFIX}workload.contracts"
    subprocess.run(
        [sys.executable, reference / "gen.py", "-n", str(options.events), "--bootstrap", bootstrap, "--usage", PREFIX + topics.USAGE, "--contracts", raw,
         "--oracle", oracle, "--partitions", str(partitions), "--customers", str(options.customers), *(["--spread"] if options.spread else [])],
        check=True, capture_output=True,
    )
    kafka_topics.create(place.admin, PREFIX, partitions, 1, Limits())
    settings = next(spec for spec in kafka_topics.specs(Limits()) if spec.name == topics.USAGE).settings()
    entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, PREFIX + topics.USAGE, incremental_configs=entries)
    place.admin.incremental_alter_configs([resource])[resource].result()
    ingress = KafkaIngress(place)
    publish.contracts(ingress, _documents(place, raw, reference), partitions, "workload")
    ingress.close()
    return oracle


def _documents(place: KafkaPlace, topic: str, reference: Path) -> list[dict]:
    schema = fastavro.parse_schema(json.loads((reference / "schemas" / "contract.avsc").read_text()))
    reader = kafka.TopicReader(place.settings, "fill", place.queries(), topic, 0)
    end = reader.refresh()
    lot = reader.lot(0, end, end)
    records = [fastavro.schemaless_reader(io.BytesIO(value[5:]), schema, None) for value in lot.records["value"].to_pylist()]
    reader.close()
    return [workload.document(record, sorted(record["rates"])) for record in records]


def fresh_outputs(place: KafkaPlace, partitions: int) -> None:
    """Outputs and state made anew: each run begins at the beginning."""
    names = [PREFIX + spec.name for spec in kafka_topics.specs(Limits()) if spec.name not in {topics.USAGE, topics.CONTRACTS}]
    for gone in place.admin.delete_topics(names).values():
        gone.result()
    time.sleep(2)
    kafka_topics.create(place.admin, PREFIX, partitions, 1, Limits())
    time.sleep(1)


def check(bootstrap: str, reference: Path, oracle: Path, folder: Path) -> dict:
    """The workload's own verdict."""
    schema = folder / "rated.avsc"
    schema.write_text(json.dumps(catalog.load("rated_usage").avro))
    out = subprocess.run(
        [sys.executable, reference / "check.py", "--bootstrap", bootstrap, "--priced", PREFIX + topics.RATED, "--dlq", PREFIX + usage.DEAD, "--oracle", oracle,
         "--schema", schema, "--map", "id=usage.id,period=billing_period", "--reason-header", "dlq.reason"],
        capture_output=True, text=True, check=False,
    )
    if not out.stdout:
        raise RuntimeError(out.stderr[-2000:])
    return json.loads(out.stdout)


def _process(code: str, *arguments: object) -> subprocess.Popen[str]:
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # what is installed has its bytecode
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)


def _result(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate()
    if process.returncode or not out:
        raise RuntimeError(err[-3000:])
    return json.loads(out.splitlines()[-1])


if __name__ == "__main__":
    main()
