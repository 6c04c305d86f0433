"""`tieout dev` as a developer meets it: one command starts everything, Ctrl-C ends everything."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient

from flows import topics
from flows.stack import loopback
from tests.kafka.conftest import ROOT

PARTS = ["Kafka", "The schema registry", "The usage flow", "The contract flow", "The invoicing flow", "The document flow", "The ticker", "The control"]


@contextmanager
def dev(folder, *options):
    """The command, once it has told its addresses: the process and the rows that it printed."""
    command = [sys.executable, "-m", "flows.cli", "dev", "--dir", str(folder), "--output", "json", *options]
    with (folder.parent / "said").open("a+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True)
        try:
            printed = ""
            while not printed.endswith("\n]\n"):
                line = process.stdout.readline()
                said.seek(0)
                assert line, said.read()
                printed += line
            yield process, json.loads(printed)
        finally:
            process.kill()
            process.communicate()


def port_of(row):
    return int(row["address"].removeprefix("http://").split("/")[0].split(":")[1])


def rated(bootstrap, wanted):
    """The first rated records of all partitions."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "isolation.level": "read_committed", "enable.auto.commit": False})
    partitions = consumer.list_topics(topics.RATED, timeout=30).topics[topics.RATED].partitions
    consumer.assign([TopicPartition(topics.RATED, partition, 0) for partition in partitions])
    found = []
    try:
        while len(found) < wanted:
            found += consumer.consume(wanted - len(found), 30)
            assert found
    finally:
        consumer.close()
    return [message.value() for message in found]


def taken(row, wanted):
    """How many rated records the invoicing flow's metrics count, once they are so many or 30 seconds are over."""
    deadline, found = time.monotonic() + 30, 0.0
    while found < wanted and time.monotonic() < deadline:
        text = loopback.get(port_of(row), "/metrics")
        found = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith('tieout_events_total{fate="taken"'))
        time.sleep(0.1)
    return found


def counted(row):
    """What the flow's metrics say, by fate."""
    text = loopback.get(port_of(row), "/metrics")
    lines = [line for line in text.splitlines() if line.startswith("tieout_events_total{")]
    return {fate: sum(float(line.split()[-1]) for line in lines if f'fate="{fate}"' in line) for fate in ("priced", "duplicate", "rejected")}


def test_one_command_starts_everything_prices_usage_goes_on_with_its_data_and_ends_everything(tmp_path):
    folder = tmp_path / "dev"
    with dev(folder, "--rate", "400", "--partitions", "2", "--customers", "20") as (process, rows):
        assert [row["part"] for row in rows] == PARTS
        kafka, registry, flow, contract, invoicing, document, ticker, control = rows
        values = rated(kafka["address"], 100)
        ids = {int.from_bytes(value[1:5]) for value in values}
        assert ids == {SchemaRegistryClient({"url": registry["address"]}).get_latest_version(f"{topics.RATED}-value").schema_id}
        for one, name in ((contract, "contract"), (document, "document")):
            assert f'tieout_partition_restored{{flow="{name}",partition="0"}} 1.0' in loopback.get(port_of(one), "/metrics")
        assert taken(invoicing, 100) >= 100
        before = counted(flow)
        assert before["priced"] >= 100
        assert all(json.loads(loopback.get(port_of(one), "/health"))["live"] for one in (ticker, control))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert not any(loopback.open_at(port_of(row)) for row in rows)
    with dev(folder, "--rate", "400", "--partitions", "2", "--customers", "20") as (process, rows):
        deadline = time.monotonic() + 60
        while counted(rows[2])["priced"] <= before["priced"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert counted(rows[2])["priced"] > before["priced"]
        os.kill(int(rows[2]["process"]), signal.SIGKILL)
        assert process.wait(60) == 1
        assert "The usage flow has ended by itself" in (tmp_path / "said").read_text()
        assert not any(loopback.open_at(port_of(row)) for row in rows)
