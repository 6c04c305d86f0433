"""Tax on discounted lines: dated rates by jurisdiction and the product's tax code.

In: the lines of one billing period and dated facts. Out: the lines with their tax codes, and for each legal entity,
currency and code one line of ``r(sum of the rounded lines x rate)``; or why it cannot be said. Facts are those of the
billing period's last instant, also where the period is computed again later. Exempt and reverse-charge customers have no
tax lines. A line of the contract as a whole has the code that all its charges share. Prepaid credits are a way to pay:
their purchase is not taxed and they do not lower the base. Source: docs/semantics.md sections 4 and 5.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple, Protocol

from tieout.contracts import ContractVersion
from tieout.invoicing.concessions import CONCESSION, lowered
from tieout.invoicing.lines import major, minor
from tieout.invoicing.records import Held, Line, LineKey
from tieout.period import Period

Treatment = Literal["standard", "exempt", "reverse_charge"]


class TaxPayer(NamedTuple):
    """Where a customer is taxed, and how."""

    jurisdiction: str | None
    treatment: Treatment


class Taxes(Protocol):
    """Dated facts; None where they are not recorded."""

    def payer(self, customer_id: str, instant: int) -> TaxPayer:
        """How a customer is taxed at an instant."""

    def code(self, product_id: str, instant: int) -> str | None:
        """The tax code of a product."""

    def percent(self, jurisdiction: str, tax_code: str, instant: int) -> Fraction | None:
        """The rate in percent."""


class TaxMissing(Exception):
    """Something is not recorded that a tax needs."""

    def __init__(self, held: Held) -> None:
        super().__init__(held.message)
        self.held = held


def taxed(lines: Sequence[Line], version: ContractVersion, period: Period, taxes: Taxes) -> list[Line]:
    """The lines with their codes, and their tax lines after them; TaxMissing where a fact is not recorded."""
    instant = period.end_us - 1
    payer = taxes.payer(version.customer_id, instant)
    if payer.treatment != "standard":
        return list(lines)
    coded = [one._replace(tax_code=_code(one, version, taxes, instant)) if one.amount and _taxable(one) else one for one in lines]
    bases: dict[tuple[str, str, str], int] = {}
    for one in coded:
        if one.tax_code is not None:
            place = (one.key.legal_entity_id, one.key.currency, one.tax_code)
            bases[place] = bases.get(place, 0) + one.amount
    return coded + [_line(version, period, place, base, _percent(payer, place[2], version, taxes, instant)) for place, base in bases.items()]


def _taxable(one: Line) -> bool:
    """Whether a line is taxed; purchases of credits, and concessions on them, are not."""
    return one.key.kind != "credit" and (one.key.kind != CONCESSION or lowered(one.key).kind != "credit")


def _code(one: Line, version: ContractVersion, taxes: Taxes, instant: int) -> str:
    products = [one.product_id] if one.key.charge_id else list(dict.fromkeys(charge.product_id for charge in version.charges))
    codes = {None if product is None else taxes.code(product, instant) for product in products}
    if len(codes) > 1:
        msg = f"the charges of contract {version.contract_id} have different tax codes, so its {one.kind} line has none; give the commitment the scope of one charge"
        raise TaxMissing(Held("tax_code", version.contract_id, msg))
    found = next(iter(codes), None)
    if found is None:
        product = products[0] if products else None
        subject = one.key.charge_id or version.contract_id
        told = f"product {product} has no tax code" if product is not None else f"charge {subject} names no product"
        raise TaxMissing(Held("tax_code", product or subject, f"{told} at the end of the billing period; record it, and the invoice is made"))
    return found


def _percent(payer: TaxPayer, code: str, version: ContractVersion, taxes: Taxes, instant: int) -> Fraction:
    if payer.jurisdiction is None:
        msg = f"customer {version.customer_id} has no tax jurisdiction at the end of the billing period; record it, and the invoice is made"
        raise TaxMissing(Held("tax_jurisdiction", version.customer_id, msg))
    found = taxes.percent(payer.jurisdiction, code, instant)
    if found is None:
        msg = f"no rate of tax code {code} in {payer.jurisdiction} holds at the end of the billing period; record it, and the invoice is made"
        raise TaxMissing(Held("tax_rate", f"{payer.jurisdiction}/{code}", msg))
    return found


def _line(version: ContractVersion, period: Period, place: tuple[str, str, str], base: int, percent: Fraction) -> Line:
    entity, currency, code = place
    exact = major(base, currency) * percent / 100
    key = LineKey(period.start_us, "", None, "tax", (code,), period.start_us, entity, currency)
    return Line(
        key, period.end_us, period.label, (version.version,), 0, 0, exact, minor(exact, currency),
        tax_code=code, kind="tax", start_us=period.start_us,
    )  # fmt: skip
