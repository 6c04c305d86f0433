"""Lines, invoices and statements as the JSON documents of docs/interfaces.md: money, prices and quantities as decimal strings."""

from collections.abc import Iterable
from datetime import UTC, timedelta
from fractions import Fraction
from typing import Any

from tieout import ids, money
from tieout.invoicing.records import CreditUse, Invoice, Line
from tieout.invoicing.statement import Statement
from tieout.period import EPOCH
from tieout.rating.adjustments import QUANTITY, RATED
from tieout.rating.rater import chain_pair


def invoice_document(invoice: Invoice) -> dict[str, Any]:
    """An unnumbered invoice."""
    currency, period = invoice.currency, invoice.period
    return {
        "invoice_id": invoice.invoice_id, "kind": invoice.kind, "number": None, "status": invoice.status,
        "customer_id": invoice.customer_id, "contract_id": invoice.contract_id, "legal_entity_id": invoice.legal_entity_id, "currency": currency,
        "period": {"label": period.label, "start": time_text(period.start_us), "end": time_text(period.end_us)}, "time_zone": invoice.time_zone,
        "issued_on": invoice.issued_on, "due_on": invoice.due_on,
        "lines": [line_document(one, invoice.contract_id) for one in invoice.lines],
        "subtotal": amount_text(invoice.subtotal, currency), "tax": amount_text(invoice.tax, currency), "total": amount_text(invoice.total, currency),
        "tax_treatment": invoice.tax_treatment, "credits": credit_documents(invoice.credits, currency),
        "amount_due": amount_text(invoice.amount_due, currency), "voids": invoice.voids, "credits_invoice": invoice.credits_invoice,
    }  # fmt: skip


def line_document(line: Line, contract_id: str) -> dict[str, Any]:
    """One line."""
    key = line.key
    return {
        "line_id": line.line_id, "correlation_id": correlation_id(line, contract_id), "contract_id": contract_id, "charge_id": key.charge_id or None,
        "group": None if key.group is None else list(key.group), "kind": line.kind, "ref": key.ref[0] if key.ref else None, "period": line.period,
        "service_period": {"start": time_text(line.start_us), "end": time_text(line.end_us)}, "delta_of": line.delta_of,
        "contract_versions": list(line.versions), "legal_entity_id": key.legal_entity_id,
        "quantity": exact_text(Fraction(line.quantity, QUANTITY)),
        "tiers": [
            {"up_to": None if tier.up_to is None else exact_text(Fraction(tier.up_to, QUANTITY)), "quantity": exact_text(Fraction(*tier.quantity)), "amount": exact_text(Fraction(*tier.amount))}
            for tier in line.tiers
        ],
        "usage_amount_exact": exact_text(Fraction(line.usage_exact, RATED)), "amount_exact": exact_text(line.exact),
        "amount": amount_text(line.amount, key.currency), "currency": key.currency, "tax_code": line.tax_code,
        "usage_count": line.usage_count, "usage_digest": f"{line.usage_digest:032x}",
    }  # fmt: skip


def correlation_id(line: Line, contract_id: str) -> str:
    """Contract, charge, group and billing period as one id, carried to the ledger."""
    key = line.key
    high, low = chain_pair(ids.pair_of(ids.of_text(contract_id), ids.of_text(key.charge_id)), key.group, key.period_us)
    return f"{high:016x}{low:016x}"


def credit_documents(uses: Iterable[CreditUse], currency: str) -> list[dict[str, str]]:
    """What grants paid."""
    return [{"grant_id": one.grant_id, "applied": amount_text(one.applied, currency), "balance": amount_text(one.balance, currency)} for one in uses]


def statement_document(statement: Statement) -> dict[str, Any]:
    """A customer's statement in one currency."""
    currency = statement.currency
    return {
        "customer_id": statement.customer_id, "currency": currency,
        "documents": [
            {"issued_on": one.issued_on, "legal_entity_id": one.legal_entity_id, "contract_id": one.contract_id, "invoice_id": one.invoice_id, "kind": one.kind, "total": amount_text(one.total, currency), "amount_due": amount_text(one.amount_due, currency)}
            for one in statement.entries
        ],
        "by_entity": [{"legal_entity_id": name, "total": amount_text(total, currency), "amount_due": amount_text(due, currency)} for name, total, due in statement.by_entity],
        "total": amount_text(statement.total, currency), "amount_due": amount_text(statement.amount_due, currency),
    }  # fmt: skip


def amount_text(amount: int, currency: str) -> str:
    """Minor units as a decimal of the currency's places."""
    return format(money.decimal(amount, money.minor_unit(currency)), "f")


def time_text(instant: int) -> str:
    """An instant in UTC with microseconds."""
    return (EPOCH + timedelta(microseconds=instant)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def exact_text(value: Fraction) -> str:
    """An exact figure: a decimal where it is one, else a fraction ``n/d``."""
    scale = value.denominator.bit_length()  # 2^n and 5^n divide 10^n, and n is at most this
    if 10**scale % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    units = value.numerator * 10**scale // value.denominator
    text = format(money.decimal(units, scale), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
