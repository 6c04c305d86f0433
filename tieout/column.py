"""Columns that grow: appending rows costs the same however many there are already.

In: rows, one or many at a time. Out: an array of all of them, which is a view and is asked for again after each
change. Room is doubled when it is used up, and what is not written yet takes no memory.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

_START: Final = 16


class Column:
    """A growing array of one type."""

    __slots__ = ("_data", "count")

    def __init__(self, kind: npt.DTypeLike, width: int | None = None) -> None:
        """``width`` numbers to a row, which lie together and so are read at once; None for one."""
        self._data: npt.NDArray[Any] = np.empty(_START if width is None else (_START, width), kind)
        self.count = 0

    def __len__(self) -> int:
        return self.count

    @property
    def rows(self) -> npt.NDArray[Any]:
        """All rows; writing to them changes the column."""
        return self._data[: self.count]

    def append(self, value: Any) -> int:
        """Add a row; its number."""
        row = self.count
        if row == len(self._data):
            self._reserve(row + 1)
        self._data[row] = value
        self.count = row + 1
        return row

    def extend(self, values: npt.ArrayLike) -> None:
        """Add many rows."""
        given = np.asarray(values)
        end = self.count + len(given)
        self._reserve(end)
        self._data[self.count : end] = given
        self.count = end

    def _reserve(self, wanted: int) -> None:
        if wanted > len(self._data):
            room = np.empty((max(wanted, 2 * len(self._data)), *self._data.shape[1:]), self._data.dtype)
            room[: self.count] = self.rows
            self._data = room
