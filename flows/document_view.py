"""Numbered documents of a place: read from their topic, all of them or one by its number.

In: a folder or a broker. Out: each document with its number. A legal entity's documents stand in one partition in the
order of their numbers, so one is found by halving, and a list reads only what it shows. Source: docs/interfaces.md.
"""

from collections.abc import Iterator
from typing import NamedTuple

from flows import invoice_records, topics
from flows.document_outputs import SCHEMA
from flows.pipeline import Reader
from tieout.invoicing.records import Invoice

_ROWS = 5000


class NumberedDocument(NamedTuple):
    """A document with its number and its place in its series."""

    number: str
    sequence: int
    invoice: Invoice


def between(reader: Reader, start: int, end: int) -> Iterator[NumberedDocument]:
    """The documents of a partition from one position to another; InvoiceRecordError where one cannot be read."""
    at = start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        batch = invoice_records.columns(lot.records["value"], SCHEMA)
        yield from map(NumberedDocument, batch["number"].to_pylist(), batch["sequence"].to_pylist(), invoice_records.invoices(batch))
        at = lot.end
