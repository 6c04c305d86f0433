"""A growing index from 128-bit keys to row numbers, in numpy arrays.

In: columns of hashes (two ``uint64`` lanes). Out: for each the dense number of its row, 0 for the first key ever
seen; a new key takes the next number, and the first of equal keys within a batch is the one marked fresh. What a row
holds is its user's business: the identities of section 2, the running quantities of section 4.

Open addressing with linear probing over ``int32`` slots; all rows of a batch advance together, so the cost is a few
vector operations per probe length and not a Python call per row. Rows of several numbers are gathered by ``take``: an
index would wait for each row's memory before it asks for the next one's, which a large index pays for with most of its time.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes

_LOAD_NUMERATOR, _LOAD_DENOMINATOR = 1, 2
_START_BITS: Final = 6


class KeyIndex:
    """Dense numbering of keys."""

    def __init__(self) -> None:
        self.count = 0
        self._keys = np.empty((1 << _START_BITS, 2), np.uint64)  # both lanes of a key together: one look into memory
        self._slots = np.full(1 << (_START_BITS + 1), -1, np.int32)

    def __len__(self) -> int:
        return self.count

    @property
    def keys(self) -> Lanes:
        """The keys by their rows."""
        return self._keys[: self.count]

    def find(self, keys: Lanes) -> npt.NDArray[np.int64]:
        """The row of each key, -1 where it was never seen."""
        high, low = np.ascontiguousarray(keys[:, 0]), np.ascontiguousarray(keys[:, 1])
        rows = np.full(len(keys), -1, np.int64)
        mask = np.uint64(len(self._slots) - 1)
        todo, at = np.arange(len(keys)), high & mask
        while len(todo):
            slot = self._slots[at]
            known = self._keys.take(slot, axis=0)
            hit = (slot >= 0) & (known[:, 0] == high[todo]) & (known[:, 1] == low[todo])
            rows[todo[hit]] = slot[hit]
            go = ~hit & (slot >= 0)
            todo, at = todo[go], (at[go] + np.uint64(1)) & mask
        return rows

    def row(self, high: int, low: int) -> int:
        """The row of one key, -1 where it was never seen."""
        return int(self._slots[self._slot(high, low)])

    def enter(self, high: int, low: int) -> int:
        """The row of one key, a new one where it was never seen."""
        self._reserve(self.count + 1)
        slot = self._slot(high, low)
        row = int(self._slots[slot])
        if row < 0:
            row = self.count
            self._slots[slot] = row
            self._keys[row] = high, low
            self.count += 1
        return row

    def _slot(self, high: int, low: int) -> int:
        """Where a key stands, or would stand."""
        mask = len(self._slots) - 1
        at = high & mask
        while (row := int(self._slots[at])) >= 0 and self._keys[row].tolist() != [high, low]:
            at = (at + 1) & mask
        return at

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
                self._keys[new] = keys.take(todo[own], axis=0)
                self._slots[at[own]] = new
                self.count += len(own)
                fresh[todo[own]] = True
                slot = self._slots[at]
            known = self._keys.take(slot, axis=0)
            hit = (known[:, 0] == high[todo]) & (known[:, 1] == low[todo])
            rows[todo[hit]] = slot[hit]
            go = ~hit
            todo, at = todo[go], (at[go] + np.uint64(1)) & mask
        return rows, fresh

    def _reserve(self, wanted: int) -> None:
        if wanted > len(self._keys):
            room = np.empty((max(wanted, 2 * len(self._keys)), 2), np.uint64)  # what is not written yet takes no memory
            room[: self.count] = self.keys
            self._keys = room
        if wanted * _LOAD_DENOMINATOR > len(self._slots) * _LOAD_NUMERATOR:
            bits = int(wanted * _LOAD_DENOMINATOR // _LOAD_NUMERATOR).bit_length()
            self._slots = np.full(1 << bits, -1, np.int32)
            self._place()

    def _place(self) -> None:
        """Put every key into the new slots; keys are distinct, so no comparison is needed."""
        mask = np.uint64(len(self._slots) - 1)
        todo, at = np.arange(self.count), self._keys[: self.count, 0] & mask
        while len(todo):
            empty = self._slots[at] < 0
            self._slots[at[empty]] = todo[empty]
            placed = self._slots[at] == todo
            todo, at = todo[~placed], (at[~placed] + np.uint64(1)) & mask
