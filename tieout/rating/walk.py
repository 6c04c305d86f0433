"""Walked prices: ``percentage`` and ``matrix``, event by event in order of event time.

In: the events of one (contract, charge, group, billing period), each with the charge of its own version. Out: what
each event's amount is, and how the amounts of later events move when one comes late, is corrected or goes.

Each event sees the running sums of the events before it: allowances, included quantity, percent discount, maximum.
The running amount is exact; an event's amount is the difference of its two roundings to scale 12.
Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from tieout import money
from tieout.rating import adjustments, matrix, percentage
from tieout.rating.curve import ZERO, value

if TYPE_CHECKING:
    from tieout.contracts import Charge


class Running(NamedTuple):
    """The sums after an event: raw quantity, allowances, exact amount, and whether any event came before."""

    quantity: int = 0
    allowance: percentage.Allowance = percentage.Allowance()
    amount: Fraction = ZERO
    started: bool = False


START = Running()


@dataclass(slots=True)
class Walked:
    """One live event of a walk; ``order`` is (time, source, id), ``cell`` the matrix price that its attributes chose."""

    order: tuple[int, str, str]
    charge: Charge
    quantity: int
    cell: int
    tag: object
    after: Running = START
    amount: int = 0


@dataclass(slots=True)
class Walk:
    """The events of a billing period in their order."""

    events: list[Walked] = field(default_factory=list)

    def find(self, order: tuple[int, str, str]) -> Walked | None:
        """The event at this place of the order."""
        at = bisect_left(self.events, order, key=_order)
        return self.events[at] if at < len(self.events) and self.events[at].order == order else None

    def add(self, event: Walked) -> list[tuple[Walked, int]]:
        """Put an event in; it and every later event whose amount moved, with the change in 10^-12."""
        insort(self.events, event, key=_order)
        return self._again(event)

    def alter(self, event: Walked, quantity: int) -> list[tuple[Walked, int]]:
        """Give an event another quantity."""
        event.quantity = quantity
        return self._again(event)

    def remove(self, event: Walked) -> list[tuple[Walked, int]]:
        """Take a voided event out."""
        at = bisect_left(self.events, event.order, key=_order)
        del self.events[at]
        return [(event, -event.amount), *self._rewalk(at)]

    def _again(self, event: Walked) -> list[tuple[Walked, int]]:
        at = bisect_left(self.events, event.order, key=_order)
        old = event.amount
        moved = self._rewalk(at, always=1)
        if not moved or moved[0][0] is not event:
            moved.insert(0, (event, event.amount - old))
        return moved

    def _rewalk(self, at: int, always: int = 0) -> list[tuple[Walked, int]]:
        """Walk on from a place until the sums are what they were; ``always`` events are walked in any case."""
        before = self.events[at - 1].after if at else START
        moved = []
        for place in range(at, len(self.events)):
            event = self.events[place]
            after = _step(event, before)
            amount = _rounded(after.amount) - _rounded(before.amount)
            if amount != event.amount:
                moved.append((event, amount - event.amount))
                event.amount = amount
            if after == event.after and place >= at + always:
                break
            event.after = before = after
        return moved


def _order(event: Walked) -> tuple[int, str, str]:
    return event.order


def _step(event: Walked, before: Running) -> Running:
    charge = event.charge
    quantity = before.quantity + event.quantity
    low = adjustments.chargeable(charge, Fraction(max(before.quantity, 0), adjustments.QUANTITY))
    high = adjustments.chargeable(charge, Fraction(max(quantity, 0), adjustments.QUANTITY))
    allowance = before.allowance
    model = charge.price
    if model.model == "percentage":
        allowance, amount = percentage.step(model, allowance, high - low)
    elif model.model == "matrix":
        cell = matrix.curve(model, event.cell)
        amount = value(cell, high) - (value(cell, low) if before.started else ZERO)
    else:
        msg = f"charge {charge.charge_id}: model {model.model} is not walked"
        raise TypeError(msg)
    amount *= adjustments.net(charge)
    total = before.amount + amount
    if charge.maximum is not None:
        total = max(before.amount, min(total, Fraction(charge.maximum)))
    return Running(quantity, allowance, total, started=True)


def _rounded(amount: Fraction) -> int:
    scaled = amount * adjustments.RATED
    return money.round_ratio(scaled.numerator, scaled.denominator)
