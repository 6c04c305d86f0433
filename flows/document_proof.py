"""What must hold of numbered documents, beyond the chain of their intervals: every final invoice once, no gap in a series.

In: a place and the document flow's last token. Out: breaks in words. Documents are compared with the invoices that the
token says were read: each is the invoice as it was, to the last byte, and no invoice is numbered twice or left out.
Source: docs/semantics.md section 5.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, invoice_records, topics
from flows.document_outputs import SCHEMA, SERIES
from flows.invoice_records import InvoiceRecordError
from flows.pipeline import Place
from flows.token import Token
from tieout import ids, numbering

_ROWS = 5000
_LANES = np.dtype([("name", "<u8", 2), ("whole", "<u8", 2)])
"""Hashes of a document's invoice_id, and of all of it as an invoice."""
Prints = npt.NDArray[np.void]


class _Found(NamedTuple):
    """All documents by their hashes, the last number of each legal entity, and where a series does not go on by one."""

    prints: Prints
    last: dict[str, int]
    breaks: list[str]


def broken(place: Place, token: Token) -> list[str]:
    """What is wrong with the documents that a token counts."""
    try:
        found, asked = _documents(place, token), _invoices(place, token)
    except InvoiceRecordError as error:
        return [str(error)]
    series = {name.removeprefix(SERIES): count for name, count in token.totals.items() if name.startswith(SERIES)}
    breaks = list(found.breaks)
    if found.last != series:
        breaks.append(f"the token counts {series} documents by legal entity, {topics.DOCUMENTS} has {found.last}")
    twice = len(found.prints) - len(np.unique(found.prints["name"], axis=0))
    if twice:
        breaks.append(f"{twice} documents have the invoice_id of another one: an invoice was numbered twice")
    for there, other, what in ((asked, found.prints, "final invoices have no document that is the same"), (found.prints, asked, "documents are not the same as any final invoice")):
        missing = int((~np.isin(_whole(there), _whole(other))).sum())
        if missing:
            breaks.append(f"{missing} {what}")
    return breaks


def _documents(place: Place, token: Token) -> _Found:
    parts = [np.empty(0, _LANES)]
    last: dict[str, int] = {}
    breaks: list[str] = []
    for name, count in sorted(token.written.items()):
        topic, partition = topics.placed(name, 0)
        for batch in _batches(place, topic, partition, SCHEMA, records=count):
            given = numbering.number(batch["legal_entity_id"], last)
            wrong = _first_wrong(batch, given.sequences)
            if wrong is not None:
                breaks.append(f"{topic}, partition {partition}: {wrong}")
            last = given.last
            parts.append(_prints(batch.drop_columns(["number", "sequence"])))
    return _Found(np.concatenate(parts), last, breaks)


def _first_wrong(batch: pa.RecordBatch, sequences: npt.NDArray[np.int64]) -> str | None:
    """Where a series does not go on by one."""
    texts = pa.array(map(numbering.printed, batch["legal_entity_id"].to_pylist(), sequences.tolist()), pa.string())
    wrong = pc.or_(pc.not_equal(texts, batch["number"]), pc.not_equal(pa.array(sequences), batch["sequence"]))
    row = pc.index(wrong, value=True).as_py()
    return None if row < 0 else f"{batch['number'][row].as_py()} stands where {texts[row].as_py()} has to follow"


def _invoices(place: Place, token: Token) -> Prints:
    """The final invoices up to a token's positions."""
    parts = [np.empty(0, _LANES)]
    for name, position in sorted(token.positions.items()):
        topic, partition = topics.placed(name, 0)
        batches = _batches(place, topic, partition, invoice_records.SCHEMA, until=position)
        parts += [_prints(batch.filter(pc.equal(batch["status"].cast(pa.string()), "final"))) for batch in batches]
    return np.concatenate(parts)


def _batches(place: Place, topic: str, partition: int, schema: str, *, records: int | None = None, until: int | None = None) -> Iterator[pa.RecordBatch]:
    """So many records of a partition, or those up to a position; fewer where it ends before."""
    reader = place.written(topic, partition)
    end = reader.refresh() if until is None else min(reader.refresh(), until)
    at, left = reader.start, end if records is None else records
    while at < end and left:
        lot = reader.lot(at, min(_ROWS, left), end)
        yield invoice_records.columns(lot.records["value"], schema)
        at, left = lot.end, left - len(lot.positions)


def _prints(batch: pa.RecordBatch) -> Prints:
    found = np.empty(batch.num_rows, _LANES)
    found["name"] = ids.of_strings(batch["invoice_id"])
    found["whole"] = ids.of_strings(codecs.encode(invoice_records.SCHEMA, batch))
    return found


def _whole(prints: Prints) -> npt.NDArray[np.void]:
    """The hashes of whole documents, each as one value that can be looked up."""
    return np.ascontiguousarray(prints["whole"]).view("V16").ravel()
