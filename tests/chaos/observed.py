"""What a consumer with ``read_committed`` sees of an installation: an independent reader with none of the product's.

In: a broker's address, a topic. Out: its records by partition, the ends with and without open transactions, and the
positions that the consumer group committed.
"""

import time
from typing import NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

WAIT = 60


class Record(NamedTuple):
    """One record; ``stamp`` is its record time in UTC milliseconds."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list
    stamp: int


def _answer(ask, failed):
    """What a broker answers that may be on its way back."""
    deadline = time.monotonic() + 3 * WAIT
    while True:
        try:
            return ask()
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            failed()
            time.sleep(0.2)


class Reader:
    """Reads topics of one installation."""

    def __init__(self, bootstrap, prefix, partitions):
        self.bootstrap, self.prefix, self.partitions = bootstrap, prefix, partitions
        self._admin = None
        self._groups = {}

    def _consumer(self, group):
        return Consumer({
            "bootstrap.servers": self.bootstrap, "group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False,
            "auto.offset.reset": "error", "enable.partition.eof": True, "fetch.wait.max.ms": 20, "log_level": 0, "error_cb": lambda _: None,
        })

    def ends(self, topic, partitions=None, *, committed=True):
        """The ends of topics' partitions: after what is committed, or after everything that was written."""
        level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
        names = [topic] if isinstance(topic, str) else topic
        wanted = {TopicPartition(self.prefix + name, p): OffsetSpec.latest() for name in names for p in partitions or range(self.partitions)}

        def ask():
            if self._admin is None:
                self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0, "error_cb": lambda _: None})
            found = self._admin.list_offsets(wanted, isolation_level=level, request_timeout=WAIT)
            ends = {(place.topic, place.partition): future.result().offset for place, future in found.items()}
            if min(ends.values()) < 0:  # the client's way of saying that the broker died meanwhile
                raise KafkaException(KafkaError(KafkaError._TRANSPORT))
            return ends

        def forget():
            self._admin = None  # after a restart of the broker it goes on with an epoch that is over

        return _answer(ask, forget)

    def topic(self, topic, last=None, partitions=None):
        """The records of a topic by partition, each in order; of the ``last`` so many positions only."""
        consumer = self._consumer("observer")
        partitions = self.partitions if partitions is None else partitions
        found, left = [[] for _ in range(partitions)], set()
        places = []
        for partition in range(partitions):
            place = TopicPartition(self.prefix + topic, partition)
            low, high = _answer(lambda place=place: consumer.get_watermark_offsets(place, WAIT), lambda: None)
            low = low if last is None else max(low, high - last)
            if low < high:
                places.append(TopicPartition(self.prefix + topic, partition, low))
                left.add(partition)
        consumer.assign(places)
        while left:
            for message in consumer.consume(1000, 0.5):
                if message.error() is None:
                    found[message.partition()].append(
                        Record(message.offset(), message.key(), message.value(), message.headers() or [], message.timestamp()[1])
                    )
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
                else:
                    raise RuntimeError(message.error().str())
        consumer.close()
        return found

    def positions(self, group, topic):
        """The positions that a consumer group has committed, by partition; -1001 where it has none."""
        if group not in self._groups:
            self._groups[group] = self._consumer(group)
        places = [TopicPartition(self.prefix + topic, partition) for partition in range(self.partitions)]
        return [place.offset for place in _answer(lambda: self._groups[group].committed(places, WAIT), lambda: None)]

    def close(self):
        for consumer in self._groups.values():
            consumer.close()
