"""From produced to rated, as a consumer with ``read_committed`` sees it, and how long a killed cell is away.

A broker, one cell (a process of its own), a steady load. For each interval setting: p50 and p99 of the time between the
broker's stamp on the usage record and the moment its rated record can be read, the cell's CPU-seconds per million
events; then the cell is killed with ``kill -9``, started again, and the gap in what can be read is measured.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer, TopicPartition

from flows import codecs, generate, kafka_topics, publish, topics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.stack.broker import Broker
from sources import kafka
from tieout import ids
from tieout.usage_stage import Limits

PARTITIONS = 4
CUSTOMERS = 1000


def main() -> None:
    """Print a row for each interval setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=4000, help="events a second")
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--intervals", default="25000:0.5,5000:0.25,1000:0.1", help="rows:seconds, several by commas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name))
        broker.start()
        try:
            print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores, {options.rate} events a second over {PARTITIONS} partitions", flush=True)
            for number, interval in enumerate(options.intervals.split(",")):
                _measure(broker.bootstrap, f"l{number}.", interval, options)
        finally:
            broker.stop()


def _measure(bootstrap: str, prefix: str, interval: str, options: argparse.Namespace) -> None:
    place = KafkaPlace({"bootstrap.servers": bootstrap}, prefix, prefix)
    kafka_topics.create(place.admin, prefix, PARTITIONS, 1, Limits())
    ingress = KafkaIngress(place)
    publish.contracts(ingress, generate.contracts(1, CUSTOMERS), PARTITIONS, "load")
    ingress.close()
    cell = _cell(place, interval)
    seen: dict[str, tuple[float, float]] = {}
    stop = threading.Event()
    watching = threading.Thread(target=_watch, args=(place, seen, stop))
    watching.start()
    before, first = _cpu(cell.pid), time.monotonic()
    sent = _send(place, options.rate, options.seconds, 1)
    _until(seen, sent)
    spent = _cpu(cell.pid) - before
    waits = np.array([arrived - stamped for stamped, arrived in seen.values()][sent // 4 :])  # the first quarter holds the start
    cell.kill()
    cell.wait()
    killed = time.monotonic()
    more = threading.Thread(target=_send, args=(place, options.rate, 8, 2))
    more.start()
    cell = _cell(place, interval)
    while len(seen) <= sent:
        time.sleep(0.01)
    away = time.monotonic() - killed
    more.join()
    _until(seen, sent + options.rate * 8)
    stop.set()
    watching.join()
    cell.kill()
    cell.wait()
    print(
        f"{interval:>12}  p50 {np.quantile(waits, 0.5) * 1000:6.0f} ms  p99 {np.quantile(waits, 0.99) * 1000:6.0f} ms  {spent / sent * 1e6:6.2f} CPU-s/M with the start, "
        f"{sent:,} events in {time.monotonic() - first:.0f} s; away {away:.1f} s after kill -9",
        flush=True,
    )


def _cell(place: KafkaPlace, interval: str) -> subprocess.Popen[bytes]:
    rows, _, seconds = interval.partition(":")
    options = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix, "--rows", rows, "--seconds", seconds]
    return subprocess.Popen([sys.executable, "-m", "flows.cli", "run", "usage", *options], stderr=subprocess.DEVNULL)


def _send(place: KafkaPlace, rate: int, seconds: int, seed: int) -> int:
    """A steady load of distinct events; how many."""
    made = generate.usage(seed, rate * seconds, CUSTOMERS, generate.Shares(0, 0, 0, 0, 0))
    decoded = codecs.own("usage_event").decode(made.values).batch
    fresh = decoded.set_column(0, "id", pa.array([f"{seed}-{number}" for number in range(decoded.num_rows)]))
    now = np.full(decoded.num_rows, time.time_ns() // 1000)
    fresh = fresh.set_column(4, "time", pa.array(now).cast(decoded["time"].type))
    values, keys = codecs.encode("usage_event", fresh).to_pylist(), made.keys.to_pylist()
    homes = {key: ids.partition_of(key, PARTITIONS) for key in set(keys)}
    producer = Producer({**place.settings, "linger.ms": 5, "enable.idempotence": True, "error_cb": kafka.silent})
    step = rate // 50
    began = time.monotonic()
    for at in range(0, len(values), step):
        for value, key in zip(values[at : at + step], keys[at : at + step], strict=True):
            producer.produce(place.physical(topics.USAGE), value, key, homes[key])
        producer.poll(0)
        time.sleep(max(0.0, began + (at + step) / rate - time.monotonic()))
    producer.flush()
    return len(values)


def _watch(place: KafkaPlace, seen: dict[str, tuple[float, float]], stop: threading.Event) -> None:
    """When each usage record was stamped by the broker, and when its rated record could be read."""
    stamped: dict[str, float] = {}
    usage = kafka.consumer(place.settings, "watch")
    usage.assign([TopicPartition(place.physical(topics.USAGE), partition, 0) for partition in range(PARTITIONS)])
    rated = kafka.consumer(place.settings, "watch")
    rated.assign([TopicPartition(place.physical(topics.RATED), partition, 0) for partition in range(PARTITIONS)])
    while not stop.is_set():
        arrived = rated.consume(2000, 0.005)
        now = time.time()
        for message in usage.consume(2000, 0.0):
            stamped[_id("usage_event", message.value())] = message.timestamp()[1] / 1000
        for message in arrived:
            name = _id("rated_usage", message.value())
            if name not in stamped:  # its usage record is read a little later by this watcher
                for late in usage.consume(20_000, 0.05):
                    stamped[_id("usage_event", late.value())] = late.timestamp()[1] / 1000
            seen[name] = (stamped[name], now)
    usage.close()
    rated.close()


def _id(schema: str, value: bytes) -> str:
    """The usage event's id in a framed value, without decoding the rest."""
    at = 5
    for _ in range(0 if schema == "usage_event" else 4):  # rated_id, correlation_id, batch_id, source
        at, size = _length(value, at)
        at += size
    at, size = _length(value, at)
    return value[at : at + size].decode()


def _length(value: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = value[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return at, (number >> 1) ^ -(number & 1)


def _until(seen: dict[str, tuple[float, float]], wanted: int) -> None:
    while len(seen) < wanted:
        time.sleep(0.05)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
