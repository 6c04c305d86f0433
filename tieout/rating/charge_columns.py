"""The charges of a partition as numbers: what a million contracts have in common is stored once.

In: the charges of contract versions, as decoded columns or as documents. Out: for each version its **layout** and its
**price list**. A *shape* is all that rating has to know of a charge but its price: its names and how its quantity is
kept. A layout is the list of a version's shapes, a price list the list of its prices by number in the kernel's table,
both in the order of the charges. Equal shapes, layouts, prices and lists are one, so the versions of a rate card share
everything, and versions that differ in their prices share all but those.

Only charges that the kernel may price have a price number: sums and counts of one group without filters that reset.
Source: docs/semantics.md sections 3 (rate cards) and 4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from tieout import content, contract_documents, ids, masks, whole_contracts
from tieout.column import Column
from tieout.key_index import KeyIndex
from tieout.names import NONE, Names
from tieout.rating.adjustments import LinearPrice, compile_price
from tieout.rating.kernel import PriceTable
from tieout.rating.kinds import KINDS, in_kernel, kind_of, kinds_of
from tieout.rating.neat import neat
from tieout.recurring import Recurring, distinct

if TYPE_CHECKING:
    from tieout.contracts import Charge

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
SHAPE: Final = ("charge_id", "product_id", "legal_entity_id", "meter", "flags")
"""What a shape is, as numbers: names, NONE for none, and flags."""
KIND_BITS: Final = 7
KERNEL: Final = 8
"""The kernel may price it, where it can hold its price."""
BY_VERSION: Final = 16
"""Its running quantity starts again with each version."""
_DEFAULTS: Final = {"included_quantity": 0, "discount_percent": 0, "flat_fee": 0, "flat_at_zero": True}


class Listed(NamedTuple):
    """The layout of each version, and where its price list begins."""

    layout: I64
    prices: I64


class _Lists:
    """Lists of numbers, or of rows of them, that lie one after the other."""

    def __init__(self, values: npt.NDArray[Any], sizes: I64) -> None:
        self._values, self._sizes = values, sizes
        self._ends = np.cumsum(sizes)

    def contents(self) -> pa.LargeBinaryArray:
        """The bytes of each list's values."""
        ends = np.append(0, self._ends) * self._values.strides[0]
        return pa.Array.from_buffers(pa.large_binary(), len(self._sizes), [None, pa.py_buffer(ends), pa.py_buffer(self._values)])

    def of(self, rows: I64) -> npt.NDArray[Any]:
        """Some of the lists one after the other."""
        lengths = self._sizes[rows]
        first = (self._ends - self._sizes)[rows]
        at = np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
        return self._values.take(at, axis=0)


