"""Topics on a broker: the place of a deployment.

A flow's partition is fenced by its transactional id, ``<installation>.<flow>-<partition>``, and only then restored:
its own topics are read to the very end that they had after the fence, committed or not, so that nothing of an earlier
process can still appear. Records of the flow's own topics carry their number (header ``n``), so a missing one shows.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flows import topics
from flows.kafka_heads import KafkaHeads
from flows.pipeline import TopicSize
from schemas import segments
from schemas.catalog import Avro
from sinks.connections import Connections
from sinks.errors import CommitUnknown
from sinks.kafka import Records, TransactionalWriter
from sources import kafka
from sources.errors import RetentionGap, SourceAway, SourceError
from sources.lot import Lot

_ROWS: Final = 20_000
_NONE: Final = -1
"""The offset of the first record of a time, where there is none."""
_MARK_SECONDS: Final = 0.002
"""Between two looks at whether a commit can be read."""
_BACK: Final = (4, 64, 1024, 16_384)
"""How far before its end a topic is read to find its last record: transactions leave marks that are none."""


@dataclass(slots=True)
class KafkaLog:
    """One partition of a flow on a broker, fenced."""

    place: "KafkaPlace"
    writer: TransactionalWriter
    flow: str
    partition: int
    _numbers: dict[str, int] = field(default_factory=dict)
    _readers: list[kafka.TopicReader] = field(default_factory=list)

    def reader(self, topic: str) -> kafka.TopicReader:
        """A reader of this partition of a topic."""
        reader = self.place.reader(topic, self.partition)
        self._readers.append(reader)
        return reader

    def written(self, topic: str) -> kafka.TopicReader:
        """A reader of a topic that only this flow writes: its end is that of the last commit."""
        reader = self.place.written(topic, self.partition)
        self._readers.append(reader)
        return reader

    def end(self, topic: str) -> int:
        """The end of this partition of a topic now, records whose transaction is still open included."""
        return self.place.ends(topic, self.partition)

    def own(self, topic: str, written: int, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """What is kept of a topic that only this flow writes, to its very end; SourceError where one is missing."""
        reader = self.reader(topic)
        end = self._closed_end(topic, reader)
        numbers = self._numbers
        numbers.pop(topic, None)
        with _still_kept(reader):
            at = self._place_of(start, reader, end)
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                found = [_number(lot, row) for row in range(lot.records.num_rows)]
                for row, number in enumerate(found):
                    if number != numbers.setdefault(topic, number):
                        msg = f"{reader.place}: record {numbers[topic]} is missing before offset {lot.positions[row]}; restore the topic from a backup"
                        raise SourceError(msg)
                    numbers[topic] = number + 1
                if found:
                    keys = pa.array([lot.record(row)["key"] for row in range(len(found))], pa.large_binary())
                    yield found[0], lot.records.set_column(0, segments.RECORDS.field("key"), keys)
                at = lot.end
        reader.close()
        if numbers.setdefault(topic, written) != written:
            msg = f"{reader.place}: has {numbers[topic]} records, the token counts {written}; restore the topic from a backup"
            raise SourceError(msg)

    def _place_of(self, number: int, reader: kafka.TopicReader, end: int) -> int:
        """The position of the record of a number, or of the first kept after it: by halving, offsets have gaps."""
        low, high = reader.start, end if number else reader.start
        while low < high:
            middle = (low + high) // 2
            lot = reader.lot(middle, 1, end)
            if lot.records.num_rows and _number(lot, 0) < number:
                low = int(lot.positions[0]) + 1
            else:
                high = middle
        return low

    def trim(self, topic: str, before: int) -> None:
        """Delete what stands before the first record of that time or later."""
        position = self.place.first_at(topic, self.partition, before)
        if position is not None:
            self.place.delete_before(topic, self.partition, position)

    def _closed_end(self, topic: str, reader: kafka.TopicReader) -> int:
        """The end after the fence; refused while somebody's transaction is still open there."""
        end = self.place.ends(topic, self.partition)
        if reader.refresh() < end:
            msg = f"{reader.place}: a transaction is open at {reader.end} of {end}; it ends by itself within 20 s, then the partition is restored"
            raise CommitUnknown(msg)
        return end

    def last(self, topic: str) -> pa.RecordBatch:
        """The last record of such a topic, or none; SourceError where there were records and all are gone."""
        reader = self.reader(topic)
        end = self._closed_end(topic, reader)
        for back in (*_BACK, end):
            start = max(reader.start, end - back)
            found, at = None, start
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                found = lot.records.slice(lot.records.num_rows - 1) if lot.records.num_rows else found
                at = lot.end
            if found is not None or start == reader.start:
                break
        reader.close()
        if found is not None:
            return found
        if reader.start:
            msg = (
                f"{reader.place}: is empty, although there were records; restore the topic from a backup, "
                f"or start over with topics of their own under another --topic-prefix: going on would take all input for new"
            )
            raise SourceError(msg)
        return pa.RecordBatch.from_pylist([], schema=segments.RECORDS)

    def commit(
        self, sequence: int, outputs: Mapping[str, pa.RecordBatch], positions: Mapping[str, int], replaces: str | None  # noqa: ARG002 - a place's signature
    ) -> None:
        """One transaction; then what a full state has replaced is deleted."""
        cut = None if replaces is None else self.place.ends(replaces, self.partition)
        numbers, records = dict(self._numbers), []
        for name, batch in outputs.items():
            if not batch.num_rows:
                continue
            topic, partition = topics.placed(name, self.partition)
            first = numbers.get(topic, 0) if topics.is_state(topic) else None
            dated = topics.is_own(topic) or topics.is_dead_letters(topic)
            records.append(Records(self.place.physical(topic), batch, partition, dated, first))
            if first is not None:
                numbers[topic] = first + batch.num_rows
        offsets = [self.place.offset(*topics.placed(name, self.partition), position) for name, position in positions.items()]
        self.writer.commit(records, offsets, self.place.group())
        self._numbers = numbers
        if cut is not None and replaces is not None:
            self.place.delete_before(replaces, self.partition, cut)

    def close(self) -> None:
        """Give the partition up."""
        for reader in self._readers:
            reader.close()
        self.writer.close()


