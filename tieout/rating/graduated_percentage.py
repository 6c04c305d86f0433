"""``graduated_percentage``: as graduated, with percent rates on the value. Source: docs/semantics.md section 4."""

from fractions import Fraction

from tieout.contracts import GraduatedPercentage
from tieout.rating.curve import Curve
from tieout.rating.graduated import stacked


def curve(price: GraduatedPercentage) -> Curve:
    """One segment a tier, its slope the rate."""
    tiers = ((tier.up_to, Fraction(tier.rate_percent) / 100, Fraction(tier.flat_fee)) for tier in price.tiers)
    return stacked(tiers, flat_at_zero=price.flat_at_zero)
