"""Tax facts from the reference data: customers, products and tax rates, as of an instant.

In: a book of dated records. Out: what ``tax`` asks. A rate is found by jurisdiction and tax code, whatever its key; of two
that hold, the one recorded last. Source: docs/contracts.md (reference data).
"""

from fractions import Fraction

from tieout.invoicing.tax import TaxPayer
from tieout.reference import ReferenceBook, ReferenceRecord


class ReferenceTaxes:
    """``Taxes`` over a book; what is learned later is seen at once."""

    def __init__(self, book: ReferenceBook) -> None:
        self._book = book

    def payer(self, customer_id: str, instant: int) -> TaxPayer:
        """How a customer is taxed; one that is not recorded has no jurisdiction."""
        found = self._book.at("customer", customer_id, instant)
        if found is None:
            return TaxPayer(None, "standard")
        return TaxPayer(found.value["tax_jurisdiction"], found.value.get("tax_treatment") or "standard")

    def code(self, product_id: str, instant: int) -> str | None:
        """The tax code of a product."""
        found = self._book.at("product", product_id, instant)
        return None if found is None else found.value["tax_code"]

    def percent(self, jurisdiction: str, tax_code: str, instant: int) -> Fraction | None:
        """The rate in percent."""
        rates = [r for r in self._book.holding("tax_rate", instant) if (r.value["jurisdiction"], r.value["tax_code"]) == (jurisdiction, tax_code)]
        return Fraction(max(rates, key=_recorded).value["rate_percent"]) if rates else None


def _recorded(record: ReferenceRecord) -> tuple[int, tuple[int, int]]:
    return record.recorded_at, record.position