class _Written(kafka.TopicReader):
    """A partition that nobody writes meanwhile: a commit is answered before it can be read, so its end is waited for."""

    def __init__(self, place: "KafkaPlace", topic: str, partition: int) -> None:
        super().__init__(place.settings, place.group_id, place.queries(), place.physical(topic), partition)
        self._open_end: Callable[[], int] = lambda: place.ends(topic, partition)

    def refresh(self) -> int:
        """The end of the last commit; SourceAway where the broker does not finish it."""
        end, waited_until = self._open_end(), time.monotonic() + kafka.ANSWER_SECONDS
        while super().refresh() < end:
            if time.monotonic() > waited_until:
                msg = f"{self.place}: what was committed up to {end} can be read up to {self.end} only; check the broker, the run goes on by itself"
                raise SourceAway(msg)
            time.sleep(_MARK_SECONDS)
        return self.end


def _number(lot: Lot, row: int) -> int:
    """The number that a record of a flow's own topic carries."""
    return next((int(header["value"]) for header in lot.record(row)["headers"] or () if header["key"] == "n"), -1)


@contextmanager
def _still_kept(reader: kafka.TopicReader) -> Iterator[None]:
    """Around reading from the first record kept on: who held the partition before may trim it once more meanwhile."""
    try:
        yield
    except RetentionGap as error:
        msg = f"{reader.place}: was trimmed by its last holder while it was read; it is read again"
        raise SourceAway(msg) from error


