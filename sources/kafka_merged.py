"""All partitions of a topic on a broker as one stream: one client reads them together.

In: the next position of each partition. Out: lots as ``sources.merged`` has them. Within a lot records stand partition
after partition, so that what a lot comes to does not depend on the order in which the broker answered. Where it should
end, ends are given: a position beyond a partition's end counts as there, so the sum reaches its end only with all of them.
"""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from sources.kafka import Stream, failed, lot_of
from sources.merged import MergedLot, merge

_AT_ONCE: Final = 500


class MergedStream(Stream):
    """Records of all partitions of a topic as they come, in lots of ``rows`` or of what came in ``seconds``, whichever is first."""

    def __init__(self, consuming: Consumer, topic: str, positions: Mapping[int, int], rows: int, seconds: float, ends: Mapping[int, int] | None = None) -> None:
        super().__init__(consuming, topic, 0, 0, rows, seconds)
        self._positions, self._taken, self._ends = dict(positions), dict(positions), ends
        self._complete: set[int] = set()
        """The partitions that are read to their ends."""
        consuming.assign([TopicPartition(topic, partition, position) for partition, position in positions.items()])

    @property
    def end(self) -> int | None:
        """The sum of the ends that were given."""
        return None if self._ends is None else sum(self._ends.values())

    @property
    def position(self) -> int:
        """The sum of the positions after the last records that were read."""
        ends = self._ends
        return sum(position if ends is None else min(position, ends[partition]) for partition, position in self._positions.items())

    def poll(self, now: float, end: int | None = None) -> MergedLot | None:
        """Take what the client has; a lot where one is due at this monotonic time, or where ``end`` is reached."""
        while len(self._messages) < self._rows:
            found = self._consumer.consume(min(_AT_ONCE, self._rows - len(self._messages)), 0)
            if not found:
                break
            records = [message for message in found if self._read(message)]
            if records and not self._messages:
                self._due = now + self._seconds
            self._messages += records
        self.at_end = len(self._complete) == len(self._positions)
        full = len(self._messages) >= self._rows
        if self._messages and (full or now >= self._due or (end is not None and self.position >= end)):
            return self.take()
        return None

    def _read(self, message: Message) -> bool:
        """Note how far a partition is read; whether the message is a record: the client tells ends and failures the same way."""
        partition, failure = message.partition(), message.error()
        if failure is None:
            self._positions[partition] = message.offset() + 1
            self._complete.discard(partition)
            return True
        if failure.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name of it
            raise failed(failure, f"{self.topic}, partition {partition}", self._positions.get(partition, 0))
        self._positions[partition] = max(self._positions[partition], message.offset())
        self._complete.add(partition)
        return False

    def known_end(self) -> int:
        """The sum of the partitions' ends as the last answers told them, without asking."""
        cached = (self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)[1] for partition in self._positions)
        return sum(map(max, self._positions.values(), map(int, cached)))

    def take(self) -> MergedLot:
        """All that was gathered, as a lot, with every partition that was read on since the last one that held records."""
        messages, self._messages = self._messages, []
        end = sum(self._positions.values())
        if not messages:
            return merge([], end)
        by_partition: dict[int, list[Message]] = {partition: [] for partition, at in sorted(self._positions.items()) if at != self._taken[partition]}
        for message in messages:
            by_partition[message.partition()].append(message)
        self._taken = dict(self._positions)
        parts = [(partition, lot_of(found, self._positions[partition])) for partition, found in by_partition.items()]
        return merge(parts, end)
