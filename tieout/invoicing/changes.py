"""What a line computed today changes of what stands billed: first lines, lines billed again, deltas.

In: the lines of billing periods as they are today, and what stands billed for the same periods. Out: the lines to bill.
A line never billed, or told by no document, or taken back since, is billed as it is; one that has changed gives one ``delta`` line of the change,
which names its original; one that is gone gives a delta that takes it back. The service period of a delta is that of its
line; where only the end of a line has moved, the part in between. Source: docs/semantics.md section 5.
"""

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from tieout.invoicing.records import DIGEST, Line, LineKey, Posted, line_id


def changed(contract_id: str, current: Iterable[Line], billed: Mapping[LineKey, Posted], gone: Iterable[Posted]) -> Iterator[Line]:
    """The lines to bill for the lines of today, and for what stands billed and is ``gone``."""
    for one in current:
        posted = billed.get(one.key)
        if posted is None or (not posted.line_id and _figures(one) != _figures(posted)):
            yield one._replace(line_id=line_id(contract_id, one.key, 0))
        elif posted.released == "line":
            yield _difference(contract_id, one, posted)._replace(kind=one.kind, delta_of=None, start_us=one.key.start_us, end_us=one.end_us, tiers=one.tiers)
        elif _figures(one) != _figures(posted):
            yield _difference(contract_id, one, posted)
    for posted in gone:
        if any(_figures(posted)[:2]) or posted.usage_exact:
            yield _difference(contract_id, _nothing(posted), posted)


def _figures(one: Line | Posted) -> tuple[int, int, int, int, Fraction]:
    return one.amount, one.usage_count, one.usage_digest, one.quantity, Fraction(*one.exact) if isinstance(one, Posted) else one.exact


def _difference(contract_id: str, one: Line, posted: Posted) -> Line:
    service = one.start_us, one.end_us
    if one.end_us != posted.end_us:
        service = min(one.end_us, posted.end_us), max(one.end_us, posted.end_us)
    return one._replace(
        kind="delta", start_us=service[0], end_us=service[1], delta_of=posted.line_id, line_id=line_id(contract_id, one.key, posted.times),
        quantity=one.quantity - posted.quantity, usage_exact=one.usage_exact - posted.usage_exact,
        exact=one.exact - Fraction(*posted.exact), amount=one.amount - posted.amount, tiers=(),
        usage_count=one.usage_count - posted.usage_count, usage_digest=(one.usage_digest - posted.usage_digest) % DIGEST,
    )  # fmt: skip


def _nothing(posted: Posted) -> Line:
    return Line(
        posted.key, posted.end_us, posted.period, posted.versions, 0, 0, Fraction(0), 0, posted.product_id, posted.obligation_id,
        tax_code=posted.tax_code, start_us=posted.key.start_us,
    )  # fmt: skip


def posted(billed: dict[LineKey, Posted], lines: Iterable[Line], ends: Mapping[LineKey, int]) -> dict[LineKey, Posted]:
    """What stands billed after these lines; ``ends`` are the ends of the lines as they are today."""
    after = dict(billed)
    for one in lines:
        old = after.get(one.key)
        old = old if old is not None and old.line_id else None
        end = ends.get(one.key, one.end_us)
        exact = one.exact + (Fraction(*old.exact) if old else 0)
        named = old.line_id if old is not None and one.kind == "delta" else one.line_id
        after[one.key] = Posted(
            one.key, end, one.period, one.versions, one.quantity + (old.quantity if old else 0), one.usage_exact + (old.usage_exact if old else 0),
            (exact.numerator, exact.denominator), one.amount + (old.amount if old else 0), one.tax_code, one.product_id, one.obligation_id,
            one.usage_count + (old.usage_count if old else 0), (one.usage_digest + (old.usage_digest if old else 0)) % DIGEST,
            named, (old.times if old else 0) + 1,
        )  # fmt: skip
    return after


def untold(line: Line) -> Posted:
    """What stands billed of a line of 0 that no document tells: it is known to have been looked at, and its first document is still to come."""
    exact = line.exact.numerator, line.exact.denominator
    return Posted(line.key, line.end_us, line.period, line.versions, 0, 0, exact, 0, line.tax_code, line.product_id, line.obligation_id, 0, 0, "", 0)
