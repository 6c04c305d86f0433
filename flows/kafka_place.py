"""Topics on a broker: the place of a deployment.

A flow's partition is fenced by its transactional id, ``<installation>.<flow>-<partition>``, and only then restored:
its own topics are read to the very end that they had after the fence, committed or not, so that nothing of an earlier
process can still appear. Records of the flow's own topics carry their number (header ``n``), so a missing one shows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flows import topics
from flows.pipeline import TopicSize
from schemas import segments
from schemas.catalog import Avro
from sinks.errors import CommitUnknown
from sinks.kafka import Records, TransactionalWriter
from sources import kafka
from sources.errors import SourceAway, SourceError

_ROWS: Final = 20_000
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

    def own(self, topic: str, written: int) -> Iterator[pa.RecordBatch]:
        """What is kept of a topic that only this flow writes, to its very end; SourceError where one is missing."""
        reader = self.reader(topic)
        end = self._closed_end(topic, reader)
        at, numbers = reader.start, self._numbers
        while at < end:
            lot = reader.lot(at, _ROWS, end)
            for row in range(lot.records.num_rows):
                record = lot.record(row)
                number = next((int(header["value"]) for header in record["headers"] or () if header["key"] == "n"), -1)
                if topic in numbers and number != numbers[topic]:
                    msg = f"{reader.place}: record {numbers[topic]} is missing before offset {lot.positions[row]}; restore the topic from a backup"
                    raise SourceError(msg)
                numbers[topic] = number + 1
            if lot.records.num_rows:
                keys = pa.array([lot.record(row)["key"] for row in range(lot.records.num_rows)], pa.large_binary())
                yield lot.records.set_column(0, segments.RECORDS.field("key"), keys)
            at = lot.end
        reader.close()
        if numbers.setdefault(topic, written) != written:
            msg = f"{reader.place}: has {numbers[topic]} records, the token counts {written}; restore the topic from a backup"
            raise SourceError(msg)

    def _closed_end(self, topic: str, reader: kafka.TopicReader) -> int:
        """The end after the fence; refused while somebody's transaction is still open there."""
        end = self.place.ends(topic, self.partition)
        if reader.refresh() < end:
            msg = f"{reader.place}: a transaction is open at {reader.end} of {end}; it ends by itself within 20 s, then the partition is restored"
            raise CommitUnknown(msg)
        return end

    def last(self, topic: str) -> pa.RecordBatch:
        """The last record of such a topic, or none."""
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
        return pa.RecordBatch.from_pylist([], schema=segments.RECORDS) if found is None else found

    def commit(
        self, sequence: int, outputs: Mapping[str, pa.RecordBatch], positions: Mapping[str, int], replaces: str | None  # noqa: ARG002 - a place's signature
    ) -> None:
        """One transaction; then what a full state has replaced is deleted."""
        cut = None if replaces is None else self.place.ends(replaces, self.partition)
        numbers, records = dict(self._numbers), []
        for topic, batch in outputs.items():
            if not batch.num_rows:
                continue
            first = numbers.get(topic, 0) if topics.is_state(topic) else None
            dated = topics.is_own(topic) or topics.is_dead_letters(topic)
            records.append(Records(self.place.physical(topic), batch, self.partition, dated, first))
            if first is not None:
                numbers[topic] = first + batch.num_rows
        offsets = [TopicPartition(self.place.physical(topic), self.partition, position) for topic, position in positions.items()]
        self.writer.commit(records, offsets, self.place.group())
        self._numbers = numbers
        if cut is not None and replaces is not None:
            self.place.delete_before(replaces, self.partition, cut)

    def close(self) -> None:
        """Give the partition up."""
        for reader in self._readers:
            reader.close()
        self.writer.close()


class KafkaPlace:
    """A broker's topics, under a prefix; ``settings`` are the client's own (bootstrap.servers, security)."""

    def __init__(self, settings: Mapping[str, Any], installation: str, prefix: str = "", writers: Mapping[int, Avro] | None = None) -> None:
        self.settings, self.installation, self.prefix = dict(settings), installation, prefix
        self._writers = dict(writers or {})
        self._queries: Consumer | None = None
        self._admin: AdminClient | None = None

    def physical(self, topic: str) -> str:
        """A topic's name on the broker."""
        return self.prefix + topic

    @property
    def admin(self) -> AdminClient:
        """The broker's administration, connected on first need."""
        if self._admin is None:
            self._admin = AdminClient({**self.settings, "error_cb": kafka.silent})
        return self._admin

    def queries(self) -> Consumer:
        """One client that asks for positions."""
        if self._queries is None:
            self._queries = kafka.consumer(self.settings, self.group_id)
        return self._queries

    @property
    def group_id(self) -> str:
        """The consumer group whose positions show the lag to ordinary tools."""
        return f"{self.installation}.usage"

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

    def stream(self, topic: str, partition: int, position: int, rows: int, seconds: float) -> kafka.Stream:
        """What comes to one partition from a position on; RetentionGap below the first position kept."""
        start, _ = kafka.watermarks(self.queries(), self.physical(topic), partition)
        if position < start:
            place = f"{topic}, partition {partition}"
            raise kafka.gap(place, position, start)
        consuming = kafka.consumer(self.settings, self.group_id, **{"enable.partition.eof": True})
        return kafka.Stream(consuming, self.physical(topic), partition, position, rows, seconds)

    def writers(self) -> dict[int, Avro]:
        """Writer schemas of usage by id."""
        return self._writers

    def ends(self, topic: str, partition: int) -> int:
        """The end of a partition, open transactions included."""
        wanted = TopicPartition(self.physical(topic), partition)
        asked = self.admin.list_offsets(
            {wanted: OffsetSpec.latest()}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=kafka.ANSWER_SECONDS
        )
        try:
            return int(asked[wanted].result().offset)
        except KafkaException as error:
            raise kafka.failed(error.args[0], f"{wanted.topic}, partition {partition}", 0) from error

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

    def partitions(self) -> int:
        """The number of the usage topic's; SourceError where there is none."""
        found = self.topics()
        if topics.USAGE not in found:
            msg = f"{self.name}: has no topic {self.physical(topics.USAGE)}; make the topics with 'tieout topic create'"
            raise SourceError(msg)
        return found[topics.USAGE]

    def topics(self) -> dict[str, int]:
        """The number of partitions of each topic under the prefix, by the name without it."""
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
        """Let the clients go."""
        if self._queries is not None:
            self._queries.close()
