"""Records handed to the client by columns: the same on the topic as one call each, in order, whole or not at all."""

import random

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from schemas import segments
from sinks import kafka, kafka_columns
from sinks.errors import CommitUnknown, SinkError
from sinks.kafka import Records, TransactionalWriter
from sinks.kafka_columns import REQUEST_BYTES, REQUEST_RECORDS, requests


def batch(values, keys):
    return segments.records(pa.array(values, pa.large_binary()), pa.array(keys, pa.large_binary()), np.zeros(len(values), np.int64))


def odd(seed, rows):
    """Values and keys of every kind: none, empty, short, larger than a request."""
    rnd = random.Random(seed)
    sizes = [None, 0, 1, 200, 2000]
    values = [None if (size := rnd.choice(sizes)) is None else rnd.randbytes(size) for _ in range(rows)]
    values[rows // 2] = rnd.randbytes(REQUEST_BYTES + 5)
    return values, [None if (size := rnd.choice(sizes[:4])) is None else rnd.randbytes(size) for _ in range(rows)]


@pytest.fixture
def topic(broker, topic_prefix):
    name = f"{topic_prefix}columns"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, 3, 1, config={"max.message.bytes": "5000000"})])[name].result()
    return name


def records(broker, topic, partition):
    """Keys and values of a partition, as committed."""
    reading = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "columns", "enable.partition.eof": True, "isolation.level": "read_committed"})
    reading.assign([TopicPartition(topic, partition, 0)])
    found = []
    while True:
        for message in reading.consume(500, 10):
            if message.error() is not None:
                reading.close()
                return found
            found.append((message.key(), message.value()))


def writer(broker, topic):
    return TransactionalWriter.open({"bootstrap.servers": broker.bootstrap}, f"{topic}-writer")


def test_they_are_the_same_records_in_the_same_order(broker, topic, monkeypatch):
    values, keys = odd(1, 12_000)
    by_columns = writer(broker, topic)
    assert by_columns._columns is not None, "the client of this environment has its library in its wheel"
    by_columns.commit([Records(topic, batch(values, keys), 1, dated=False)], [], None)
    by_columns.close()
    monkeypatch.setattr(kafka_columns, "_library", lambda: None)
    one_by_one = writer(broker, topic)
    assert one_by_one._columns is None
    one_by_one.commit([Records(topic, batch(values, keys), 2, dated=False)], [], None)
    one_by_one.close()
    assert records(broker, topic, 1) == records(broker, topic, 2) == list(zip(keys, values, strict=True))
    assert records(broker, topic, 0) == []


def test_what_lies_in_the_middle_of_its_buffers_is_itself(broker, topic):
    values, keys = odd(2, 3000)
    cut = batch(values, keys).slice(1200, 700)
    one = writer(broker, topic)
    one.commit([Records(topic, cut, 0, dated=False)], [], None)
    one.close()
    assert records(broker, topic, 0) == list(zip(keys[1200:1900], values[1200:1900], strict=True))


def test_a_record_that_the_client_does_not_take_fails_the_commit(broker, topic):
    one = writer(broker, topic)
    one.commit([Records(topic, batch([b"a"] * 3, [b"k"] * 3), 0, dated=False)], [], None)
    with pytest.raises(SinkError):
        one.commit([Records(topic, batch([b"b"] * 3, [b"k"] * 3), 0, dated=False), Records(topic, batch([b"c"] * 3, [b"k"] * 3), 77, dated=False)], [], None)
    one.close()
    assert [value for _, value in records(broker, topic, 0)] == [b"a"] * 3


def test_a_record_too_large_for_its_topic_says_so(broker, topic):
    one = writer(broker, topic)
    with pytest.raises(SinkError, match=r"max\.message\.bytes"):
        one.commit([Records(topic, batch([b"a", random.Random(3).randbytes(6_000_000), b"c"], [b"k"] * 3), 0, dated=False)], [], None)
    one.close()


def test_a_commit_larger_than_the_queue_goes_one_by_one(broker, topic, monkeypatch):
    monkeypatch.setattr(kafka, "_QUEUE_RECORDS", 100)
    values, keys = odd(4, 400)
    one = writer(broker, topic)
    monkeypatch.setattr(one._columns, "produce", lambda *_: pytest.fail("by columns, without room for all"))
    one.commit([Records(topic, batch(values, keys), 0, dated=False)], [], None)
    one.close()
    assert records(broker, topic, 0) == list(zip(keys, values, strict=True))


class Unanswered:
    """A producer whose broker answers no request of records."""

    def __init__(self, producer):
        self._producer = producer

    def __getattr__(self, name):
        return getattr(self._producer, name)

    def flush(self, seconds):
        assert seconds == kafka.ANSWER_SECONDS
        return 3


def test_records_without_an_answer_end_the_commit_and_are_not_followed_by_more(broker, topic):
    one = writer(broker, topic)
    one._producer = Unanswered(one._producer)
    with pytest.raises(CommitUnknown, match="not answered"):
        one.commit([Records(topic, batch([b"a"] * 30, [b"k"] * 30), 0, dated=False), Records(topic, batch([b"b"] * 30, [b"k"] * 30), 1, dated=False)], [], None)
    one.close()
    writer(broker, topic).close()  # the next one fences, and what was open is aborted
    assert records(broker, topic, 0) == records(broker, topic, 1) == []


@pytest.mark.parametrize("size", [0, 40, 300, 5000, REQUEST_BYTES])
def test_requests_cover_all_rows_after_the_first_and_stay_within_their_bounds(size):
    rows = 25_000 if size < 1000 else 700 if size == 5000 else 5
    values = pa.array([b"x" * size] * rows, pa.large_binary())[2:] if rows > 5 else pa.array([b"x" * size] * rows, pa.large_binary())
    found = list(requests(values))
    assert [start for start, _ in found] == [1, *(end for _, end in found[:-1])]
    assert found[-1][1] == len(values)
    assert all(end - start == 1 or ((end - start) * size <= REQUEST_BYTES and end - start <= REQUEST_RECORDS) for start, end in found)
    assert len(found) <= 2 + len(values) * size // REQUEST_BYTES * 2 + len(values) // REQUEST_RECORDS
