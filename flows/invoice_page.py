"""Invoices as one HTML page to read or to print: a sheet a document, no scripts, nothing loaded from elsewhere.

In: invoice documents of docs/interfaces.md, and statements over them. Out: the page. Every text that comes from outside is escaped.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Any, Final
from zoneinfo import ZoneInfo

_STYLE: Final = """
:root { --ink: #1c2430; --soft: #667085; --rule: #d8dde5; --deep: #22577a; }
* { box-sizing: border-box; }
body { margin: 0; background: #eef1f5; color: var(--ink); font: 14px/1.45 "Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif; }
.sheet { width: 210mm; min-height: 270mm; margin: 24px auto; padding: 18mm 18mm 14mm; background: #fff; box-shadow: 0 1px 6px rgb(0 0 0 / 12%); }
header { display: flex; justify-content: space-between; align-items: flex-start; border-bottom: 3px solid var(--deep); padding-bottom: 14px; }
h1 { margin: 0; font-size: 28px; font-weight: 600; color: var(--deep); }
.from { text-align: right; font-size: 16px; font-weight: 600; }
.from small, .facts dt { color: var(--soft); font-size: 11.5px; font-weight: 400; }
.from small { display: block; }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 14px; margin: 18px 0 22px; }
.facts dt, .facts dd { margin: 0; }
.facts dd { font-weight: 600; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: 11.5px; font-weight: 400; color: var(--soft); border-bottom: 1px solid var(--ink); padding: 4px 8px 4px 0; }
td { padding: 8px 8px 8px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr { break-inside: avoid; }
td small { display: block; color: var(--soft); font-size: 11.5px; }
.n { text-align: right; padding-right: 0; white-space: nowrap; font-variant-numeric: tabular-nums; }
th.n + th.n, td.n + td.n { padding-left: 12px; }
.sums { width: 88mm; margin: 14px 0 0 auto; }
.sums td { border: 0; padding: 3px 0; }
.sums .whole td { border-top: 1px solid var(--ink); font-weight: 600; padding-top: 7px; }
.sums .due td { font-size: 17px; font-weight: 600; color: var(--deep); border-top: 2px solid var(--deep); padding-top: 7px; }
.note { margin-top: 16px; padding: 9px 12px; border-left: 3px solid var(--deep); background: #f4f7fa; }
footer { margin-top: 22px; color: var(--soft); font-size: 11px; overflow-wrap: anywhere; }
@page { size: A4; margin: 0; }
@media print { body { background: #fff; } .sheet { margin: 0; box-shadow: none; break-after: page; } .sheet:last-child { break-after: auto; } }
"""
_NAMES: Final = {
    "usage": "Usage", "fee": "Fee", "minimum": "Minimum", "commitment": "Commitment", "overage": "Overage", "coupon": "Coupon", "credit": "Prepaid credit",
    "delta": "Correction", "tax": "Tax",
}
_TITLES: Final = {"invoice": "Invoice", "credit_note": "Credit note"}
_NOTES: Final = {
    "exempt": "The customer is exempt from tax.",
    "reverse_charge": "Reverse charge: the recipient accounts for the tax.",
}


def page(invoices: Sequence[Mapping[str, Any]], statements: Sequence[Mapping[str, Any]] = ()) -> str:
    """The documents as a page, behind the statements over them."""
    sheets = "\n".join([*(_statement(one) for one in statements), *(_sheet(one) for one in invoices)]) or '<main class="sheet"><p>Nothing is billed for this period.</p></main>'
    return f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Invoices</title><style>{_STYLE}</style></head>\n<body>\n{sheets}\n</body>\n</html>\n'


def _sheet(one: Mapping[str, Any]) -> str:
    title = _TITLES[one["kind"]]
    facts = (
        ("Customer", one["customer_id"]), ("Contract", one["contract_id"]), ("Billing period", one["period"]["label"]), ("Currency", one["currency"]),
        ("Number", one["number"] or "not numbered yet"), ("Issued", one["issued_on"]), _due(one), ("Status", one["status"]),
    )
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    rows = "".join(_row(line, one["time_zone"]) for line in one["lines"] if line["kind"] != "tax")
    return (
        f'<main class="sheet">\n<header><h1>{title}</h1><div class="from">{escape(one["legal_entity_id"])}<small>issuing entity</small></div></header>\n'
        f'<dl class="facts">{cells}</dl>\n'
        '<table><thead><tr><th>Description</th><th>Service period</th><th class="n">Quantity</th><th class="n">Amount</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>\n{_sums(one)}{_notes(one)}"
        f"<footer>Document {escape(one['invoice_id'])}. Amounts are rounded half up, once for each line.</footer>\n</main>"
    )


def _due(one: Mapping[str, Any]) -> tuple[str, str]:
    """When an invoice is due; a credit note is due to nobody, it says what it takes back."""
    taken = one["voids"] or one["credits_invoice"]
    return ("Due", one["due_on"]) if one["kind"] != "credit_note" else ("Credits", taken or "earlier documents")


def _statement(one: Mapping[str, Any]) -> str:
    """A customer's statement: all documents, and the sums by legal entity."""
    facts = (("Customer", one["customer_id"]), ("Currency", one["currency"]), ("Documents", len(one["documents"])), ("Legal entities", len(one["by_entity"])))
    cells = "".join(f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts)
    rows = "".join(
        f'<tr><td>{_TITLES[entry["kind"]]}<small>{escape(entry["invoice_id"])}</small></td><td>{escape(entry["issued_on"])}</td>'
        f'<td>{escape(entry["legal_entity_id"])}<small>{escape(entry["contract_id"])}</small></td>'
        f'<td class="n">{entry["total"]}</td><td class="n">{entry["amount_due"]}</td></tr>'
        for entry in one["documents"]
    )
    sums = "".join(_sum(f"Amount due to {entity['legal_entity_id']}", entity["amount_due"]) for entity in one["by_entity"])
    return (
        f'<main class="sheet">\n<header><h1>Statement</h1></header>\n<dl class="facts">{cells}</dl>\n'
        '<table><thead><tr><th>Document</th><th>Issued</th><th>Legal entity, contract</th><th class="n">Total</th><th class="n">Amount due</th></tr></thead>'
        f'<tbody>{rows}</tbody></table>\n<table class="sums"><tbody>{_sum("Total", one["total"])}{sums}{_sum("Amount due in " + one["currency"], one["amount_due"], "due")}</tbody></table>\n'
        "<footer>A statement is told beside the documents; each of them is paid by itself.</footer>\n</main>"
    )


def _row(line: Mapping[str, Any], zone: str) -> str:
    what = " · ".join(str(part) for part in (line["charge_id"], *(line["group"] or ())) if part is not None)
    told = [" ".join(part for part in (_NAMES[line["kind"]], line["ref"]) if part)]
    if line["delta_of"]:
        told.append(f"changes line {line['delta_of'][:8]}")
    told += [f"{tier['quantity']} {_bound(tier['up_to'])}: {tier['amount']}" for tier in line["tiers"]]
    quantity = line["quantity"] if line["quantity"] != "0" else ""
    small = "".join(f"<small>{escape(part)}</small>" for part in told[0 if what else 1 :])
    span = _span(line["service_period"], zone)
    return f'<tr><td>{escape(what or told[0])}{small}</td><td>{span}</td><td class="n">{escape(quantity)}</td><td class="n">{escape(line["amount"])}</td></tr>'


def _bound(up_to: str | None) -> str:
    return "in the last tier" if up_to is None else f"in the tier up to {up_to}"


def _span(service: Mapping[str, str], zone: str) -> str:
    """A half-open span by its first and last day in the contract's zone."""
    first, end = (datetime.fromisoformat(service[name]).astimezone(ZoneInfo(zone)) for name in ("start", "end"))
    last = max(first, end - timedelta(microseconds=1))
    return f"{first.date()} – {last.date()}"


def _sums(one: Mapping[str, Any]) -> str:
    taxes = "".join(_sum(f"Tax {line['tax_code']}", line["amount"]) for line in one["lines"] if line["kind"] == "tax")
    paid = "".join(_sum(f"Paid by credit {use['grant_id']}, {use['balance']} left", f"-{use['applied']}".replace("--", "")) for use in one["credits"])
    total = _sum("Total", one["total"], "whole")
    owed = one["amount_due"].startswith("-")
    due = _sum(f"Amount in your favour in {one['currency']}" if owed else f"Amount due in {one['currency']}", one["amount_due"].removeprefix("-"), "due")
    return f'<table class="sums"><tbody>{_sum("Subtotal", one["subtotal"])}{taxes}{total}{paid}{due}</tbody></table>\n'


def _sum(name: str, amount: str, kind: str = "") -> str:
    return f'<tr class="{kind}"><td>{escape(name)}</td><td class="n">{escape(amount)}</td></tr>'


def _notes(one: Mapping[str, Any]) -> str:
    notes = [_NOTES.get(one["tax_treatment"] or "", "")]
    if one["voids"]:
        notes.append(f"This document voids {one['voids']}.")
    if one["credits_invoice"]:
        notes.append(f"This document credits {one['credits_invoice']}.")
    return "".join(f'<p class="note">{escape(note)}</p>\n' for note in notes if note)
