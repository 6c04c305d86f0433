"""Topics on a broker, read by position, as committed.

A position is an offset. Offsets have gaps (the markers of transactions), so a lot says which positions it holds and
where to go on. Readers see committed records only (``read_committed``); a topic's end is its last stable offset, so
nothing of an open transaction is waited for or read.

``TopicReader`` reads between two positions; ``Stream`` hands over what comes, as it comes. Both read one partition
each: a consumer a partition reads twice as fast as a shared one. Keys and headers are left in the client's messages
until a row asks for them, because hardly any does.

Errors: those of ``sources.errors``.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from schemas import segments
from sources.errors import RetentionGap, SourceAway, SourceError
from sources.lot import Lot

ANSWER_SECONDS: Final = 10.0
_AT_ONCE: Final = 500
"""Messages taken from the client at a time: many more at once cost twice as much."""
_WAIT_SECONDS: Final = 0.2
_INSTANT: Final = itemgetter(1)
"""Of a client's timestamp: its kind, and the milliseconds."""
_REFUSED: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
})
"""A right that is missing. A login that fails may be a broker that starts: it is judged where the cell is built anew (``sinks.connections``)."""
_READ: Final = {
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 20,
    "fetch.error.backoff.ms": 20,
    "fetch.queue.backoff.ms": 5,  # by default a full queue puts the next fetch off by up to a second
    "queued.min.messages": 50_000,
    "queued.max.messages.kbytes": 8192,
}


def silent(_: KafkaError) -> None:
    """What the client reports of connections is no error of a read: it goes on trying by itself."""


def consumer(settings: Mapping[str, Any], group: str, **more: Any) -> Consumer:
    """A consumer without a subscription; it joins no group, the name is for the broker's own figures."""
    return Consumer({**settings, **_READ, "group.id": group, "error_cb": silent, **more})


