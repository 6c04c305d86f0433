"""Rows of remembered identities, by number: what a part's table points at.

In: rows in the order in which they are remembered. Out: rows by their numbers, which count up from the first row ever
and never change. Who keeps them where is behind ``RowStore``: in memory here, in local files in ``sinks.seen_files``.
"""

from collections.abc import Iterator
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tieout.seen_part import Table

I64 = npt.NDArray[np.int64]
Rows = npt.NDArray[Any]
"""Rows of ``ROW``."""

ROW: Final = np.dtype([
    ("high", "<u8"),  # the identity's hash, both lanes
    ("low", "<u8"),
    ("digest", "<u8"),  # of the content
    ("remembered_at", "<i8"),  # UTC microseconds: forgotten when the clock is a horizon past it
    ("position", "<i8"),  # of the delivery that stands
])
_BLOCK: Final = 1 << 16


class RowStore(Protocol):
    """Keeps rows by number."""

    @property
    def first(self) -> int:
        """The number of the first row kept."""

    @property
    def end(self) -> int:
        """The number that the next row gets."""

    def append(self, rows: Rows) -> int:
        """Keep rows; the number of the first, the others follow without a gap."""

    def take(self, numbers: I64) -> Rows:
        """Rows by number, in the order asked; all between ``first`` and ``end``."""

    def scan(self, start: int) -> Iterator[tuple[int, Rows]]:
        """All rows from a number on, in order: the number of the first of some, and these."""

    def drop_before(self, number: int) -> None:
        """Nobody will ask for rows below a number any more."""

    def keep(self, table: Table) -> None:
        """The table over some of the rows, which may save reading them at the next start."""

    def tables(self) -> list[Table]:
        """Tables over the rows from ``first`` on, one after another without a gap; none is no harm."""


class MemoryRows:
    """All rows in memory, in blocks: a new block copies nothing, and an old one goes whole."""

    def __init__(self) -> None:
        self.first = self.end = 0
        self._blocks: dict[int, Rows] = {}

    def append(self, rows: Rows) -> int:
        """Keep rows; the number of the first."""
        number, at = self.end, 0
        while at < len(rows):
            block, place = divmod(self.end, _BLOCK)
            if block not in self._blocks:
                self._blocks[block] = np.empty(_BLOCK, ROW)
            some = rows[at : at + _BLOCK - place]
            self._blocks[block][place : place + len(some)] = some
            at, self.end = at + len(some), self.end + len(some)
        return number

    def take(self, numbers: I64) -> Rows:
        """Rows by number."""
        found = np.empty(len(numbers), ROW)
        blocks, places = np.divmod(numbers, _BLOCK)
        for block in np.unique(blocks).tolist():
            wanted = blocks == block
            found[wanted] = self._blocks[block][places[wanted]]
        return found

    def scan(self, start: int) -> Iterator[tuple[int, Rows]]:
        """All rows from a number on, in order."""
        number = max(start, self.first)
        while number < self.end:
            block, place = divmod(number, _BLOCK)
            some = self._blocks[block][place : place + self.end - number]
            yield number, some
            number += len(some)

    def drop_before(self, number: int) -> None:
        """Let go the blocks that lie wholly below a number."""
        self.first = max(self.first, number)
        for block in [block for block in self._blocks if (block + 1) * _BLOCK <= self.first]:
            del self._blocks[block]

    def keep(self, table: Table) -> None:
        """Nothing is kept: memory does not outlive its process."""

    def tables(self) -> list[Table]:
        """None."""
        return []
