"""Contract versions compiled for the hot path: which version governs, which charges a meter meets, what they cost.

In: contract versions as they come into force. Out: for each (customer, instant) the governing version, for each
(version, meter) its tariffs, and the fixed columns of a rated record by tariff number. A **tariff** is one charge of
one contract version: its number is the version's row with the charge's place. Customers with one contract are tagged
by columns; the others one by one, for which tariffs become objects.

Source: docs/semantics.md section 3 (the governing version; two contracts matching one event).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from tieout.contract_batch import ContractBatch, Taken
from tieout.contract_book import ContractBook
from tieout.contract_columns import NO_CONTRACT, NO_CUSTOMER, SEVERAL
from tieout.ids import Lanes
from tieout.names import NONE
from tieout.period import Calendar, Period
from tieout.rating import matrix
from tieout.rating.adjustments import LARGEST, QUANTITY, RATED, LinearPrice, Price, compile_price, safe_quantity
from tieout.rating.curve import value
from tieout.rating.kernel import WIDEST, PriceTable
from tieout.rating.kinds import Kind, kind_of
from tieout.rating.tariff_columns import SLOT_BITS, Columns

if TYPE_CHECKING:
    from tieout.contracts import Charge, ContractVersion

__all__ = ["INACTIVE", "NO_CONTRACT", "NO_CUSTOMER", "SEVERAL", "Group", "Kind", "Tariff", "Tariffs", "kind_of", "period_day_of", "version_of"]

I64 = npt.NDArray[np.int64]
Group = tuple[str | None, ...]
INACTIVE: Final = frozenset({"suspended", "terminated"})
_PERIOD_BITS: Final = 20  # a rank under ``reset: never``: the period's start in days, then the version
_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Tariff:
    """One charge of one contract version, ready to price."""

    number: int
    contract: ContractVersion
    charge: Charge
    calendar: Calendar
    kind: Kind
    price: Price | None  # None for walked models
    safe: int  # the quantity up to which an event's amount is surely none too large, -1 where that has to be asked

    @classmethod
    def of(cls, number: int, version: ContractVersion, charge: Charge) -> Tariff:
        """Compile one charge."""
        kind = kind_of(charge)
        price = None if kind == "walked" else compile_price(charge)
        safe = min(safe_quantity(price), WIDEST) if isinstance(price, LinearPrice) and kind != "amount" else -1
        return cls(number, version, charge, version.billing.calendar, kind, price, safe)

    def too_large(self, quantity: int, amount: int | None, cell: int | None) -> bool:
        """Whether an event alone would be priced beyond what an amount can be."""
        model = self.charge.price
        if model.model == "percentage":
            rated = Fraction(quantity, QUANTITY) * Fraction(model.rate_percent) / 100
            return rated * RATED >= LARGEST
        if model.model == "matrix":
            return value(matrix.curve(model, -1 if cell is None else cell), Fraction(max(quantity, 0), QUANTITY)) * RATED >= LARGEST
        given = amount if model.model == "dynamic" else quantity
        return self.price is not None and self.price.at(given or 0) >= LARGEST

    def rank(self, period: Period) -> int:
        """The place of this version's term in its chain."""
        version = self.contract.version
        if self.charge.reset == "contract_version":
            return 0
        if self.charge.reset == "never":
            return (period.start_us // 86_400_000_000 + 1) << _PERIOD_BITS | version
        return version

    def matches(self, attributes: Mapping[str, str]) -> bool:
        """Whether an event with these attributes passes the charge's filters."""
        return all(attributes.get(name) in allowed for name, allowed in self.charge.filters.items())

    def group(self, attributes: Mapping[str, str]) -> Group | None:
        """The event's group: its values of ``group_by``, in that order."""
        by = self.charge.group_by
        return tuple(attributes.get(name) for name in by) if by else None

    def prices(self, attributes: Mapping[str, str], quantity: int, amount: int | None) -> bool:
        """Whether a price can be had for such an event: one that exists, and is no absurdity."""
        model = self.charge.price
        cell = matrix.cell(model, attributes) if model.model == "matrix" else None
        if model.model == "matrix" and cell is None:
            return False
        if model.model == "dynamic" and amount is None:
            return False
        return 0 <= quantity <= self.safe or not self.too_large(quantity, amount, cell)


class Tariffs:
    """All tariffs of a partition, growing as versions come into force."""

    def __init__(self, book: ContractBook | None = None) -> None:
        self._book = ContractBook() if book is None else book
        self.charges = Columns(self._book.columns)
        self._objects: dict[int, tuple[Tariff, ...]] = {}  # by version, those looked at; the oldest goes first

    @property
    def table(self) -> PriceTable:
        """The kernel's prices."""
        return self.charges.charges.table

    def take(self, book: ContractBook, versions: Iterable[ContractVersion]) -> None:
        """Compile versions that came into force, in the order in which they did."""
        self._follow(book)
        for version in versions:
            self.charges.take_one(version)

    def take_batch(self, book: ContractBook, batch: ContractBatch, taken: Taken) -> None:
        """Compile the versions of a batch that came into force, by columns where they came so."""
        self._follow(book)
        rows, order = np.sort(taken.rows), np.full(len(taken.rows), NONE, np.int64)
        order[taken.rows - (int(rows[0]) if len(rows) else 0)] = taken.order
        whole = np.isin(order, list(batch.whole))
        released = batch.places[order] != book.columns.place[rows]  # it waited before, or its columns are elsewhere
        self.charges.take(batch.columns, rows, order, whole | released, book.version)

    def _follow(self, book: ContractBook) -> None:
        """A book's rows are the versions' numbers here, so there is one book."""
        if book is not self._book:
            self._book = book
            self.charges = Columns(book.columns)

    def tag(self, customers: Lanes, code: I64, time: I64) -> I64:
        """The number of the version that governs each row; see ``ContractColumns.tag``."""
        return self._book.columns.tag(customers, code, time)

    def of_meter(self, version: int, meter: str) -> tuple[Tariff, ...]:
        """The tariffs that a meter meets under a version."""
        return tuple(tariff for tariff in self._of(version) if tariff.charge.meter == meter)

    def solo(self, version: I64, meter: I64, meters: Sequence[str]) -> I64:
        """The tariff of each row's meter where the kernel may price it, else -1; see ``Columns.solo``."""
        return self.charges.solo(version, meter, meters)

    def of_contract(self, version: ContractVersion, meter: str) -> tuple[Tariff, ...]:
        """The same by the version itself."""
        return self.of_meter(self._book.row(version.contract_id, version.version), meter)

    def find(self, contract_id: str, version: int, charge_id: str) -> Tariff:
        """The tariff of one charge of one version; KeyError where it does not exist."""
        found = self.get(contract_id, version, charge_id)
        if found is None:
            raise KeyError((contract_id, version, charge_id))
        return found

    def get(self, contract_id: str, version: int, charge_id: str) -> Tariff | None:
        """The same, None where the version does not have the charge."""
        row = self._book.row(contract_id, version)
        if row == NONE:
            return None
        return next((tariff for tariff in self._of(row) if tariff.charge.charge_id == charge_id), None)

    def signed(self, customer_id: str, meter: str) -> bool:
        """Whether the customer's contracts let the meter go down (carried and weighted meters)."""
        columns = self._book.columns
        customer = columns.customers.find(customer_id)
        if customer == NONE:
            return False
        return any(self.charges.levels(row, meter) for contract in columns.contracts_of(customer) for row in columns.rows_of(contract))

    def _of(self, row: int) -> tuple[Tariff, ...]:
        """The tariffs of a version as objects."""
        found = self._objects.get(row)
        if found is None:
            version = self._book.version(row)
            found = tuple(
                Tariff.of(row << SLOT_BITS | slot, version, charge)
                for slot, charge in enumerate(version.charges)
                if charge.meter is not None
            )
            if len(self._objects) >= _KEPT:
                del self._objects[next(iter(self._objects))]
            self._objects[row] = found
        return found


def version_of(rank: int) -> int:
    """The version in a rank."""
    return rank & ((1 << _PERIOD_BITS) - 1)


def period_day_of(rank: int) -> int | None:
    """The start of the period in a rank of ``reset: never``, in days since 1970; None for other ranks."""
    day = rank >> _PERIOD_BITS
    return day - 1 if day else None
