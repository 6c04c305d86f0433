"""Reference data as records of its topic, and back.

In: validated documents. Out: records of ``reference_record.avsc`` for the topic's one partition, keyed by kind and key; and
what the records of a lot say. A record that cannot be read stops whoever reads it: nobody may go on with half of the
reference data. Source: docs/contracts.md (reference data).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from flows import codecs, topics
from schemas import catalog, segments
from sources.errors import SourceError
from sources.lot import Lot
from tieout.period import micros
from tieout.reference import KINDS, ReferenceRecord

if TYPE_CHECKING:
    from tieout.reference_document import ReferenceDocument

SCHEMA: Final = "reference_record"
_MAPS: Final = ("aliases", "erp_ids")


def records(documents: Sequence[ReferenceDocument]) -> pa.RecordBatch:
    """Documents, complete with author and time, as topic records."""
    rows = [_row(document) for document in documents]
    batch = pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema(SCHEMA))
    stamps = batch["recorded_at"].cast(pa.int64()).to_numpy()
    return segments.records(codecs.encode(SCHEMA, batch), pa.array([f"{document.kind}/{document.key}" for document in documents]), stamps)


def read(lot: Lot, partition: int) -> list[ReferenceRecord]:
    """The records of a lot; SourceError where one cannot be read."""
    decoded = codecs.own(SCHEMA).decode(lot.records["value"])
    if decoded.rejected:
        first = decoded.rejected[0]
        msg = f"{topics.REFERENCE}, partition {partition}: record at position {lot.positions[first.row]}: {first.message}"
        raise SourceError(msg)
    return list(_records(decoded.batch.to_pylist(), lot.positions[decoded.rows].tolist(), partition))


def _records(rows: Sequence[Mapping[str, Any]], positions: Sequence[int], partition: int) -> Iterator[ReferenceRecord]:
    for row, position in zip(rows, positions, strict=True):
        if row["kind"] not in KINDS:
            continue  # a kind that a later release has brought
        value = row[row["kind"]]
        if value is None:
            msg = f"{topics.REFERENCE}, partition {partition}: record at position {position} is of kind {row['kind']!r} and says nothing of it; write it anew with 'tieout reference put'"
            raise SourceError(msg)
        given = {name: dict(part) if name in _MAPS else part for name, part in value.items()}
        yield ReferenceRecord(
            row["kind"], row["key"], micros(row["valid_from"]), None if row["valid_to"] is None else micros(row["valid_to"]),
            micros(row["recorded_at"]), row["author"], row["reason"], given, (partition, position),
        )


def _row(document: ReferenceDocument) -> dict[str, Any]:
    row = {field.name: getattr(document, field.name) for field in fields(document)}
    value = row[document.kind]
    parts = {field.name: getattr(value, field.name) for field in fields(value)}
    return row | {document.kind: {name: sorted(part.items()) if name in _MAPS else part for name, part in parts.items()}}
