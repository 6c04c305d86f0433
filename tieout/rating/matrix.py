"""``matrix``: a price, or tiers over one shared quantity, chosen by the event's attributes; most specific match wins.

Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING

from tieout.rating.curve import ZERO, Curve, Segment
from tieout.rating.graduated import stacked

if TYPE_CHECKING:
    from tieout.contracts import Matrix


def cell(price: Matrix, attributes: Mapping[str, str]) -> int | None:
    """The number of the price that an event takes: its place in ``prices``, -1 for the default, None where none fits.

    The match with most attributes wins; between equals the first in the list.
    """
    best, depth = None, -1
    for place, candidate in enumerate(price.prices):
        match = candidate.match
        if len(match) > depth and all(attributes.get(name) == wanted for name, wanted in match.items()):
            best, depth = place, len(match)
    if best is None and price.default_unit_price is not None:
        return -1
    return best


def curve(price: Matrix, place: int) -> Curve:
    """The curve of one cell over the shared quantity."""
    if place < 0:
        return (Segment(None, ZERO, ZERO, Fraction(price.default_unit_price or 0)),)
    chosen = price.prices[place]
    if chosen.tiers is None:
        return (Segment(None, ZERO, ZERO, Fraction(chosen.unit_price or 0)),)
    tiers = ((tier.up_to, Fraction(tier.unit_price), Fraction(tier.flat_fee)) for tier in chosen.tiers)
    return stacked(tiers, flat_at_zero=True)
