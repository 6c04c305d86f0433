"""Topics on a broker, written with an exactly-once commit: one transaction for each interval of a partition.

Guarantee: what consumers with ``read_committed`` see holds a commit whole or not at all, with the input positions that
it covers. The transactional id belongs to a flow's partition, never to a process, so whoever opens it last fences all
others. After any failed or unanswered call the writer is of no more use: memory may run ahead of the log, and a late
end of a transaction must not meet the next one.

Errors: those of ``sinks.errors``.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from sinks.connections import Connections
from sinks.errors import CommitUnknown, Fenced, SinkError
from sinks.kafka_columns import Columns, requests

ANSWER_SECONDS: Final = 60.0
_QUEUE_RECORDS: Final = 1_000_000
_QUEUE_BYTES: Final = 1 << 30
_LOOK_SECONDS: Final = 5.0
"""How long a fence is waited for before the client is asked whether the broker refuses it."""
_WRITE: Final = {
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "message.max.bytes": 1_000_000_000,  # before compression; a topic's own limit counts after it
    # One request at a time: a broker takes any first sequence number from a producer that it does not know on a partition,
    # so of several first requests one that is answered late and sent again is taken for a duplicate and lost.
    "max.in.flight.requests.per.connection": 1,
    "queue.buffering.max.messages": _QUEUE_RECORDS,
    "queue.buffering.max.kbytes": _QUEUE_BYTES >> 10,
    "enable.idempotence": True,
    "delivery.report.only.error": True,
    "transaction.timeout.ms": 20_000,
}
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - the client's name
_REFUSED: Final = frozenset({
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
})
"""A right that is missing; a login that fails is judged by what the client tells of its connections."""


class Records(NamedTuple):
    """What a commit writes to one topic: ``segments.RECORDS``, and whether the records keep their timestamps."""

    topic: str
    batch: pa.RecordBatch
    partition: int
    dated: bool
    first_number: int | None = None
    """Number the records by header ``n`` from here on: a reader sees that none is missing."""


class TransactionalWriter:
    """The only writer under its transactional id."""

    def __init__(self, producer: Producer, name: str, unwritten: Mapping[str, KafkaError]) -> None:
        """``unwritten`` is why records were not taken, by topic: a commit that fails says only that some were not."""
        self._producer, self._name, self._unwritten = producer, name, unwritten
        self._columns = Columns.of(producer)

    @classmethod
    def open(cls, settings: Mapping[str, Any], name: str) -> "TransactionalWriter":
        """Fence: whoever had this transactional id is of no more use, what it left open is aborted."""
        connections = Connections(settings)
        unwritten: dict[str, KafkaError] = {}

        def undelivered(error: KafkaError, message: Message) -> None:
            unwritten.setdefault(message.topic(), error)

        try:
            producer = Producer({**settings, **_WRITE, "transactional.id": name, "error_cb": connections, "on_delivery": undelivered})
        except KafkaException as error:
            msg = f"{name}: the client does not take its settings ({error.args[0].str()}); correct them in the file of --client-config"
            raise SinkError(msg) from error
        _fence(producer, f"{name} at {settings['bootstrap.servers']}", connections)
        return cls(producer, name, unwritten)

    def commit(self, outputs: list[Records], positions: list[TopicPartition], group: Any) -> None:
        """Write all records and the consumer group's positions in one transaction; CommitUnknown or Fenced otherwise."""
        try:
            self._producer.begin_transaction()
            self._produce_all(outputs)
            if positions:
                self._producer.send_offsets_to_transaction(positions, group, ANSWER_SECONDS)
            self._producer.commit_transaction(ANSWER_SECONDS)
        except KafkaException as error:
            cause = self._cause(error)
            for topic, reason in self._unwritten.items():
                if reason.code() in _REFUSED:
                    raise _refused(reason, self._name, f"records of {topic}") from error
            raise _failed(cause, self._name, "a commit") from error

    def _produce_all(self, outputs: list[Records]) -> None:
        fits = _room(outputs)
        try:
            for records in outputs:
                self._produce(records, fits=fits)
        except KafkaException as error:
            if error.args[0].code() == KafkaError._STATE:  # noqa: SLF001 - the client's name
                self._producer.commit_transaction(ANSWER_SECONDS)  # the transaction has failed before: this says why
            raise

    def _cause(self, error: KafkaException) -> KafkaException:
        """What a failure goes back to: a call says only that there was something fatal, as a fence is; the client tells what when it is polled."""
        try:
            self._producer.poll(0)  # it tells now, too, why records were not taken
        except (KafkaException, SystemError) as told:  # SystemError: it had records to tell of besides, and came over its own exception
            cause = told if isinstance(told, KafkaException) else told.__cause__
            if isinstance(cause, KafkaException) and error.args[0].code() == KafkaError._FATAL:  # noqa: SLF001 - the client's name
                return cause
        return error

    def _produce(self, records: Records, *, fits: bool = False) -> None:
        """Hand records over; ``fits``: the client's queue has room for all of the commit."""
        n, topic, partition = records.batch.num_rows, records.topic, records.partition
        bare = records.batch["headers"].null_count == n and not records.dated and records.first_number is None
        if bare and fits and self._columns is not None and n > 1:
            first = records.batch.slice(0, 1)  # the client tells of this one why it was not written
            self._produce(records._replace(batch=first), fits=fits)
            values, keys = records.batch["value"], records.batch["key"]
            for start, end in requests(values):
                self._columns.produce(topic, partition, values[start:end], keys[start:end])
                self._flush()  # while a request waits for the one before, the client's thread turns without end
            return
        values, keys = records.batch["value"].to_pylist(), records.batch["key"].to_pylist()
        if bare:
            for value, key in zip(values, keys, strict=True):
                self._whole(topic, value, key, partition, 0, [])
            return
        stamps = records.batch["timestamp"].to_pylist()
        for row, (value, key, headers) in enumerate(zip(values, keys, _headers(records.batch["headers"]), strict=True)):
            if records.first_number is not None:
                headers.append(("n", str(records.first_number + row).encode()))
            self._whole(topic, value, key, partition, max(stamps[row] // 1000, 0) if records.dated else 0, headers)

    def _flush(self) -> None:
        """Wait until all that was handed over is written, or has failed with its transaction."""
        try:
            left = self._producer.flush(ANSWER_SECONDS)
        except SystemError as told:  # it had records to tell of besides, and came over its own exception
            if isinstance(told.__cause__, KafkaException):
                raise told.__cause__ from told
            raise
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - the client's name

    def _whole(self, topic: str, value: bytes | None, key: bytes | None, partition: int, stamp: int, headers: list[tuple[str, bytes]]) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, timestamp=stamp, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def close(self) -> None:
        """Throw the writer away; what it left open is aborted by the next fence, or by the broker in time."""
        self._producer.purge()


def _room(outputs: list[Records]) -> bool:
    """Whether the client's queue, empty before a commit, holds all of it at once."""
    return sum(o.batch.num_rows for o in outputs) < _QUEUE_RECORDS // 2 and sum(o.batch.nbytes for o in outputs) < _QUEUE_BYTES // 2


def _headers(column: pa.ListArray) -> Iterator[list[tuple[str, bytes]]]:
    """The headers of each row as the client takes them."""
    flat = column.flatten()
    pairs = list(zip(flat.field("key").to_pylist(), flat.field("value").to_pylist(), strict=True))
    start = 0
    for end in accumulate(pc.list_value_length(column).fill_null(0).to_pylist()):
        yield pairs[start:end]
        start = end


def _fence(producer: Producer, name: str, connections: Connections) -> None:
    """Wait for the fence, no longer than it takes to know that the broker refuses this client."""
    waited_until = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            producer.init_transactions(_LOOK_SECONDS)
        except KafkaException as error:
            with suppress(KafkaException):  # what is fatal it raises once more
                producer.poll(0)  # the client tells now what it knows of its connections
            refusal = connections.refusal()
            if refusal is not None:
                msg = f"{name}: {refusal}"
                raise SinkError(msg) from error
            if error.args[0].code() != KafkaError._TIMED_OUT or time.monotonic() > waited_until:  # noqa: SLF001 - the client's name
                raise _failed(error, name, "the fence") from error
        else:
            return


def _failed(error: KafkaException, name: str, what: str) -> SinkError:
    """A client's error as one of ours, with what to do."""
    found: KafkaError = error.args[0]
    if found.code() in _FENCED:
        msg = f"{name}: another process has taken this partition ({found.str()}); this one ends, let only one cell own a partition"
        return Fenced(msg)
    if found.code() in _REFUSED:
        return _refused(found, name, what)
    if found.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return SinkError(f"{name}: a record is larger than its topic takes ({found.str()}); raise the topic's max.message.bytes, then start again")
    return CommitUnknown(f"{name}: {what} failed or was not answered ({found.str()}); the partition is restored and goes on when the broker answers")


def _refused(error: KafkaError, name: str, what: str) -> SinkError:
    return SinkError(f"{name}: the broker refuses {what} ({error.str()}); give this user the rights that docs/security.md lists")
