"""Dead letters on a real broker: untouched to the byte, replayed once whatever is killed, and the pause of a partition."""

import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from flows import cli, codecs, command_records, dead_letter_queue, kafka_topics, local_engine, topics, usage
from flows.commands import places
from flows.dead_letter_queue import Settled
from flows.flow_metrics import FlowMetrics
from flows.pause import PartitionPaused
from flows.usage_live import Live, LiveCell
from schemas.registry import Registry
from sinks.errors import Fenced
from sources.errors import SourceError
from tests.flow import folders
from tests.kafka import installations
from tieout import ids, usage_document
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
NAMES = [next(name for name in (f"k{i}" for i in range(30)) if ids.partition_of(name, 2) == partition) for partition in range(2)]
BROKER_LIMIT = 1_048_588
"""Bytes of a record batch that a topic takes when nothing is set."""


@pytest.fixture
def place(broker, topic_prefix):
    made = ready(installations.make(broker.bootstrap, topic_prefix))
    yield made
    made.close()


def ready(place):
    """A broker tells of new topics a moment after it has made them."""
    wanted = {spec.name for spec in (*kafka_topics.specs(Limits()), *kafka_topics.WHOLE)}
    until(lambda: wanted <= place.topics().keys())
    return place


def read(place, topic):
    """A topic's records by partition; a broker shows a transaction a moment after it has said that it is committed."""
    for partition in range(place.partitions(topic)):
        until(lambda reader=place.reader(topic, partition): reader.refresh() == place.ends(topic, reader.partition))
    return installations.read(place, topic, place.partitions(topic))


