"""``dynamic``: the amount given in the event, times a multiplier; the running quantity is the sum of the amounts.

Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment

if TYPE_CHECKING:
    from tieout.contracts import Dynamic


def curve(price: Dynamic) -> Curve:
    """One open segment over the given amount."""
    return (Segment(None, ZERO, ZERO, Fraction(price.multiplier)),)
