"""``package``: whole packages of ``size`` units, ``P(q) = ceil((q - free)+ / size) x p`` (``partial: down`` floors).

Source: docs/semantics.md section 4.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tieout.contracts import Package



def packages(price: Package, quantity: Fraction) -> int:
    """How many packages the quantity takes."""
    paid = quantity - Fraction(price.free_units)
    if paid <= 0:
        return 0
    count = paid / Fraction(price.size)
    return count.numerator // count.denominator if price.partial == "down" else -(-count.numerator // count.denominator)


def amount(price: Package, quantity: Fraction) -> Fraction:
    """The price of a cumulative quantity."""
    return packages(price, quantity) * Fraction(price.price)
