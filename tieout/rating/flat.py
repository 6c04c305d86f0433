"""``flat``: one amount whatever the quantity, ``P(q) = f``; invoicing charges it once an interval.

Source: docs/semantics.md section 4.
"""

from fractions import Fraction

from tieout.contracts import Flat
from tieout.rating.curve import ZERO, Curve, Segment


def curve(price: Flat) -> Curve:
    """One open segment without slope."""
    return (Segment(None, ZERO, Fraction(price.amount), ZERO),)
