"""The contract flow on a real broker: versions to their customers' partitions, once, through kills, and the usage flow behind it."""

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

from flows import cli, codecs, command_records, contract, contract_topics, governed_ingress, kafka_topics, local_engine, reference_records, topics
from flows.cells import Share
from flows.contract_live import CONTRACT
from flows.contract_outputs import DEAD
from flows.contract_records import decode
from flows.flow_metrics import FlowMetrics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
from flows.verification import verify, verify_contract
from schemas import segments
from sources.errors import SourceError
from tests import governed
from tests.flow import governed_folders as folder
from tests.governed import decide, document, propose
from tests.kafka import installations
from tieout import ids
from tieout.reference_document import parse
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
PARTITIONS = 2
NOW = time.time_ns() // 1000


def make(broker, prefix):
    """An installation with the topics of the usage flow and of this one, and people who may act."""
    installations.make(broker.bootstrap, prefix, PARTITIONS)
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, prefix, prefix + ".", flow="contract")
    contract_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    assert contract_topics.check(place.admin, place.prefix, Limits()) == 1
    know(place, *folder.USERS)
    return place


def know(place, *documents):
    governed_ingress.append(place, topics.REFERENCE, reference_records.records([parse(one) for one in documents]), "")
    seen(place, topics.REFERENCE)


def send(place, *commands):
    """Commands in one transaction."""
    ingress = KafkaIngress(place)
    batches = [command_records.record(command) for command in commands]
    ingress.append(topics.COMMANDS, {0: pa.Table.from_batches(batches).combine_chunks().to_batches()[0]}, "test")
    ingress.close()
    seen(place, topics.COMMANDS)


def seen(place, topic):
    """Wait until what was committed can be read: a commit's answer comes before its marks are set."""
    reader = place.reader(topic, 0)
    while reader.refresh() < place.ends(topic, 0):
        time.sleep(0.01)


def drain(place, **live):
    cell = LiveCell(place, [0], Live(Share(), drain=True, **live), FlowMetrics("contract", [0], fates=CONTRACT.fates), local_engine.run, lambda: False, print, flow=CONTRACT)
    cell.attempt()
    return cell.tokens[0]


def all_values(place, topic, partitions=PARTITIONS):
    for partition in range(partitions):
        reader = place.reader(topic, partition)
        while reader.refresh() < place.ends(topic, partition):
            time.sleep(0.01)
    return installations.values(place, topic, partitions)


def published(place):
    return [decode(pa.array(values, pa.large_binary())) if values else [] for values in all_values(place, topics.CONTRACTS)]


def exceptions(place):
    values = [value for part in all_values(place, topics.EXCEPTIONS) for value in part]
    return codecs.own("exception").decode(pa.array(values, pa.large_binary())).batch.to_pylist() if values else []


def of_customer(number, version=1, **more):
    return document(version, **{"contract_id": f"c-{number}", "customer_id": f"k{number}"} | more)


def agreed(*documents):
    return [command for one in documents for proposal in [propose(one, at=NOW)] for command in (proposal, decide(proposal, at=NOW + 1))]


def test_from_commands_to_priced_usage_on_a_broker(broker, topic_prefix):
    place = make(broker, topic_prefix)
    send(place, *agreed(*(of_customer(number) for number in range(6)), of_customer(2, 2, effective_from="2026-03-01T00:00:00Z")), propose(of_customer(3, 2, kind="resumption"), at=NOW))
    token = drain(place, rows=5)
    assert {name: token.totals[name] for name in ("received", "accepted", "refused", "published", "refusals")} == {
        "received": 15, "accepted": 14, "refused": 1, "published": 7, "refusals": 1,
    }
    for partition, versions in enumerate(published(place)):
        assert all(ids.partition_of(version.customer_id, PARTITIONS) == partition for version in versions)
    assert sorted((version.contract_id, version.version) for versions in published(place) for version in versions) == sorted([*((f"c-{n}", 1) for n in range(6)), ("c-2", 2)])
    (refused,) = exceptions(place)
    assert (refused["kind"], refused["customer_id"], refused["object"]["id"]) == ("proposal_refused", "k3", "c-3/2")
    usage = [{"id": f"{n}", "source": "s", "customer_id": "k2", "meter": "calls", "time": f"2026-0{n}-02T00:00:00Z", "quantity": "10"} for n in (2, 3)]
    priced = installations.KafkaPlace(place.settings, place.installation, place.prefix)
    installations.put(priced, usage, partitions=PARTITIONS)
    installations.drain(priced, partitions=PARTITIONS)
    rated = [row for values in all_values(place, topics.RATED) for row in codecs.own("rated_usage").decode(pa.array(values, pa.large_binary())).batch.to_pylist()]
    assert sorted((row["usage"]["id"], row["contract_version"]) for row in rated) == [("2", 1), ("3", 2)]
    assert all(row is None or row["breaks"] == [] for row in (verify(priced, partition) for partition in range(PARTITIONS)))
    assert verify_contract(place)["breaks"] == []
    assert drain(place).sequence == token.sequence  # nothing new, nothing written


