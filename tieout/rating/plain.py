"""Plain linear prices in integers: what most charges are, compiled without fractions, for a million contracts.

In: a charge without conversion, included quantity or percent discount, priced per unit, graduated or by volume. Out:
the same ``LinearPrice`` figures as the general way gives (a test compares them). Quantities are units of 10^-9, prices
of 10^-12, bases of their product. Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, NamedTuple

from tieout import money

if TYPE_CHECKING:
    from tieout.contracts import Charge, Graduated, Tier


class Piece(NamedTuple):
    """Prices ``(base + (q - low) x slope) / denominator`` of the raw quantities up to ``up_to``, inclusive."""

    up_to: int | None
    low: int
    base: int
    slope: int


class Step(NamedTuple):
    """Whole packages: the pieces price their number, ``(q - free) / size`` rounded up or down, in place of ``q``."""

    free: int
    size: int
    up: bool

    def count(self, quantity: int) -> int:
        """How many packages a raw quantity takes."""
        return (max(quantity - self.free, 0) + (self.size - 1 if self.up else 0)) // self.size


QUANTITY = 10**money.QUANTITY_SCALE


def pieces(charge: Charge) -> tuple[tuple[Piece, ...], int] | None:
    """The pieces and their denominator; None where the charge is not plain."""
    if charge.unit_conversion is not None or charge.included_quantity or charge.discount_percent:
        return None
    model = charge.price
    if model.model == "per_unit":
        found = [Piece(None, 0, 0, money.units(model.unit_price, money.UNIT_PRICE_SCALE))]
    elif model.model == "graduated":
        found = _graduated(model)
    elif model.model == "volume":
        tiers = [_figures(tier) for tier in model.tiers]
        found = [_at_zero(tiers[0][2], flat=model.flat_at_zero), *(Piece(up_to, 0, flat, slope) for up_to, slope, flat in tiers)]
    else:
        return None
    common = gcd(QUANTITY, *(piece.base for piece in found), *(piece.slope for piece in found))
    return tuple(Piece(p.up_to, p.low, p.base // common, p.slope // common) for p in found), QUANTITY // common


def _graduated(model: Graduated) -> list[Piece]:
    tiers = [_figures(tier) for tier in model.tiers]
    found = [_at_zero(tiers[0][2], flat=model.flat_at_zero)]
    low = reached = 0
    for up_to, slope, flat in tiers:
        base = reached + flat
        found.append(Piece(up_to, low, base, slope))
        if up_to is not None:
            low, reached = up_to, base + (up_to - low) * slope
    return found


def _at_zero(first_flat: int, *, flat: bool) -> Piece:
    return Piece(0, 0, first_flat if flat else 0, 0)


def _figures(tier: Tier) -> tuple[int | None, int, int]:
    """Bound, unit price and flat fee in their units; the fee in the unit of bases."""
    bound = None if tier.up_to is None else money.units(tier.up_to, money.QUANTITY_SCALE)
    slope = money.units(tier.unit_price, money.UNIT_PRICE_SCALE)
    return bound, slope, money.units(tier.flat_fee, money.RATED_SCALE) * QUANTITY
