"""Taking documents back: void, credit note in full or by line, and an amount off a line.

In: the account, a final document of it, and what to take back. Out: the document that says so (a credit note; an invoice
where it takes back a credit note), and the next account. What a void or a credit note by line takes back is billable
again, once: the next bill finds it missing and bills it as it is then; billing the same period again at once is the
re-issue. An amount off a line is a concession: it stays billed, and no usage is released; what is taken off a line never
comes to more than is left of it, now (refused) or after later corrections (``concessions``), and a later void takes back what is
left. Tax goes with its lines: ``r(tax x base taken back to date / base)`` less what went before, so all of it in the end.
Credits that paid for a line are given back, the last burn first. A final document itself never changes.
Source: docs/semantics.md section 5.
"""

from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

from tieout import money
from tieout.contracts import ContractVersion
from tieout.invoicing.concessions import given, key_of, left_of, lowered, net
from tieout.invoicing.credits import Grant, given_back, net_costs
from tieout.invoicing.documents import credit_uses, document
from tieout.invoicing.lines import major
from tieout.invoicing.records import DIGEST, Account, Invoice, Line, LineKey, Posted, Released, line_id


class ReleaseRefused(ValueError):
    """Something cannot be taken back; the message says why and what to do."""


class TakenBack(NamedTuple):
    """The document and the next account."""

    account: Account
    document: Invoice


class _Part(NamedTuple):
    """What is taken back of a line, in minor units; ``whole`` releases it."""

    line: Line
    amount: int
    whole: bool


def void(account: Account, version: ContractVersion, invoice: Invoice, grants: Collection[Grant], as_of: int) -> TakenBack:
    """Take all of a document back that earlier notes have left."""
    parts = [_Part(one, one.amount - _credited(account, one), whole=True) for one in _own(invoice) if not _gone(account, one)]
    if not parts:
        msg = f"invoice {invoice.invoice_id} is taken back already; nothing of it is left to void"
        raise ReleaseRefused(msg)
    return _take_back(account, version, invoice, parts, grants, as_of, voids=True)


def credit_lines(account: Account, version: ContractVersion, invoice: Invoice, lines: Collection[str], grants: Collection[Grant], as_of: int) -> TakenBack:
    """A credit note for whole lines, by id; all lines of a document make it a full one."""
    parts = []
    for one in _chosen(invoice, lines):
        if _gone(account, one):
            msg = f"line {one.line_id} of invoice {invoice.invoice_id} is taken back already"
            raise ReleaseRefused(msg)
        parts.append(_Part(one, one.amount - _credited(account, one), whole=True))
    return _take_back(account, version, invoice, parts, grants, as_of, voids=False)


def credit_amounts(account: Account, version: ContractVersion, invoice: Invoice, amounts: Mapping[str, int], as_of: int) -> TakenBack:
    """A credit note for amounts off lines, in minor units above 0 and at most what is left of the line, net of its coupons."""
    parts = []
    billed = {one.key: one for one in account.billed}
    own = net((one.key, one.amount) for one in invoice.lines)
    for one in _chosen(invoice, amounts):
        left = 0 if _gone(account, one) or lowered(one.key) != one.key else max(own[one.key], 0) - _credited(account, one)
        standing = left_of(billed, lowered(one.key))
        left = left if standing is None else min(left, standing)
        if not 0 < amounts[one.line_id] <= left:
            msg = f"line {one.line_id} of invoice {invoice.invoice_id} has {left} minor units left; take back more than 0 and at most that"
            raise ReleaseRefused(msg)
        parts.append(_Part(one, amounts[one.line_id], whole=False))
    return _take_back(account, version, invoice, parts, (), as_of, voids=False)


def _own(invoice: Invoice) -> list[Line]:
    """A document's lines without tax; those of a note that took lines back say nothing that could be taken back."""
    if invoice.voids or invoice.credits_invoice:
        msg = f"{invoice.invoice_id} takes another document back; bill again instead of taking it back too"
        raise ReleaseRefused(msg)
    return [one for one in invoice.lines if one.key.kind != "tax"]


def _chosen(invoice: Invoice, names: Collection[str]) -> list[Line]:
    found = [one for one in _own(invoice) if one.line_id in names]
    strange = set(names) - {one.line_id for one in found}
    if strange or not names:
        told = f"no line {min(strange)} but for tax" if strange else "no lines were named"
        msg = f"invoice {invoice.invoice_id}: {told}; name lines of the document, tax follows by itself"
        raise ReleaseRefused(msg)
    return found


def _gone(account: Account, line: Line) -> bool:
    return any(one.whole and one.line_id == line.line_id for one in account.released)


def _credited(account: Account, line: Line) -> int:
    return sum(one.amount for one in account.released if one.line_id == line.line_id)


