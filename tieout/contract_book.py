"""The contracts of a partition: which version governs at which instant.

In: contract versions in the order in which they were recorded, as objects or as columns. Out: for each contract its
governing intervals, where the highest version number whose ``[effective_from, effective_to)`` holds an instant wins
and an earlier one is in force again after a later one's end. A gap in the numbers waits; a repeated number with other
content is refused.

Most versions of a batch simply follow each other: they are taken in by columns. Where a contract's versions repeat,
wait or are drafts, its versions of the batch are taken one by one, in their order. A version is an object only while
somebody looks at it. Source: docs/semantics.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout import masks
from tieout.contract_batch import FOREVER, ContractBatch, Records, Refused, Taken
from tieout.contract_columns import NO_CONTRACT, ContractColumns
from tieout.names import NONE
from tieout.problems import ContractRefused, Problem

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

I64 = npt.NDArray[np.int64]
KEPT: Final = 4096
"""Versions that stay objects once somebody has looked at them (some 80 MB)."""


class Interval(NamedTuple):
    """A stretch of time that one version governs, half-open, UTC microseconds."""

    start_us: int
    end_us: int
    version: ContractVersion


class Applied(NamedTuple):
    """What became of a version, and which versions came into force with it."""

    kind: Literal["in_force", "waiting", "repeated", "draft"]
    versions: tuple[ContractVersion, ...] = ()
    rows: tuple[int, ...] = ()


class _Facts(NamedTuple):
    """What the book has to know of a version; ``place`` and ``digest`` of its record, where it has one."""

    contract: int
    number: int
    customer: int
    start: int
    end: int
    place: int = NONE
    digest: tuple[int, int] = (0, 0)
    whole: ContractVersion | None = None


class ContractBook:
    """All contracts by id and by customer; ``first_number`` None lets a contract start at any number."""

    def __init__(self, first_number: int | None = 1) -> None:
        self.first_number = first_number
        self.columns = ContractColumns()
        self._waiting: dict[int, dict[int, _Facts]] = {}
        self._objects: dict[int, ContractVersion] = {}  # of versions without a record
        self._seen: dict[int, ContractVersion] = {}  # of versions read from their record, the oldest goes first
        self._records: Records | None = None

    def apply(self, version: ContractVersion) -> Applied:
        """Take a version in; ContractRefused where it contradicts what is known."""
        if version.status == "draft":
            return Applied("draft")
        columns = self.columns
        end = FOREVER if version.effective_to_us is None else version.effective_to_us
        rows = self._apply(_Facts(
            columns.contract_of(version.contract_id), version.version, columns.customer_of(version.customer_id),
            version.effective_from_us, end, whole=version,
        ))  # fmt: skip
        if rows is None:
            return Applied("repeated")
        return Applied("in_force", tuple(self.version(row) for row in rows), tuple(rows)) if rows else Applied("waiting")

    def take(self, batch: ContractBatch) -> Taken:
        """Take a batch in; what is refused is told and has no effect."""
        self._records = batch.records
        columns, given = self.columns, batch.columns
        contract = columns.contracts.number_all(given["contract_id"])
        customer = columns.customers.number_all(given["customer_id"])
        columns.make_room()
        number = given["version"].to_numpy().astype(np.int64)
        start = given["effective_from"].cast("int64").to_numpy()
        end = given["effective_to"].cast("int64").fill_null(FOREVER).to_numpy(zero_copy_only=False)
        draft = masks.is_one(given["status"], "draft")
        plain = self._plain(contract, number, customer, draft)
        at = np.nonzero(plain)[0]
        columns.customer[contract[at]] = customer[at]
        rows = columns.add_all(contract[at], number[at], start[at], end[at], batch.places[at], batch.digests[at]) if len(at) else at
        came, order, refused = [rows], [at], {}
        for row in np.nonzero(~plain & ~draft)[0].tolist():
            facts = _Facts(
                int(contract[row]), int(number[row]), int(customer[row]), int(start[row]), int(end[row]),
                int(batch.places[row]), (int(batch.digests[row, 0]), int(batch.digests[row, 1])),
            )  # fmt: skip
            try:
                found = self._apply(facts) or ()
            except ContractRefused as error:
                refused[row] = Refused(given["contract_id"][row].as_py(), facts.number, given["customer_id"][row].as_py(), str(error))
                continue
            came.append(np.array(found, np.int64))
            order.append(np.full(len(found), row))
        places = np.concatenate(order)
        by_place = np.argsort(places, kind="stable")
        return Taken(np.concatenate(came)[by_place], places[by_place], refused)

    def _plain(self, contract: I64, number: I64, customer: I64, draft: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The rows of contracts all of whose rows carry the numbers on, for the contract's customer."""
        columns = self.columns
        order = np.argsort(contract, kind="stable")
        c = contract[order]
        fresh = np.ones(len(c), np.bool_)
        fresh[1:] = c[1:] != c[:-1]
        first = np.nonzero(fresh)[0]
        last = columns.last[c[first]]
        known = columns.number[np.maximum(last, 0)] if len(columns) else np.zeros(len(first), np.int64)
        expected = np.empty(len(c), np.int64)
        expected[1:] = number[order][:-1] + 1
        expected[first] = np.where(last == NONE, NONE if self.first_number is None else self.first_number, known + 1)
        owner = columns.customer[c[first]]
        owner = np.where(owner == NONE, customer[order][first], owner)
        sizes = np.diff(np.r_[first, len(c)])
        odd = (number[order] != expected) | (customer[order] != np.repeat(owner, sizes)) | draft[order]
        if self._waiting:
            odd |= np.isin(c, list(self._waiting))
        good = np.zeros(len(c), np.bool_)
        good[order] = np.repeat(~np.logical_or.reduceat(odd, first), sizes) if len(c) else odd
        return good

    def _apply(self, facts: _Facts) -> list[int] | None:
        """Take one version in: the rows that came into force; None where it is repeated."""
        columns, contract, number = self.columns, facts.contract, facts.number
        waiting = self._waiting.get(contract, {})
        row = columns.row_of(contract, number)
        if row != NONE or number in waiting:
            known = waiting[number] if row == NONE else self._facts(row)
            if self._same(known, facts):
                return None
            name = columns.contracts.text(contract)
            raise _refuse("version", "version_conflict", f"version {number} of contract {name} exists with other content; publish the next number")
        owner = int(columns.customer[contract])
        if owner not in (NONE, facts.customer):
            names = columns.customers
            raise _refuse("customer_id", "customer_changed", f"contract {columns.contracts.text(contract)} belongs to customer {names.text(owner)}; open a new contract for {names.text(facts.customer)}")
        columns.customer[contract] = facts.customer
        waiting[number] = facts
        following = self._following(contract, waiting)
        rows = []
        while following in waiting:
            taken = waiting.pop(following)
            rows.append(columns.add(contract, following, taken.start, taken.end, taken.place, taken.digest))
            if taken.whole is not None:
                self._objects[rows[-1]] = taken.whole
            following += 1
        if waiting:
            self._waiting[contract] = waiting
        else:
            self._waiting.pop(contract, None)
        return rows

    def _following(self, contract: int, waiting: dict[int, _Facts]) -> int:
        last = int(self.columns.last[contract])
        if last != NONE:
            return int(self.columns.number[last]) + 1
        return min(waiting) if self.first_number is None else self.first_number

    def _facts(self, row: int) -> _Facts:
        columns = self.columns
        high, low = columns.digests[row].tolist()
        return _Facts(0, 0, 0, 0, 0, int(columns.place[row]), (high, low), self._objects.get(row))

    def _same(self, known: _Facts, given: _Facts) -> bool:
        """Whether two versions are equal: surely where their records are, else as objects."""
        if known.digest == given.digest != (0, 0):
            return True
        return self._whole(known) == self._whole(given)

    def _whole(self, facts: _Facts) -> ContractVersion:
        if facts.whole is not None:
            return facts.whole
        if self._records is None:
            msg = "a version without an object has no record either"
            raise AssertionError(msg)
        return self._records.version(facts.place)

    def version(self, row: int) -> ContractVersion:
        """A version in force as an object."""
        found = self._objects.get(row) or self._seen.get(row)
        if found is None:
            found = self._whole(self._facts(row))
            self._keep(row, found)
        return found

    def look_up(self, contract_ids: Iterable[str]) -> None:
        """Read the versions of contracts together that are to be looked at next, as many as are kept."""
        columns = self.columns
        numbers = (columns.contracts.find(name) for name in contract_ids)
        rows = dict.fromkeys(s.row for number in numbers if number != NONE for s in columns.stretches(number))
        wanted = [row for row in rows if row not in self._objects and row not in self._seen][:KEPT]
        if self._records is None or not wanted:
            return
        for row, found in zip(wanted, self._records.several([int(columns.place[row]) for row in wanted]), strict=True):
            self._keep(row, found)

    def _keep(self, row: int, version: ContractVersion) -> None:
        if len(self._seen) >= KEPT:
            del self._seen[next(iter(self._seen))]
        self._seen[row] = version

    def row(self, contract_id: str, number: int) -> int:
        """The row of a version in force, NONE where it is not."""
        contract = self.columns.contracts.find(contract_id)
        return NONE if contract == NONE else self.columns.row_of(contract, number)

    def governing(self, contract_id: str, instant: int) -> ContractVersion | None:
        """The version in force at an instant, None where there is none."""
        row = self.governing_row(contract_id, instant)
        return None if row == NO_CONTRACT else self.version(row)

    def governing_row(self, contract_id: str, instant: int) -> int:
        """Its row, NO_CONTRACT where there is none."""
        contract = self.columns.contracts.find(contract_id)
        return NO_CONTRACT if contract == NONE else self.columns.governing(contract, instant)

    def intervals(self, contract_id: str) -> tuple[Interval, ...]:
        """The governing intervals of a contract, by start."""
        contract = self.columns.contracts.find(contract_id)
        if contract == NONE:
            return ()
        return tuple(Interval(s.start_us, s.end_us, self.version(s.row)) for s in self.columns.stretches(contract))

    def contracts_of(self, customer_id: str) -> tuple[str, ...]:
        """The contracts that name a customer and have a version in force at some time."""
        customer = self.columns.customers.find(customer_id)
        if customer == NONE:
            return ()
        return tuple(self.columns.contracts.text(contract) for contract in self.columns.contracts_of(customer))

    def waiting(self) -> list[ContractVersion]:
        """Versions that wait for a lower number."""
        return [self._whole(facts) for all_ in self._waiting.values() for facts in all_.values()]


def _refuse(path: str, code: str, message: str) -> ContractRefused:
    return ContractRefused([Problem(path, code, message)])


def governing(versions: Iterable[ContractVersion]) -> tuple[Interval, ...]:
    """The governing intervals of one contract's versions."""
    book, name = ContractBook(first_number=None), ""
    for version in sorted(versions, key=lambda version: version.version):
        name = version.contract_id
        book.apply(version)
    return book.intervals(name)
