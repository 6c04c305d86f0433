"""Levels: ``weighted_sum`` and ``carry_over`` meters, whose value opens the next billing period.

In: the events of one (contract, charge, group) over all periods. Out: the price of each (period, version) from the
period of the first event to the one that holds the clock, events or not; a change is the difference of two answers.

A weighted event adds ``q x (period end - time) / period length`` to its version's share, and ``q`` to every later
period's opening; the opening belongs to the version in force at the period's start. A carried value opens the period
as it closed the last; prorated by day, each day's level is priced at 1/n of the unit prices (n = days of the period)
and each tier's flat is charged once, for the highest level of the period.
Source: docs/semantics.md section 4 (aggregations).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tieout.ids import EventKey
from tieout.period import Period
from tieout.rating import adjustments, package
from tieout.rating.adjustments import QUANTITY
from tieout.rating.curve import ZERO, value
from tieout.rating.tariff import Tariff

if TYPE_CHECKING:
    from tieout.contracts import Charge

_NO_FEE: Final = Decimal(0)
Governing = Callable[[int], Tariff | None]
"""The tariff of this charge in force at an instant, None where none is."""


@dataclass(slots=True, order=True)
class LevelEvent:
    """One live event that moves a level; quantity in 10^-9."""

    time: int
    position: int
    key: EventKey = field(compare=False)
    quantity: int = field(compare=False)
    tariff: Tariff = field(compare=False)


@dataclass(slots=True)
class Level:
    """The events of a level and what each of its terms was last priced at."""

    events: list[LevelEvent] = field(default_factory=list)
    terms: dict[tuple[int, int], int] = field(default_factory=dict)

    def move(self, governing: Governing, through: int, of_version: Callable[[int], Tariff]) -> list[tuple[Period, Tariff, int]]:
        """Price all terms again up to the period that holds ``through``: those that moved, and by how much.

        ``of_version`` gives the charge's tariff in a version: a term may be left without events.
        """
        found = dict.fromkeys(self.terms, 0)
        places: dict[tuple[int, int], tuple[Period, Tariff]] = {}
        for period, tariff, amount in self._priced(governing, through):
            key = (period.start_us, tariff.contract.version)
            found[key] = found.get(key, 0) + amount
            places[key] = (period, tariff)
        priced = set(places)
        moved = []
        for key in sorted(found):
            change = found[key] - self.terms.get(key, 0)
            if key not in places:
                tariff = of_version(key[1])
                places[key] = (tariff.calendar.containing(key[0]), tariff)
            if change:
                moved.append((*places[key], change))
        self.terms = {key: found[key] for key in priced}
        return moved

    def _priced(self, governing: Governing, through: int) -> Iterator[tuple[Period, Tariff, int]]:
        if not self.events:
            return
        first = self.events[0]
        calendar, charge = first.tariff.calendar, first.tariff.charge
        last = max(through, self.events[-1].time)
        level = _initial(charge)
        period = calendar.containing(first.time)
        at = 0
        while period.start_us <= last:
            end = bisect_left(self.events, period.end_us, lo=at, key=lambda e: e.time)
            inside = self.events[at:end]
            opening = governing(period.start_us) or (inside[0].tariff if inside else None)
            if opening is not None:  # without a contract in force a level waits, unpriced
                yield from _terms(period, opening, level, inside, governing)
            level = _closing(charge, level, inside)
            at, period = end, calendar.next(period)


def _initial(charge: Charge) -> int:
    initial = getattr(charge.aggregation, "initial", None)
    return int(Fraction(initial) * QUANTITY) if initial is not None else 0


def _amount(charge: Charge, event: LevelEvent) -> int:
    return QUANTITY if charge.aggregation.kind == "count" else event.quantity


def _closing(charge: Charge, level: int, inside: list[LevelEvent]) -> int:
    """The value after the last of the events."""
    for event in inside:
        level = _after(charge, level, event)
    return level


def _after(charge: Charge, level: int, event: LevelEvent) -> int:
    match charge.aggregation.kind:
        case "max":
            return max(level, event.quantity)
        case "latest":
            return event.quantity
        case _:
            return level + _amount(charge, event)


def _terms(
    period: Period, opening: Tariff, level: int, inside: list[LevelEvent], governing: Governing
) -> Iterator[tuple[Period, Tariff, int]]:
    charge = opening.charge
    kind = charge.aggregation.kind
    if charge.aggregation.prorate == "day":
        yield from _by_day(period, opening, level, inside, governing)
    elif kind in ("max", "latest"):
        yield from _restarting(period, opening, level, inside)
    else:
        length = period.end_us - period.start_us
        shares: dict[int, Fraction] = {opening.contract.version: Fraction(level)}
        tariffs = {opening.contract.version: opening}
        for event in inside:
            version = event.tariff.contract.version
            weight = Fraction(period.end_us - event.time, length) if kind == "weighted_sum" else Fraction(1)
            shares[version] = shares.get(version, ZERO) + _amount(charge, event) * weight
            tariffs[version] = event.tariff
        below, started = ZERO, False
        for version in sorted(shares):
            price = _price(tariffs[version])
            yield period, tariffs[version], price(below + shares[version]) - (price(below) if started else 0)
            below, started = below + shares[version], True


def _restarting(
    period: Period, opening: Tariff, level: int, inside: list[LevelEvent]
) -> Iterator[tuple[Period, Tariff, int]]:
    """``max`` and ``latest``: each version prices its own value; the opening counts for the version that opens."""
    values: dict[int, int] = {opening.contract.version: level}
    tariffs = {opening.contract.version: opening}
    carried = level
    for event in inside:
        version = event.tariff.contract.version
        carried = _after(opening.charge, carried, event)
        values[version], tariffs[version] = carried, event.tariff
    for version, quantity in values.items():
        yield period, tariffs[version], _price(tariffs[version])(Fraction(quantity))


def _by_day(
    period: Period, opening: Tariff, level: int, inside: list[LevelEvent], governing: Governing
) -> Iterator[tuple[Period, Tariff, int]]:
    days = opening.calendar.days(period)
    share = Fraction(1, len(days) - 1)
    sums: dict[int, Fraction] = {}
    tariffs: dict[int, Tariff] = {}
    highest, owner = -1, opening
    at = 0
    for start, end in pairwise(days):
        stop = bisect_left(inside, end, lo=at, key=lambda e: e.time)
        tariff = governing(start) or (inside[at].tariff if at < stop else None)
        level = _closing(opening.charge, level, inside[at:stop])
        at = stop
        if tariff is None:
            continue
        version = tariff.contract.version
        tariffs[version] = tariff
        sums[version] = sums.get(version, ZERO) + share * _exact(_without_flats(tariff.charge), level)
        if level > highest:
            highest, owner = level, tariff
    if owner.contract.version in sums:
        flats = _exact(owner.charge, highest) - _exact(_without_flats(owner.charge), highest)
        sums[owner.contract.version] += flats
    for version, amount in sums.items():
        yield period, tariffs[version], adjustments.capped(tariffs[version].charge, amount)


def _without_flats(charge: Charge) -> Charge:
    model = charge.price
    match model.model:
        case "graduated" | "volume":
            return replace(charge, price=replace(model, tiers=tuple(replace(tier, flat_fee=_NO_FEE) for tier in model.tiers)))
        case "graduated_percentage":
            return replace(charge, price=replace(model, tiers=tuple(replace(tier, flat_fee=_NO_FEE) for tier in model.tiers)))
        case _:
            return charge


def _exact(charge: Charge, quantity: int) -> Fraction:
    """The price of a level before rounding and maximum."""
    billed = adjustments.chargeable(charge, Fraction(max(quantity, 0), QUANTITY))
    curve = adjustments.curve_of(charge)
    amount = value(curve, billed) if curve is not None else package.amount(charge.price, billed)  # type: ignore[arg-type]
    return amount * adjustments.net(charge)


def _price(tariff: Tariff) -> Callable[[Fraction], int]:
    charge = tariff.charge

    def at(quantity: Fraction) -> int:
        billed = adjustments.chargeable(charge, max(quantity, ZERO) / QUANTITY)
        curve = adjustments.curve_of(charge)
        amount = value(curve, billed) if curve is not None else package.amount(charge.price, billed)  # type: ignore[arg-type]
        return adjustments.capped(charge, amount * adjustments.net(charge))

    return at
