"""``tieout document``: numbered invoices and credit notes of a folder or a broker, as a list, one whole, or a page to print."""

import argparse
from pathlib import Path
from typing import Any

from flows import document_view, invoice_page, output
from flows.cli import CommandError
from flows.commands import places
from flows.document_view import NumberedDocument
from schemas.registry import Registry
from tieout import numbering
from tieout.invoicing.wire import amount_text

_FACTS = ("kind", "customer_id", "contract_id", "issued_on", "due_on", "currency")
_SUMS = ("total", "amount_due")
_LINES = ("charge_id", "kind", "period", "quantity", "amount_exact", "amount", "tax_code")


def run(options: argparse.Namespace) -> int:
    """List the documents, or show one by its number."""
    place = places.place(options)
    with places.pinned(None if options.registry is None else Registry(options.registry), options.schema_lock):
        if options.what == "ls":
            if options.number or options.html:
                msg = "document ls: lists all documents; to see one whole, or as a page, write 'tieout document show NUMBER'"
                raise CommandError(msg, 2)
            output.show([_row(one) for one in document_view.all_of(place)], options.output)
            return 0
        if options.number is None:
            msg = "document show: name the document, as in 'tieout document show us-inc-00000017'; 'tieout document ls' lists them"
            raise CommandError(msg, 2)
        return _show(place, options)


def _row(one: NumberedDocument) -> dict[str, Any]:
    sums = {name: amount_text(getattr(one.invoice, name), one.invoice.currency) for name in _SUMS}
    return {"number": one.number} | {name: getattr(one.invoice, name) for name in _FACTS} | sums


def _show(place: Any, options: argparse.Namespace) -> int:
    try:
        found = document_view.find(place, options.number)
    except ValueError as error:
        raise CommandError(str(error), 2) from None
    if found is None:
        entity, _ = numbering.parsed(options.number)
        msg = f"{place.name}: no document has the number {options.number}; 'tieout document ls' lists those of {entity!r} that there are"
        raise CommandError(msg)
    document = found.document()
    if options.html:
        Path(options.html).write_text(invoice_page.page([document]))
    if options.output == "table":
        output.show([{name: document[name] for name in ("number", *_FACTS[:5], "legal_entity_id", "invoice_id")}], "table")
        output.show([{"service": line["service_period"]["start"][:10]} | {name: line[name] for name in _LINES} for line in document["lines"]], "table", "lines")
        output.show([{name: document[name] for name in ("currency", "subtotal", "tax", "total", "amount_due")}], "table")
    else:
        output.show([document], options.output)
    return 0