def good(count, partition=0, first=0):
    """Usage of now, one event a value."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    rows = [{"id": f"e{first + i}", "source": "s", "customer_id": NAMES[partition], "meter": "calls", "time": stamp, "quantity": "1"} for i in range(count)]
    return codecs.encode("usage_event", usage_document.columns([usage_document.parse(row) for row in rows])).to_pylist()


def send(place, *rows, partition=0):
    """Records (value, key, headers) of a sender of any kind."""
    producer = Producer(place.settings | {"message.max.bytes": 2_000_000, "linger.ms": 5})
    for value, *rest in rows:
        key, headers = (*rest, None, None)[:2]
        producer.produce(place.physical(topics.USAGE), value, key, partition, headers=headers)
        producer.poll(0)
    assert producer.flush(20) == 0


def contracts(place):
    installations.put(place, [], [folders.contract(name, effective_from="2025-01-01T00:00:00Z") for name in NAMES])


def command(place, name, *arguments, code=0):
    """A command on the installation."""
    where = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix]
    assert cli.main([name, *arguments, *where, "--author", "ada", "--output", "json"]) == code


def said(letter):
    return {header["key"].removeprefix("dlq."): header["value"].decode() for header in letter["headers"] if header["key"].startswith("dlq.")}


def own_headers(record):
    return [header for header in record["headers"] or () if not header["key"].startswith("dlq.")]


ODD = (
    (b"\x01no frame", None, None),
    (b"", b"", [("trace", b"\xff\x00\xfe"), ("trace", b"second"), ("", b"no name"), ("empty", b""), ("null", None)]),
    (None, b"\x00\xff", [("a", b"1"), ("b", b"2"), ("a", b"3")]),
    (folders.POISON, "k\u00e9y".encode(), []),
    (b"\x00\x00\x00\x00\x63body", b"k", None),
)


def test_key_value_headers_and_time_are_untouched_whatever_they_are(place):
    for partition in range(2):
        send(place, *ODD, partition=partition)
    tokens = installations.drain(place)
    assert [token.totals["rejected"] for token in tokens.values()] == [len(ODD)] * 2
    for partition, (originals, letters) in enumerate(zip(read(place, topics.USAGE), read(place, usage.DEAD), strict=True)):
        assert [letter["value"] for letter in letters] == [value for value, *_ in ODD]
        for original, letter in zip(originals, letters, strict=True):
            assert (letter["key"], letter["value"], letter["timestamp"]) == (original["key"], original["value"], original["timestamp"])
            assert own_headers(letter) == (original["headers"] or [])
            assert (said(letter)["partition"], said(letter)["topic"], said(letter)["flow"]) == (str(partition), topics.USAGE, "usage")
        assert [said(letter)["reason"] for letter in letters] == [*["undecodable"] * 4, "schema_unknown"]
        assert [said(letter).get("schema_id") for letter in letters] == [None, None, None, "11", "99"]
        assert [int(said(letter)["offset"]) for letter in letters] == list(range(len(ODD)))


@pytest.mark.parametrize("size", [990_000, BROKER_LIMIT - 200])
def test_a_record_as_large_as_the_broker_takes_is_still_a_whole_dead_letter(place, size):
    large = random.Random(size).randbytes(size)
    send(place, (b"\x01" + large, b"k", [("trace", b"1")]), (good(1)[0], b"k"))
    tokens = installations.drain(place)
    [letter] = read(place, usage.DEAD)[0]
    assert (len(letter["value"]), letter["value"][1:] == large, own_headers(letter)) == (size + 1, True, [{"key": "trace", "value": b"1"}])
    assert tokens[0].totals["received"] == 2


def test_dead_letters_lie_in_as_many_partitions_and_keep_their_time(broker, topic_prefix):
    place = ready(installations.make(broker.bootstrap, topic_prefix, partitions=5))
    found = place.topics()
    assert {found[topic] for topic in (topics.USAGE, usage.DEAD, topics.DLQ_PROGRESS)} == {5}
    assert found[topics.COMMANDS] == 1
    assert kafka_topics.check(place.admin, place.prefix, Limits()) == 5
    place.close()


def test_a_topic_of_commands_with_several_partitions_is_refused(place):
    place.admin.delete_topics([place.physical(topics.COMMANDS)])[place.physical(topics.COMMANDS)].result()
    until(lambda: topics.COMMANDS not in place.topics())
    kafka_topics.create_all(place.admin, place.prefix, kafka_topics.WHOLE, 3, 1)
    ready(place)
    with pytest.raises(SourceError, match="3 partitions; commands have one order"):
        kafka_topics.check(place.admin, place.prefix, Limits())


def test_a_usage_topic_that_takes_more_than_its_dead_letters_is_refused(place):
    more = ConfigEntry("max.message.bytes", str(kafka_topics.LARGE), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, place.physical(topics.USAGE), incremental_configs=[more])
    place.admin.incremental_alter_configs([resource])[resource].result()
    with pytest.raises(SourceError, match=f"may not fit; set {kafka_topics.LARGE + 65_536} or more"):
        until(lambda: not kafka_topics.check(place.admin, place.prefix, Limits()))


def test_letters_are_listed_shown_replayed_once_and_discarded(place, capsys):
    contracts(place)
    send(place, *ODD)
    send(place, (good(1)[0], b"k"), (b"\x01other", b"k"), partition=1)
    installations.drain(place)
    command(place, "dlq", "ls")
    rows = json.loads(capsys.readouterr().out)
    assert [(row["reason"], row["partition"], row["count"]) for row in rows] == [("undecodable", 0, 4), ("schema_unknown", 0, 1), ("undecodable", 1, 1)]
    command(place, "dlq", "show", "--reason", "schema_unknown")
    [shown] = json.loads(capsys.readouterr().out)
    assert (shown["letter"], shown["schema_id"], shown["value"]) == (rows[1]["letter"], "99", ODD[4][0].hex())
    command(place, "dlq", "replay", "--partition", "0", "--dry-run")
    command(place, "dlq", "discard", rows[1]["letter"], "--because", "a test of the gateway")
    command(place, "dlq", "replay", "--partition", "0")
    command(place, "dlq", "replay", "--partition", "0")
    dry, discarded, replayed, again = [json.loads(part + "]") for part in capsys.readouterr().out.replace("]\n", "]\n|").split("]\n|")[:4]]
    assert dry == [{"partition": 0, "reason": "schema_unknown", "would be replayed": 1}, {"partition": 0, "reason": "undecodable", "would be replayed": 4}]
    assert discarded == [{"partition": 0, "reason": "schema_unknown", "discarded": 1}]
    assert (replayed, again) == ([{"partition": 0, "reason": "undecodable", "replayed": 4}], [])
    sent = read(place, topics.USAGE)[0]
    for original, back in zip(sent[:4], sent[5:], strict=True):
        assert (back["key"], back["value"], own_headers(back)) == (original["key"], original["value"], original["headers"] or [])
        assert said(back).keys() == {"replay_count", "first_failed_at"}
    installations.drain(place)
    letters = read(place, usage.DEAD)[0]
    assert [said(letter)["replay_count"] for letter in letters] == ["0"] * 5 + ["1"] * 4
    assert [said(letter)["first_failed_at"] for letter in letters[5:]] == [said(letter)["first_failed_at"] for letter in letters[:4]]
    assert all(len(names) == len(set(names)) for names in ([h["key"] for h in letter["headers"] if h["key"].startswith("dlq.")] for letter in letters))
    command(place, "dlq", "ls", "--partition", "0", "--all")
    rows = json.loads(capsys.readouterr().out)
    assert {(row["reason"], row["state"], row["count"]) for row in rows} == {("undecodable", "replayed", 4), ("undecodable", "waiting", 4), ("schema_unknown", "discarded", 1)}


KILLED = """
import sys
from flows import cli
from sinks.kafka import TransactionalWriter
whole, calls = TransactionalWriter.commit, []