def test_the_broker_says_when_a_command_was_recorded(broker, topic_prefix):
    place = make(broker, topic_prefix)
    before = time.time_ns() // 1_000_000 * 1000
    long_ago = propose(of_customer(1), at=governed.START)
    send(place, long_ago, decide(long_ago, at=governed.START))
    drain(place)
    (version,) = [version for versions in published(place) for version in versions]
    assert version.recorded_at.timestamp() * 1_000_000 >= before


def test_undecodable_commands_are_dead_letters_and_a_refusal_is_resolved_by_what_corrects_it(broker, topic_prefix):
    place = make(broker, topic_prefix)
    ingress = KafkaIngress(place)
    ingress.append(topics.COMMANDS, {0: segments.records(pa.array([b"\0\0\0\0\x0e\xff"], pa.large_binary()), None, np.array([NOW]))}, "broken")
    ingress.close()
    bad = propose(of_customer(1, kind="amendment"), at=NOW)
    send(place, bad, *agreed(of_customer(1)))
    token = drain(place)
    assert (token.totals["rejected"], token.totals["published"], token.totals["settled"]) == (1, 1, 1)
    assert all_values(place, DEAD, 1) == [[b"\0\0\0\0\x0e\xff"]]
    assert [one["state"] for one in exceptions(place)] == ["open", "resolved"]


def test_a_topic_of_commands_that_a_sender_dates_is_a_refusal_to_start(broker, topic_prefix):
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, topic_prefix, topic_prefix + ".", flow="contract")
    loose = kafka_topics.TopicSpec(topics.COMMANDS, largest=kafka_topics.LARGE)
    kafka_topics.create_all(place.admin, place.prefix, (loose,), 1, 1)
    contract_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    with pytest.raises(SourceError, match="message.timestamp.type is CreateTime, set LogAppendTime"):
        contract_topics.check(place.admin, place.prefix, Limits())


def history(customers=40):
    """Proposals and approvals in a shuffled order, a few of them no good."""
    commands = []
    for number in range(customers):
        commands += agreed(of_customer(number), of_customer(number, 2, effective_from="2026-03-01T00:00:00Z"))
        commands.append(propose(of_customer(number, 4, kind="new"), at=NOW))
    random.Random(3).shuffle(commands)
    return commands


@pytest.mark.kill
def test_a_cell_that_is_killed_and_started_again_publishes_each_version_once(broker, topic_prefix):
    place = make(broker, topic_prefix)
    commands = history()
    send(place, *commands)
    rnd = random.Random(5)
    command = [
        sys.executable, "-m", "flows.cli", "run", "contract", "--bootstrap", broker.bootstrap, "--installation", topic_prefix, "--topic-prefix", f"{topic_prefix}.",
        "--rows", "5", "--engine", "local", "--drain", "--output", "json",
    ]
    kills = 0
    while kills < 4:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = place.ends(contract.TOKEN, 0)
        deadline = time.monotonic() + 30
        while place.ends(contract.TOKEN, 0) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rnd.uniform(0, 0.05))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = {row["figure"]: row["value"] for row in json.loads(answer.stdout)}
    assert kills and figures["received"] == len(commands)
    found = sorted((version.contract_id, version.version) for versions in published(place) for version in versions)
    assert found == sorted((f"c-{number}", version) for number in range(40) for version in (1, 2))
    names = [one["exception_id"] for one in exceptions(place)]
    assert len(names) == len(set(names))


def test_commands_of_people_reach_a_broker(broker, topic_prefix, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    where = ["--bootstrap", broker.bootstrap, "--topic-prefix", f"{topic_prefix}.", "--installation", topic_prefix]

    def ask(*words, place=where):
        assert cli.main([*words, *place, "--output", "ndjson"]) in (0, 3), capsys.readouterr().err
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    ask("topic", "create", "--flow", "contract", "--partitions", "2", "--replication-factor", "1")
    rows = []
    for name in ("una", "ben"):
        (made,) = ask("key", "make", f"{name}.pem", place=[])
        rows.append(json.dumps({"kind": "user", "key": name, "valid_from": "2020-01-01T00:00:00Z", "user": {"name": name, "public_key": made["public_key"]}}))
    (tmp_path / "users.jsonl").write_text("\n".join(rows))
    assert len(ask("reference", "put", "users.jsonl", "--author", "root")) == 2
    (tmp_path / "one.json").write_text(json.dumps(of_customer(1)))
    ask("contract", "propose", "one.json", "--key", "una.pem", "--author", "una", "--reason", "new")
    ask("approve", "c-1/1", "--key", "ben.pem", "--author", "ben", "--reason", "fine")
    figures = {row["figure"]: row["value"] for row in ask("run", "contract", "--drain", "--engine", "local")}
    assert figures["accepted"] == 2
    (row,) = ask("contract", "show", "c-1")
    assert (row["state"], row["requested_by"], row["approved_by"]) == ("active", "una", "ben")
    (stretch,) = ask("contract", "timeline", "c-1")
    assert stretch["governs"] == ["2026-02-01T00:00:00Z .. open"]
