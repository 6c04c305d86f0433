"""Neat prices by columns: what most charges are, compiled for a whole batch of contracts at once.

In: charges as decoded columns, without conversion, included quantity, discount or maximum, priced per unit, graduated
or by volume. Out: the kernel's pieces of those that are neat: whole bounds, figures that surely stay in ``int64``. The others are left to ``compile_price``, whose prices these equal (a test compares them).

With slopes and flats in 10^-12 and whole bounds, tier i of a graduated price from L on is ``reached + flat + (q - L) x
slope``, so its base is ``reached + flat - L x slope``; by volume it is the flat. Source: docs/semantics.md section 4.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import masks, wide
from tieout.rating.adjustments import QUANTITY

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_OPEN: Final = 2**63 - 1
_MOST_TIERS: Final = 256
_FIGURE: Final = 2**60  # what a price, a fee, and a tier's whole units by its price stay below
_REACHED: Final = 2**53  # what the amounts of a price's tiers stay below together, in 2**8
_UNIT: Final = np.int64(QUANTITY)


class Neat(NamedTuple):
    """The neat ones among charges, by their rows, and their pieces one after the other: up to, slope and base of each."""

    rows: I64
    sizes: I64
    pieces: I64


def neat(charges: pa.StructArray) -> Neat:
    """The neat prices of charges that are surely good."""
    price = charges.field("price")
    model = price.field("model")
    common = _common(charges)
    single = np.nonzero(common & masks.is_one(model, "per_unit"))[0]
    tiered = np.nonzero(common & masks.is_one(model, "graduated", "volume"))[0]
    parts = [_per_unit(price, single), _tiered(price, tiered)]
    return Neat(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _common(charges: pa.StructArray) -> Mask:
    found = np.ones(len(charges), np.bool_)
    for name in ("unit_conversion", "maximum"):
        column = charges.field(name)
        if column.null_count < len(column):
            found &= ~masks.valid(column)
    for name in ("included_quantity", "discount_percent"):
        high, low = wide.lanes_of(charges.field(name))
        found &= (high == 0) & (low == 0)
    return found


def _per_unit(price: pa.StructArray, rows: I64) -> Neat:
    slope, fits = wide.narrow(_of_rows(price.field("unit_price"), rows))
    fits &= slope < _FIGURE
    rows, slope = rows[fits], slope[fits]
    return Neat(rows, np.ones(len(rows), np.int64), np.stack([np.full(len(rows), _OPEN), slope, np.zeros(len(rows), np.int64)], axis=1))


def _tiered(price: pa.StructArray, rows: I64) -> Neat:
    """Tiers are taken in whole units, which keeps every figure inside its bound; a price that has another is not neat."""
    lists = _of_rows(price.field("tiers"), rows)
    sizes = masks.sizes(lists)
    parent = pc.list_parent_indices(lists).to_numpy()
    tiers = lists.flatten()
    first = np.cumsum(sizes) - sizes
    bounds, bound_fits = wide.narrow(tiers.field("up_to"))
    slope, slope_fits = wide.narrow(tiers.field("unit_price"))
    flat, flat_fits = wide.narrow(tiers.field("flat_fee"))
    whole = bounds // _UNIT
    low = np.empty_like(whole)
    low[1:] = whole[:-1]
    low[first] = 0
    spread = np.maximum(np.maximum(whole, low), 1)
    good = bound_fits & slope_fits & flat_fits & (whole * _UNIT == bounds) & (flat < _FIGURE) & (slope < _FIGURE // spread)
    flats_at_zero = _of_rows(price.field("flat_at_zero"), rows).fill_null(True).to_numpy(zero_copy_only=False)
    volume = masks.is_one(price.field("model"), "volume")[rows]
    inside = np.where(whole > 0, (whole - low) * slope + flat, 0)  # the open tier's is not used
    wrong = np.bincount(parent[~good], minlength=len(rows)) > 0
    keep = ~wrong & (sizes <= _MOST_TIERS) & (flats_at_zero | (flat[first] == 0)) & (_sums(inside >> 8, first) < _REACHED)
    reached = np.cumsum(inside) - inside
    graduated = reached - np.repeat(reached[first], sizes) + flat - low * slope
    base = np.where(volume[parent], flat, graduated)
    up_to = bounds.copy()
    up_to[first + sizes - 1] = _OPEN
    pieces = np.stack([up_to, slope, base], axis=1)
    return Neat(rows, sizes, pieces) if keep.all() else Neat(rows[keep], sizes[keep], pieces[keep[parent]])


def _of_rows(column: pa.Array, rows: I64) -> pa.Array:
    """Some rows of a column, in their order."""
    return column if len(rows) == len(column) else column.take(pa.array(rows))


def _sums(values: I64, first: I64) -> I64:
    return np.add.reduceat(values, first) if len(first) else first
