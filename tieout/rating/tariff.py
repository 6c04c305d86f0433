"""Contract versions compiled for the hot path: which version governs, which charges a meter meets, what they cost.

In: contract versions as they come into force. Out: for each (customer, instant) the governing version, for each
(version, meter) its tariffs, and the fixed columns of a rated record by tariff number. A **tariff** is one charge of
one contract version. Customers with one contract are tagged by columns; the others one by one.

Source: docs/semantics.md section 3 (the governing version; two contracts matching one event).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import ids
from tieout.contract_book import FOREVER, ContractBook
from tieout.contracts import Charge, ContractVersion, Dynamic, Flat, Matrix, Percentage
from tieout.ids import Lanes
from tieout.period import Calendar, Period
from tieout.rating import matrix
from tieout.rating.adjustments import LARGEST, QUANTITY, RATED, LinearPrice, Price, compile_price, safe_quantity
from tieout.rating.curve import value
from tieout.rating.kernel import PriceTable

I64 = npt.NDArray[np.int64]
Kind = Literal["sum", "count", "amount", "kept", "walked", "level"]
Group = tuple[str | None, ...]
INACTIVE: Final = frozenset({"suspended", "terminated"})
NO_GROUP: Final = (0, 0)
_WIDEST: Final = 2**62
_PERIOD_BITS: Final = 20  # a rank under ``reset: never``: the period's start in days, then the version


@dataclass(frozen=True, slots=True)
class Tariff:
    """One charge of one contract version, ready to price."""

    number: int
    contract: ContractVersion
    charge: Charge
    calendar: Calendar
    kind: Kind
    price: Price | None  # None for walked models
    price_number: int  # in the kernel's table, -1 where the kernel cannot
    safe: int  # the quantity up to which an event's amount is surely none too large, -1 where that has to be asked

    @property
    def plain(self) -> bool:
        """Every event of the meter meets it, in one group."""
        return not self.charge.filters and not self.charge.group_by

    @property
    def columnar(self) -> bool:
        """The kernel can price it."""
        return self.price_number >= 0 and self.kind in ("sum", "count") and self.charge.reset != "never"

    def too_large(self, quantity: int, amount: int | None, cell: int | None) -> bool:
        """Whether an event alone would be priced beyond what an amount can be."""
        model = self.charge.price
        if isinstance(model, Percentage):
            rated = Fraction(quantity, QUANTITY) * Fraction(model.rate_percent) / 100
            return rated * RATED >= LARGEST
        if isinstance(model, Matrix):
            return value(matrix.curve(model, -1 if cell is None else cell), Fraction(max(quantity, 0), QUANTITY)) * RATED >= LARGEST
        given = amount if isinstance(model, Dynamic) else quantity
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
        cell = matrix.cell(model, attributes) if isinstance(model, Matrix) else None
        if isinstance(model, Matrix) and cell is None:
            return False
        if isinstance(model, Dynamic) and amount is None:
            return False
        return 0 <= quantity <= self.safe or not self.too_large(quantity, amount, cell)


class Tagged(NamedTuple):
    """The governing version of each row: a number, or one of the negative codes below."""

    version: I64


NO_CUSTOMER: Final = -1
SEVERAL: Final = -2
NO_CONTRACT: Final = -3


class Tariffs:
    """All tariffs of a partition, growing as versions come into force."""

    def __init__(self) -> None:
        self.table = PriceTable()
        self.tariffs: list[Tariff] = []
        self.versions: list[ContractVersion] = []
        self.charges = Columns(self)
        self._by_meter: dict[int, dict[str, tuple[Tariff, ...]]] = {}
        self._solo: dict[str, tuple[list[int], list[int]]] = {}
        self._solo_arrays: dict[str, tuple[I64, I64]] = {}
        self._by_charge: dict[tuple[str, int, str], Tariff] = {}
        self._number_of: dict[tuple[str, int], int] = {}
        self._signed: dict[str, set[str]] = {}
        self._customers: dict[str, int] = {}
        self._first: list[int] = []
        self._count: list[int] = []
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._interval_version: list[int] = []
        self._arrays: tuple[I64, I64, I64, I64, I64] | None = None

    def take(self, book: ContractBook, versions: tuple[ContractVersion, ...]) -> None:
        """Compile versions that came into force, and the intervals of their customers anew."""
        for version in versions:
            self._compile(version)
        for customer in dict.fromkeys(v.customer_id for v in versions):
            self._place(book, customer)
        self._arrays = None

    def _compile(self, version: ContractVersion) -> None:
        number = self._number_of[version.contract_id, version.version] = len(self.versions)
        self.versions.append(version)
        by_meter: dict[str, list[Tariff]] = {}
        calendar = version.billing.calendar
        signed = self._signed.setdefault(version.customer_id, set())
        for charge in version.charges:
            if charge.meter is None or isinstance(charge.price, Flat):
                continue
            tariff = self._tariff(version, charge, calendar)
            self.tariffs.append(tariff)
            by_meter.setdefault(charge.meter, []).append(tariff)
            self._by_charge[version.contract_id, version.version, charge.charge_id] = tariff
            if tariff.kind == "level":
                signed.add(charge.meter)
        self._by_meter[number] = {meter: tuple(found) for meter, found in by_meter.items()}
        active = version.status not in INACTIVE
        for meter, found in by_meter.items():
            if active and len(found) == 1 and found[0].plain and found[0].columnar:
                versions, numbers = self._solo.setdefault(meter, ([], []))
                versions.append(number)
                numbers.append(found[0].number)
                self._solo_arrays.pop(meter, None)

    def _tariff(self, version: ContractVersion, charge: Charge, calendar: Calendar) -> Tariff:
        kind = kind_of(charge)
        price = None if kind == "walked" else compile_price(charge)
        number = self.table.number(price) if isinstance(price, LinearPrice) else -1
        safe = min(safe_quantity(price), _WIDEST) if isinstance(price, LinearPrice) and kind != "amount" else -1
        return Tariff(len(self.tariffs), version, charge, calendar, kind, price, number, safe)

    def _place(self, book: ContractBook, customer: str) -> None:
        code = self._customers.setdefault(customer, len(self._customers))
        if code == len(self._first):
            self._first.append(0)
            self._count.append(0)
        contracts = book.contracts_of(customer)
        if len(contracts) != 1:
            self._count[code] = SEVERAL
            return
        intervals = book.intervals(contracts[0])
        self._first[code], self._count[code] = len(self._starts), len(intervals)
        for interval in intervals:
            self._starts.append(interval.start_us)
            self._ends.append(interval.end_us)
            self._interval_version.append(self._number_of[interval.version.contract_id, interval.version.version])

    def tag(self, customer_id: pa.DictionaryArray, time: I64) -> I64:
        """The number of the version that governs each row: an as-of join by customer and event time.

        ``NO_CUSTOMER`` where no contract names the customer, ``SEVERAL`` where more than one does, ``NO_CONTRACT``
        where the only one has no version in force at the time.
        """
        codes = [self._customers.get(name, NO_CUSTOMER) for name in customer_id.dictionary.to_pylist()]
        customer = np.array(codes, np.int64)[customer_id.indices.to_numpy()]
        if self._arrays is None:
            lists = (self._first, self._count, self._starts, self._ends, self._interval_version)
            self._arrays = tuple(np.array(x, np.int64) for x in lists)  # type: ignore[assignment]
        first, count, starts, ends, versions = self._arrays  # type: ignore[misc]
        out = np.full(len(time), NO_CUSTOMER, np.int64)
        known = np.nonzero(customer >= 0)[0]
        if not len(known):
            return out
        c, t = customer[known], time[known]
        counts = count[c]
        low = first[c]
        high = low + np.maximum(counts, 0)  # the last interval that starts at or before t, by halving
        begin = low
        for _ in range(int(counts.max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            inside = low < high
            right = inside & (starts[np.minimum(middle, len(starts) - 1)] <= t)
            low, high = np.where(right, middle + 1, low), np.where(inside & ~right, middle, high)
        at = low - 1
        holds = (at >= begin) & (counts > 0)
        safe = np.where(holds, at, 0)
        holds &= ends[safe] > t if len(ends) else False
        found = np.where(holds, versions[safe] if len(versions) else 0, NO_CONTRACT)
        out[known] = np.where(counts == SEVERAL, SEVERAL, found)
        return out

    def of_meter(self, version: int, meter: str) -> tuple[Tariff, ...]:
        """The tariffs that a meter meets under a version."""
        return self._by_meter[version].get(meter, ())

    def solo(self, version: I64, meter: str) -> I64:
        """The tariff of a meter under each version where it is one, of an active version, and the kernel's; else -1."""
        if meter not in self._solo:
            return np.full(len(version), -1, np.int64)
        if meter not in self._solo_arrays:
            versions, numbers = self._solo[meter]
            self._solo_arrays[meter] = np.array([*versions, FOREVER], np.int64), np.array([*numbers, -1], np.int64)
        known, tariffs = self._solo_arrays[meter]  # versions are numbered as they come, so they stand in order
        at = np.searchsorted(known, version)
        return np.where(known[at] == version, tariffs[at], -1)

    def of_contract(self, version: ContractVersion, meter: str) -> tuple[Tariff, ...]:
        """The same by the version itself."""
        return self.of_meter(self._number_of[version.contract_id, version.version], meter)

    def find(self, contract_id: str, version: int, charge_id: str) -> Tariff:
        """The tariff of one charge of one version."""
        return self._by_charge[contract_id, version, charge_id]

    def get(self, contract_id: str, version: int, charge_id: str) -> Tariff | None:
        """The same, None where the version does not have the charge."""
        return self._by_charge.get((contract_id, version, charge_id))

    def knows(self, customer_id: str) -> bool:
        """Whether a contract names the customer."""
        return customer_id in self._customers

    def signed(self, customer_id: str, meter: str) -> bool:
        """Whether the customer's contracts let the meter go down (carried and weighted meters)."""
        return meter in self._signed.get(customer_id, ())


