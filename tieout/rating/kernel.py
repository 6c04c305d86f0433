"""The columnar kernel of linear prices: ``P(q)`` of many charges at many quantities at once, exact.

In: the number of a price in the table and a raw cumulative quantity (``int64``, units of 10^-9, 0 or more), n rows.
Out: ``P(q)`` in units of 10^-12 as 128-bit lanes, n rows, rounded half up once.

Most prices are **neat**: every bound is a whole number of units, so ``P(q) = base + q x slope / 10^9`` with a base in
whole units of 10^-12 (``int64``, it may be below 0) and the unit price as slope; three numbers a tier, and a batch of
them costs a few operations. The others are held as the general pieces of ``LinearPrice`` where every product stays
below 2**127: slope and quantity below 2**63, bases below 2**124, the denominator below 2**32. What fits neither way is
priced one by one by ``LinearPrice.at``, which is also the rule that this kernel is tested against.

A price is known by the hash of its content, so those that recur share a number. Adding prices never builds anything anew.
Source: docs/semantics.md section 4.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import ids, wide
from tieout.column import Column
from tieout.rating.adjustments import QUANTITY, LinearPrice, safe_quantity
from tieout.recurring import Recurring

I64 = npt.NDArray[np.int64]
WIDEST: Final = 2**62
"""The safe quantity of every neat price: below 2**60 its figures cannot reach the largest amount sooner."""
NEAT: Final = 2**60
"""Bounds, unit prices and fees of a neat price are below this, in their units."""
_OPEN: Final = 2**63 - 1
_LOW64: Final = 2**64 - 1
_NO_MAXIMUM: Final = 2**126
_GENERAL: Final = 2**30
"""Numbers of general prices begin here."""
_UNIT: Final = np.int64(QUANTITY)
_HALF: Final = np.int64(QUANTITY // 2)
_NARROW: Final = 2**61


class PriceTable:
    """Linear prices as arrays. A price's number is the place of its first piece; -1 where the kernel cannot hold it."""

    def __init__(self) -> None:
        self._known = Recurring()
        self._up_to, self._pieces = Column(np.int64), Column(np.int64, 2)  # of each piece its bound, and its slope and base
        self._neat = 0
        self._general = _General()

    def __len__(self) -> int:
        return self._neat + len(self._general.safe)

    def number(self, price: LinearPrice) -> int:
        """The number of a price, -1 when the kernel cannot hold it."""
        return self._known.one(ids.lanes(("linear", repr(price))), lambda: self.put(price))

    def numbers(self, contents: pa.Array, make: Callable[[I64], I64]) -> I64:
        """The numbers of prices by the bytes of their content; ``make`` puts those of some rows."""
        return self._known.all(contents, make)

    def put(self, price: LinearPrice) -> int:
        """Take a price in, whether it is known or not; its number."""
        return _GENERAL + self._general.add(price) if _fits(price) else -1

    def put_neat(self, sizes: I64, pieces: I64) -> I64:
        """The same for neat prices: each has ``sizes`` pieces (up to, slope, base), which lie one after the other, the last open."""
        first = np.cumsum(sizes) - sizes + len(self._pieces)
        if len(self._pieces) + len(pieces) > _GENERAL:
            msg = f"a partition has more than {_GENERAL} tiers of distinct prices; use more partitions, or share prices in rate cards"
            raise OverflowError(msg)
        self._up_to.extend(pieces[:, 0])
        self._pieces.extend(pieces[:, 1:])
        self._neat += len(sizes)
        return first

    def safe(self, numbers: I64) -> I64:
        """The quantity up to which each price surely stays below the largest amount; -1 where there is none."""
        out = np.where(numbers < 0, -1, WIDEST)
        general = numbers >= _GENERAL
        if general.any():
            out[general] = self._general.safe.rows[numbers[general] - _GENERAL]
        return out

    def at(self, numbers: I64, quantities: I64) -> tuple[wide.U64, wide.U64]:
        """``P(q)`` row by row, as (high, low) lanes."""
        general = numbers >= _GENERAL
        if not general.any():
            return self._neat_at(numbers, quantities)
        high, low = np.empty(len(numbers), np.uint64), np.empty(len(numbers), np.uint64)
        neat = ~general
        high[neat], low[neat] = self._neat_at(numbers[neat], quantities[neat])
        high[general], low[general] = self._general.at(numbers[general] - _GENERAL, quantities[general])
        return high, low

    def _neat_at(self, numbers: I64, quantities: I64) -> tuple[wide.U64, wide.U64]:
        at, up_to = numbers.copy(), self._up_to.rows
        over = np.flatnonzero(quantities > up_to.take(at))
        while len(over):  # a price's last piece is open
            at[over] += 1
            over = over[quantities[over] > up_to.take(at[over])]
        found = self._pieces.rows.take(at, axis=0)
        return neat_amounts(quantities, found[:, 0], found[:, 1])


