"""The consolidated statement of a customer: the documents of all its contracts and legal entities, by currency.

In: documents, final ones only. Out: a statement for each customer and currency, its entries in the order of their issue,
with the sums by legal entity. It is told beside the documents and is none itself: nothing is added, rounded or converted.
Source: docs/semantics.md section 5.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tieout.invoicing.records import Invoice


class Entry(NamedTuple):
    """One document; amounts in minor units."""

    issued_on: str
    legal_entity_id: str
    contract_id: str
    invoice_id: str
    kind: str
    total: int
    amount_due: int


class Statement(NamedTuple):
    """All documents of a customer in one currency; ``by_entity`` is (legal entity, total, amount due)."""

    customer_id: str
    currency: str
    entries: tuple[Entry, ...]
    by_entity: tuple[tuple[str, int, int], ...]
    total: int
    amount_due: int


def statements(invoices: Iterable[Invoice]) -> tuple[Statement, ...]:
    """The statements of these documents, by customer and currency."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for one in invoices:
        entry = Entry(one.issued_on, one.legal_entity_id, one.contract_id, one.invoice_id, one.kind, one.total, one.amount_due)
        found.setdefault((one.customer_id, one.currency), []).append(entry)
    return tuple(_statement(place, sorted(found[place])) for place in sorted(found))


def _statement(place: tuple[str, str], entries: list[Entry]) -> Statement:
    sums: dict[str, tuple[int, int]] = {}
    for one in entries:
        total, due = sums.get(one.legal_entity_id, (0, 0))
        sums[one.legal_entity_id] = (total + one.total, due + one.amount_due)
    by_entity = tuple((entity, *sums[entity]) for entity in sorted(sums))
    return Statement(*place, tuple(entries), by_entity, sum(one.total for one in entries), sum(one.amount_due for one in entries))
