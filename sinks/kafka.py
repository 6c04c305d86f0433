"""Topics on a broker, written with an exactly-once commit: one transaction for each interval of a partition.

Guarantee: what consumers with ``read_committed`` see holds a commit whole or not at all, with the input positions that
it covers. The transactional id belongs to a flow's partition, never to a process, so whoever opens it last fences all
others. After any failed or unanswered call the writer is of no more use: memory may run ahead of the log, and a late
end of a transaction must not meet the next one.

Errors: those of ``sinks.errors``.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from sinks.errors import CommitUnknown, Fenced, SinkError

ANSWER_SECONDS: Final = 60.0
_WRITE: Final = {
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "message.max.bytes": 1_000_000,
    "queue.buffering.max.messages": 1_000_000,
    "queue.buffering.max.kbytes": 1_048_576,
    "enable.idempotence": True,
    "delivery.report.only.error": True,
    "transaction.timeout.ms": 20_000,
}
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED})  # noqa: SLF001 - the client's name
_REFUSED: Final = frozenset({
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - the client's name of it
})


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

    def __init__(self, producer: Producer, name: str) -> None:
        self._producer, self._name = producer, name

    @classmethod
    def open(cls, settings: Mapping[str, Any], name: str) -> "TransactionalWriter":
        """Fence: whoever had this transactional id is of no more use, what it left open is aborted."""
        producer = Producer({**settings, **_WRITE, "transactional.id": name, "error_cb": _silent})
        try:
            producer.init_transactions(ANSWER_SECONDS)
        except KafkaException as error:
            raise _failed(error, name, "the fence") from error
        return cls(producer, name)

    def commit(self, outputs: list[Records], positions: list[TopicPartition], group: Any) -> None:
        """Write all records and the consumer group's positions in one transaction; CommitUnknown or Fenced otherwise."""
        try:
            self._producer.begin_transaction()
            for records in outputs:
                self._produce(records)
            if positions:
                self._producer.send_offsets_to_transaction(positions, group, ANSWER_SECONDS)
            self._producer.commit_transaction(ANSWER_SECONDS)
        except KafkaException as error:
            raise _failed(error, self._name, "a commit") from error

    def _produce(self, records: Records) -> None:
        values, keys = records.batch["value"].to_pylist(), records.batch["key"].to_pylist()
        produce, topic, partition = self._producer.produce, records.topic, records.partition
        if not records.dated and records.first_number is None:
            for value, key in zip(values, keys, strict=True):  # one call a row: the client takes no columns
                try:
                    produce(topic, value, key, partition)
                except BufferError:  # the client's queue is full
                    self._whole(topic, value, key, partition, 0, [])
            return
        stamps, headers = records.batch["timestamp"].to_pylist(), records.batch["headers"].to_pylist()
        for row, (value, key) in enumerate(zip(values, keys, strict=True)):
            found = [(header["key"], header["value"]) for header in headers[row] or ()]
            if records.first_number is not None:
                found.append(("n", str(records.first_number + row).encode()))
            self._whole(topic, value, key, partition, max(stamps[row] // 1000, 0) if records.dated else 0, found)

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


def _silent(_: KafkaError) -> None:
    """What the client reports of connections shows in the call that waits for them."""


def _failed(error: KafkaException, name: str, what: str) -> SinkError:
    """A client's error as one of ours, with what to do."""
    found: KafkaError = error.args[0]
    if found.code() in _FENCED:
        msg = f"{name}: another process has taken this partition ({found.str()}); this one ends, let only one cell own a partition"
        return Fenced(msg)
    if found.code() in _REFUSED:
        return SinkError(f"{name}: the broker refuses {what} ({found.str()}); check the client settings and the user's rights")
    return CommitUnknown(f"{name}: {what} failed or was not answered ({found.str()}); the partition is restored and goes on when the broker answers")
