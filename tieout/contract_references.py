"""Whether what a contract version refers to is in the reference data.

In: a version with its charges resolved, and the reference data. Out: every reference that is unknown at the version's
``effective_from``, with its path. A kind of which the reference data holds nothing at all is not looked at, so an
installation begins with what it has. Source: docs/contracts.md (references).
"""

from collections.abc import Iterator
from typing import Final

from tieout.contracts import Charge, ContractVersion
from tieout.problems import Problem
from tieout.reference import ReferenceBook

ROLES: Final = ("receivable", "revenue")
"""Accounts without which a legal entity cannot invoice anything."""


def problems(version: ContractVersion, reference: ReferenceBook) -> list[Problem]:
    """All unknown references."""
    return [*_customer(version, reference), *_entities(version, reference), *_charges(version, reference)]


def _customer(version: ContractVersion, reference: ReferenceBook) -> Iterator[Problem]:
    if _is_missing(reference, "customer", version.customer_id, version):
        yield _unknown("customer_id", "customer_unknown", "customer", version.customer_id, version)


def _entities(version: ContractVersion, reference: ReferenceBook) -> Iterator[Problem]:
    """The contract's legal entity and those of its charges: known, with accounts, and a rate into their books' currency."""
    given = {"legal_entity_id": version.legal_entity_id}
    for at, charge in enumerate(version.charges):
        if charge.legal_entity_id is not None and charge.legal_entity_id not in given.values():
            given[_path(version, charge, at, "legal_entity_id")] = charge.legal_entity_id
    instant = version.effective_from_us
    for path, name in given.items():
        if _is_missing(reference, "legal_entity", name, version):
            yield _unknown(path, "legal_entity_unknown", "legal entity", name, version)
            continue
        if reference.has("account_mapping"):
            mapped = {record.value["role"] for record in reference.holding("account_mapping", instant) if record.value["legal_entity_id"] == name}
            missing = [role for role in ROLES if role not in mapped]
            if missing:
                yield Problem(path, "account_unmapped", f"legal entity {name!r} has no account for {' and '.join(missing)} at {_at(version)}; record account mappings with 'tieout reference put'")
        entity = reference.at("legal_entity", name, instant)
        if entity is not None and entity.value["currency"] != version.currency and reference.has("exchange_rate"):
            wanted = (version.currency, entity.value["currency"])
            known = [record for key in reference.keys("exchange_rate") for record in reference.history("exchange_rate", key)]
            if wanted not in {(record.value["from_currency"], record.value["to_currency"]) for record in known}:
                yield Problem("currency", "exchange_rate_unknown", f"the books of legal entity {name!r} are in {wanted[1]} and no rate from {wanted[0]} is known; record one with 'tieout reference put', or use the currency of the books")


def _charges(version: ContractVersion, reference: ReferenceBook) -> Iterator[Problem]:
    for at, charge in enumerate(version.charges):
        if charge.meter is not None and _is_missing(reference, "meter", charge.meter, version):
            yield _unknown(_path(version, charge, at, "meter"), "meter_unknown", "meter", charge.meter, version)
        if charge.product_id is None:
            continue
        path = _path(version, charge, at, "product_id")
        if _is_missing(reference, "product", charge.product_id, version):
            yield _unknown(path, "product_unknown", "product", charge.product_id, version)
        elif reference.has("tax_rate"):
            yield from _tax(version, charge.product_id, path, reference)


def _tax(version: ContractVersion, product_id: str, path: str, reference: ReferenceBook) -> Iterator[Problem]:
    """A rate for the product's tax code where the customer is taxed; anywhere, where that is not known."""
    instant = version.effective_from_us
    product, customer = reference.at("product", product_id, instant), reference.at("customer", version.customer_id, instant)
    code = None if product is None else product.value["tax_code"]
    if code is None:
        return
    where = None if customer is None else customer.value["tax_jurisdiction"]
    rates = [record.value for record in reference.holding("tax_rate", instant) if record.value["tax_code"] == code]
    if not any(where in (None, rate["jurisdiction"]) for rate in rates):
        place = "" if where is None else f" in {where}"
        yield Problem(path, "tax_code_unknown", f"product {product_id!r} has tax code {code!r}, which has no rate{place} at {_at(version)}; record the rate with 'tieout reference put'")


def _is_missing(reference: ReferenceBook, kind: str, key: str, version: ContractVersion) -> bool:
    return reference.has(kind) and reference.at(kind, key, version.effective_from_us) is None


def _unknown(path: str, code: str, kind: str, key: str, version: ContractVersion) -> Problem:
    return Problem(path, code, f"the reference data knows no {kind} {key!r} at {_at(version)}; record it with 'tieout reference put', or correct the name")


def _at(version: ContractVersion) -> str:
    return version.effective_from.isoformat()


def _path(version: ContractVersion, charge: Charge, at: int, field: str) -> str:
    """Where a charge stands in the document: in a rate card it is named by its id."""
    if version.rate_card is None:
        return f"charges.{at}.{field}"
    overridden = [place for place, override in enumerate(version.overrides) if override.charge_id == charge.charge_id]
    return f"overrides.{overridden[0]}.{field}" if overridden else f"rate_card.charges.{charge.charge_id}.{field}"
