"""Documents: lines of one close put together, one document for each legal entity and currency.

In: the lines to bill, and what credits paid of them. Out: unnumbered final invoices with derived ids; one whose total is
below 0 is a credit note, one that would say nothing is not issued. Numbers are given later, by legal entity. Source: docs/semantics.md section 5.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta

from tieout import ids, payment_terms
from tieout.contracts import ContractVersion
from tieout.invoicing.credits import Grant, balances, shown
from tieout.invoicing.records import Account, Burn, CreditUse, Invoice, Line
from tieout.period import Period, local


def documents(account: Account, version: ContractVersion, period: Period, lines: Sequence[Line], credit: Mapping[tuple[str, str], tuple[CreditUse, ...]], treatment: str | None, as_of: int) -> Iterator[Invoice]:
    """The documents of a close, by legal entity and currency in the order of their first lines; where only credits pay, one without lines."""
    places = dict.fromkeys([*((one.key.legal_entity_id, one.key.currency) for one in lines), *credit])
    for number, place in enumerate(places):
        mine = tuple(one for one in lines if (one.key.legal_entity_id, one.key.currency) == place)
        yield document(version, period, place, mine, credit.get(place, ()), account.issued + number, treatment, as_of)


def divided(lines: Sequence[Line], paid: Collection[tuple[str, str]]) -> tuple[list[Line], list[Line]]:
    """The lines that documents tell, and those of documents that are not issued because they would say nothing.

    A document says something where a line of it has an amount or usage behind it, or where credits pay (or are given back) in
    its legal entity and currency (``paid``).
    """
    spoken = {(one.key.legal_entity_id, one.key.currency) for one in lines if one.amount or one.usage_count or one.usage_exact} | set(paid)
    told = [one for one in lines if (one.key.legal_entity_id, one.key.currency) in spoken]
    return told, [one for one in lines if (one.key.legal_entity_id, one.key.currency) not in spoken]


def document(version: ContractVersion, period: Period, place: tuple[str, str], lines: tuple[Line, ...], credit: tuple[CreditUse, ...], number: int, treatment: str | None, as_of: int) -> Invoice:
    """One document; its id comes from the contract, the entity, the period and how many documents the contract had."""
    tax = sum(one.amount for one in lines if one.key.kind == "tax")
    total = sum(one.amount for one in lines)
    issued = local(as_of, version.billing.time_zone).date()
    return Invoice(
        ids.text(("invoice", version.contract_id, *place, period.start_us, number)),
        "credit_note" if total < 0 else "invoice", "final", version.customer_id, version.contract_id, *place, period,
        issued.isoformat(), (issued + timedelta(days=payment_terms.days(version))).isoformat(), lines,
        total - tax, tax, total, credit, total - sum(one.applied for one in credit), treatment, version.billing.time_zone,
    )  # fmt: skip


def credit_uses(grants: Sequence[Grant], account: Account, after: Sequence[Burn], as_of: int) -> dict[tuple[str, str], tuple[CreditUse, ...]]:
    """By legal entity and currency where any grant paid more (or less) than before, what each did, and its balance."""
    left = balances(grants, after, account.broken)
    applied: dict[tuple[str, str], dict[str, int]] = {}
    for burns, sign in ((account.burns, -1), (after, 1)):
        for one in burns:
            uses = applied.setdefault((one.key.legal_entity_id, one.key.currency), {})
            uses[one.grant_id] = uses.get(one.grant_id, 0) + sign * one.amount
    found = {
        place: tuple(CreditUse(g.grant_id, uses[g.grant_id], shown(g, left[g.grant_id], as_of)) for g in grants if uses.get(g.grant_id))
        for place, uses in applied.items()
    }
    return {place: uses for place, uses in found.items() if uses}
