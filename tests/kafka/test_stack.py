"""The stack itself: it starts, survives what tests do to it, and leaves nothing behind."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError

from flows.stack import downloads, loopback
from flows.stack.broker import Broker
from flows.stack.errors import StackError
from tests.kafka import conftest, keeper

CHARGED = '{"type": "record", "name": "Charged", "fields": [{"name": "amount", "type": "long"}]}'
WIDER = '{"type": "record", "name": "Charged", "fields": [{"name": "amount", "type": "long"}, {"name": "tax", "type": "long"}]}'


def create(bootstrap, topic, **config):
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(30)


def produced(bootstrap, topic, values):
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(30) == 0


def read(bootstrap, topic, count):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = []
    try:
        while len(found) < count:
            message = consumer.poll(30)
            assert message is not None and message.error() is None
            found.append(message.value())
    finally:
        consumer.close()
    return found


def closed(address):
    """Wait until nobody listens there."""
    host, port = address.split(":")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as one:
            if one.connect_ex((host, int(port))):
                return True
        time.sleep(0.05)
    return False


def test_a_topic_takes_a_transaction_and_gives_it_back(broker, topic_prefix):
    topic = f"{topic_prefix}usage"
    create(broker.bootstrap, topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic_prefix})
    producer.init_transactions(30)
    for values, end in (([b"a", b"b"], producer.commit_transaction), ([b"lost"], producer.abort_transaction), ([b"c"], producer.commit_transaction)):
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        end(30)
    assert read(broker.bootstrap, topic, 3) == [b"a", b"b", b"c"]


def test_a_topic_that_nobody_created_is_refused(broker, topic_prefix):
    topic = f"{topic_prefix}unknown"
    found = AdminClient({"bootstrap.servers": broker.bootstrap}).list_topics(topic, timeout=30)
    assert found.topics[topic].error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_deleted_records_leave_the_disk(broker, topic_prefix):
    topic = f"{topic_prefix}state"
    create(broker.bootstrap, topic, **{"segment.bytes": "1048576", "retention.ms": "-1"})
    produced(broker.bootstrap, topic, [bytes(100_000)] * 40)
    folder = broker.folder / "data" / f"{topic}-0"
    before = len(list(folder.glob("*.log")))
    client = AdminClient({"bootstrap.servers": broker.bootstrap})
    client.delete_records([TopicPartition(topic, 0, 39)])[TopicPartition(topic, 0)].result(30)
    deadline = time.monotonic() + 30
    while len(list(folder.glob("*.log"))) > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert before >= 4 and len(list(folder.glob("*.log"))) == 1


def test_what_was_acknowledged_is_there_after_a_kill_a_pause_and_a_restart_by_a_thread_that_ends(new_broker):
    broker = new_broker()
    create(broker.bootstrap, "kept")
    produced(broker.bootstrap, "kept", [b"1", b"2"])
    address, first = broker.bootstrap, broker.pid
    broker.kill()
    assert not broker.running
    broker.start()
    assert broker.bootstrap == address and broker.pid != first
    broker.pause()
    assert not broker.ready()
    broker.resume()
    produced(broker.bootstrap, "kept", [b"3"])
    broker.stop()
    thread = threading.Thread(target=broker.start)
    thread.start()
    thread.join()
    assert read(broker.bootstrap, "kept", 3) == [b"1", b"2", b"3"]


def test_a_broker_ends_with_the_process_that_started_it_even_when_both_cannot_say_goodbye(tmp_path):
    program = (
        "import pathlib, sys, time; from flows.stack.broker import Broker; b = Broker(pathlib.Path(sys.argv[1])); b.start(); "
        "b.pause(); print(b.bootstrap, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "broker")], stdout=subprocess.PIPE, text=True, cwd=conftest.ROOT) as process:
        address = process.stdout.readline().strip()
        os.kill(process.pid, signal.SIGKILL)
    assert closed(address)


def test_a_shared_part_stops_when_its_last_user_has_gone(tmp_path):
    first, second = (keeper.users_of("broker", tmp_path).open("a") for _ in range(2))
    for users in (first, second):
        fcntl.flock(users, fcntl.LOCK_SH)
    answers = [conftest._kept("broker", tmp_path) for _ in range(2)]
    assert answers[0] == answers[1]
    first.close()
    create(answers[0]["address"], "still-here")
    second.close()
    assert closed(answers[0]["address"])


def test_a_broker_that_cannot_start_says_why(tmp_path):
    broker = Broker(tmp_path / "broker", settings={"message.max.bytes": "many"})
    with pytest.raises(StackError, match=r"(?s)could not be formatted.*message\.max\.bytes"):
        broker.start()
    broker = Broker(tmp_path / "other")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", broker.port))
        taken.listen()
        with pytest.raises(StackError, match="(?s)Kafka ended at its start; .*log has all it said.*Address already in use"):
            broker.start()
    assert not broker.running


def test_clients_of_a_proxied_broker_feel_a_cut_and_a_lost_answer_and_lose_nothing(proxied_broker):
    broker, proxy = proxied_broker
    create(broker.bootstrap, "through")
    brokers = AdminClient({"bootstrap.servers": proxy.address}).list_topics(timeout=30).brokers
    assert [f"{one.host}:{one.port}" for one in brokers.values()] == [proxy.address]
    producer = Producer({"bootstrap.servers": proxy.address, "enable.idempotence": True, "retry.backoff.ms": 50, "socket.timeout.ms": 1000, "log_level": 0})
    faults = [(proxy.cut, 1), (proxy.swallow, 1), (lambda: proxy.latency(3000), 1), (lambda: proxy.reset_after(20), 1), (lambda: proxy.slow(1000), 0)]
    for number, (fault, unanswered) in enumerate(faults):
        fault()
        producer.produce("through", str(number).encode(), partition=0)
        assert producer.flush(0.5 if unanswered else 30) == unanswered
        proxy.heal()
        assert producer.flush(30) == 0
    assert read(broker.bootstrap, "through", 5) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_cut_proxy_refuses_and_a_healed_one_answers(registry, toxiproxy):
    address = urlsplit(registry.url)
    proxy, path = toxiproxy.proxy("registry", address.port), f"{address.path}/config"
    assert "FULL_TRANSITIVE" in loopback.get(proxy.port, path)
    proxy.cut()
    assert loopback.get(proxy.port, path) is None
    proxy.heal()
    assert "FULL_TRANSITIVE" in loopback.get(proxy.port, path)


def test_the_registry_keeps_schemas_over_a_kill_refuses_what_breaks_them_and_may_be_paused(new_registry):
    subject = "charged-value"
    number = SchemaRegistryClient({"url": new_registry.url}).register_schema(subject, Schema(CHARGED, "AVRO"))
    new_registry.kill()
    new_registry.start()
    client = SchemaRegistryClient({"url": new_registry.url})
    assert json.loads(client.get_schema(number).schema_str) == json.loads(CHARGED)
    assert client.get_compatibility() == "FULL_TRANSITIVE"
    with pytest.raises(SchemaRegistryError) as refused:
        client.register_schema(subject, Schema(WIDER, "AVRO"))
    assert refused.value.http_status_code == 409
    new_registry.pause()
    assert new_registry.running and not new_registry.ready()
    new_registry.resume()
    assert new_registry.ready()


def test_the_registry_of_the_run_takes_schemas(registry, topic_prefix):
    client = SchemaRegistryClient({"url": registry.url})
    number = client.register_schema(f"{topic_prefix}charged-value", Schema(CHARGED, "AVRO"))
    assert json.loads(client.get_schema(number).schema_str) == json.loads(CHARGED)


def test_one_process_downloads_while_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setenv("TIEOUT_CACHE", str(tmp_path / "cache"))
    calls = []

    def fill(folder):
        calls.append(folder)
        time.sleep(0.2)
        (folder / "a.jar").write_text("jar")

    threads = [threading.Thread(target=downloads.once, args=("part-1", fill)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert (downloads.once("part-1", fill) / "a.jar").read_text() == "jar"


def test_a_torn_download_leaves_nothing_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TIEOUT_CACHE", str(tmp_path))

    def torn(folder):
        (folder / "half.jar").write_text("h")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.once("part-1", torn)
    assert [path.name for path in tmp_path.iterdir()] == ["part-1.lock"]
    assert downloads.once("part-1", lambda folder: (folder / "whole.jar").write_text("w")).is_dir()


def test_without_maven_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("TIEOUT_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match="no mvn on the PATH; install Maven"):
        downloads.kafka()


def test_a_maven_that_fails_is_quoted(tmp_path, monkeypatch):
    program = tmp_path / "mvn"
    program.write_text("#!/bin/sh\necho '[ERROR] Network is unreachable'\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("TIEOUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(StackError, match="mvn ended with 1: .*Network is unreachable; check the network"):
        downloads.apicurio()
    assert not (tmp_path / "cache" / f"apicurio-{downloads.APICURIO}").exists()
