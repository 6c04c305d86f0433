"""The document flow on a real broker: invoices of all partitions, one order of numbers, once, through kills and a second cell."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import cli, document, document_topics, document_view, kafka_topics, local_engine, topics
from flows.cells import CellError, Share
from flows.document_live import DOCUMENT, DocumentLive
from flows.flow_metrics import FlowMetrics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live
from flows.verification import verify_document
from schemas import segments
from sinks.errors import Fenced
from sources.errors import SourceError
from tests.invoices import by_partition, invoice, invoices
from tests.kafka import installations
from tieout import ids
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
PARTITIONS = 4


def make(broker, prefix):
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, prefix, prefix + ".", flow="document")
    document_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    kafka_topics.create_all(place.admin, place.prefix, [kafka_topics.TopicSpec(topics.USAGE)], 1, 1)  # the way in asks for it
    assert document_topics.check(place.admin, place.prefix, Limits()) == 1
    return place


def put(place, made, name="first"):
    ingress = KafkaIngress(place)
    ingress.append(topics.INVOICES, by_partition(made, PARTITIONS), name)
    ingress.close()


def live(place, metrics=None, stopped=lambda: False, **options):
    options = {"drain": True} | options
    return DocumentLive(place, [0], Live(Share(), **options), metrics or FlowMetrics("document", [0], fates=DOCUMENT.fates), local_engine.run, stopped, print, flow=DOCUMENT)


def drain(place, **options):
    cell = live(place, **options)
    cell.attempt()
    return cell.tokens[0]


def exact(place, made):
    """Every final invoice is there once, each series without a gap."""
    found = list(document_view.all_of(place))
    assert sorted(one.invoice for one in found) == sorted(one for one in made if one.status == "final")
    for entity in {one.invoice.legal_entity_id for one in found}:
        series = [one for one in found if one.invoice.legal_entity_id == entity]
        assert [one.sequence for one in series] == list(range(1, len(series) + 1))
    assert verify_document(place)["breaks"] == []


def test_invoices_of_all_partitions_are_numbered_in_one_order_and_a_restart_goes_on(broker, topic_prefix):
    place = make(broker, topic_prefix)
    made = invoices(700)
    put(place, made[:600])
    metrics = FlowMetrics("document", [0], fates=DOCUMENT.fates)
    live(place, metrics, rows=90).attempt()
    said = metrics.exposition("")[0].decode()
    assert 'tieout_events_total{fate="numbered",flow="document",partition="0"} 594.0' in said
    assert 'tieout_commits_total{flow="document",partition="0"} 7.0' in said
    assert 'tieout_partition_restored{flow="document",partition="0"} 1.0' in said
    put(place, made[600:], "second")
    token = drain(place)
    assert (token.totals["received"], token.totals["numbered"], token.totals["draft"]) == (700, 693, 7)
    exact(place, made)
    assert drain(place) == token
    for partition, records in enumerate(installations.read(place, topics.DOCUMENTS, PARTITIONS)):
        assert {ids.partition_of(record["key"].decode(), PARTITIONS) for record in records} <= {partition}


def test_a_second_cell_takes_over_and_the_first_is_fenced(broker, topic_prefix):
    place = make(broker, topic_prefix)
    made = invoices(300)
    put(place, made[:100])
    second = KafkaPlace(place.settings, place.installation, place.prefix, flow="document")
    state = {"turns": 0}

    def take_over():
        """While the first one waits for more, an invoice comes and another cell numbers it; then the first one tries to."""
        state["turns"] += 1
        if state["turns"] == 200:
            put(second, made[100:101], "second")
            drain(second)
        return state["turns"] > 100_000

    with pytest.raises(Fenced):
        live(place, stopped=take_over, drain=False, seconds=0.02).attempt()
    put(second, made[101:], "third")
    drain(second)
    exact(second, made)


def test_one_cell_gives_all_numbers(broker, topic_prefix):
    make(broker, topic_prefix)
    with pytest.raises(CellError, match="run at most 1 cells"):
        Share(1, 2).partitions(1)
    command = ["run", "document", "--bootstrap", broker.bootstrap, "--installation", topic_prefix, "--topic-prefix", f"{topic_prefix}.", "--drain", "--cells", "2", "--cell", "1"]
    assert cli.main(command) == 1


def test_an_invoice_that_cannot_be_read_ends_the_cell(broker, topic_prefix):
    place = make(broker, topic_prefix)
    ingress = KafkaIngress(place)
    ingress.append(topics.INVOICES, {2: segments.records(pa.array([b"\0\0\0\0\x18\xff"], pa.large_binary()), None, np.array([0]))}, "broken")
    ingress.close()
    with pytest.raises(SourceError, match="billing.invoice.v1, partition 2: record at position 0: .*nothing after it is numbered"):
        drain(place)


def test_topics_that_lose_documents_or_have_several_writers_are_refused(broker, topic_prefix):
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, topic_prefix, topic_prefix + ".", flow="document")
    with pytest.raises(SourceError, match="billing.invoice.v1"):
        document_topics.check(place.admin, place.prefix, Limits())
    kafka_topics.create_all(place.admin, place.prefix, [kafka_topics.TopicSpec(topics.DOCUMENTS, 10**12)], 2, 1)
    document_topics.create(place.admin, place.prefix, 2, 1, Limits())
    with pytest.raises(SourceError, match=r"billing.document.v1: retention.ms is 1000000000, set -1; .*max.message.bytes is"):
        document_topics.check(place.admin, place.prefix, Limits())


@pytest.mark.kill
def test_a_cell_that_is_killed_and_started_again_skips_no_number_and_uses_none_twice(broker, topic_prefix):
    place = make(broker, topic_prefix)
    made = invoices(3000)
    put(place, made)
    rnd = random.Random(5)
    command = [
        sys.executable, "-m", "flows.cli", "run", "document", "--bootstrap", broker.bootstrap, "--installation", topic_prefix, "--topic-prefix", f"{topic_prefix}.",
        "--rows", "20", "--engine", "local", "--drain", "--output", "json",
    ]
    kills = 0
    while kills < 6:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = place.ends(document.TOKEN, 0)
        deadline = time.monotonic() + 30
        while place.ends(document.TOKEN, 0) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rnd.uniform(0, 0.1))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = {row["figure"]: row["value"] for row in json.loads(answer.stdout)}
    assert kills and figures == {"received": 3000, "numbered": 2970, "draft": 30}
    exact(place, made)


def test_documents_are_shown_from_a_broker(broker, topic_prefix, capsys):
    installations.make(broker.bootstrap, topic_prefix, 1)
    place = make(broker, topic_prefix)
    put(place, [invoice(number, random.Random(number), "us-inc") for number in range(30)])
    drain(place)
    where = ["--bootstrap", broker.bootstrap, "--topic-prefix", f"{topic_prefix}.", "--installation", topic_prefix, "--output", "ndjson"]
    assert cli.main(["document", "ls", *where]) == 0
    numbers = [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()]
    assert numbers == [f"us-inc-{place:08d}" for place in range(1, 31)]
    assert cli.main(["document", "show", numbers[17], *where]) == 0
    assert json.loads(capsys.readouterr().out)["number"] == numbers[17]
    assert cli.main(["verify", *where]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["flow"], row["breaks"]) == ("document", [])
