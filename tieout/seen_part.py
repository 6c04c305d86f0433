"""A part of the remembered identities: a table from hashes to row numbers that is filled once and dropped whole.

In: hashes of identities with the numbers of their rows. Out: for hashes that are sought, the numbers of rows that may
be theirs; the caller compares the whole identity, so a chance likeness costs a look and never an answer. An identity
may be entered again: its highest number counts.

A bucket is one cache line of sixteen 32-bit prints, filled from the left; what finds its bucket full goes on to the
next one. Nothing is ever moved or taken out, so nothing is rehashed, and a look for an unknown identity touches one
line. A part that takes no more can be kept as a ``Table`` and be there again after a restart at the cost of reading. At its capacity three slots of four are in use: 10.7 bytes an identity.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes

I64 = npt.NDArray[np.int64]
U64 = np.uint64
_FORMAT: Final = 1
_WIDTH: Final = 16
_AT_CAPACITY: Final = 12
_SPREAD: Final = U64(0x9E3779B97F4A7C15)
_HALF: Final = U64(32)


class Hashed(NamedTuple):
    """Identities in the order of their buckets, whatever the size of a table: one row each."""

    order: I64
    """The row of the batch."""
    spread: npt.NDArray[np.uint64]
    """Its upper half places it; equal for equal identities."""
    prints: npt.NDArray[np.uint32]
    """Of the other lane; never 0, which is an empty slot."""

    def of(self, chosen: npt.NDArray[np.bool_]) -> "Hashed":
        """Those of some rows of the batch."""
        kept = chosen[self.order]
        return Hashed(self.order[kept], self.spread[kept], self.prints[kept])


class Table(NamedTuple):
    """A part that takes no more, as it may be kept."""

    facts: I64
    """Format, first number, number after the last, capacity, count, the instants ``opened_at`` and ``newest``, slots."""
    prints: npt.NDArray[np.uint32]
    numbers: npt.NDArray[np.uint32]


def hashed(keys: Lanes) -> Hashed:
    """Identities prepared for seeking and entering; sorted, so that tables are walked in one direction."""
    rows = np.arange(len(keys), dtype=np.uint64)
    low = U64((1 << len(keys).bit_length()) - 1)  # a sort of integers that carry their row is faster than one of rows
    sort = np.sort(keys[:, 0] * _SPREAD & ~low | rows)
    order = (sort & low).astype(np.int64)
    return Hashed(order, sort & ~low, np.maximum(keys[order, 1].astype(np.uint32), np.uint32(1)))


class Part:
    """One table."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.count = capacity, 0
        self.first = self.opened_at = self.newest = 0
        self.buckets = -(-capacity // _AT_CAPACITY)
        self._prints = self._numbers = np.empty(0, np.uint32)
        self._used = np.empty(0, np.uint8)
        self._warm = 0

    def _make(self) -> None:
        """Make the table on first need; its pages come when they are touched."""
        if not len(self._prints):
            self._prints, self._numbers = np.zeros(self.buckets * _WIDTH, np.uint32), np.zeros(self.buckets * _WIDTH, np.uint32)
            self._used = np.zeros(self.buckets, np.uint8)

    def open(self, first: int, at: int) -> None:
        """Begin with the row of a number; ``at`` is an instant, and so is ``newest``."""
        self._make()
        self.first, self.opened_at, self.newest = first, at, at

    def warm(self, slots: int) -> None:
        """Touch some more of an empty table, so that its first batch does not wait for all its pages at once."""
        self._make()
        if not self.count and self._warm < len(self._prints):
            some = slice(self._warm, self._warm + slots)
            self._prints[some] = self._numbers[some] = 0
            self._warm += slots

    def table(self, end: int) -> Table:
        """What is to be kept of a part that takes no more; ``end`` follows its last row's number."""
        facts = [_FORMAT, self.first, end, self.capacity, self.count, self.opened_at, self.newest, len(self._prints)]
        return Table(np.array(facts), self._prints, self._numbers)

    @classmethod
    def of(cls, table: Table) -> "Part | None":
        """The part of a table, which takes no more; none where another build kept it."""
        form, first, _, capacity, count, opened_at, newest, slots = table.facts.tolist()
        part = cls(0)
        part.buckets = slots // _WIDTH
        if form != _FORMAT or not len(table.prints) == len(table.numbers) == part.buckets * _WIDTH:
            return None
        part.capacity, part.count, part._prints, part._numbers = capacity, count, table.prints, table.numbers
        part.first, part.opened_at, part.newest = first, opened_at, newest
        return part

    def candidates(self, sought: Hashed) -> tuple[I64, I64]:
        """Pairs of a place in ``sought`` and the number of a row that may be its; a place may come several times."""
        if not self.count:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        at, prints, places = self._bucket_of(sought.spread), sought.prints, np.arange(len(sought.order))
        lines_of = self._prints.reshape(-1, _WIDTH)
        found, numbers = [places[:0]], [places[:0]]
        while len(at):
            lines = lines_of.take(at, axis=0, mode="clip")
            like = np.flatnonzero(lines == prints[:, None])
            if len(like):
                who, slot = np.divmod(like, _WIDTH)
                found.append(places[who])
                numbers.append(self._numbers[at[who] * _WIDTH + slot].astype(np.int64) + self.first)
            full = np.flatnonzero(lines[:, -1])
            at, prints, places = self._next(at[full]), prints[full], places[full]
        return np.concatenate(found), np.concatenate(numbers)

    def enter(self, given: Hashed, numbers: I64) -> None:
        """Enter identities with their rows' numbers; ``capacity`` is the caller's to keep."""
        at, prints, rest = self._bucket_of(given.spread), given.prints, (numbers - self.first).astype(np.uint32)
        self.count += len(at)
        while len(at):
            starts = np.flatnonzero(np.concatenate(([True], at[1:] != at[:-1])))
            length = np.diff(starts, append=len(at))
            used = self._used[at[starts]].astype(np.int64)
            slot = np.arange(len(at)) - np.repeat(starts - used, length)
            self._used[at[starts]] = np.minimum(used + length, _WIDTH)
            fits = slot < _WIDTH
            place = at[fits] * _WIDTH + slot[fits]
            self._prints[place], self._numbers[place] = prints[fits], rest[fits]
            over = ~fits
            at, prints, rest = self._next(at[over]), prints[over], rest[over]

    def _bucket_of(self, spread: npt.NDArray[np.uint64]) -> I64:
        return ((spread >> _HALF) * U64(self.buckets) >> _HALF).astype(np.int64)

    def _next(self, at: I64) -> I64:
        """The next buckets, the first after the last: equal ones stay together in this order too."""
        return np.where(at + 1 == self.buckets, 0, at + 1)
