"""The relay that loses a commit's answer, before a real broker: what the broker has done is there, and the client never heard of it."""

import struct
import time

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.chaos.observed import Reader
from tests.kafka.relay import commits

TOPIC = "usage"
SECONDS = 2
"""How long the client waits for the answer to its commit."""


@pytest.fixture
def relayed(relayed_broker):
    broker, relay = relayed_broker
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(30)
    return relay, Reader(broker.bootstrap, "", 1)


def fenced(relay):
    producer = Producer({"bootstrap.servers": relay.address, "transactional.id": "cell", "log_level": 0})
    producer.init_transactions(30)
    return producer


def write(producer, value):
    producer.begin_transaction()
    producer.produce(TOPIC, value)
    producer.flush(30)


def unanswered(producer):
    """The commit ends by the client's own timeout."""
    began = time.monotonic()
    with pytest.raises(KafkaException) as caught:
        producer.commit_transaction(SECONDS)
    assert caught.value.args[0].code() == KafkaError._TIMED_OUT
    assert SECONDS * 0.9 < time.monotonic() - began < SECONDS + 5


def values(reader):
    """What can be read once no transaction is open: a commit is answered before it can be read."""
    deadline = time.monotonic() + 30
    while reader.ends(TOPIC) != reader.ends(TOPIC, committed=False):
        assert time.monotonic() < deadline, "a transaction stays open"
        time.sleep(0.01)
    return [record.value for record in reader.topic(TOPIC)[0]]


def test_a_commit_whose_answer_is_lost_is_there_and_its_client_does_not_know(relayed):
    relay, reader = relayed
    producer = fenced(relay)
    write(producer, b"one")
    relay.arm(done=True)
    unanswered(producer)
    assert relay.struck.is_set()
    assert values(reader) == [b"one"]
    relay.heal()
    producer.commit_transaction(30)  # asked once more, the broker answers that it is done
    write(producer, b"two")
    producer.commit_transaction(30)
    assert values(reader) == [b"one", b"two"]


def test_a_commit_that_is_lost_is_aborted_by_the_next_fence(relayed):
    relay, reader = relayed
    producer = fenced(relay)
    write(producer, b"one")
    relay.arm(done=False)
    unanswered(producer)
    assert relay.struck.is_set()
    assert reader.ends(TOPIC) == {(TOPIC, 0): 0} != reader.ends(TOPIC, committed=False)  # open still
    relay.heal()
    again = fenced(relay)
    write(again, b"two")
    again.commit_transaction(30)
    assert values(reader) == [b"two"]


def test_an_abort_passes_an_armed_relay_and_the_commit_after_it_strikes(relayed):
    relay, reader = relayed
    producer = fenced(relay)
    relay.arm(done=True)
    write(producer, b"one")
    producer.abort_transaction(30)
    assert not relay.struck.is_set()
    write(producer, b"two")
    unanswered(producer)
    assert relay.struck.is_set()
    assert values(reader) == [b"two"]


def test_a_healed_relay_that_was_armed_and_met_no_commit_lets_the_next_one_pass(relayed):
    relay, reader = relayed
    producer = fenced(relay)
    relay.arm(done=False)
    relay.heal()
    write(producer, b"one")
    producer.commit_transaction(30)
    assert not relay.struck.is_set()
    assert values(reader) == [b"one"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_is_told_from_an_abort_in_either_form_of_the_request(committed):
    flag = bytes([committed])
    header = struct.pack(">i", 7) + struct.pack(">h", 4) + b"rdka"  # correlation id, client id
    producer = struct.pack(">qh", 1, 1)  # id, epoch
    assert commits(struct.pack(">hh", 26, 2) + header + struct.pack(">h", 4) + b"cell" + producer + flag) is committed
    assert commits(struct.pack(">hh", 26, 3) + header + b"\0" + b"\x05cell" + producer + flag + b"\0") is committed
    assert not commits(struct.pack(">hh", 24, 3) + header + b"\0" + b"\x05cell" + producer + flag + b"\0")