class Charges:
    """Shapes, layouts and price lists of one partition."""

    def __init__(self) -> None:
        self.names, self.table = Names(), PriceTable()
        self._shape_index, self._layout_index, self._lists = KeyIndex(), KeyIndex(), Recurring()
        self._shapes = {name: Column(np.int32) for name in SHAPE}
        self._layout_first, self._layout_size, self._layout_shapes = Column(np.int32), Column(np.int32), Column(np.int32)
        self._prices = Column(np.int32)
        self._solo: dict[int, tuple[Column, Column]] = {}

    @property
    def layouts(self) -> int:
        """How many layouts there are; they are numbered from 0."""
        return len(self._layout_first)

    def of_shapes(self, name: str, shapes: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """One of the numbers of ``SHAPE`` of shapes."""
        return self._shapes[name].rows[shapes]

    def shape(self, layout: I64, slot: I64) -> I64:
        """The shape of a layout's charge."""
        return self._layout_shapes.rows[self._layout_first.rows[layout] + slot]

    def price(self, prices: I64, slot: I64) -> I64:
        """The number of a price in a list, NONE where the charge has none."""
        return self._prices.rows[prices + slot].astype(np.int64)

    def solo(self, layout: I64, meter: str) -> I64:
        """The charge of a meter in each layout where it is the only one and the kernel may price it; NONE elsewhere."""
        out = np.full(len(layout), NONE, np.int64)
        found = self._solo.get(self.names.find(meter))
        if found is not None:
            layouts, slots = found[0].rows, found[1].rows  # layouts are numbered as they come, so they stand in order
            at = np.minimum(np.searchsorted(layouts, layout), len(layouts) - 1)
            hit = layouts[at] == layout
            out[hit] = slots[at[hit]]
        return out

    def levels(self, layout: int, meter: str) -> bool:
        """Whether a meter is a level in a layout."""
        first = int(self._layout_first.rows[layout])
        own = self._layout_shapes.rows[first : first + int(self._layout_size.rows[layout])]
        level = self.of_shapes("flags", own) & KIND_BITS == KINDS.index("level")
        return bool((level & (self.of_shapes("meter", own) == self.names.find(meter))).any())

    def take(self, charges: pa.ListArray) -> Listed:
        """Number the charges of versions that are surely good, one row a version."""
        items = charges.flatten()
        sizes = masks.sizes(charges)
        shape = self._shapes_of(items)
        kernel = np.nonzero(self.of_shapes("flags", shape) & KERNEL)[0]
        price = np.full(len(items), NONE, np.int32)
        price[kernel] = self._prices_of(items if len(kernel) == len(items) else items.take(pa.array(kernel)))
        shapes, prices = _Lists(shape, sizes), _Lists(price, sizes)
        found = distinct(shapes.contents())
        layout, fresh = self._layout_index.upsert(ids.of_strings(found.values))
        new = np.nonzero(fresh)[0]
        new = found.first[new[np.argsort(layout[new])]]
        self._add_layouts(shapes.of(new), sizes[new])
        return Listed(layout[found.code], self._lists.all(prices.contents(), lambda rows: self._add_lists(prices.of(rows), sizes[rows])))

    def take_one(self, charges: Sequence[Charge]) -> tuple[int, int]:
        """Number the charges of one version: its layout, and where its price list begins."""
        shape = np.array([self._shape_of(charge) for charge in charges], np.int32)
        price = np.array([self._price_of(charge) if in_kernel(charge) else NONE for charge in charges], np.int32)
        layout = self._layout_index.enter(*_hash(shape.tobytes()))
        if layout == len(self._layout_first):
            self._add_layouts(shape, np.array([len(shape)]))
        return layout, self._lists.one(_hash(price.tobytes()), lambda: int(self._add_lists(price, np.array([len(price)]))[0]))

    def _shapes_of(self, items: pa.StructArray) -> npt.NDArray[np.int32]:
        kinds = kinds_of(items)
        rows = np.empty((len(items), len(SHAPE)), np.int32)
        for at, name in enumerate(SHAPE[:-1]):
            rows[:, at] = self.names.number_all(items.field(name))
        rows[:, 1] = np.where(rows[:, 1] == NONE, rows[:, 0], rows[:, 1])  # the product is the charge where none is named
        rows[:, -1] = kinds.kind | np.where(kinds.kernel, KERNEL, 0) | np.where(kinds.by_version, BY_VERSION, 0)
        found = distinct(pa.Array.from_buffers(pa.binary(4 * len(SHAPE)), len(rows), [None, pa.py_buffer(rows)]))
        numbers, fresh = self._shape_index.upsert(ids.of_strings(found.values))
        new = np.nonzero(fresh)[0]
        for name, values in zip(SHAPE, rows[found.first[new[np.argsort(numbers[new])]]].T, strict=True):
            self._shapes[name].extend(values)
        return numbers[found.code].astype(np.int32)

    def _shape_of(self, charge: Charge) -> int:
        flags = KINDS.index(kind_of(charge)) | (KERNEL if in_kernel(charge) else 0) | (BY_VERSION if charge.reset == "contract_version" else 0)
        named = (charge.charge_id, charge.product_id or charge.charge_id, charge.legal_entity_id, charge.meter)
        row = (*(NONE if name is None else self.names.number(name) for name in named), flags)
        number = self._shape_index.enter(*_hash(struct.pack("<5i", *row)))
        if number == len(self._shapes["flags"]):
            for name, value in zip(SHAPE, row, strict=True):
                self._shapes[name].append(value)
        return number

    def _prices_of(self, items: pa.StructArray) -> I64:
        """The number of each price in the kernel's table, NONE where it cannot be there. Neat ones are equal where their pieces are."""
        found = neat(items)
        numbers = np.full(len(items), NONE, np.int64)
        pieces = _Lists(found.pieces, found.sizes)
        numbers[found.rows] = self.table.numbers(pieces.contents(), lambda rows: self.table.put_neat(found.sizes[rows], pieces.of(rows)))
        rest = np.ones(len(items), np.bool_)
        rest[found.rows] = False
        if rest.any():
            numbers[rest] = self._odd_prices_of(items.filter(pa.array(rest)))
        return numbers

    def _odd_prices_of(self, items: pa.StructArray) -> I64:
        """The same for prices that are not neat, which are equal where their content is."""
        parts = ["price", "unit_conversion", "included_quantity", "discount_percent", "maximum"]
        hashes = content.hashes(pa.StructArray.from_arrays([items.field(name) for name in parts], parts), _DEFAULTS)
        contents = pa.Array.from_buffers(pa.binary(16), len(hashes), [None, pa.py_buffer(hashes)])
        return self.table.numbers(contents, lambda rows: self._put_prices(items.take(pa.array(rows))))

    def _put_prices(self, items: pa.StructArray) -> I64:
        prices = map(compile_price, whole_contracts.charges(contract_documents.charges(items)))
        return np.array([self.table.put(price) if isinstance(price, LinearPrice) else NONE for price in prices], np.int64)

    def _price_of(self, charge: Charge) -> int:
        price = compile_price(charge)
        return self.table.number(price) if isinstance(price, LinearPrice) else NONE

    def _add_lists(self, prices: npt.NDArray[np.int32], sizes: I64) -> I64:
        """Keep price lists that lie one after the other; where each begins."""
        first = np.cumsum(sizes) - sizes + len(self._prices)
        self._prices.extend(prices)
        return first

    def _add_layouts(self, shapes: npt.NDArray[np.int32], sizes: I64) -> None:
        """Keep fresh layouts, and say which meters meet one charge only."""
        if not len(sizes):
            return
        first = len(self._layout_first)
        starts = np.cumsum(sizes) - sizes
        self._layout_first.extend(starts + len(self._layout_shapes))
        self._layout_size.extend(sizes)
        self._layout_shapes.extend(shapes)
        layout = np.repeat(np.arange(first, first + len(sizes)), sizes)
        slot = np.arange(len(shapes)) - np.repeat(starts, sizes)
        meter, flags = self.of_shapes("meter", shapes).astype(np.int64), self.of_shapes("flags", shapes)
        metered = np.nonzero(meter != NONE)[0]
        _, place, counts = np.unique(layout[metered] * len(self.names) + meter[metered], return_index=True, return_counts=True)
        at = metered[place[counts == 1]]
        at = at[flags[at] & KERNEL != 0]
        for name in np.nonzero(np.bincount(meter[at]))[0].tolist():
            mine = at[meter[at] == name]
            layouts, slots = self._solo.setdefault(name, (Column(np.int32), Column(np.int32)))
            layouts.extend(layout[mine])
            slots.extend(slot[mine])


def _hash(raw: bytes) -> tuple[int, int]:
    """As ``ids.of_strings`` hashes it."""
    digest = xxhash.xxh3_128_digest(raw)
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
