"""Tax facts: what a bill asks of the reference data."""

from typing import Literal, NamedTuple, Protocol

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

    def percent(self, jurisdiction: str, tax_code: str, instant: int) -> str | None:
        """The rate in percent, as a decimal text."""
