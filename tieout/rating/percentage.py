"""``percentage``: a rate on the value of each event, with allowances, a fixed fee and bounds per event.

An event is wholly free while every allowance that is set still holds; the event that crosses ``free_amount`` pays the
rate on the part above it and the whole fixed fee; the first allowance used up ends both.
Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from tieout.rating.curve import ZERO

if TYPE_CHECKING:
    from tieout.contracts import Percentage


class Allowance(NamedTuple):
    """How far the allowances of a billing period are used: events and value so far. Both only grow, so they end once."""

    events: int = 0
    value: Fraction = ZERO


def step(price: Percentage, used: Allowance, value: Fraction) -> tuple[Allowance, Fraction]:
    """The allowance after an event of ``value``, and the event's amount."""
    events, total = used.events + 1, used.value + value
    rated = value
    if price.free_events is not None or price.free_amount is not None:
        events_left = price.free_events is None or events <= price.free_events
        amount_left = price.free_amount is None or total <= Fraction(price.free_amount)
        if events_left and amount_left:
            return Allowance(events, total), ZERO
        if events_left and price.free_amount is not None:
            rated = total - max(used.value, Fraction(price.free_amount))
    amount = rated * Fraction(price.rate_percent) / 100 + Fraction(price.fixed_per_event or 0)
    if price.minimum_per_event is not None:
        amount = max(amount, Fraction(price.minimum_per_event))
    if price.maximum_per_event is not None:
        amount = min(amount, Fraction(price.maximum_per_event))
    return Allowance(events, total), amount
