"""What an account no longer needs: billing periods that nothing can change any more, so that its size is bounded.

In: an account, its contract's timeline, and an instant before which usage is no longer taken (400 days before the close,
the limit of re-pricing). Out: the account without the billing periods that lie before it whole. Nothing that is still owed
goes: a period leaves only where what was billed of it is exactly its usage and nothing of it was taken back, so the open
balance stays what it was. What grants paid in it is carried forward as one sum a grant, legal entity and currency. What was taken
back of its documents' lines goes too: where somebody takes back more of such a document, its notes and the corrections of its lines are read again and say it.

A period stays as long as something in it may still count: a line whose service ends later (an annual fee), a commitment
whose interval runs on, or that rolls over; and of each charge the last usage, which says that it ever had any.
Late usage for what has gone is not taken, and documents of it can no longer be taken back. Source: docs/semantics.md section 5.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tieout.contract_book import Interval
from tieout.invoicing.commitments import counting_since
from tieout.invoicing.purchases import left
from tieout.invoicing.records import Account, Burn, Invoice, LineKey, Posted, Released, UsageSum

CARRIED: Final = "carried forward"


def pruned(account: Account, timeline: Sequence[Interval], before_us: int) -> Account:
    """The account without what lies before an instant; the boundary never goes back."""
    since = min(max(before_us, account.kept_since_us), account.closed_us)
    usage: dict[int, list[UsageSum]] = {}
    billed: dict[int, list[Posted]] = {}
    for one in account.usage:
        usage.setdefault(one.period_us, []).append(one)
    for posted in account.billed:
        billed.setdefault(posted.key.period_us, []).append(posted)
    last = {one.charge_id: one.period_us for one in sorted(account.usage, key=lambda one: one.period_us)}
    needed = {*last.values()}
    counted = counting_since(timeline, since)
    gone = {start for start in {*usage, *billed} - needed if start < counted and _is_done(usage.get(start, ()), billed.get(start, ()), since)}
    standing = {one.key.period_us for one in account.billed} - gone
    return account._replace(
        usage=tuple(one for one in account.usage if one.period_us not in gone), billed=tuple(one for one in account.billed if one.key.period_us not in gone),
        burns=_carried(account.burns, gone), thresholds=tuple(one for one in account.thresholds if one[0] not in gone), kept_since_us=since,
        released=tuple(one for one in account.released if one.period_us >= since or one.period_us in standing),
        bought=left(account.bought, account.billed, gone),
    )  # fmt: skip


def forgot(account: Account, invoice: Invoice) -> bool:
    """Whether an account may no longer know what was taken back of a document, or corrected."""
    return any(one.key.period_us < account.kept_since_us for one in invoice.lines)


def remembering(account: Account, invoice: Invoice, later: Iterable[Invoice]) -> Account:
    """The account with what later documents took back of lines that it no longer knows, by notes and by corrections downwards."""
    standing = {one.key.period_us for one in account.billed}
    lines = {one.line_id: one for one in invoice.lines if one.key.kind != "tax" and one.key.period_us < account.kept_since_us and one.key.period_us not in standing}
    found: list[Released] = []
    corrected = dict.fromkeys(lines, 0)
    for document in later:
        note = invoice.invoice_id in {document.voids, document.credits_invoice}
        for line in document.lines:
            if line.delta_of not in lines or line.delta_of is None:
                continue
            if note:
                found.append(Released(invoice.invoice_id, line.delta_of, -line.amount, bool(document.voids or line.quantity or line.usage_count), line.key.period_us))
            else:
                corrected[line.delta_of] += line.amount
    found += [Released(invoice.invoice_id, name, -amount, False, lines[name].key.period_us) for name, amount in corrected.items() if amount < 0]
    return account._replace(released=(*account.released, *found))


def dated(account: Account, invoice: Invoice) -> Account:
    """The account after something of a document was taken back, without what concerns billing periods that it no longer knows."""
    periods = {one.line_id: one.key.period_us for one in invoice.lines}
    standing = {one.key.period_us for one in account.billed}
    released = (one._replace(period_us=periods[one.line_id]) if one.invoice_id == invoice.invoice_id else one for one in account.released)
    return account._replace(released=tuple(one for one in released if one.period_us >= account.kept_since_us or one.period_us in standing))


def _is_done(usage: Sequence[UsageSum], billed: Sequence[Posted], since: int) -> bool:
    owed = sum(one.amount for one in usage) - sum(one.usage_exact for one in billed)
    return bool(billed) and not owed and all(one.end_us <= since and not one.released for one in billed)


def _carried(burns: Sequence[Burn], gone: set[int]) -> tuple[Burn, ...]:
    """The burns of periods that have gone as one a grant, legal entity and currency, before all others."""
    sums: dict[tuple[str, LineKey], int] = {}
    kept = []
    for one in burns:
        carried = one.key.ref == (CARRIED,)
        if not carried and one.key.period_us not in gone:
            kept.append(one)
            continue
        key = LineKey(0, "", None, "usage", (CARRIED,), 0, one.key.legal_entity_id, one.key.currency)
        sums[one.grant_id, key] = sums.get((one.grant_id, key), 0) + one.amount
    return (*(Burn(grant, key, 0, amount) for (grant, key), amount in sums.items()), *kept)
