"""``flat``: one amount whatever the quantity, ``P(q) = f``; invoicing charges it once an interval.

Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment

if TYPE_CHECKING:
    from tieout.contracts import Flat


def curve(price: Flat) -> Curve:
    """One open segment without slope."""
    return (Segment(None, ZERO, Fraction(price.amount), ZERO),)
