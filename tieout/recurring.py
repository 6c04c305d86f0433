"""What stands for content that may come again: equal content is made once, and what never recurs costs no index.

In: hashes of content, and how to make what stands for it (an ``int32``: a number, or a place in a store). Out: that of
each row. In a large batch only what stands there twice is remembered for later ones; in small ones, as versions come
in the course of a day, everything is. So a rate card is stored once, and a million customers with prices of their own
need no entry each to find that out.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from tieout.column import Column
from tieout.ids import Lanes
from tieout.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
SMALL: Final = 1024


class Recurring:
    """Content by its hash."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._made = Column(np.int32)

    def one(self, key: tuple[int, int], make: Callable[[], int]) -> int:
        """What stands for one content; it is made where it was never seen."""
        place = self._index.enter(*key)
        if place == len(self._made):
            self._made.append(make())
        return int(self._made.rows[place])

    def all(self, hashes: Lanes, make: Callable[[I64], I64]) -> I64:
        """What stands for each row's content; ``make`` gets a row of each content never seen, in the order of appearance."""
        own = KeyIndex()
        code, fresh = own.upsert(hashes)
        first = np.empty(len(own), np.int64)
        first[code[fresh]] = np.nonzero(fresh)[0]
        known = self._index.find(hashes[first])
        made = np.empty(len(own), np.int64)
        old = known >= 0
        made[old] = self._made.rows[known[old]]
        new = np.nonzero(~old)[0]
        new = new[np.argsort(first[new])]
        made[new] = make(first[new])
        kept = new if len(hashes) < SMALL else new[np.bincount(code, minlength=len(own))[new] > 1]
        place, _ = self._index.upsert(hashes[first[kept]])
        self._made.extend(made[kept[np.argsort(place)]])
        return made[code]
