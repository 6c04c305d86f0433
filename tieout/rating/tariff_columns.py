"""The fixed columns of a rated record, by tariff number.

In: the versions that came into force, by their rows. Out: for tariff numbers (a version's row with the place of a
charge) the names, numbers and hashes that a rated record has from its contract. A version costs twelve bytes here: the
rest is shared by all versions with the same terms. Source: docs/semantics.md section 1 (identity).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids
from tieout.column import Column
from tieout.contract_columns import ContractColumns
from tieout.ids import Lanes
from tieout.names import NONE
from tieout.period import Calendar
from tieout.rating.charge_columns import BY_VERSION, KIND_BITS, Charges
from tieout.rating.kinds import KINDS

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

I64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.signedinteger[Any]]
Mask = npt.NDArray[np.bool_]
SLOT_BITS: Final = 24
STATIC: Final = ("customer_id", "contract_id", "charge_id", "product_id", "legal_entity_id", "meter", "currency")
_RATED: Final = ids.of_rows([ids.lanes(("rated",))])
_TERMS: Final = ("legal_entity_id", "currency", "status")
_BILLING: Final = ("period", "anchor_day", "anchor_month", "anchor_weekday", "time_zone")


class Terms(NamedTuple):
    """What a version has for all of its charges."""

    legal_entity_id: int
    currency: int
    calendar: int
    active: bool


class Columns:
    """What rated records have from their tariffs, by column."""

    def __init__(self, contracts: ContractColumns) -> None:
        self.contracts = contracts
        self.charges = Charges()
        self._names = self.charges.names
        self._versions = Column(np.int32, 3)  # of a version: its terms, its layout, where its prices begin
        self._known_terms: dict[Terms, int] = {}
        self._terms = {name: Column(np.int32) for name in Terms._fields}
        self._calendars: dict[Calendar, int] = {}

    def take_one(self, version: ContractVersion) -> None:
        """Compile the next version in force."""
        layout, prices = self.charges.take_one(version.charges)
        terms = Terms(
            self._names.number(version.legal_entity_id), self._names.number(version.currency),
            self._calendar_of(version.billing.calendar), version.status not in ("suspended", "terminated"),
        )  # fmt: skip
        self._versions.append((self._terms_of(terms), layout, prices))

    def take(self, columns: pa.RecordBatch, rows: I64, source: I64, odd: Mask, whole: Callable[[int], ContractVersion]) -> None:
        """Compile the next versions in force from their rows of a batch; odd ones from the whole version."""
        even = np.nonzero(~odd)[0]
        found = np.empty((len(rows), 3), np.int32)
        if len(even):
            at = source[even]
            chosen = columns if len(at) == columns.num_rows and bool((at == np.arange(len(at))).all()) else columns.take(pa.array(at))
            found[even] = np.stack([self._terms_of_all(chosen), *self.charges.take(chosen["charges"])], axis=1)
        first = 0
        for stop in [*np.nonzero(odd)[0].tolist(), len(rows)]:
            self._versions.extend(found[first:stop])
            if stop < len(rows):
                self.take_one(whole(int(rows[stop])))
            first = stop + 1

    def _terms_of_all(self, columns: pa.RecordBatch) -> I64:
        """The terms of rows: they are few, so distinct rows are found first."""
        billing = columns["billing"]
        parts = [_words(columns[name]) for name in _TERMS] + [_words(billing.field(name)) for name in _BILLING]
        key = np.zeros(columns.num_rows, np.int64)
        for codes, words in parts:
            key = key * len(words) + codes
        distinct, first, again = np.unique(key, return_index=True, return_inverse=True)
        found = np.empty(len(distinct), np.int64)
        for place, row in enumerate(first.tolist()):
            entity, currency, status, *calendar = (words[codes[row]] for codes, words in parts)
            terms = Terms(
                self._names.number(entity), self._names.number(currency), self._calendar_of(Calendar(*calendar)), status not in ("suspended", "terminated")
            )
            found[place] = self._terms_of(terms)
        return found[again]

    def _terms_of(self, terms: Terms) -> int:
        number = self._known_terms.setdefault(terms, len(self._known_terms))
        if number == len(self._terms["active"]):
            for name, value in zip(Terms._fields, terms, strict=True):
                self._terms[name].append(value)
        return number

    def of_terms(self, name: str, terms: Ints) -> Ints:
        """One of the numbers of ``Terms``."""
        return self._terms[name].rows[terms]

    def _calendar_of(self, calendar: Calendar) -> int:
        return self._calendars.setdefault(calendar, len(self._calendars))

    def solo(self, version: I64, meter: I64, meters: Sequence[str]) -> I64:
        """The tariff of each row's meter under its version where it is one, of an active version, and the kernel's; else -1.

        ``meter`` is the place of each row's meter among the distinct ``meters``.
        """
        own = self._versions.rows.take(version, axis=0)
        layout, count = own[:, 1], self.charges.layouts
        if count * len(meters) <= len(version):  # fewer than the rows, nearly always: once a layout and meter
            slots = np.concatenate([self.charges.solo(np.arange(count), name) for name in meters])
            slot = slots.take(meter.astype(np.int64) * count + layout)
        else:
            slot = np.full(len(version), NONE, np.int64)
            for code, name in enumerate(meters):
                at = np.nonzero(meter == code)[0]
                slot[at] = self.charges.solo(layout[at], name)
        known = (slot != NONE) & (self.of_terms("active", own[:, 0]) != 0)
        return np.where(known, version << SLOT_BITS | slot, NONE)

    def levels(self, version: int, meter: str) -> bool:
        """Whether a meter is a level under a version."""
        return self.charges.levels(int(self._versions.rows[version, 1]), meter)

    def of(self, tariffs: I64) -> TariffRows:
        """Tariffs by their numbers, looked up once."""
        version, slot = tariffs >> SLOT_BITS, tariffs & ((1 << SLOT_BITS) - 1)
        own = self._versions.rows.take(version, axis=0)
        shape = self.charges.shape(own[:, 1], slot)
        contract, number = self.contracts.contract[version], self.contracts.number[version]
        return TariffRows(self, own[:, 0], contract, number.astype(np.int64), shape, self.charges.price(own[:, 2], slot))

    def numbers(self, name: str, tariffs: I64) -> I64:
        """A column of integers for tariff numbers, by its name in ``TariffRows``."""
        return getattr(self.of(tariffs), name).astype(np.int64)

    def lanes(self, name: str, tariffs: I64) -> Lanes:
        """A column of hashes for tariff numbers, by its name in ``TariffRows``."""
        found: Lanes = getattr(self.of(tariffs), name)
        return found

    def words(self, name: str, tariffs: I64) -> pa.Array:
        """A column of strings for tariff numbers."""
        return self.of(tariffs).words(name)

    @property
    def calendars(self) -> list[Calendar]:
        """The calendars by their code."""
        return list(self._calendars)


class TariffRows:
    """Tariffs, one a row, looked up once: what the kernel and the rated records ask of them.

    ``price`` is the number in the kernel's table, -1 where it cannot hold the price.
    """

    def __init__(self, columns: Columns, terms: Ints, contract: Ints, version: I64, shape: Ints, price: I64) -> None:
        self._columns, self._terms, self._contract, self._shape = columns, terms, contract, shape
        self.version, self.price = version, price
        self._flags = columns.charges.of_shapes("flags", shape)

    def take(self, rows: I64) -> TariffRows:
        """Some of them."""
        return TariffRows(self._columns, self._terms[rows], self._contract[rows], self.version[rows], self._shape[rows], self.price[rows])

    @cached_property
    def safe(self) -> I64:
        """The quantity up to which an amount is surely none too large, -1 where that has to be asked."""
        return self._columns.charges.table.safe(self.price)

    @cached_property
    def by_version(self) -> Mask:
        """Whether the running quantity starts again with each version."""
        return self._flags & BY_VERSION != 0

    @cached_property
    def rank(self) -> I64:
        """The place of the version's term in its chain."""
        return np.where(self.by_version, 0, self.version)

    @cached_property
    def count(self) -> Mask:
        """Whether events are counted."""
        return self._flags & KIND_BITS == KINDS.index("count")

    @cached_property
    def calendar(self) -> Ints:
        """The code of the calendar."""
        return self._columns.of_terms("calendar", self._terms)

    @cached_property
    def correlation(self) -> Lanes:
        """What names contract and charge."""
        charge = self._columns.charges.names.lanes(self._columns.charges.of_shapes("charge_id", self._shape))
        return ids.combine(self._columns.contracts.contracts.lanes(self._contract), charge)

    @cached_property
    def _versioned(self) -> Lanes:
        return ids.combine(self.correlation, ids.of_integers(self.version))

    @cached_property
    def chain(self) -> Lanes:
        """What names a chain: the version too where its quantity starts again with each."""
        if self.by_version.all():
            return self._versioned
        return np.where(self.by_version[:, None], self._versioned, self.correlation) if self.by_version.any() else self.correlation

    @cached_property
    def identity(self) -> Lanes:
        """What names a rated record besides its usage, period and cause."""
        return ids.combine(self._versioned, _RATED)

    def words(self, name: str) -> pa.Array:
        """A column of strings: dictionary-encoded while the dictionary is small next to the batch."""
        columns, contracts = self._columns, self._columns.contracts
        if name == "customer_id":
            return contracts.customers.take(contracts.customer[self._contract])
        if name == "contract_id":
            return contracts.contracts.take(self._contract)
        if name == "currency":
            return columns.charges.names.take(columns.of_terms("currency", self._terms))
        own = columns.charges.of_shapes(name, self._shape)
        if name == "legal_entity_id":
            own = np.where(own == NONE, columns.of_terms("legal_entity_id", self._terms), own)
        return columns.charges.names.take(own)


def _words(column: pa.Array) -> tuple[I64, list[str]]:
    """The code of each row's word, and the words."""
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