def _answered(asked: Mapping[TopicPartition, Any], wanted: TopicPartition, least: int) -> int:
    """An offset that was asked for.

    A broker that dies between question and answer makes the client say that all went well and the offset is -1001: taken
    for an end, it would turn a topic full of records into an empty one. What is below ``least`` is no answer.
    """
    place = f"{wanted.topic}, partition {wanted.partition}"
    try:
        found = int(asked[wanted].result(2 * kafka.ANSWER_SECONDS).offset)
    except KafkaException as error:
        raise kafka.failed(error.args[0], place, 0) from error
    except TimeoutError as error:
        msg = f"{place}: the broker's client does not answer; the run goes on with a new one"
        raise SourceAway(msg) from error
    if found < least:
        msg = f"{place}: the broker went away before it told its offsets; check it, the run goes on when it is back"
        raise SourceAway(msg)
    return found


class KafkaPlace:
    """A broker's topics, under a prefix, for one flow; ``settings`` are the client's own (bootstrap.servers, security)."""

    def __init__(
        self, settings: Mapping[str, Any], installation: str, prefix: str = "", writers: Mapping[int, Avro] | None = None, flow: str = "usage",
    ) -> None:
        self.settings, self.installation, self.prefix, self.flow = dict(settings), installation, prefix, flow
        self._writers = dict(writers or {})
        self._queries: Consumer | None = None
        self._admin: AdminClient | None = None
        self._making = Lock()
        self._connections = Connections(self.settings)
        self._answered = False

    def physical(self, topic: str) -> str:
        """A topic's name on the broker."""
        return self.prefix + topic

    def offset(self, topic: str, partition: int, position: int) -> TopicPartition:
        """A position as the client takes it."""
        return TopicPartition(self.physical(topic), partition, position)

    @property
    def admin(self) -> AdminClient:
        """The broker's administration, connected on first need; SourceError where the client does not take its settings."""
        with self._making:  # of two clients made at once one would go, and with it the answers that it waits for
            if self._admin is None:
                try:
                    self._admin = AdminClient({**self.settings, "error_cb": self._connections})
                except KafkaException as error:
                    msg = f"{self.name}: the client does not take its settings ({error.args[0].str()}); correct them in the file of --client-config"
                    raise SourceError(msg) from error
            return self._admin

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around questions to ``admin``: SourceError where the broker refuses this client, which waiting does not mend."""
        self.admin.poll(0)  # the client tells what it knows of its connections only when it is polled
        if self._answered:  # what it told before says nothing about this question, unless it never had an answer
            self._connections.forget()
        try:
            yield
            self._answered = True
        except SourceAway as error:
            self.admin.poll(0)
            refusal = self._connections.refusal()
            if refusal is not None:
                msg = f"{self.name}: {refusal}"
                raise SourceError(msg) from error
            last = self._connections.last()
            if last is None:
                raise
            msg = f"{self.name}: the broker does not answer ({last}); check it and its address, the run goes on when it is back"
            raise SourceAway(msg) from error

    def queries(self) -> Consumer:
        """One client that asks for positions."""
        with self._making:
            if self._queries is None:
                self._queries = kafka.consumer(self.settings, self.group_id)
            return self._queries

    @property
    def group_id(self) -> str:
        """The consumer group whose positions show the lag to ordinary tools."""
        return f"{self.installation}.{self.flow}"

    def group(self) -> Any:
        """The group as a transaction names it."""
        return self.queries().consumer_group_metadata()

    def fence(self, flow: str, partition: int) -> KafkaLog:
        """Become the only writer of a flow's partition."""
        writer = TransactionalWriter.open(self.settings, f"{self.installation}.{flow}-{partition}")
        return KafkaLog(self, writer, flow, partition)

    def reader(self, topic: str, partition: int) -> kafka.TopicReader:
        """A reader of one partition."""
        return kafka.TopicReader(self.settings, self.group_id, self.queries(), self.physical(topic), partition)

    def written(self, topic: str, partition: int) -> kafka.TopicReader:
        """A reader of one partition in which no transaction stays open for long: its end is that of the last commit."""
        return _Written(self, topic, partition)

    def heads(self, topic: str) -> KafkaHeads | None:
        """The last records of a topic; None where there is no such topic."""
        partitions = self.topics().get(topic, 0)
        return KafkaHeads(self.settings, self.group_id, self.physical(topic), partitions) if partitions else None

    def stream(self, topic: str, partition: int, position: int, rows: int, seconds: float, *, headers: bool = False) -> kafka.Stream:
        """What comes to one partition from a position on; RetentionGap below the first position kept."""
        start, _ = kafka.watermarks(self.queries(), self.physical(topic), partition)
        if position < start:
            place = f"{topic}, partition {partition}"
            raise kafka.gap(place, position, start)
        consuming = kafka.consumer(self.settings, self.group_id, **{"enable.partition.eof": True})
        return kafka.Stream(consuming, self.physical(topic), partition, position, rows, seconds, headers=headers)

    def writers(self) -> dict[int, Avro]:
        """Writer schemas of usage by id."""
        return self._writers

    def ends(self, topic: str, partition: int) -> int:
        """The end of a partition, open transactions included; SourceAway where the broker does not say it."""
        wanted = TopicPartition(self.physical(topic), partition)
        asked = self.admin.list_offsets(
            {wanted: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=kafka.ANSWER_SECONDS
        )
        return _answered(asked, wanted, 0)

    def first_at(self, topic: str, partition: int, instant: int) -> int | None:
        """The position of the first record of an instant or later; None where there is none."""
        wanted = TopicPartition(self.physical(topic), partition)
        asked = self.admin.list_offsets({wanted: OffsetSpec.for_timestamp(max(instant // 1000, 0))}, request_timeout=kafka.ANSWER_SECONDS)
        found = _answered(asked, wanted, _NONE)
        return None if found == _NONE else found

    def delete_before(self, topic: str, partition: int, position: int) -> None:
        """Delete a state topic's records below a position: a full state has replaced them."""
        if not topics.is_own(topic):
            msg = f"{topic} bears money and is never deleted"
            raise ValueError(msg)
        wanted = TopicPartition(self.physical(topic), partition, position)
        try:
            self.admin.delete_records([wanted], request_timeout=kafka.ANSWER_SECONDS)[wanted].result()
        except KafkaException as error:
            found = kafka.failed(error.args[0], f"{wanted.topic}, partition {partition}", position)
            if not isinstance(found, SourceAway):
                raise found from error  # a broker that is away deletes at the next full state

    @property
    def name(self) -> str:
        """The broker's address, with the topics' prefix."""
        return f"{self.settings['bootstrap.servers']}{f' ({self.prefix}*)' if self.prefix else ''}"

    def partitions(self, topic: str = topics.USAGE) -> int:
        """The number of a topic's; SourceError where there is no such topic."""
        found = self.topics()
        if topic not in found:
            msg = f"{self.name}: has no topic {self.physical(topic)}; make the topics with 'tieout topic create'"
            raise SourceError(msg)
        return found[topic]

    def topics(self) -> dict[str, int]:
        """The number of partitions of each topic under the prefix, by the name without it."""
        with self.asking():
            try:
                listed = self.admin.list_topics(timeout=kafka.ANSWER_SECONDS).topics
            except KafkaException as error:
                raise kafka.failed(error.args[0], self.name, 0) from error
        return {name.removeprefix(self.prefix): len(topic.partitions) for name, topic in listed.items() if name.startswith(self.prefix)}

    def sizes(self) -> list[TopicSize]:
        """All topics under the prefix; offsets count the marks of transactions too."""
        found = sorted((topic, partition) for topic, count in self.topics().items() for partition in range(count))
        return [TopicSize(topic, partition, *kafka.watermarks(self.queries(), self.physical(topic), partition), None) for topic, partition in found]

    def close(self) -> None:
        """Let the clients go; new ones are made on first need."""
        with self._making:
            queries, self._queries, self._admin = self._queries, None, None
        if queries is not None:
            queries.close()
