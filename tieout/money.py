"""Money: exact until a rule rounds, and every rounding in one table.

In: exact fractions, Python integers in units of 10^-scale. Out: rounded integers, and parts that sum to their whole.
No binary float takes part anywhere. Source: docs/semantics.md section 1 (types, rounding, splitting); ISO 4217 for
the minor units.
"""

from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cache
from typing import Final, NamedTuple

from iso4217 import Currency

QUANTITY_SCALE: Final = 9
QUANTITY_DIGITS: Final = 28
UNIT_PRICE_SCALE: Final = 12
UNIT_PRICE_DIGITS: Final = 24
RATED_SCALE: Final = 12
RATED_DIGITS: Final = 38


class Rounding(NamedTuple):
    """One place where a figure is rounded."""

    place: str
    scale: str
    mode: str


ROUNDINGS: Final = (
    Rounding("unit conversion, where the charge asks for it", "0", "ceil, floor or half up, as the charge says"),
    Rounding("packages, whole ones", "0", "ceil; floor with partial: down"),
    Rounding("P(q), the price of a cumulative quantity", "12", "half up, away from zero"),
    Rounding("a walked amount, as the difference of two running sums", "12", "half up, away from zero"),
    Rounding("a line, from its exact amount", "the currency's minor unit", "half up, away from zero"),
    Rounding("a commitment's running sums, before a line takes their change", "the currency's minor unit", "half up, away from zero"),
    Rounding("a coupon's whole amount, before it is split", "the currency's minor unit", "half up, away from zero"),
    Rounding("tax, from the sum of the rounded lines of a code", "the currency's minor unit", "half up, away from zero"),
    Rounding("the parts of a split amount", "the currency's minor unit", "largest remainder, ties to the first"),
)


_EXACT: Final = Context(prec=200)


def units(number: Decimal, scale: int) -> int:
    """A decimal as an integer in units of 10^-scale; ValueError where it has more decimals."""
    if not number:
        return 0
    scaled = number.scaleb(scale, _EXACT)
    whole = int(scaled)
    if whole != scaled:
        msg = f"{number} has more than {scale} decimals"
        raise ValueError(msg)
    return whole


def decimal(whole: int, scale: int) -> Decimal:
    """An integer in units of 10^-scale as a decimal, exact."""
    return Decimal(whole).scaleb(-scale, _EXACT)


def sum_exact(left: Decimal | None, right: Decimal) -> Decimal:
    """The sum of two decimals without the rounding of the default context."""
    return right if left is None else _EXACT.add(left, right)


def round_ratio(numerator: int, denominator: int) -> int:
    """The nearest integer to a ratio (denominator above 0), halves away from zero."""
    whole, rest = divmod(abs(numerator), denominator)
    whole += 2 * rest >= denominator
    return -whole if numerator < 0 else whole


@cache
def minor_unit(currency: str) -> int:
    """The number of decimals of a currency by ISO 4217 (JPY 0, USD 2, BHD 3); ValueError for an unknown one."""
    try:
        found = Currency(currency)
    except ValueError as error:
        msg = f"{currency!r} is not a currency of ISO 4217; use its three capital letters, as in 'USD'"
        raise ValueError(msg) from error
    return found.exponent or 0


def known(currency: str) -> bool:
    """Whether a currency is one of ISO 4217's."""
    try:
        minor_unit(currency)
    except ValueError:
        return False
    return True


def to_minor(units: int, scale: int, currency: str) -> int:
    """An amount in units of 10^-scale as minor units of its currency, half up."""
    return round_ratio(units * 10 ** minor_unit(currency), 10**scale)


def allocate(total: int, weights: Sequence[int]) -> list[int]:
    """Split a whole by weights (0 or more, not all 0); parts sum to it, remainders go to the largest, ties to the first."""
    whole = sum(weights)
    if whole <= 0 or min(weights) < 0:
        msg = f"cannot split {total} by the weights {list(weights)}; they must be 0 or more and not all 0"
        raise ValueError(msg)
    sign = -1 if total < 0 else 1
    parts = [divmod(abs(total) * weight, whole) for weight in weights]
    left = abs(total) - sum(part for part, _ in parts)
    by_rest = sorted(range(len(parts)), key=lambda i: (-parts[i][1], i))
    extra = set(by_rest[:left])
    return [sign * (part + (i in extra)) for i, (part, _) in enumerate(parts)]
