"""What is asked of the lines that usage meets, at hand for those met lately: a line is a charge in a billing period.

In: tariff numbers with the starts of their billing periods, and a way to make what a line has. Out: the same, made once
while a line keeps its place; the lines of busy contracts hardly ever lose theirs. What a line has never changes, so what
is at hand can only be right. It takes four megabytes, however many contracts there are; a partition that prices nothing
by columns has none. Source: docs/semantics.md section 1 (identity).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes
from tieout.rating.tariff_columns import SLOT_BITS

I64 = npt.NDArray[np.int64]
_PLACES: Final = 1 << 16
_CHARGES: Final = 8  # versions of so many charges never meet in a place while those in use lie close together
_PERIOD: Final = np.int64(40_503)  # odd: the lines of neighbouring periods lie apart
_HALF_DAYS: Final = np.int64(36)  # a shift of microseconds


class Line(NamedTuple):
    """What lines have, one a row: the chain, the correlation, and what names the records of its usage besides the usage itself."""

    chain: I64
    correlation: Lanes
    usage: Lanes

    def take(self, rows: I64) -> "Line":
        """Some of them."""
        return Line(self.chain.take(rows), self.correlation.take(rows, axis=0), self.usage.take(rows, axis=0))


class Lines:
    """Lines met lately."""

    def __init__(self) -> None:
        self._of = np.empty((0, 2), np.int64)  # whose a place is: the tariff (its bits turned, so that none is 0) and the start
        self._chain, self._names = np.empty(0, np.int64), np.empty((0, 4), np.uint64)

    def of(self, tariff: I64, start: I64, make: Callable[[I64], Line]) -> Line:
        """What each row's line has; ``make`` gives it for some rows."""
        if not len(self._of):
            self._of, self._chain, self._names = np.zeros((_PLACES, 2), np.int64), np.empty(_PLACES, np.int64), np.empty((_PLACES, 4), np.uint64)
        place = _places(tariff, start)
        missed = self._missed(place, tariff, start)
        chain, names = self._chain.take(place), self._names.take(place, axis=0)
        owner = np.empty(_PLACES if len(missed) else 0, np.int64)
        while len(missed):
            at = place[missed]
            owner[at] = missed  # the last of the rows that want a place gets it; the others have the same line, or come again
            chosen = missed[owner[at] == missed]
            own, made = place[chosen], make(chosen)
            self._of[own] = np.stack([~tariff[chosen], start[chosen]], axis=1)
            self._chain[own], self._names[own, :2], self._names[own, 2:] = made
            chain[missed], names[missed] = self._chain.take(at), self._names.take(at, axis=0)
            missed = missed[self._missed(at, tariff[missed], start[missed])]
        return Line(chain, names[:, :2], names[:, 2:])

    def _missed(self, place: I64, tariff: I64, start: I64) -> I64:
        """The rows whose place is another line's."""
        held = self._of.take(place, axis=0)
        return np.flatnonzero((held[:, 0] != ~tariff) | (held[:, 1] != start))


def _places(tariff: I64, start: I64) -> I64:
    version, slot = tariff >> np.int64(SLOT_BITS), tariff & np.int64((1 << SLOT_BITS) - 1)
    return (version * _CHARGES + slot + (start >> _HALF_DAYS) * _PERIOD) & (_PLACES - 1)