def _take_back(account: Account, version: ContractVersion, invoice: Invoice, parts: list[_Part], grants: Collection[Grant], as_of: int, *, voids: bool) -> TakenBack:
    number = account.issued
    taxes = [_tax(account, invoice, one, parts) for one in invoice.lines if one.key.kind == "tax"]
    lines = [_negative(account.contract_id, part, number) for part in parts]
    lines += [_tax_line(account.contract_id, tax, number) for tax in taxes if tax.amount]
    billed = {one.key: one for one in account.billed}
    gone = next((part.line for part in parts if part.whole and part.line.key not in billed), None)
    if gone is not None:
        msg = f"line {gone.line_id} of invoice {invoice.invoice_id} lies too far back to be billed again; credit an amount of it instead"
        raise ReleaseRefused(msg)
    for part, told in zip(parts, lines, strict=False):  # the tax lines come after them
        if part.whole:
            billed[part.line.key] = _without(billed[part.line.key], part.line)
        off = part.amount if not part.whole else part.amount - part.line.amount
        key = key_of(part.line.key)
        if off and part.line.key in billed:
            billed[key] = given(billed.get(key), part.line, off, told.line_id)
    for tax in taxes:
        if tax.line.key in billed:
            billed[tax.line.key] = _taxed_less(billed[tax.line.key], tax)
    released = tuple(Released(invoice.invoice_id, part.line.line_id, part.amount, part.whole) for part in parts)
    burns = given_back(account.burns, _costs(billed, parts))
    place = (invoice.legal_entity_id, invoice.currency)
    uses = credit_uses(list(grants), account, burns, as_of).get(place, ())
    after = account._replace(issued=account.issued + 1, billed=tuple(billed.values()), burns=burns, released=account.released + released)
    made = document(version, invoice.period, place, tuple(lines), uses, account.issued, invoice.tax_treatment, as_of)
    name = invoice.invoice_id
    return TakenBack(after, made._replace(voids=name) if voids else made._replace(credits_invoice=name))


def _costs(billed: Mapping[LineKey, Posted], parts: Iterable[_Part]) -> dict[LineKey, int]:
    """What the usage lines of the billing periods in which something is taken back still cost."""
    starts = {part.line.key.period_us for part in parts if part.whole}
    standing: dict[int, list[tuple[LineKey, int]]] = {start: [] for start in sorted(starts)}
    for key, one in billed.items():
        if key.period_us in starts:
            standing[key.period_us].append((key, one.amount))
    return {key: cost for lines in standing.values() for key, cost in net_costs(lines).items()}


def _negative(contract_id: str, part: _Part, number: int) -> Line:
    line, currency = part.line, part.line.key.currency
    key = line.key._replace(ref=(*line.key.ref, "taken back", str(number)))
    back = line._replace(
        kind="delta", delta_of=line.line_id, line_id=line_id(contract_id, key, 0), amount=-part.amount, exact=-major(part.amount, currency),
        quantity=0, usage_exact=0, usage_count=0, usage_digest=0, tiers=(),
    )  # fmt: skip
    if not part.whole:
        return back
    return back._replace(
        quantity=-line.quantity, usage_exact=-line.usage_exact, usage_count=-line.usage_count, usage_digest=-line.usage_digest % DIGEST,
        exact=-line.exact if part.amount == line.amount else back.exact,
    )  # fmt: skip


class _Tax(NamedTuple):
    """What a document takes back of a tax line; ``every`` with its last line, ``whole`` with any whole line."""

    line: Line
    amount: int
    exact: Fraction
    every: bool
    whole: bool


def _tax(account: Account, invoice: Invoice, tax: Line, parts: list[_Part]) -> _Tax:
    place = (tax.key.period_us, tax.key.legal_entity_id, tax.key.currency, tax.tax_code)
    based = [one for one in _own(invoice) if (one.key.period_us, one.key.legal_entity_id, one.key.currency, one.tax_code) == place]
    base, names = sum(one.amount for one in based), {one.line_id for one in based}
    before = sum(one.amount for one in account.released if one.line_id in names)
    latest = before + sum(part.amount for part in parts if part.line.line_id in names)
    wholes = {one.line_id for one in account.released if one.whole}
    taken = {part.line.line_id for part in parts if part.whole}
    every = names <= wholes | taken and bool(names & taken)
    exact = tax.exact * Fraction(latest - before, base) if base else Fraction(0)
    return _Tax(tax, _share(tax, latest, base) - _share(tax, before, base), exact, every, bool(names & taken))


def _share(tax: Line, part: int, base: int) -> int:
    ratio = Fraction(tax.amount * part, base) if base else Fraction(0)
    return money.round_ratio(ratio.numerator, ratio.denominator)


def _tax_line(contract_id: str, tax: _Tax, number: int) -> Line:
    line = tax.line
    key = line.key._replace(ref=(*line.key.ref, "taken back", str(number)))
    return line._replace(
        kind="delta", delta_of=line.line_id, line_id=line_id(contract_id, key, 0), amount=-tax.amount, exact=-major(tax.amount, line.key.currency)
    )  # fmt: skip


def _taxed_less(posted: Posted, tax: _Tax) -> Posted:
    """What stands billed of a tax line without what a document takes back of it."""
    left = Fraction(*posted.exact) - tax.exact
    released = posted.released
    if tax.whole and released != "line":
        released = "line" if tax.every and tax.line.kind != "delta" else "delta"
    return posted._replace(exact=(left.numerator, left.denominator), amount=posted.amount - tax.amount, released=released)


def _without(posted: Posted, line: Line) -> Posted:
    """What stands billed without a line; a first line that is taken back may be billed again as it is."""
    left = Fraction(*posted.exact) - line.exact
    return posted._replace(
        quantity=posted.quantity - line.quantity, usage_exact=posted.usage_exact - line.usage_exact, exact=(left.numerator, left.denominator),
        amount=posted.amount - line.amount, usage_count=posted.usage_count - line.usage_count,
        usage_digest=(posted.usage_digest - line.usage_digest) % DIGEST, released="line" if line.kind != "delta" or posted.released == "line" else "delta",
    )  # fmt: skip