def neat_amounts(quantities: I64, slope: I64, base: I64) -> tuple[wide.U64, wide.U64]:
    """``base + q x slope / 10^9``, half up, as lanes; q and slope from 0 on, the sum not below 0.

    The product is taken by whole units and parts of one, so that only whole units by prices can be wide.
    """
    whole, dear = quantities // _UNIT, slope // _UNIT
    part, cheap = quantities - whole * _UNIT, slope - dear * _UNIT
    small = part * dear + (part * cheap + _HALF) // _UNIT  # both products are below 2**60
    if int(whole.max(initial=0)) * int(slope.max(initial=0)) < _NARROW and int(np.abs(base).max(initial=0)) < _NARROW:
        low = (whole * slope + small + base).view(np.uint64)
        return np.zeros_like(low), low
    high, low = wide.multiply(whole.view(np.uint64), slope.view(np.uint64))
    high, low = wide.add(high, low, np.zeros_like(high), small.view(np.uint64))
    return wide.add(high, low, (base >> np.int64(63)).view(np.uint64), base.view(np.uint64))


class _General:
    """Prices in general pieces."""

    def __init__(self) -> None:
        self._first, self._denominator, self.safe = Column(np.int64), Column(np.uint64), Column(np.int64)
        self._max_high, self._max_low = Column(np.uint64), Column(np.uint64)
        self._free, self._size, self._partial = Column(np.int64), Column(np.int64), Column(np.int64)
        self._up_to, self._low, self._slope = Column(np.int64), Column(np.int64), Column(np.uint64)
        self._base_high, self._base_low = Column(np.uint64), Column(np.uint64)
        self._longest = 1
        self._steps = self._divides = self._caps = False

    def add(self, price: LinearPrice) -> int:
        """Take a price in; its place."""
        number = self._first.append(len(self._up_to))
        for piece in price.pieces:
            self._up_to.append(_OPEN if piece.up_to is None else min(piece.up_to, _OPEN))
            self._low.append(piece.low)
            self._slope.append(piece.slope)
            self._base_high.append(piece.base >> 64)
            self._base_low.append(piece.base & _LOW64)
        self._denominator.append(price.denominator)
        maximum = _NO_MAXIMUM if price.maximum is None else price.maximum
        self._max_high.append(maximum >> 64)
        self._max_low.append(maximum & _LOW64)
        step = price.step
        self._free.append(step.free if step else 0)
        self._size.append(step.size if step else 0)
        self._partial.append(step.size - 1 if step and step.up else 0)
        self.safe.append(max(min(safe_quantity(price), WIDEST), -1))
        self._longest = max(self._longest, len(price.pieces))
        self._steps |= price.step is not None
        self._divides |= price.denominator > 1
        self._caps |= price.maximum is not None
        return number

    def at(self, numbers: I64, quantities: I64) -> tuple[wide.U64, wide.U64]:
        piece = self._first.rows[numbers]
        if self._steps:
            size = self._size.rows[numbers]
            count = (np.maximum(quantities - self._free.rows[numbers], 0) + self._partial.rows[numbers]) // np.maximum(size, 1)
            quantities = np.where(size > 0, count, quantities)
        for _ in range(self._longest - 1):
            over = quantities > self._up_to.rows[piece]
            if not over.any():
                break
            piece = piece + over
        steps = (quantities - self._low.rows[piece]).view(np.uint64)
        high, low = wide.multiply(steps, self._slope.rows[piece])
        high, low = wide.add(high, low, self._base_high.rows[piece], self._base_low.rows[piece])
        if self._divides:
            denominator = self._denominator.rows[numbers]
            high, low = wide.add(high, low, np.zeros_like(high), denominator >> np.uint64(1))
            high, low = wide.divide(high, low, denominator)
        if self._caps:
            max_high, max_low = self._max_high.rows[numbers], self._max_low.rows[numbers]
            over = (high > max_high) | ((high == max_high) & (low > max_low))
            high, low = np.where(over, max_high, high), np.where(over, max_low, low)
        return high, low


def _fits(price: LinearPrice) -> bool:
    return (
        0 < price.denominator < 2**32
        and all(0 <= p.low < 2**63 and 0 <= p.slope < 2**63 and 0 <= p.base < 2**124 for p in price.pieces)
        and (price.step is None or max(price.step.free, price.step.size) < 2**61)
        and (price.maximum is None or price.maximum < _NO_MAXIMUM)
    )
