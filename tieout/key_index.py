"""A growing index from 128-bit keys to row numbers, in numpy arrays.

In: columns of hashes (two ``uint64`` lanes). Out: for each the dense number of its row, 0 for the first key ever
seen; a new key takes the next number, and the first of equal keys within a batch is the one marked fresh. What a row
holds is its user's business: the identities of section 2, the running quantities of section 4.

Open addressing with linear probing over ``int32`` slots; all rows of a batch advance together, so the cost is a few
vector operations per probe length and not a Python call per row.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes

_LOAD_NUMERATOR, _LOAD_DENOMINATOR = 1, 2
_START_BITS: Final = 12


class KeyIndex:
    """Dense numbering of keys."""

    def __init__(self) -> None:
        self.count = 0
        self.high = np.empty(1 << _START_BITS, np.uint64)
        self.low = np.empty(1 << _START_BITS, np.uint64)
        self._slots = np.full(1 << (_START_BITS + 1), -1, np.int32)

    def __len__(self) -> int:
        return self.count

    def find(self, keys: Lanes) -> npt.NDArray[np.int64]:
        """The row of each key, -1 where it was never seen."""
        high, low = np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])
        rows = np.full(len(keys), -1, np.int64)
        mask = np.uint64(len(self._slots) - 1)
        todo, at = np.arange(len(keys)), high & mask
        while len(todo):
            slot = self._slots[at]
            hit = (slot >= 0) & (self.high[slot] == high[todo]) & (self.low[slot] == low[todo])
            rows[todo[hit]] = slot[hit]
            go = ~hit & (slot >= 0)
            todo, at = todo[go], (at[go] + np.uint64(1)) & mask
        return rows

    def upsert(self, keys: Lanes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The row of each key, numbering new ones; fresh marks the first row of the batch with a new key."""
        self._reserve(self.count + len(keys))
        high, low = np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])
        rows, fresh = np.full(len(keys), -1, np.int64), np.zeros(len(keys), np.bool_)
        mask = np.uint64(len(self._slots) - 1)
        todo, at = np.arange(len(keys)), high & mask
        while len(todo):
            slot = self._slots[at]
            empty = np.nonzero(slot < 0)[0]
            if len(empty):
                backwards = empty[::-1]  # the last write wins, so the first row of the batch claims the slot
                self._slots[at[backwards]] = -2 - backwards
                owner = -2 - self._slots[at[empty]].astype(np.int64)
                own = empty[owner == empty]
                new = np.arange(self.count, self.count + len(own))
                self.high[new], self.low[new] = high[todo[own]], low[todo[own]]
                self._slots[at[own]] = new
                self.count += len(own)
                fresh[todo[own]] = True
                slot = self._slots[at]
            hit = (self.high[slot] == high[todo]) & (self.low[slot] == low[todo])
            rows[todo[hit]] = slot[hit]
            go = ~hit
            todo, at = todo[go], (at[go] + np.uint64(1)) & mask
        return rows, fresh

    def _reserve(self, wanted: int) -> None:
        if wanted > len(self.high):
            size = max(wanted, 2 * len(self.high))
            self.high = np.concatenate([self.high[: self.count], np.empty(size - self.count, np.uint64)])
            self.low = np.concatenate([self.low[: self.count], np.empty(size - self.count, np.uint64)])
        if wanted * _LOAD_DENOMINATOR > len(self._slots) * _LOAD_NUMERATOR:
            bits = int(wanted * _LOAD_DENOMINATOR // _LOAD_NUMERATOR).bit_length()
            self._slots = np.full(1 << bits, -1, np.int32)
            self._place()

    def _place(self) -> None:
        """Put every key into the new slots; keys are distinct, so no comparison is needed."""
        mask = np.uint64(len(self._slots) - 1)
        todo, at = np.arange(self.count), self.high[: self.count] & mask
        while len(todo):
            empty = self._slots[at] < 0
            self._slots[at[empty]] = todo[empty]
            placed = self._slots[at] == todo
            todo, at = todo[~placed], (at[~placed] + np.uint64(1)) & mask
