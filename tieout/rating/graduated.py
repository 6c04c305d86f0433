"""``graduated``: each tier prices the part of the quantity inside it, plus the flat fee of each tier entered.

``P(q) = sum over tiers of [min(q, U_i) - U_(i-1)]+ x p_i``, and ``f_i`` once ``q > U_(i-1)``; the first tier's flat
also at zero unless ``flat_at_zero`` is false. Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment, from_zero

if TYPE_CHECKING:
    from tieout.contracts import Graduated


def curve(price: Graduated) -> Curve:
    """One segment a tier."""
    tiers = ((tier.up_to, Fraction(tier.unit_price), Fraction(tier.flat_fee)) for tier in price.tiers)
    return stacked(tiers, flat_at_zero=price.flat_at_zero)


def stacked(tiers: Iterable[tuple[object, Fraction, Fraction]], *, flat_at_zero: bool) -> Curve:
    """Tiers (bound, slope, flat) laid on top of each other: each starts where the one below has arrived."""
    segments: list[Segment] = []
    low, reached = ZERO, ZERO
    for up_to, slope, flat in tiers:
        bound = None if up_to is None else Fraction(str(up_to))
        base = reached + flat
        segments.append(Segment(bound, low, base, slope))
        if bound is not None:
            reached = base + (bound - low) * slope
            low = bound
    return from_zero(segments, flat_at_zero=flat_at_zero)
