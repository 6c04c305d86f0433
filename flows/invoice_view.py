"""One document of a partition by its id: read by columns, and only the one that is wanted as a document.

In: a reader of ``billing.invoice.v1``. Out: the document, or None where the partition has none of that id.
"""

from typing import Final

import pyarrow.compute as pc

from flows import invoice_records
from flows.pipeline import Reader
from tieout.invoicing.records import Invoice

_ROWS: Final = 5_000


def find(reader: Reader, invoice_id: str) -> Invoice | None:
    """The document of an id."""
    end, at = reader.refresh(), reader.start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        if lot.records.num_rows:
            names = invoice_records.columns(lot.records["value"], invoice_records.SCHEMA)["invoice_id"]
            row = pc.index(names, invoice_id).as_py()
            if row >= 0:
                return invoice_records.decode(lot.records["value"].slice(row, 1))[0]
        at = lot.end
    return None
