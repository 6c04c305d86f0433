"""The last records of all partitions of a topic on a broker, by one client.

In: a topic. Out: the value of each partition's last committed record, as of now. The client goes on reading what comes, so
looking again asks nobody; a value may be some milliseconds old. Of records further back than the last few nothing is read:
a partition that ends in a long run of aborted ones shows none until its next record comes.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError, TopicPartition

from sources import kafka
from sources.errors import SourceAway

_BACK: Final = 64
"""How far before its end a partition is read from at first: transactions leave marks that are no records."""
_AT_ONCE: Final = 500
_WAIT_SECONDS: Final = 0.2


class KafkaHeads:
    """A topic by the last record of each partition."""

    def __init__(self, settings: Mapping[str, Any], group: str, topic: str, partitions: int) -> None:
        self._topic = topic
        self._consumer = kafka.consumer(settings, group, **{"enable.partition.eof": True, "queued.min.messages": 1000})
        self._values: list[bytes | None] = [None] * partitions
        self._unread, self._closed = set(range(partitions)), False
        ends = [kafka.watermarks(self._consumer, topic, partition) for partition in range(partitions)]
        self._consumer.assign([TopicPartition(topic, partition, max(start, end - _BACK)) for partition, (start, end) in enumerate(ends)])

    def values(self) -> list[bytes | None]:
        """The value of each partition's last record; the first time it waits until all are read."""
        waited_until = time.monotonic() + kafka.ANSWER_SECONDS
        while self._take(_WAIT_SECONDS if self._unread else 0.0) or self._unread:
            if self._unread and time.monotonic() > waited_until:
                msg = f"{self._topic}: the broker does not give the last records of {len(self._unread)} partitions; check it, the run goes on when it does"
                raise SourceAway(msg)
        return list(self._values)

    def _take(self, seconds: float) -> bool:
        """Take what the client has; whether there was anything."""
        found = self._consumer.consume(_AT_ONCE if not self._unread else 1, seconds)
        for message in found:
            failure, partition = message.error(), message.partition()
            if failure is None:
                self._values[partition] = message.value()
            elif failure.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name of it
                self._unread.discard(partition)
            else:
                raise kafka.failed(failure, f"{self._topic}, partition {partition}", 0)
        return bool(found)

    def close(self) -> None:
        """Let the client go; once or again."""
        if not self._closed:
            self._closed = True
            self._consumer.close()
