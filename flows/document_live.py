"""The document flow as a live cell runs it: its input are all partitions of the invoices, read together.

One life of the cell is that of the other flows' (``flows.usage_live``): fence, restore, seek, run. The seek differs: one
stream reads every partition from where the token says, so that one cell gives all numbers in one order.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, cast

from flows import cells as sharing
from flows import document_outputs, invoice_records, topics
from flows.document import DocumentCell
from flows.document_outputs import FLOW, Documents
from flows.flow_metrics import Interval
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell, LiveFlow, LivePartition, LiveSource
from sources import kafka
from sources.kafka import Stream
from sources.kafka_merged import MergedStream
from sources.lot import Lot


class DocumentLive(LiveCell):
    """The one cell of the document flow on a broker."""

    def attempt(self) -> None:
        """Fence, restore, seek, run."""
        self.metrics.restoring(0)
        began = time.monotonic()
        with ExitStack() as stack:
            (cell,) = _start(self.place, self.partitions, self.live).values()
            stack.callback(cell.close)
            known = [(cell.token.generation, cell.token.cells)] if cell.token.sequence else []
            cell.generation, cell.cells = sharing.generation_of(known, self.live.share, self.live.generation), self.live.share.cells
            self.metrics.joined(cell.generation)
            self.tokens[0] = cell.token
            self._observe(cell)
            self.metrics.restored(cell.token, time.monotonic() - began)
            self.metrics.paused(0, None)
            stream = self._stream(cell)
            stack.callback(stream.close)
            self.engine(self._pipeline({0: cell}, [stream]))

    def _stream(self, cell: DocumentCell) -> MergedStream:
        """All partitions of the invoices from the cell's positions on; RetentionGap where one is below the first position kept."""
        place, topic = self.place, topics.INVOICES
        positions = {partition: cell.position_in(partition) for partition in range(place.partitions(topic))}
        for partition, position in positions.items():
            start, _ = kafka.watermarks(place.queries(), place.physical(topic), partition)
            if position < start:
                where = f"{topic}, partition {partition}"
                raise kafka.gap(where, position, start)
        ends = {partition: place.ends(topic, partition) for partition in positions} if self.live.drain else None
        consuming = kafka.consumer(place.settings, place.group_id, **{"enable.partition.eof": True})
        return MergedStream(consuming, place.physical(topic), positions, self.live.rows, self.live.seconds, ends)

    def _source(self, cell: LivePartition, stream: Stream, learn: Callable[[Lot], None]) -> LiveSource:
        source = super()._source(cell, stream, learn)
        source.end = cast("MergedStream", stream).end
        return source


def _start(place: KafkaPlace, _: Sequence[int], __: Live) -> dict[int, DocumentCell]:
    return {0: DocumentCell.start(place, place.partitions(topics.DOCUMENTS))}


def _interval(_: DocumentCell, __: Documents, seconds: Mapping[str, float]) -> Interval:
    return Interval(Counter(), Counter(), {}, seconds)


DOCUMENT: Final = LiveFlow(FLOW, topics.INVOICES, document_outputs.FATES, _start, _interval, schema=invoice_records.SCHEMA)
