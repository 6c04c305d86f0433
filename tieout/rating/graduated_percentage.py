"""``graduated_percentage``: as graduated, with percent rates on the value. Source: docs/semantics.md section 4."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import Curve
from tieout.rating.graduated import stacked

if TYPE_CHECKING:
    from tieout.contracts import GraduatedPercentage


def curve(price: GraduatedPercentage) -> Curve:
    """One segment a tier, its slope the rate."""
    tiers = ((tier.up_to, Fraction(tier.rate_percent) / 100, Fraction(tier.flat_fee)) for tier in price.tiers)
    return stacked(tiers, flat_at_zero=price.flat_at_zero)
