"""The shape shared by the price models: the price of a cumulative quantity as straight segments.

A segment holds the quantities above the previous segment's ``up_to`` and up to its own, inclusive; within it the
price is ``base + (quantity - low) x slope``. All figures are exact fractions in the charge's billing unit and the
currency's unit; rounding comes later, once.

Source: docs/semantics.md section 4 (tiers: lower bound exclusive, upper bound inclusive, zero belongs to the first).
"""

from fractions import Fraction
from typing import NamedTuple

ZERO = Fraction(0)


class Segment(NamedTuple):
    """Prices of the quantities in ``(previous up_to, up_to]``; the last is open."""

    up_to: Fraction | None
    low: Fraction
    base: Fraction
    slope: Fraction


Curve = tuple[Segment, ...]


def from_zero(segments: list[Segment], *, flat_at_zero: bool) -> Curve:
    """Put the point zero in front: the first tier's flat, or nothing where the contract says so."""
    first = segments[0]
    at_zero = first.base - first.low * first.slope if flat_at_zero else ZERO
    return (Segment(ZERO, ZERO, at_zero, ZERO), *segments)


def value(curve: Curve, quantity: Fraction) -> Fraction:
    """The price of one quantity (0 or more)."""
    for segment in curve:
        if segment.up_to is None or quantity <= segment.up_to:
            return segment.base + (quantity - segment.low) * segment.slope
    msg = "the last tier is not open; the contract should have been refused"
    raise AssertionError(msg)
