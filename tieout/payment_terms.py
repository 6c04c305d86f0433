"""Payment terms: how many days after its issue an invoice is due.

In: a contract version that says its terms or does not, and the reference data. Out: the version with its terms. In this
order: what the contract says, what is recorded of its customer as it holds at ``effective_from``, 30 days. They are
resolved when a version is published, like the prices of a rate card: a published version keeps its terms whatever becomes
of the customer's record; the next version takes the new ones. Source: docs/semantics.md section 5 (documents).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tieout.reference import ReferenceBook

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

DAYS: Final = 30
"""Where nobody says anything."""


def resolve(version: ContractVersion, reference: ReferenceBook) -> ContractVersion:
    """The version with its payment terms."""
    customer = reference.at("customer", version.customer_id, version.effective_from_us)
    recorded = None if customer is None else customer.value.get("payment_terms_days")
    return version if version.billing.payment_terms_days is not None else _with(version, DAYS if recorded is None else recorded)


def settled(version: ContractVersion) -> ContractVersion:
    """The version with its payment terms where no reference data is at hand."""
    return version if version.billing.payment_terms_days is not None else _with(version, DAYS)


def days(version: ContractVersion) -> int:
    """The days from issue to due."""
    given = version.billing.payment_terms_days
    return DAYS if given is None else given


def _with(version: ContractVersion, given: int) -> ContractVersion:
    return replace(version, billing=replace(version.billing, payment_terms_days=given))