def version_of(rank: int) -> int:
    """The version in a rank."""
    return rank & ((1 << _PERIOD_BITS) - 1)


def period_day_of(rank: int) -> int | None:
    """The start of the period in a rank of ``reset: never``, in days since 1970; None for other ranks."""
    day = rank >> _PERIOD_BITS
    return day - 1 if day else None


def kind_of(charge: Charge) -> Kind:
    """How a charge's running quantity is kept."""
    aggregation = charge.aggregation
    if isinstance(charge.price, Percentage | Matrix):
        return "walked"
    if isinstance(charge.price, Dynamic):
        return "amount"
    if aggregation.kind == "weighted_sum" or aggregation.carry_over:
        return "level"
    if aggregation.kind in ("max", "latest", "unique_count"):
        return "kept"
    return "sum" if aggregation.kind == "sum" else "count"


class Columns:
    """The fixed columns of a rated record, by tariff number."""

    def __init__(self, tariffs: Tariffs) -> None:
        self._tariffs = tariffs
        self._names = {name: _Words() for name in STATIC}
        self._numbers: dict[str, list[int]] = {name: [] for name in _NUMBERS}
        self._calendars: dict[Calendar, int] = {}
        self._arrays: dict[str, npt.NDArray[np.int64]] = {}
        self._hashes: dict[str, Lanes] = {}
        self._done = 0

    def _take(self) -> None:
        """Take in the tariffs compiled since."""
        if self._done == len(self._tariffs.tariffs):
            return
        fresh = self._tariffs.tariffs[self._done :]
        for name, word in STATIC.items():
            self._names[name].extend([word(tariff) for tariff in fresh])
        self._numbers["calendar"] += [self._calendars.setdefault(tariff.calendar, len(self._calendars)) for tariff in fresh]
        for name, number in _NUMBERS.items():
            if number is not None:
                self._numbers[name] += [number(tariff) for tariff in fresh]
        self._done += len(fresh)
        self._arrays = {name: np.array(numbers, np.int64) for name, numbers in self._numbers.items()}
        self._hash()

    def _hash(self) -> None:
        """Hash what names a chain, a correlation and a version's charge."""
        correlation = ids.combine(self._names["contract_id"].hashes(), self._names["charge_id"].hashes())
        versioned = ids.combine(correlation, ids.of_integers(self._arrays["version"]))
        by_version = self._arrays["by_version"].astype(np.bool_)[:, None]
        chain = np.where(by_version, versioned, correlation)
        self._hashes = {"correlation": correlation, "chain": chain, "identity": ids.combine(versioned, _RATED)}

    def numbers(self, name: str, rows: I64) -> I64:
        """A column of integers for tariff numbers."""
        self._take()
        return self._arrays[name][rows]

    def lanes(self, name: str, rows: I64) -> Lanes:
        """A column of hashes for tariff numbers."""
        self._take()
        return self._hashes[name][rows]

    def words(self, name: str, rows: I64) -> pa.Array:
        """A column of strings: dictionary-encoded while the dictionary is small next to the batch."""
        self._take()
        return self._names[name].take(rows)

    @property
    def calendars(self) -> list[Calendar]:
        """The calendars by their code."""
        self._take()
        return list(self._calendars)


