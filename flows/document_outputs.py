"""What an interval of the document flow writes: its final invoices and credit notes, numbered.

In: decoded invoices in the order of their log, and the last numbers. Out: records by the names of their partitions, each
in that of its legal entity and with the record time of its invoice; and the last numbers after them. Drafts are passed
over: only a final document has a number. Source: docs/semantics.md section 5.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from schemas import segments
from tieout import ids, numbering

FLOW: Final = "document"
SCHEMA: Final = "document"
FATES: Final = ("numbered", "draft")
SERIES: Final = "numbered/"
"""Stands before a legal entity in a token's figures."""
_FINAL: Final = "final"
_DRAFT: Final = "draft"


class Documents(NamedTuple):
    """An interval: records by partition, the last number of each legal entity, and figures."""

    records: dict[str, pa.RecordBatch]
    last: dict[str, int]
    counts: dict[str, int]


def strange(batch: pa.RecordBatch) -> int | None:
    """The first row that is neither final nor a draft, or of a kind that this release does not know; None where there is none."""
    known = pc.and_(pc.is_in(_words(batch["status"]), pa.array([_FINAL, _DRAFT])), pc.is_in(_words(batch["kind"]), pa.array(["invoice", "credit_note"])))
    found = pc.index(known, value=False).as_py()
    return None if found < 0 else found


def outputs(batch: pa.RecordBatch, stamps: npt.NDArray[np.int64], last: Mapping[str, int], partitions: int) -> Documents:
    """Number invoices whose record times are given, for so many partitions."""
    final = pc.equal(_words(batch["status"]), _FINAL)
    received, batch, stamps = batch.num_rows, batch.filter(final), stamps[final.to_numpy(zero_copy_only=False)]
    entities = batch["legal_entity_id"]
    sequences, after = numbering.number(entities, last)
    counts = {"received": received, "numbered": batch.num_rows, "draft": received - batch.num_rows}
    counts |= {SERIES + entity: place - last.get(entity, 0) for entity, place in after.items() if place > last.get(entity, 0)}
    if not batch.num_rows:
        return Documents({}, after, counts)
    values = codecs.encode(SCHEMA, _with_numbers(batch, sequences))
    homes = ids.partitions_of(entities, partitions)
    found = {}
    for home in np.unique(homes).tolist():
        rows = pa.array(np.flatnonzero(homes == home))
        found[topics.in_partition(topics.DOCUMENTS, home)] = segments.records(values.take(rows), entities.take(rows), stamps[rows.to_numpy()])
    return Documents(found, after, counts)


def _with_numbers(batch: pa.RecordBatch, sequences: npt.NDArray[np.int64]) -> pa.RecordBatch:
    texts = map(numbering.printed, batch["legal_entity_id"].to_pylist(), sequences.tolist())
    columns = {"number": pa.array(list(texts), pa.string()), "sequence": pa.array(sequences)}
    return pa.RecordBatch.from_arrays([*columns.values(), *batch.columns], names=[*columns, *batch.schema.names])


def _words(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())
