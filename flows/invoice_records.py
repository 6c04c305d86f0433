"""Invoices and credit notes without numbers as records of ``billing.invoice.v1``, and back.

In: documents as invoicing makes them. Out: rows of ``invoice.avsc``, framed values, records keyed by customer; and the
documents that such rows describe, equal in every field. Columns are made at once for many documents, because a close
brings them by the hundred thousand. Source: docs/interfaces.md (invoice).
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Final

import numpy as np
import pyarrow as pa

from flows import codecs, line_records
from flows.line_records import amounts, instants, lists, minors, split, struct, texts, times
from schemas import segments
from tieout.invoicing.records import CreditUse, Invoice
from tieout.period import Period

SCHEMA: Final = "invoice"
_TEXTS: Final = (
    "invoice_id", "kind", "status", "customer_id", "contract_id", "legal_entity_id", "currency", "tax_treatment", "time_zone", "voids", "credits_invoice",
)  # fmt: skip


class InvoiceRecordError(ValueError):
    """A record of an invoice topic that cannot be read; the message names the first one by its row."""


def records(invoices: Sequence[Invoice], stamps: Sequence[int]) -> pa.RecordBatch:
    """Topic records of documents, with their record times in UTC microseconds."""
    return segments.records(encode(invoices), texts(one.customer_id for one in invoices), np.array(stamps, np.int64))


def encode(invoices: Sequence[Invoice]) -> pa.Array:
    """Documents as framed values."""
    return codecs.encode(SCHEMA, rows(invoices))


def decode(values: pa.Array) -> list[Invoice]:
    """Documents from framed values; InvoiceRecordError where one cannot be read."""
    return invoices(columns(values, SCHEMA))


def columns(values: pa.Array, schema: str) -> pa.RecordBatch:
    """Framed values as rows of a schema; InvoiceRecordError where one cannot be read."""
    decoded = codecs.own(schema).decode(values)
    if decoded.rejected:
        first = decoded.rejected[0]
        msg = f"record {first.row}: {first.message}"
        raise InvoiceRecordError(msg)
    return decoded.batch


def rows(invoices: Sequence[Invoice]) -> pa.RecordBatch:
    """One row a document."""
    currencies = [one.currency for one in invoices]
    lines = [line for one in invoices for line in one.lines]
    contracts = [one.contract_id for one in invoices for _ in one.lines]
    uses = [currency for one, currency in zip(invoices, currencies, strict=True) for _ in one.credits]
    periods = [one.period for one in invoices]
    return pa.RecordBatch.from_pydict({
        "invoice_id": texts(one.invoice_id for one in invoices), "kind": texts(one.kind for one in invoices), "status": texts(one.status for one in invoices),
        "customer_id": texts(one.customer_id for one in invoices), "contract_id": texts(one.contract_id for one in invoices),
        "legal_entity_id": texts(one.legal_entity_id for one in invoices), "currency": texts(currencies),
        "period": struct({
            "label": texts(one.label for one in periods), "start": times(one.start_us for one in periods), "end": times(one.end_us for one in periods),
            "start_on": _days(one.start_on for one in periods), "end_on": _days(one.end_on for one in periods),
        }),
        "time_zone": texts(one.time_zone for one in invoices),
        "issued_on": _days(date.fromisoformat(one.issued_on) for one in invoices), "due_on": _days(date.fromisoformat(one.due_on) for one in invoices),
        "lines": lists([one.lines for one in invoices], lambda _: line_records.structs(lines, contracts)),
        "subtotal": amounts([one.subtotal for one in invoices], currencies), "tax": amounts([one.tax for one in invoices], currencies),
        "total": amounts([one.total for one in invoices], currencies), "tax_treatment": texts(one.tax_treatment for one in invoices),
        "credits": lists([one.credits for one in invoices], lambda items: _credits(items, uses)),
        "amount_due": amounts([one.amount_due for one in invoices], currencies),
        "voids": texts(one.voids for one in invoices), "credits_invoice": texts(one.credits_invoice for one in invoices),
    })  # fmt: skip


def invoices(batch: pa.RecordBatch) -> list[Invoice]:
    """The documents of rows; columns beside those of an invoice are left alone."""
    found = {name: batch[name].to_pylist() for name in _TEXTS}
    currencies = found["currency"]
    sums = {name: minors(batch[name], currencies) for name in ("subtotal", "tax", "total", "amount_due")}
    lines = split(line_records.read(batch["lines"].flatten()), batch["lines"])
    parts = zip(_periods(batch["period"]), batch["issued_on"].to_pylist(), batch["due_on"].to_pylist(), lines, _read_credits(batch["credits"], currencies), strict=True)
    return [
        Invoice(
            **{name: values[row] for name, values in (found | sums).items()},
            period=period, issued_on=issued.isoformat(), due_on=due.isoformat(), lines=tuple(mine), credits=tuple(uses),
        )
        for row, (period, issued, due, mine, uses) in enumerate(parts)
    ]  # fmt: skip


def _days(days: Iterable[date]) -> pa.Array:
    return pa.array(list(days), pa.date32())


def _credits(uses: Sequence[CreditUse], currencies: Sequence[str]) -> pa.StructArray:
    return struct({
        "grant_id": texts(use.grant_id for use in uses), "applied": amounts([use.applied for use in uses], currencies),
        "balance": amounts([use.balance for use in uses], currencies),
    })  # fmt: skip


def _read_credits(column: pa.ListArray, currencies: Sequence[str]) -> list[Sequence[CreditUse]]:
    lengths = column.value_lengths().to_pylist()
    each = [currency for currency, length in zip(currencies, lengths, strict=True) for _ in range(length)]
    grant, applied, balance = column.flatten().flatten()
    return split(list(map(CreditUse, grant.to_pylist(), minors(applied, each), minors(balance, each))), column)


def _periods(column: pa.StructArray) -> list[Period]:
    label, start, end, start_on, end_on = column.flatten()
    return list(map(Period, instants(start), instants(end), start_on.to_pylist(), end_on.to_pylist(), label.to_pylist()))
