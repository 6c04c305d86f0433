"""Numbered documents of a place: read from their topic, all of them or one by its number.

In: a folder or a broker. Out: documents with their numbers. A legal entity's documents stand in one partition in the order
of their numbers, so one is found by halving. Source: docs/interfaces.md (numbered document).
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import invoice_records, topics
from flows.document_outputs import SCHEMA
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.pipeline import Reader
from sources import kafka
from tieout import ids, numbering
from tieout.invoicing.records import Invoice
from tieout.invoicing.wire import invoice_document

_ROWS: Final = 500
"""Records read at once, and the width below which a search reads on instead of halving."""


class NumberedDocument(NamedTuple):
    """A document with its number and its place in its series."""

    number: str
    sequence: int
    invoice: Invoice

    def document(self) -> dict[str, Any]:
        """It as the JSON of docs/interfaces.md."""
        return invoice_document(self.invoice) | {"number": self.number}


class _Place(NamedTuple):
    """Where a document of an entity stands, and its place in the series."""

    position: int
    sequence: int


def all_of(place: FilePlace | KafkaPlace) -> Iterator[NumberedDocument]:
    """Every document, partition by partition in the order of the log; InvoiceRecordError where one cannot be read."""
    for partition in range(_partitions(place)):
        yield from in_partition(place, partition)


def in_partition(place: FilePlace | KafkaPlace, partition: int) -> Iterator[NumberedDocument]:
    """The documents of one partition."""
    reader = place.written(topics.DOCUMENTS, partition)
    try:
        for _, batch in _batches(reader, 0, reader.refresh()):
            yield from _documents(batch)
    finally:
        _close(reader)


def find(place: FilePlace | KafkaPlace, number: str) -> NumberedDocument | None:
    """The document of a number; None where it has not been given. ValueError where it is no number."""
    entity, sequence = numbering.parsed(number)
    reader = place.written(topics.DOCUMENTS, ids.partition_of(entity, _partitions(place)))
    try:
        low, high = 0, reader.refresh()
        while high - low > _ROWS:
            middle = (low + high) // 2
            first = next(_of_entity(reader, middle, high, entity), None)
            if first is None or first.sequence > sequence:
                high = middle
            else:
                low = first.position
        found = next((one for one in _of_entity(reader, low, high, entity) if one.sequence == sequence), None)
        if found is None:
            return None
        (_, batch), *_ = _batches(reader, found.position, found.position + 1)
        return next(_documents(batch))
    finally:
        _close(reader)


def _partitions(place: FilePlace | KafkaPlace) -> int:
    return place.partitions() if isinstance(place, FilePlace) else place.partitions(topics.DOCUMENTS)


def _of_entity(reader: Reader, start: int, end: int, entity: str) -> Iterator[_Place]:
    """The documents of an entity between two positions."""
    for positions, batch in _batches(reader, start, end):
        rows = np.flatnonzero(pc.equal(batch["legal_entity_id"], entity).to_numpy(zero_copy_only=False))
        yield from map(_Place, positions[rows].tolist(), batch["sequence"].to_numpy()[rows].tolist())


def _batches(reader: Reader, start: int, end: int) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Positions and decoded records between two positions."""
    at = start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        yield lot.positions, invoice_records.columns(lot.records["value"], SCHEMA)
        at = lot.end


def _documents(batch: pa.RecordBatch) -> Iterator[NumberedDocument]:
    return map(NumberedDocument, batch["number"].to_pylist(), batch["sequence"].to_pylist(), invoice_records.invoices(batch))


def _close(reader: Reader) -> None:
    """Let a broker's client go."""
    if isinstance(reader, kafka.TopicReader):
        reader.close()
