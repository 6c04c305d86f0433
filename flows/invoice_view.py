"""One document of a partition by its id, and its followers: read by columns, and only those that are wanted as documents.

In: a reader of ``billing.invoice.v1``. Out: the document, or None where the partition has none of that id; what took it back or corrected it.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import invoice_records
from flows.pipeline import Reader
from tieout.invoicing.records import Invoice

_ROWS: Final = 5_000


def find(reader: Reader, invoice_id: str) -> Invoice | None:
    """The document of an id."""
    for values, rows in _rows(reader):
        row = pc.index(rows["invoice_id"], invoice_id).as_py()
        if row >= 0:
            return invoice_records.decode(values.slice(row, 1))[0]
    return None


def followers(reader: Reader, invoice: Invoice) -> list[Invoice]:
    """The documents that take it back, whole or in part, or correct lines of it, in their order."""
    found = []
    names = pa.array([line.line_id for line in invoice.lines], pa.string())
    for values, rows in _rows(reader):
        notes = [pc.equal(rows[name], invoice.invoice_id).fill_null(False) for name in ("voids", "credits_invoice")]
        corrects = pc.is_in(rows["lines"].flatten().field("delta_of"), names)
        hit = np.asarray(pc.or_(*notes)).copy()
        hit[np.asarray(pc.list_parent_indices(rows["lines"]).filter(corrects))] = True
        found += invoice_records.decode(values.filter(pa.array(hit)))
    return found


def _rows(reader: Reader) -> Iterator[tuple[pa.Array, pa.RecordBatch]]:
    end, at = reader.refresh(), reader.start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        if lot.records.num_rows:
            yield lot.records["value"], invoice_records.columns(lot.records["value"], invoice_records.SCHEMA)
        at = lot.end
