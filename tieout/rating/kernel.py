"""The columnar kernel of linear prices: ``P(q)`` of many charges at many quantities at once, exact.

In: the number of a price in the table and a raw cumulative quantity (``int64``, units of 10^-9, 0 or more), n rows.
Out: ``P(q)`` in units of 10^-12 as 128-bit lanes, n rows, rounded half up once.

A price is taken into the table only when every product stays below 2**127: slope and quantity below 2**63, bases
below 2**124, the denominator below 2**32. Others are priced one by one by ``LinearPrice.at``, which is also the rule
that this kernel is tested against. Source: docs/semantics.md section 4.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from tieout import wide
from tieout.rating.adjustments import LinearPrice
from tieout.rating.plain import Step

I64 = npt.NDArray[np.int64]
_OPEN: Final = 2**63 - 1
_LOW64: Final = 2**64 - 1
_NO_MAXIMUM: Final = 2**126


class PriceTable:
    """Linear prices as arrays; equal prices share one number."""

    def __init__(self) -> None:
        self._numbers: dict[LinearPrice, int] = {}
        self._first: list[int] = []
        self._denominators: list[int] = []
        self._maxima: list[int] = []
        self._steps: list[Step | None] = []
        self._pieces: list[tuple[int, int, int, int]] = []
        self._longest = 1
        self._arrays: _Arrays | None = None

    def number(self, price: LinearPrice) -> int:
        """The number of a price, -1 when the kernel cannot hold it."""
        known = self._numbers.get(price)
        if known is not None:
            return known
        if not _fits(price):
            return -1
        number = self._numbers[price] = len(self._first)
        self._first.append(len(self._pieces))
        self._denominators.append(price.denominator)
        self._steps.append(price.step)
        self._maxima.append(_NO_MAXIMUM if price.maximum is None else price.maximum)
        self._pieces += [
            (_OPEN if p.up_to is None else min(p.up_to, _OPEN), p.low, p.base, p.slope) for p in price.pieces
        ]
        self._longest = max(self._longest, len(price.pieces))
        self._arrays = None
        return number

    def at(self, numbers: I64, quantities: I64) -> tuple[wide.U64, wide.U64]:
        """``P(q)`` row by row, as (high, low) lanes."""
        arrays = self._arrays = self._arrays or _Arrays(self)
        piece = arrays.first[numbers]
        if arrays.steps:
            size = arrays.size[numbers]
            count = (np.maximum(quantities - arrays.free[numbers], 0) + arrays.partial[numbers]) // np.maximum(size, 1)
            quantities = np.where(size > 0, count, quantities)
        for _ in range(self._longest - 1):
            over = quantities > arrays.up_to[piece]
            if not over.any():
                break
            piece = piece + over
        steps = (quantities - arrays.low[piece]).view(np.uint64)
        high, low = wide.multiply(steps, arrays.slope[piece])
        high, low = wide.add(high, low, arrays.base_high[piece], arrays.base_low[piece])
        if arrays.divides:
            denominator = arrays.denominator[numbers]
            high, low = wide.add(high, low, np.zeros_like(high), denominator >> np.uint64(1))
            high, low = wide.divide(high, low, denominator)
        if arrays.caps:
            max_high, max_low = arrays.max_high[numbers], arrays.max_low[numbers]
            over = (high > max_high) | ((high == max_high) & (low > max_low))
            high, low = np.where(over, max_high, high), np.where(over, max_low, low)
        return high, low


class _Arrays:
    """The table as numpy sees it; built again after prices were added."""

    def __init__(self, table: PriceTable) -> None:
        pieces = table._pieces  # noqa: SLF001 - the two halves of one table
        self.first = np.array(table._first, np.int64)  # noqa: SLF001
        self.up_to = np.array([p[0] for p in pieces], np.int64)
        self.low = np.array([p[1] for p in pieces], np.int64)
        self.slope = np.array([p[3] for p in pieces], np.uint64)
        self.base_high = np.array([p[2] >> 64 for p in pieces], np.uint64)
        self.base_low = np.array([p[2] & _LOW64 for p in pieces], np.uint64)
        self.denominator = np.array(table._denominators, np.uint64)  # noqa: SLF001
        self.max_high = np.array([m >> 64 for m in table._maxima], np.uint64)  # noqa: SLF001
        self.max_low = np.array([m & _LOW64 for m in table._maxima], np.uint64)  # noqa: SLF001
        steps = [(step.free, step.size, step.size - 1 if step.up else 0) if step else (0, 0, 0) for step in table._steps]  # noqa: SLF001
        self.free, self.size, self.partial = (np.array([step[i] for step in steps], np.int64) for i in range(3))
        self.steps = bool(self.size.any())
        self.divides = bool((self.denominator > 1).any())
        self.caps = min(table._maxima) < _NO_MAXIMUM  # noqa: SLF001


def _fits(price: LinearPrice) -> bool:
    return (
        0 < price.denominator < 2**32
        and all(0 <= p.low < 2**63 and 0 <= p.slope < 2**63 and 0 <= p.base < 2**124 for p in price.pieces)
        and (price.step is None or max(price.step.free, price.step.size) < 2**61)
        and (price.maximum is None or price.maximum < _NO_MAXIMUM)
    )
