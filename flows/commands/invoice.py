"""``tieout invoice``: the invoices that would be made, offline, and a statement over them: from files, or many cases from JSON lines."""

import argparse
import json
from pathlib import Path
from typing import Any

from flows import invoice_page, output
from flows.cli import CommandError
from flows.commands import files
from flows.commands.quote import case_events, case_versions, event_defaults
from tieout import payment_terms, usage_document
from tieout.contracts import ContractVersion, parse_contract
from tieout.invoice_case import invoices
from tieout.invoicing.statement import statements
from tieout.invoicing.tax_reference import ReferenceTaxes
from tieout.invoicing.wire import invoice_document, statement_document
from tieout.period import micros
from tieout.problems import ContractRefused
from tieout.reference import ReferenceBook, ReferenceRecord
from tieout.reference_document import ReferenceDocument, ReferenceRefused, parse
from tieout.usage_document import DocumentRefused, UsageDocument

_FIELDS = {"id", "contract", "contracts", "period", "events"}


def run(options: argparse.Namespace) -> int:
    """Answer a batch, or one case as tables; with ``--html`` also as a page."""
    facts = None if options.reference is None else _facts(options.reference)
    if options.batch:
        for number, document in files.read_lines(options.batch):
            name = document.get("id", number) if isinstance(document, dict) else number
            print(json.dumps({"id": name} | _told(_answer(document, facts), options)))
        return 0
    if not options.contract or not options.usage or not options.period:
        msg = "invoice: give --contract, --usage and --period, or --batch; 'tieout invoice --help' shows an example"
        raise CommandError(msg, 2)
    given = files.read_json(options.contract)
    versions = [parse_contract(document) for document in (given if isinstance(given, list) else [given])]
    events = [
        usage_document.parse(event_defaults(document, versions, None, at), f"{options.usage}, line {number}")
        for at, (number, document) in enumerate(files.read_lines(options.usage))
    ]
    answer = _told(_invoices(versions, events, options.period, facts), options)
    if "error" in answer:
        msg = f"{answer['error']['code']}: {answer['error']['message']}"
        raise CommandError(msg)
    if options.html:
        Path(options.html).write_text(invoice_page.page(answer["invoices"], answer.get("statements", ())))
    _show(answer, options.output)
    return 0


def _told(answer: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The answer with its statements where they are asked for, else without."""
    return answer if options.statement else {name: told for name, told in answer.items() if name != "statements"}


def _answer(document: Any, facts: ReferenceBook | None) -> dict[str, Any]:
    try:
        _check(document)
        versions = case_versions(document)
        return _invoices(versions, case_events(document, versions, None), document["period"], facts)
    except ContractRefused as refused:
        first = refused.problems[0]
        return {"error": {"code": first.code, "message": first.message, "path": first.path}}
    except DocumentRefused as refused:
        return {"error": {"code": refused.code, "message": refused.message, "path": refused.path}}


def _check(document: Any) -> None:
    if not isinstance(document, dict):
        raise DocumentRefused("", "not_an_object", "a case is a JSON object")
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise DocumentRefused(unknown[0], "unknown_field", f"unknown field; a case has {', '.join(sorted(_FIELDS))}")
    if not isinstance(document.get("period"), str):
        raise DocumentRefused("period", "field_missing", "name the billing period that closes, as in '2026-10'")


def _invoices(versions: list[ContractVersion], events: list[UsageDocument], period: str, facts: ReferenceBook | None) -> dict[str, Any]:
    known = versions if facts is None else [payment_terms.resolve(version, facts) for version in versions]
    asked = invoices(known, usage_document.columns(events), period, None if facts is None else ReferenceTaxes(facts))
    if asked.held is not None:
        return {"error": {"code": f"held_{asked.held.reason}", "message": asked.held.message, "path": asked.held.subject}}
    told = [statement_document(one) for one in statements(asked.invoices)]
    return {"invoices": [invoice_document(one) for one in asked.invoices], "statements": told}


def _facts(name: str) -> ReferenceBook:
    """What a file of reference records says of customers, products and tax rates."""
    book, records = ReferenceBook(), []
    for number, document in files.read_lines(name):
        try:
            records.append(_record(parse(document), number))
        except ReferenceRefused as refused:
            msg = f"{name}, line {number}: {refused}"
            raise CommandError(msg) from None
    book.learn(records)
    return book


def _record(one: ReferenceDocument, number: int) -> ReferenceRecord:
    """A record that has no author or time of its own yet: it counts as recorded when it begins to hold."""
    value = getattr(one, one.kind)
    fields = {name: getattr(value, name) for name in type(value).__dataclass_fields__}
    recorded = one.recorded_at or one.valid_from
    ends = None if one.valid_to is None else micros(one.valid_to)
    return ReferenceRecord(one.kind, one.key, micros(one.valid_from), ends, micros(recorded), one.author or "", one.reason, fields, (0, number))


def _show(answer: dict[str, Any], how: str) -> None:
    if how != "table":
        print(json.dumps(answer, indent=2 if how == "json" else None))
        return
    for one in answer["invoices"]:
        output.show([{name: one[name] for name in ("invoice_id", "kind", "legal_entity_id", "issued_on", "due_on")}], how, "document")
        shown = ("charge_id", "kind", "quantity", "amount_exact", "amount", "tax_code")
        lines = [{"service": line["service_period"]["start"][:10]} | {name: line[name] for name in shown} for line in one["lines"]]
        output.show(lines, how, "lines")
        output.show([{name: one[name] for name in ("currency", "subtotal", "tax", "total", "amount_due")}], how)
    for one in answer.get("statements", ()):
        output.show(one["documents"], how, f"statement of {one['customer_id']} in {one['currency']}")
        sums = [*one["by_entity"], {"legal_entity_id": "all", "total": one["total"], "amount_due": one["amount_due"]}]
        output.show(sums, how, "by legal entity")
