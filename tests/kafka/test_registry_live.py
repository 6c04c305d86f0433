"""A cell and the schema registry: our ids pinned by a lock file, writers' schemas learnt, a partition that waits for the registry."""

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa

from flows import topics
from flows.commands.places import pinned
from flows.kafka_ingress import KafkaIngress
from schemas import lock as locks
from schemas import segments
from schemas.registry import Registry
from tests.flow import folders
from tests.kafka import installations
from tieout.ids import partition_of

ROOT = Path(__file__).parents[2]
WRITER = {
    "type": "record", "name": "GatewayUsage", "namespace": "gateway", "fields": [
        {"name": "id", "type": "string"}, {"name": "source", "type": "string"}, {"name": "customer_id", "type": "string"}, {"name": "meter", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "quantity", "type": {"type": "bytes", "logicalType": "decimal", "precision": 28, "scale": 9}},
        {"name": "attributes", "type": {"type": "map", "values": "string"}}, {"name": "trace", "type": "string"},
    ],
}
CUSTOMERS = [f"k{i}" for i in range(6)]


def put_foreign(place, schema_id, count=60):
    schema, frame = fastavro.parse_schema(WRITER), b"\0" + schema_id.to_bytes(4, "big")
    by_partition = {}
    for number in range(count):
        body, customer = io.BytesIO(), CUSTOMERS[number % len(CUSTOMERS)]
        fastavro.schemaless_writer(body, schema, {
            "id": f"g{number}", "source": "gateway", "customer_id": customer, "meter": "calls", "time": datetime(2026, 1, 5, tzinfo=UTC), "quantity": Decimal(2), "attributes": {}, "trace": "t"})
        by_partition.setdefault(partition_of(customer, installations.PARTITIONS), []).append((customer.encode(), frame + body.getvalue()))
    ingress = KafkaIngress(place)
    ingress.append(topics.USAGE, {
        partition: segments.records(pa.array([value for _, value in rows], pa.large_binary()), pa.array([key for key, _ in rows], pa.large_binary()), np.ones(len(rows), np.int64))
        for partition, rows in by_partition.items()
    }, "gateway")
    ingress.close()


def test_a_cell_frames_with_the_registry_s_ids_and_reads_a_writer_it_never_heard_of(broker, registry, topic_prefix, schema_lock):
    place = installations.make(broker.bootstrap, topic_prefix)
    client = Registry(registry.url)
    foreign = client.register(f"{topic_prefix}usage-value", WRITER)
    with pinned(client, str(schema_lock)):
        installations.put(place, [], [folders.contract(customer) for customer in CUSTOMERS])
    put_foreign(place, foreign)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    answer = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "usage", "--bootstrap", broker.bootstrap, "--installation", place.installation, "--topic-prefix", place.prefix,
         "--registry", registry.url, "--schema-lock", schema_lock, "--drain", "--output", "json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert {row["figure"]: row["value"] for row in json.loads(answer.stdout)}["priced"] == 60
    rated_id = locks.read(schema_lock).schemas["rated_usage"].id
    heads = {value[:5] for values in installations.values(place, topics.RATED) for value in values}
    assert heads == {b"\0" + rated_id.to_bytes(4, "big")}
    client.close()


def test_a_partition_waits_while_the_registry_is_away_and_the_others_go_on(broker, registry, topic_prefix, schema_lock):
    place = installations.make(broker.bootstrap, topic_prefix)
    here, away = Registry(registry.url), Registry("http://127.0.0.1:9")  # nothing answers on the discard port
    foreign = here.register(f"{topic_prefix}usage-value", WRITER)
    said, asked = [], []
    with pinned(here, str(schema_lock)):
        installations.put(place, folders.events(3, 300, 6), [folders.contract(customer) for customer in CUSTOMERS])
        put_foreign(place, foreign)
        cell = installations.cell(place, rows=10_000)

        def writer(schema_id):
            asked.append(schema_id)
            paused = [status.paused for status in cell.metrics.statuses()]
            if len(asked) > 3:
                assert "registry" in paused
                return here.writer(schema_id)
            return away.writer(schema_id)

        cell.told, cell.writer = said.append, writer
        cell.attempt()
        assert sum(token.totals["received"] for token in cell.tokens.values()) == 360
        assert [status.paused for status in cell.metrics.statuses()] == [None, None]
        assert len(asked) > 3
        assert "waits for the registry, the other partitions go on" in said[0]
        assert installations.values(place, "usage.event.v1.dlq.usage") == [[], []]
    here.close()
    away.close()


def test_a_registry_that_has_another_schema_under_a_pinned_id_is_a_refusal(broker, registry, topic_prefix, schema_lock):
    pins = json.loads(schema_lock.read_text())
    entry = pins["schemas"]["hold"] if "schemas" in pins else pins["hold"]
    entry["id"] += 1
    schema_lock.write_text(json.dumps(pins))
    place = installations.make(broker.bootstrap, topic_prefix)
    answer = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", "usage", "--bootstrap", broker.bootstrap, "--installation", place.installation, "--topic-prefix", place.prefix,
         "--registry", registry.url, "--schema-lock", schema_lock, "--drain"],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )
    assert answer.returncode == 1
    assert "hold" in answer.stderr
    assert "Traceback" not in answer.stderr
