"""What stands for content that may come again: equal content is made once, and what never recurs costs no index.

In: content as bytes, and how to make what stands for it (an ``int32``: a number, or a place in a store). Out: that of
each row. In a large batch only what stands there twice is remembered for later ones; in small ones, as versions come
in the course of a day, everything is. So a rate card is stored once, and a million customers with prices of their own
need no entry each to find that out, and no hash while nothing is remembered.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids
from tieout.column import Column
from tieout.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
SMALL: Final = 1024


class Distinct(NamedTuple):
    """The distinct values of a column as they first come, the place of each row's value among them, and the first row of each."""

    values: pa.Array
    code: npt.NDArray[np.int32]
    first: I64


def distinct(column: pa.Array) -> Distinct:
    """Find the distinct values of a column without nulls."""
    encoded = pc.dictionary_encode(column)
    code = encoded.indices.to_numpy()
    first = np.empty(len(encoded.dictionary), np.int64)
    first[code[::-1]] = np.arange(len(code))[::-1]  # the last write wins
    return Distinct(encoded.dictionary, code, first)


class Recurring:
    """Content by its hash."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._made = Column(np.int32)

    def one(self, key: tuple[int, int], make: Callable[[], int]) -> int:
        """What stands for one content, by the hash of its bytes; it is made where it was never seen."""
        place = self._index.enter(*key)
        if place == len(self._made):
            self._made.append(make())
        return int(self._made.rows[place])

    def all(self, contents: pa.Array, make: Callable[[I64], I64]) -> I64:
        """What stands for each row's content; ``make`` gets a row of each content never seen, in the order of appearance."""
        values, code, first = distinct(contents)
        known = self._index.find(ids.of_strings(values)) if len(self._index) else np.full(len(first), -1, np.int64)
        made = np.empty(len(first), np.int64)
        old = known >= 0
        made[old] = self._made.rows[known[old]]
        new = np.nonzero(~old)[0]
        made[new] = make(first[new])
        kept = new if len(contents) < SMALL else new[np.bincount(code, minlength=len(first))[new] > 1]
        place, _ = self._index.upsert(ids.of_strings(values.take(pa.array(kept))))
        self._made.extend(made[kept[np.argsort(place)]])
        return made[code]
