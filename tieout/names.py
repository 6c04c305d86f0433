"""Names as numbers: the distinct strings of a partition (customers, contracts, meters), each stored once.

In: strings, or columns of them. Out: for each a number, 0 for the first ever seen, and back. A name is known by its
128-bit hash, which is also the part of a record's identity that it gives. Source: docs/semantics.md section 1.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids
from tieout.column import Column
from tieout.ids import Lanes
from tieout.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.signedinteger[Any]]
NONE: Final = -1


class Names:
    """Distinct strings, numbered."""

    def __init__(self) -> None:
        self._index = KeyIndex()
        self._text, self._ends = Column(np.uint8), Column(np.int64)
        self._ends.append(0)
        self._words: pa.Array | None = None

    def __len__(self) -> int:
        return len(self._index)

    def number(self, name: str) -> int:
        """The number of a name, a new one where it was never seen."""
        number = self._index.enter(*_of_text(name))
        if number == len(self._ends) - 1:
            self._text.extend(np.frombuffer(name.encode(), np.uint8))
            self._ends.append(len(self._text))
        return number

    def find(self, name: str) -> int:
        """The number of a name, NONE where it was never seen."""
        return self._index.row(*_of_text(name))

    def number_all(self, column: pa.Array) -> I64:
        """The number of each row, new ones where they were never seen; NONE for null."""
        encoded = _encoded(column)
        numbers, fresh = self._index.upsert(ids.of_strings(encoded.dictionary))
        if fresh.any():
            at = np.nonzero(fresh)[0]
            words = encoded.dictionary.take(pa.array(at[np.argsort(numbers[at])])).cast(pa.large_binary())
            ends = np.frombuffer(words.buffers()[1], np.int64, len(words) + 1)
            if words.buffers()[2] is not None:
                self._text.extend(np.frombuffer(words.buffers()[2], np.uint8, int(ends[-1])))
            self._ends.extend(self._ends.rows[-1] + ends[1:])
        return _of_words(encoded, numbers)

    def find_hashes(self, hashes: Lanes) -> I64:
        """The number of each name by its hash, NONE where it was never seen."""
        return self._index.find(hashes)

    def lanes(self, numbers: Ints) -> Lanes:
        """The hash of each numbered name."""
        return self._index.keys.take(numbers, axis=0)

    def text(self, number: int) -> str:
        """A name."""
        start, end = self._ends.rows[number : number + 2].tolist()
        return self._text.rows[start:end].tobytes().decode()

    def take(self, numbers: Ints) -> pa.Array:
        """The names of numbers: dictionary-encoded while all names together are few next to the rows."""
        rows = pa.array(numbers)
        if len(self) > len(numbers) // 4:
            return self._all().take(rows).cast(pa.string())
        if self._words is None or len(self._words) < len(self):
            self._words = self._all().cast(pa.string())
        return pa.DictionaryArray.from_arrays(rows.cast(pa.int32()), self._words)

    def _all(self) -> pa.Array:
        buffers = [None, pa.py_buffer(self._ends.rows), pa.py_buffer(self._text.rows)]
        return pa.Array.from_buffers(pa.large_string(), len(self), buffers)


_of_text = lru_cache(maxsize=4096)(ids.of_text)
"""The few names that are looked up one by one are so again and again."""


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)


def _of_words(encoded: pa.DictionaryArray, numbers: I64) -> I64:
    """The words' numbers for each row; rows without a word take what stands behind the last."""
    codes = encoded.indices
    at = (codes.fill_null(len(numbers)) if codes.null_count else codes).to_numpy(zero_copy_only=False)
    return np.append(numbers, NONE)[at]