STATIC: Final[Mapping[str, Callable[[Tariff], str]]] = {
    "customer_id": lambda tariff: tariff.contract.customer_id,
    "contract_id": lambda tariff: tariff.contract.contract_id,
    "charge_id": lambda tariff: tariff.charge.charge_id,
    "product_id": lambda tariff: tariff.charge.product_id or tariff.charge.charge_id,
    "legal_entity_id": lambda tariff: tariff.charge.legal_entity_id or tariff.contract.legal_entity_id,
    "meter": lambda tariff: tariff.charge.meter or "",
    "currency": lambda tariff: tariff.contract.currency,
}
_NUMBERS: Final[Mapping[str, Callable[[Tariff], int] | None]] = {
    "price": lambda tariff: tariff.price_number,
    "version": lambda tariff: tariff.contract.version,
    "rank": lambda tariff: 0 if tariff.charge.reset == "contract_version" else tariff.contract.version,
    "by_version": lambda tariff: tariff.charge.reset == "contract_version",
    "count": lambda tariff: tariff.kind == "count",
    "safe": lambda tariff: tariff.safe,
    "calendar": None,  # numbered as they come
}
_RATED: Final = ids.of_rows([ids.lanes(("rated",))])


class _Words:
    """A column of repeated strings."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._rows: list[int] = []
        self._code_array: npt.NDArray[np.int32] | None = None
        self._dictionary: pa.Array | None = None

    def extend(self, values: list[str]) -> None:
        codes = self._codes
        self._rows += [codes.setdefault(value, len(codes)) for value in values]
        self._code_array = None

    def hashes(self) -> Lanes:
        """The hash of each row's string."""
        return ids.of_strings(pa.array(list(self._codes), pa.string()))[np.array(self._rows, np.int64)]

    def take(self, rows: I64) -> pa.Array:
        if self._code_array is None or self._dictionary is None:
            self._code_array = np.array(self._rows, np.int32)
            self._dictionary = pa.array(list(self._codes), pa.string())
        codes = pa.array(self._code_array[rows])
        if len(self._dictionary) > len(rows) // 4:
            return self._dictionary.take(codes)
        return pa.DictionaryArray.from_arrays(codes, self._dictionary)