class TopicReader:
    """One partition of one topic, between two positions."""

    def __init__(self, settings: Mapping[str, Any], group: str, queries: Consumer, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self._settings, self._group, self._queries = settings, group, queries
        self._consumer: Consumer | None = None
        self._next = -1
        self.start = self.end = 0

    @property
    def place(self) -> str:
        """Where it reads, in words."""
        return f"{self.topic}, partition {self.partition}"

    def refresh(self) -> int:
        """Ask the broker for the first position kept and the end, as committed; SourceAway where it does not answer."""
        self.start, self.end = watermarks(self._queries, self.topic, self.partition)
        return self.end

    def lot(self, position: int, rows: int, until: int | None = None) -> Lot:
        """Up to ``rows`` records from ``position`` on, none at ``until`` (``end``) or beyond; RetentionGap below ``start``."""
        last = self.end if until is None else until
        messages: list[Message] = []
        at = position
        consuming = self._at(position)
        waited_until = time.monotonic() + ANSWER_SECONDS
        while at < last and len(messages) < rows:
            found = consuming.consume(1, _WAIT_SECONDS)  # it waits for all that it is asked for: wait for one, then take what is there
            if found and (more := min(_AT_ONCE, rows - len(messages) - 1)):
                found += consuming.consume(more, 0)
            if found:
                records, at, _ = _records_of(found, self.place, at)
                messages += records if at <= last else [message for message in records if message.offset() < last]
                waited_until = time.monotonic() + ANSWER_SECONDS
            elif at < last and time.monotonic() > waited_until:
                msg = f"{self.place}: the broker gives no record from {at} on, its end is {last}; check the broker, the read goes on by itself"
                raise SourceAway(msg)
        end = min(last, at)
        self._next = at if at <= last else -1
        return lot_of(messages, end)

    def _at(self, position: int) -> Consumer:
        if self._consumer is None:
            self._consumer = consumer(self._settings, self._group, **{"enable.partition.eof": True, "queued.min.messages": 1000})
        if self._next != position:
            if position < self.start:
                raise gap(self.place, position, self.start)
            self._consumer.assign([TopicPartition(self.topic, self.partition, position)])
        return self._consumer

    def close(self) -> None:
        """Let the client go."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


class Stream:
    """Records of one partition as they come, in lots of ``rows`` or of what came in ``seconds``, whichever is first."""

    def __init__(
        self, consuming: Consumer, topic: str, partition: int, position: int, rows: int, seconds: float, *, headers: bool = False,
    ) -> None:
        """``headers``: whether lots have their column of headers; without, only a single record has its own."""
        self.topic, self.partition = topic, partition
        self._consumer, self._rows, self._seconds, self._headers = consuming, rows, seconds, headers
        self._messages: list[Message] = []
        self._due = 0.0
        self._at = position
        self.at_end = False
        consuming.assign([TopicPartition(topic, partition, position)])

    @property
    def gathered(self) -> int:
        """Records read that no lot holds yet."""
        return len(self._messages)

    @property
    def position(self) -> int:
        """The position after the last record that was read."""
        return self._at

    def poll(self, now: float, end: int | None = None) -> Lot | None:
        """Take what the client has; a lot where one is due at this monotonic time, or where ``end`` is reached."""
        while len(self._messages) < self._rows:
            found = self._consumer.consume(min(_AT_ONCE, self._rows - len(self._messages)), 0)
            if not found:
                break
            records, self._at, self.at_end = _records_of(found, f"{self.topic}, partition {self.partition}", self._at)
            if records and not self._messages:
                self._due = now + self._seconds
            self._messages += records
        full = len(self._messages) >= self._rows
        if self._messages and (full or now >= self._due or (end is not None and self._at >= end)):
            return self.take()
        return None

    def known_end(self) -> int:
        """The end of the partition as the last answer told it, without asking."""
        return max(self._at, int(self._consumer.get_watermark_offsets(TopicPartition(self.topic, self.partition), cached=True)[1]))

    def take(self) -> Lot:
        """All that was gathered, as a lot."""
        messages, self._messages = self._messages, []
        return lot_of(messages, self._at, headers=self._headers)

    def close(self) -> None:
        """Let the client go."""
        self._consumer.close()


def watermarks(consuming: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The first position kept and the end of a partition, as the consumer's isolation sees it."""
    try:
        found = consuming.get_watermark_offsets(TopicPartition(topic, partition), ANSWER_SECONDS)
    except KafkaException as error:
        raise failed(error.args[0], f"{topic}, partition {partition}", 0) from error
    return int(found[0]), int(found[1])


def _records_of(found: list[Message], place: str, at: int) -> tuple[list[Message], int, bool]:
    """The records among what the client gave of a partition, the position after it, and whether that is the partition's end.

    The client tells ends and failures the same way as records; a failure is raised with the position that it struck.
    """
    if not any(map(Message.error, found)):  # nearly always; an error is true, whatever it says
        return found, found[-1].offset() + 1, False
    records, ended = [], False
    for message in found:
        failure = message.error()
        if failure is None:
            records.append(message)
            at, ended = message.offset() + 1, False
        elif failure.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's name of it
            at, ended = max(at, message.offset()), True
        else:
            raise failed(failure, place, at)
    return records, at, ended


def lot_of(messages: Sequence[Message], end: int, *, headers: bool = False) -> Lot:
    """Messages of one partition as a lot, with their headers as a column where they are asked for."""
    n = len(messages)
    if not n:
        return Lot(np.empty(0, np.int64), pa.RecordBatch.from_pylist([], schema=segments.RECORDS), end)
    first = messages[0].offset()
    unbroken = messages[-1].offset() - first == n - 1
    positions = np.arange(first, first + n) if unbroken else np.fromiter(map(Message.offset, messages), np.int64, n)
    values = pa.array(list(map(Message.value, messages)), pa.large_binary())  # a map of a method costs half of a comprehension
    stamps = np.fromiter(map(_INSTANT, map(Message.timestamp, messages)), np.int64, n) * 1000
    return Lot(positions, segments.records(values, None, stamps, _headers(messages) if headers else None), end, _beside(messages))


def _headers(messages: Sequence[Message]) -> pa.Array | None:
    """The headers of messages as a column; None where no message has any."""
    found = [message.headers() for message in messages]
    if not any(found):
        return None
    counts = np.array([len(each) if each else 0 for each in found])
    names, values = zip(*chain.from_iterable(each for each in found if each), strict=True)
    pairs = pa.StructArray.from_arrays([pa.array(names, pa.string()), pa.array(values, pa.binary())], fields=list(segments.HEADERS.value_type))
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32(), mask=np.append(counts == 0, False))
    return pa.ListArray.from_arrays(offsets, pairs, type=segments.HEADERS)


def _beside(messages: Sequence[Message]) -> Callable[[int], tuple[bytes | None, list[dict[str, Any]] | None]]:
    def beside(row: int) -> tuple[bytes | None, list[dict[str, Any]] | None]:
        found = messages[row]
        headers = found.headers()
        return found.key(), None if headers is None else [{"key": name, "value": value} for name, value in headers]

    return beside


def gap(place: str, position: int, start: int) -> RetentionGap:
    """A position below the first one kept."""
    msg = (
        f"{place}: position {position} is below retention, records {position} to {start - 1} are gone; restore them into "
        f"the topic's place, or start a new installation from {start}"
    )
    return RetentionGap(msg)


def failed(error: KafkaError, place: str, position: int) -> SourceError:
    """A client's error as one of ours, with what to do."""
    code = error.code()
    if code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001 - the client's name of it
        msg = f"{place}: position {position} is outside of what the broker keeps ({error.str()}); see its first and last offset, restore what is gone"
        return RetentionGap(msg)
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:  # the broker's own word: what the client alone does not know may be a broker that is away
        return SourceError(f"{place}: there is no such topic or partition; make it with 'tieout topic create'")
    if code in _REFUSED:
        return SourceError(f"{place}: the broker refuses access ({error.str()}); give this user the rights that docs/security.md lists")
    return SourceAway(f"{place}: the broker does not answer ({error.str()}); check it and its address, the run goes on when it is back")
