"""Contracts and their versions as columns, and the as-of join of events to them.

In: versions as they come into force. Out: by row number all that the hot path asks of a version, and for each
(customer, instant) the row of the version that governs. A version costs some eighty bytes here and no object. The
governing intervals of a contract lie next to each other, by start; where they change they are laid down anew, and
what was left behind is cleared away when it is half of all. Source: docs/semantics.md section 3.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tieout.column import Column
from tieout.contract_batch import FOREVER, Span
from tieout.ids import Lanes
from tieout.names import NONE, Names

I64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.int32]
NO_CUSTOMER: Final = -1
SEVERAL: Final = -2
NO_CONTRACT: Final = -3
_CLEAR_FROM: Final = 4096


class Stretch(NamedTuple):
    """A stretch of time that one version governs, half-open, UTC microseconds; the version by its row."""

    start_us: int
    end_us: int
    row: int


class ContractColumns:
    """Contracts, their customers and their versions in force, by number."""

    def __init__(self) -> None:
        self.contracts, self.customers = Names(), Names()
        self._contracts = Column(np.int32, 4)  # first and number of a contract's intervals, its customer, its last version in force
        self._sole = Column(np.int32)  # a customer's contract, NONE, or SEVERAL
        self._several: dict[int, tuple[int, ...]] = {}
        self._versions = Column(np.int32, 4)  # a version's contract and number, the version before it, the place of its record
        self._spans, self._digests = Column(np.int64, 2), Column(np.uint64, 2)  # when it is in force, and its record's hash
        self._intervals = Column(np.int64, 3)  # start, end, version
        self._left_behind = 0

    def __len__(self) -> int:
        return len(self._versions)

    @property
    def customer(self) -> Ints:
        """The customer of each contract, NONE while it is not known."""
        return self._contracts.rows[:, 2]

    @property
    def last(self) -> Ints:
        """The last version in force of each contract, NONE where there is none."""
        return self._contracts.rows[:, 3]

    @property
    def contract(self) -> Ints:
        """The contract of each version in force."""
        return self._versions.rows[:, 0]

    @property
    def number(self) -> Ints:
        """The number of each version."""
        return self._versions.rows[:, 1]

    @property
    def previous(self) -> Ints:
        """The version before each, NONE for a contract's first."""
        return self._versions.rows[:, 2]

    @property
    def place(self) -> Ints:
        """Where each version's record is kept, NONE where it has none."""
        return self._versions.rows[:, 3]

    @property
    def spans(self) -> I64:
        """From when until when each version is in force, if no later one is."""
        return self._spans.rows

    @property
    def digests(self) -> Lanes:
        """The hash of each version's record."""
        return self._digests.rows

    def contract_of(self, name: str) -> int:
        """The number of a contract, a new one where it was never seen."""
        number = self.contracts.number(name)
        self.make_room()
        return number

    def customer_of(self, name: str) -> int:
        """The number of a customer, a new one where it was never seen."""
        number = self.customers.number(name)
        self.make_room()
        return number

    def make_room(self) -> None:
        """Give every contract and customer that got a number its row."""
        more = len(self.contracts) - len(self._contracts)
        if more:
            self._contracts.extend(np.broadcast_to(np.array([0, 0, NONE, NONE]), (more, 4)))
        more = len(self.customers) - len(self._sole)
        if more:
            self._sole.extend(np.full(more, NONE, np.int32))

    def add(self, contract: int, number: int, start: int, end: int, place: int, digest: tuple[int, int]) -> int:
        """Bring a version into force, the next of its contract; its row."""
        last = int(self.last[contract])
        row = self._versions.append((contract, number, last, place))
        self._spans.append((start, end))
        self._digests.append(digest)
        self.last[contract] = row
        if last == NONE:
            self._own(int(self.customer[contract]), contract)
        self._lay(contract, overlaid(self.stretches(contract), Stretch(start, end, row)))
        return row

    def add_all(self, contract: I64, number: I64, start: I64, end: I64, place: I64, digest: Lanes) -> I64:
        """Bring many into force, each contract's versions in rising order without a gap; their rows."""
        rows = np.arange(len(self), len(self) + len(contract))
        order = np.argsort(contract, kind="stable")
        grouped = contract[order]
        first = np.nonzero(np.r_[True, grouped[1:] != grouped[:-1]])[0]
        last = np.r_[first[1:], len(order)] - 1
        before = np.empty(len(order), np.int64)
        before[order[1:]] = rows[order[:-1]]
        old = self.last[grouped[first]]
        before[order[first]] = old
        self._versions.extend(np.stack([contract, number, before, place], axis=1))
        self._spans.extend(np.stack([start, end], axis=1))
        self._digests.extend(digest)
        self.last[grouped[first]] = rows[order[last]]
        self._own_all(grouped[first[old == NONE]], order[first[old == NONE]])
        self._lay_all(grouped, first, last, rows[order])
        return rows

    def row_of(self, contract: int, number: int) -> int:
        """The row of one version of a contract, NONE where it is not in force."""
        row, numbers, previous = int(self.last[contract]), self.number, self.previous
        while row != NONE and numbers[row] > number:
            row = int(previous[row])
        return row if row != NONE and numbers[row] == number else NONE

    def rows_of(self, contract: int) -> Iterator[int]:
        """The versions of a contract, the last first."""
        row = int(self.last[contract])
        while row != NONE:
            yield row
            row = int(self.previous[row])

    def customer_of_rows(self, rows: I64) -> Ints:
        """The customers of versions."""
        return self.customer[self.contract[rows]]

    def contracts_of(self, customer: int) -> tuple[int, ...]:
        """The contracts of a customer that have a version in force at some time."""
        sole = int(self._sole.rows[customer])
        return self._several[customer] if sole == SEVERAL else () if sole == NONE else (sole,)

    def stretches(self, contract: int) -> list[Stretch]:
        """The governing intervals of a contract, by start."""
        return [Stretch(*line) for line in self._lines(contract).tolist()]

    def _lines(self, contract: int) -> I64:
        first, count = self._contracts.rows[contract, :2].tolist()
        return self._intervals.rows[first : first + count]

    def governing(self, contract: int, instant: int) -> int:
        """The version in force at an instant, NO_CONTRACT where there is none."""
        lines = self._lines(contract)
        at = int(np.searchsorted(lines[:, 0], instant, side="right")) - 1
        return int(lines[at, 2]) if at >= 0 and lines[at, 1] > instant else NO_CONTRACT

    def tag(self, customers: Lanes, code: I64, time: I64) -> I64:
        """The row of the version that governs each event: an as-of join by customer and event time.

        ``customers`` are the hashes of the distinct customers, ``code`` is each event's place among them.

        ``NO_CUSTOMER`` where no contract names the customer, ``SEVERAL`` where more than one does, ``NO_CONTRACT``
        where the only one has no version in force at the time.
        """
        known = self.customers.find_hashes(customers)
        sole = np.where(known == NONE, NO_CUSTOMER, self._sole.rows[known] if len(self._sole) else NO_CUSTOMER).astype(np.int64)
        out = np.where(sole < 0, sole, NO_CONTRACT).take(code)
        if not len(self._intervals) or not (sole >= 0).any():
            return out
        first, count = self._contracts.rows.take(np.maximum(sole, 0), axis=0).T[:2].astype(np.int64)
        holds = (sole >= 0) & (count > 0)
        lines = self._intervals.rows.take(np.where(holds, first + count - 1, 0).take(code), axis=0)
        earlier = np.flatnonzero(lines[:, 0] > time)  # than the contract's last interval
        if len(earlier):
            at = code[earlier]
            lines[earlier] = self._line_at(first[at], count[at], time[earlier])
        inside = (lines[:, 0] <= time) & (time < lines[:, 1])
        return np.where(inside if holds.all() else inside & holds.take(code), lines[:, 2], out)

    def _line_at(self, first: I64, count: I64, t: I64) -> I64:
        """The last interval that starts at or before each instant, by halving; the first one where none does."""
        lines, low, high = self._intervals.rows, first, first + count  # of contracts without any the next one's is of no use
        for _ in range(int(count.max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            inside = low < high
            right = inside & (lines[np.minimum(middle, len(lines) - 1), 0] <= t)
            low, high = np.where(right, middle + 1, low), np.where(inside & ~right, middle, high)
        return lines.take(np.minimum(np.maximum(low - 1, first), len(lines) - 1), axis=0)

    def _own(self, customer: int, contract: int) -> None:
        """Give a customer a contract."""
        known = self.contracts_of(customer)
        if known:
            self._several[customer] = (*known, contract)
        self._sole.rows[customer] = SEVERAL if known else contract

    def _own_all(self, contracts: I64, order: I64) -> None:
        """The same for many contracts, in their order."""
        contracts = contracts[np.argsort(order)]
        customers = self.customer[contracts]
        _, again = np.unique(customers, return_inverse=True)
        alone = (np.bincount(again)[again] == 1) & (self._sole.rows[customers] == NONE)
        self._sole.rows[customers[alone]] = contracts[alone]
        for at in np.nonzero(~alone)[0].tolist():
            self._own(int(customers[at]), int(contracts[at]))

    def _lay_all(self, contract: I64, first: I64, last: I64, rows: I64) -> None:
        """Lay the intervals of contracts whose new versions simply follow each other; the others one by one.

        A version follows simply when it starts no earlier and ends no earlier than what governed last: it cuts that
        short and takes over.
        """
        group = np.repeat(np.arange(len(first)), last - first + 1)
        owner = contract[first]
        own = self._contracts.rows[owner, :2].astype(np.int64)
        count = own[:, 1]
        tail = np.where(count > 0, own.sum(axis=1) - 1, 0)
        start, end = self._spans.rows[rows].T
        before_start, before_end = np.r_[0, start[:-1]], np.r_[0, end[:-1]]
        has = count > 0
        if has.any():
            before_start[first[has]], before_end[first[has]] = self._intervals.rows[tail[has], :2].T
        simple = (start >= before_start) & (end >= before_end)
        simple[first[~has]] = True
        plain = np.logical_and.reduceat(simple, first)
        for at in np.nonzero(~plain)[0].tolist():
            stretches = self.stretches(int(owner[at]))
            for row in rows[first[at] : last[at] + 1].tolist():
                start_us, end_us = self._spans.rows[row].tolist()
                stretches = overlaid(stretches, Stretch(start_us, end_us, row))
            self._lay(int(owner[at]), stretches)
        taken = plain[group]
        cut = end.copy()  # where the next version of the contract takes over
        inner = np.nonzero(group[1:] == group[:-1])[0]
        cut[inner] = np.minimum(end[inner], start[inner + 1])
        self._extend_plain(owner, np.where(plain, count, 0), group, taken & (cut > start), np.stack([start, cut, rows], axis=1), start[first])

    def _extend_plain(self, owner: I64, held: I64, group: I64, kept: npt.NDArray[np.bool_], new: I64, takes_over: I64) -> None:
        """Append the intervals of plain contracts: the ``held`` ones that they have, the last of them cut short, and the new ones."""
        old_group = np.repeat(np.arange(len(owner)), held)
        ends = np.cumsum(held)
        old = self._intervals.rows.take((self._contracts.rows[owner, 0] - ends + held)[old_group] + np.arange(len(old_group)), axis=0)
        last = ends[held > 0] - 1
        old[last, 1] = np.minimum(old[last, 1], takes_over[held > 0])
        alive = old[:, 1] > old[:, 0]
        self._left_behind += len(old)
        groups = np.concatenate([old_group[alive], group[kept]])
        order = np.argsort(groups, kind="stable")
        lines = np.concatenate([old[alive], new[kept]])[order]
        sizes = np.bincount(groups, minlength=len(owner))
        laid = np.nonzero(np.bincount(group[kept], minlength=len(owner)))[0]
        firsts = len(self._intervals) + np.cumsum(sizes) - sizes
        self._contracts.rows[owner[laid], :2] = np.stack([firsts, sizes], axis=1)[laid]
        self._intervals.extend(lines)
        self._clear()

    def _lay(self, contract: int, stretches: list[Stretch]) -> None:
        self._left_behind += int(self._contracts.rows[contract, 1])
        self._contracts.rows[contract, :2] = len(self._intervals), len(stretches)
        self._intervals.extend(np.array(stretches, np.int64))
        self._clear()

    def _clear(self) -> None:
        """Close the gaps once half of all intervals are left behind."""
        if self._left_behind < max(_CLEAR_FROM, len(self._intervals) // 2):
            return
        own = self._contracts.rows[:, :2].astype(np.int64)
        starts = np.cumsum(own[:, 1]) - own[:, 1]
        at = np.repeat(own[:, 0] - starts, own[:, 1]) + np.arange(int(own[:, 1].sum()))
        lines = self._intervals.rows[at]
        self._intervals = Column(np.int64, 3)
        self._intervals.extend(lines)
        self._contracts.rows[:, 0] = starts
        self._left_behind = 0


class Spans(Sequence[Span]):
    """When versions are in force, by their rows; each is made when it is looked at."""

    def __init__(self, columns: ContractColumns, rows: I64) -> None:
        self._columns, self._rows = columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Span: ...
    @overload
    def __getitem__(self, at: slice) -> "Spans": ...
    def __getitem__(self, at: int | slice) -> "Span | Spans":
        if isinstance(at, slice):
            return Spans(self._columns, self._rows[at])
        columns, row = self._columns, int(self._rows[at])
        start, end = columns.spans[row].tolist()
        return Span(columns.contracts.text(int(columns.contract[row])), int(columns.number[row]), start, None if end == FOREVER else end)


def overlaid(stretches: list[Stretch], new: Stretch) -> list[Stretch]:
    """Lay a later version over what governs so far: it wins where it is in force, and what is below comes again after it."""
    found = [new]
    for old in stretches:
        if old.start_us < new.start_us:
            found.append(old._replace(end_us=min(old.end_us, new.start_us)))
        if old.end_us > new.end_us:
            found.append(old._replace(start_us=max(old.start_us, new.end_us)))
    return sorted(found)
