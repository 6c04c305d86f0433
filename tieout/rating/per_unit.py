"""``per_unit``: every unit at one price, ``P(q) = q x p``. Source: docs/semantics.md section 4."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment

if TYPE_CHECKING:
    from tieout.contracts import PerUnit


def curve(price: PerUnit) -> Curve:
    """One open segment."""
    return (Segment(None, ZERO, ZERO, Fraction(price.unit_price)),)
