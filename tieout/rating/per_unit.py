"""``per_unit``: every unit at one price, ``P(q) = q x p``. Source: docs/semantics.md section 4."""

from fractions import Fraction

from tieout.contracts import PerUnit
from tieout.rating.curve import ZERO, Curve, Segment


def curve(price: PerUnit) -> Curve:
    """One open segment."""
    return (Segment(None, ZERO, ZERO, Fraction(price.unit_price)),)
