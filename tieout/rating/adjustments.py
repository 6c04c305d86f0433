"""Everything that the price of a cumulative quantity holds, in its one order.

In: a charge of a contract version. Out: a ``Price`` whose ``at(quantity)`` is ``P(q)`` in units of 10^-12, for a raw
cumulative quantity in units of 10^-9 (of 10^-12 for the amounts of a ``dynamic`` price).

The whole order, and why: unit conversion first, because included quantities and tiers are written in billing units;
the included quantity before the price, because it is never priced; the percent discount before the maximum, because
a cap is what the customer pays at most; what bills a period as a whole (minimum, commitment) after what bills usage;
coupons on the rounded lines; tax on what is left; credit notes on what was taxed; prepaid credits last, because they
are a way to pay and do not lower the tax base. Rated amounts hold the first five; the rest belongs to invoicing.

Rounding: once, half up, to scale 12, after the maximum. Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Final, Protocol

from tieout import money
from tieout.rating import dynamic, flat, graduated, graduated_percentage, package, per_unit, plain, volume
from tieout.rating.curve import ZERO, Curve
from tieout.rating.plain import Piece, Step

if TYPE_CHECKING:
    from tieout.contracts import Charge, Package, UnitConversion

ORDER: Final = (
    "unit conversion",
    "included quantity",
    "price",
    "percent discount",
    "maximum",
    "minimum",
    "commitment",
    "coupons",
    "tax",
    "credit notes",
    "prepaid credits",
)
RATED: Final = 10**12
QUANTITY: Final = 10**9
LARGEST: Final = 10**30
"""No event is priced at this or more (10^18 of the currency): such a figure is an error, and sums of it would overflow."""


class Price(Protocol):
    """The price of a cumulative quantity under one charge of one contract version."""

    def at(self, quantity: int) -> int:
        """``P(q)`` in 10^-12; a quantity below 0 counts as 0."""


@dataclass(frozen=True, slots=True)
class LinearPrice:
    """A price in straight pieces, in integers: what the columnar kernel can do."""

    pieces: tuple[Piece, ...]
    denominator: int
    maximum: int | None
    step: Step | None = None

    def at(self, quantity: int) -> int:
        """``P(q)`` in 10^-12."""
        q = max(quantity, 0) if self.step is None else self.step.count(quantity)
        for piece in self.pieces:
            if piece.up_to is None or q <= piece.up_to:
                amount = money.round_ratio(piece.base + (q - piece.low) * piece.slope, self.denominator)
                return amount if self.maximum is None else min(amount, self.maximum)
        msg = "the last piece is not open"
        raise AssertionError(msg)


@dataclass(frozen=True, slots=True)
class SteppedPrice:
    """A price that moves in steps (packages, rounded conversions), in exact fractions."""

    charge: Charge
    curve: Curve | None
    unit: int
    scale: Fraction

    def at(self, quantity: int) -> int:
        """``P(q)`` in 10^-12."""
        billed = chargeable(self.charge, Fraction(max(quantity, 0), self.unit))
        model = self.charge.price
        amount = package.amount(model, billed) if model.model == "package" else _on_curve(self.curve, billed)
        return capped(self.charge, amount * self.scale)


def safe_quantity(price: LinearPrice) -> int:
    """A quantity up to which the price surely stays below ``LARGEST`` (in the price's own unit; -1 for none)."""
    base = max(abs(piece.base) for piece in price.pieces)
    slope = max(1, *(piece.slope for piece in price.pieces))
    steps = (LARGEST * price.denominator - base - price.denominator) // slope
    return steps if price.step is None else (steps - 1) * price.step.size


def _on_curve(segments: Curve | None, quantity: Fraction) -> Fraction:
    for segment in segments or ():
        if segment.up_to is None or quantity <= segment.up_to:
            return segment.base + (quantity - segment.low) * segment.slope
    msg = "the last tier is not open"
    raise AssertionError(msg)


def converted(conversion: UnitConversion | None, quantity: Fraction) -> Fraction:
    """A raw quantity in billing units."""
    if conversion is None:
        return quantity
    value = quantity * factor(conversion)
    if conversion.round == "none":
        return value
    floor = value.numerator // value.denominator
    if conversion.round == "floor":
        return Fraction(floor)
    if conversion.round == "ceil":
        return Fraction(-(-value.numerator // value.denominator))
    return Fraction(money.round_ratio(value.numerator, value.denominator))


def factor(conversion: UnitConversion) -> Fraction:
    """Billing units per raw unit."""
    if conversion.divide_by is not None:
        return 1 / Fraction(conversion.divide_by)
    return Fraction(conversion.multiply_by or 1)


def chargeable(charge: Charge, quantity: Fraction) -> Fraction:
    """The part of a cumulative raw quantity that is priced, in billing units."""
    return max(ZERO, converted(charge.unit_conversion, quantity) - Fraction(charge.included_quantity))


def net(charge: Charge) -> Fraction:
    """What the percent discount leaves of an amount."""
    return 1 - Fraction(charge.discount_percent) / 100


def capped(charge: Charge, discounted: Fraction) -> int:
    """An exact amount, already net of the discount, as units of 10^-12 under the maximum."""
    scaled = discounted * RATED
    amount = money.round_ratio(scaled.numerator, scaled.denominator)
    return amount if charge.maximum is None else min(amount, maximum(charge))


def maximum(charge: Charge) -> int:
    """The charge's maximum in units of 10^-12."""
    return int(Fraction(charge.maximum or 0) * RATED)


def curve_of(charge: Charge) -> Curve | None:
    """The model's curve; None where the model is not one (packages, walked models)."""
    model = charge.price
    match model.model:
        case "per_unit":
            return per_unit.curve(model)
        case "graduated":
            return graduated.curve(model)
        case "volume":
            return volume.curve(model)
        case "graduated_percentage":
            return graduated_percentage.curve(model)
        case "dynamic":
            return dynamic.curve(model)
        case "flat":
            return flat.curve(model)
        case _:
            return None


def compile_price(charge: Charge, *, unit_price_scale: Fraction = Fraction(1)) -> Price:
    """The price of a charge; ``unit_price_scale`` multiplies it whole (a day's share of a month's prices)."""
    short = plain.pieces(charge) if unit_price_scale == 1 else None
    if short is not None:
        return LinearPrice(*short, None if charge.maximum is None else maximum(charge))
    if charge.price.model == "package" and unit_price_scale == 1:
        stepped = _packages(charge, charge.price)
        if stepped is not None:
            return stepped
    unit = RATED if charge.price.model == "dynamic" else QUANTITY
    segments = curve_of(charge)
    steps = charge.unit_conversion is not None and charge.unit_conversion.round != "none"
    if segments is None or steps:
        return SteppedPrice(charge, segments, unit, net(charge) * unit_price_scale)
    return _linear(charge, segments, unit, net(charge) * unit_price_scale)


def _packages(charge: Charge, model: Package) -> LinearPrice | None:
    """Packages in raw integers; None where a rounded conversion or an odd size keeps them from being whole."""
    conversion = charge.unit_conversion
    if conversion is not None and conversion.round != "none":
        return None
    per_billed = QUANTITY / factor(conversion) if conversion is not None else Fraction(QUANTITY)
    size, free = Fraction(model.size) * per_billed, (Fraction(model.free_units) + Fraction(charge.included_quantity)) * per_billed
    if size.denominator > 1 or free.denominator > 1:
        return None
    price = Fraction(model.price) * net(charge) * RATED
    step = Step(int(free), int(size), model.partial == "up")
    return LinearPrice((Piece(None, 0, 0, price.numerator),), price.denominator, None if charge.maximum is None else maximum(charge), step)


def _linear(charge: Charge, segments: Curve, unit: int, scale: Fraction) -> LinearPrice:
    """Move the segments from billing units to raw integers: conversion and included quantity shift the bounds."""
    per_raw = (factor(charge.unit_conversion) if charge.unit_conversion else Fraction(1)) / unit
    included = Fraction(charge.included_quantity)
    scale = scale * RATED
    bounds: list[int | None] = []
    exact: list[tuple[Fraction, Fraction]] = []
    low = 0
    lows = []
    for segment in segments:
        bound = None if segment.up_to is None else _floor((segment.up_to + included) / per_raw)
        lows.append(low)
        billed = max(ZERO, low * per_raw - included)
        exact.append(((segment.base + (billed - segment.low) * segment.slope) * scale, segment.slope * per_raw * scale))
        bounds.append(bound)
        low = low if bound is None else bound + 1
    if included and len(segments) == 1:  # nothing is priced up to the included quantity
        edge = _floor(included / per_raw)
        base, slope = exact[0]
        start = edge + 1
        exact = [(base, ZERO), ((start * per_raw - included) * segments[0].slope * scale + base, slope)]
        bounds, lows = [edge, None], [0, start]
    denominator = lcm(*(part.denominator for pair in exact for part in pair))
    pieces = tuple(
        Piece(bound, low, int(base * denominator), int(slope * denominator))
        for bound, low, (base, slope) in zip(bounds, lows, exact, strict=True)
    )
    return LinearPrice(pieces, denominator, None if charge.maximum is None else maximum(charge))


def _floor(value: Fraction) -> int:
    return value.numerator // value.denominator
