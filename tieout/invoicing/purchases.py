"""Purchases of prepaid credits: one line in the billing period in which a purchased grant begins.

In: a contract's timeline and a billing period. Out: lines of kind ``credit`` over the grants' amounts, by the legal entity
and in the currency of the version that brings the grant. A purchase is not taxed, not discounted, counts for no commitment
and is paid by no grant: tax and commitments belong to the usage that the grant pays for later. A grant that begins before
the contract is bought when the contract begins. Source: docs/semantics.md section 5 (prepaid credits).
"""

from collections.abc import Iterator, Sequence

from tieout.contract_book import Interval
from tieout.invoicing.credits import Grant, grants
from tieout.invoicing.lines import major
from tieout.invoicing.records import Line, LineKey
from tieout.period import Period


def purchase_lines(timeline: Sequence[Interval], period: Period) -> Iterator[Line]:
    """The purchases of a billing period, in the order in which grants are used."""
    for grant in grants(timeline):
        if grant.purchased and period.start_us <= bought_at(grant, timeline) < period.end_us:
            key = LineKey(period.start_us, "", None, "credit", (grant.grant_id,), period.start_us, grant.legal_entity_id, grant.currency)
            yield Line(
                key, period.end_us, period.label, (grant.version,), 0, 0, major(grant.amount, grant.currency), grant.amount,
                kind="credit", start_us=period.start_us,
            )  # fmt: skip


def bought_at(grant: Grant, timeline: Sequence[Interval]) -> int:
    """The instant whose billing period has the purchase."""
    return max(grant.begins_us, timeline[0].start_us)