def commit(writer, outputs, positions, group):
    calls.append(1)
    if len(calls) <= 2:
        return whole(writer, outputs, positions, group)
    writer._producer.begin_transaction()
    for records in outputs:
        writer._produce(records)
    writer._producer.flush()
    print("open", flush=True)
    sys.stdin.read()

TransactionalWriter.commit = commit
import flows.commands.dlq as dlq
dlq.AT_ONCE = 50
cli.main(sys.argv[1:])
"""


def bad(count):
    return [b"\x01bad-%d" % i for i in range(count)]


def test_a_replay_killed_in_its_transaction_is_done_once(place, capsys):
    sent = bad(300)
    send(place, *((value, b"k") for value in sent))
    installations.drain(place)
    where = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix]
    process = subprocess.Popen([sys.executable, "-c", KILLED, "dlq", "replay", *where, "--author", "ada"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() == b"open"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    command(place, "dlq", "replay")
    assert json.loads(capsys.readouterr().out) == [{"partition": 0, "reason": "undecodable", "replayed": 200}]
    assert [record["value"] for record in read(place, topics.USAGE)[0]] == [*sent, *sent]


def test_replays_killed_at_any_time_put_everything_back_once(place):
    sent = bad(900)
    send(place, *((value, b"k") for value in sent))
    installations.drain(place)
    rnd, kills = random.Random(5), 0
    code = "import sys, flows.commands.dlq as dlq; from flows import cli; dlq.AT_ONCE = 20; sys.exit(cli.main(sys.argv[1:]))"
    where = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix]
    for attempt in itertools.count():
        process = subprocess.Popen([sys.executable, "-c", code, "dlq", "replay", *where, "--author", "ada"], cwd=ROOT, stdout=subprocess.DEVNULL)
        if attempt < 3:
            before = place.ends(topics.DLQ_PROGRESS, 0)
            while process.poll() is None and place.ends(topics.DLQ_PROGRESS, 0) < before + 2:
                time.sleep(0.01)
            time.sleep(rnd.uniform(0, 0.08))
        if attempt < 3 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            assert process.wait() == 0
            break
    back = [record["value"] for record in read(place, topics.USAGE)[0]][len(sent) :]
    assert (kills, back) == (3, sent)


def test_of_two_that_settle_the_same_partition_only_one_can(place):
    send(place, *((value, b"k") for value in bad(3)))
    installations.drain(place)
    first, second = (dead_letter_queue.of(place, "usage") for _ in range(2))
    first.hold(0)
    second.hold(0)
    letters, how = list(first.letters(0)), Settled("replayed", "ada", time.time_ns() // 1000, None)
    with pytest.raises(Fenced):
        first.settle(0, letters, how)
    second.settle(0, letters, how)
    assert len(second.settled(0)) == 3
    assert len(read(place, topics.USAGE)[0]) == 6
    first.close()
    second.close()


def flood(place):
    """More than a tenth of partition 0 is undecodable, of partition 1 nothing."""
    contracts(place)
    send(place, *((value, b"k") for value in [*good(500), *bad(1500), *good(500, first=500)]))
    send(place, *((value, b"k") for value in good(700, 1)), partition=1)


def test_a_flood_of_rejects_pauses_its_partition_alone_until_it_is_released(place, capsys):
    flood(place)
    run = installations.cell(place, rows=400)
    with pytest.raises(PartitionPaused, match=r"usage-0 is paused: 1,001 of 1,001 consecutive rows are rejected \(1,001 undecodable\)"):
        run.attempt()
    assert [token.totals["received"] for token in run.tokens.values()] == [1501, 700]
    assert [status.paused for status in run.metrics.statuses()] == ["dead_letters", None]
    again = installations.cell(place, rows=25_000)
    with pytest.raises(PartitionPaused):
        again.attempt()
    assert again.tokens == run.tokens
    capsys.readouterr()
    command(place, "release", "usage-1", "--reason", "x", code=1)
    command(place, "release", "usage-0", "--reason", "gateway rolled back")
    assert json.loads(capsys.readouterr().out)[0]["rejected"] == {"undecodable": 1001}
    read(place, topics.COMMANDS)
    tokens = installations.drain(place)
    assert [token.totals["received"] for token in tokens.values()] == [2500, 700]
    assert [token.totals["priced"] for token in tokens.values()] == [1000, 700]
    assert tokens[0].positions[command_records.NAME] == 2  # the record and the mark of its transaction
    assert len(read(place, usage.DEAD)[0]) == 1500


def test_a_running_cell_goes_on_where_it_paused_when_it_is_released(place, capsys):
    flood(place)
    stop, told = threading.Event(), []
    metrics = FlowMetrics("usage", [0, 1])
    live = LiveCell(place, [0, 1], Live(rows=2500, seconds=0.5), metrics, local_engine.run, stop.is_set, told.append)
    thread = threading.Thread(target=live.attempt)
    thread.start()
    try:
        until(lambda: metrics.statuses()[0].paused == "dead_letters" and live.tokens[1].totals.get("received") == 700)
        assert live.tokens[0].totals["received"] == 1501
        send(place, (good(1, 1, 900)[0], b"k"), partition=1)
        until(lambda: live.tokens[1].totals["received"] == 701)
        assert (metrics.statuses()[0].lag_records, live.tokens[0].totals["received"]) == (999, 1501)
        command(place, "release", "usage-0", "--reason", "gateway rolled back")
        until(lambda: live.tokens[0].totals["received"] == 2500)
        until(lambda: metrics.statuses()[0].paused is None)
    finally:
        stop.set()
        thread.join()
    assert "usage-0 is paused" in told[0]
    assert told[1].endswith("released, goes on")
    rated = [(row["customer_id"], row["usage"]["id"]) for values in ([record["value"] for record in records] for records in read(place, topics.RATED)) for row in codecs.own("rated_usage").decode(folders.pa.array(values, folders.pa.large_binary())).batch.to_pylist()]
    assert len(rated) == len(set(rated)) == 1701


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_paused_cell_killed_and_started_again_is_still_paused_and_can_be_released(place):
    flood(place)
    where = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix]
    command_ = [sys.executable, "-m", "flows.cli", "run", "usage", *where, "--engine", "bytewax", "--rows", "300", "--seconds", "0.05", "--output", "json"]
    for last in (False, True):
        process = subprocess.Popen(command_, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = next(line for line in process.stderr if "is paused" in line)
        assert "1,001 undecodable" in line
        assert len(read(place, usage.DEAD)[0]) == 1001
        if last:
            command(place, "release", "usage-0", "--reason", "gateway rolled back")
            until(lambda: sum(len(records) for records in read(place, topics.RATED)) == 1700)
        process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
        said_last, _ = process.communicate()
    assert [figure["value"] for figure in json.loads(said_last) if figure["figure"] in {"priced", "rejected"}] == [1700, 1500]


def test_a_release_under_other_schema_ids_than_the_cell_s_is_refused(broker, registry, topic_prefix, schema_lock, capsys):
    lock = str(schema_lock)
    place = ready(installations.make(broker.bootstrap, topic_prefix))
    client = Registry(registry.url)
    with places.pinned(client, lock):
        flood(place)
        with pytest.raises(PartitionPaused):
            installations.drain(place)
    command(place, "release", "usage-0", "--reason", "rolled back", code=1)
    assert "under the schema ids of a registry; name it with --registry" in capsys.readouterr().err
    command(place, "release", "usage-0", "--reason", "rolled back", "--registry", registry.url, "--schema-lock", lock)
    read(place, topics.COMMANDS)
    with places.pinned(client, lock):
        assert installations.drain(place)[0].totals["received"] == 2500
    place.close()


def test_a_record_that_only_its_sender_s_compression_made_small_is_a_dead_letter_too(place):
    large = b"\x01" + bytes(20_000_000)
    producer = Producer(place.settings | {"message.max.bytes": 100_000_000, "compression.type": "zstd"})
    producer.produce(place.physical(topics.USAGE), large, b"k", 0)
    assert producer.flush(20) == 0
    installations.drain(place)
    [letter] = read(place, usage.DEAD)[0]
    assert letter["value"] == large
