"""Numbers for content that may come again: equal content has one number, and what never recurs costs no index.

In: hashes of content. Out: a number for each, dense and rising by first appearance. In a large batch only what stands
there twice is remembered for later ones; in small ones, as versions come in the course of a day, everything is. So a
rate card is stored once, and a million customers with prices of their own need no entry each to find that out.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from tieout.column import Column
from tieout.ids import Lanes
from tieout.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
SMALL: Final = 1024


class Recurring:
    """Content by its number."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._numbers = Column(np.int32)
        self.count = 0

    def number(self, key: tuple[int, int]) -> int:
        """The number of one content; it is new where that was ``count`` before."""
        place = self._index.enter(*key)
        if place == len(self._numbers):
            self._numbers.append(self.count)
            self.count += 1
        return int(self._numbers.rows[place])

    def number_all(self, hashes: Lanes) -> tuple[I64, I64]:
        """The number of each row's content, and the rows of the new ones in the order of their numbers."""
        own = KeyIndex()
        code, fresh = own.upsert(hashes)
        first = np.empty(len(own), np.int64)
        first[code[fresh]] = np.nonzero(fresh)[0]
        distinct = hashes[first]
        known = self._index.find(distinct)
        number = np.where(known >= 0, self._numbers.rows[known] if len(self._numbers) else -1, -1).astype(np.int64)
        new = np.nonzero(number < 0)[0]
        new = new[np.argsort(first[new])]
        number[new] = np.arange(self.count, self.count + len(new))
        self.count += len(new)
        kept = new if len(hashes) < SMALL else new[np.bincount(code, minlength=len(own))[new] > 1]
        place, _ = self._index.upsert(distinct[kept])
        self._numbers.extend(number[kept[np.argsort(place)]])
        return number[code], first[new]
