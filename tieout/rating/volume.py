"""``volume``: the tier that holds the whole quantity prices all of it, ``P(q) = q x p_k + f_k``.

Crossing into a cheaper tier can lower the price. Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment, from_zero

if TYPE_CHECKING:
    from tieout.contracts import Volume


def curve(price: Volume) -> Curve:
    """One segment a tier, each from the origin."""
    segments = [
        Segment(
            None if tier.up_to is None else Fraction(tier.up_to), ZERO, Fraction(tier.flat_fee), Fraction(tier.unit_price)
        )
        for tier in price.tiers
    ]
    return from_zero(segments, flat_at_zero=price.flat_at_zero)
