"""What a row of a nested column holds, as one hash: equal content is found without making an object of a row.

In: an Arrow column of structs, lists, decimals, words and numbers. Out: a 128-bit hash a row. A field that is
null counts as absent, and so does one with a default that the caller names.
Source: docs/semantics.md section 3 (equal charges are stored once).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids, wide
from tieout.ids import Lanes

Mask = npt.NDArray[np.bool_]


def hashes(column: pa.Array, absent: Mapping[str, object] | None = None) -> Lanes:
    """Hash each row; ``absent`` are the values, by a struct's field, that count as if the field were not there."""
    kind = column.type
    if pa.types.is_struct(kind):
        return _of_fields(column, absent or {})
    if pa.types.is_list(kind):
        return _of_lists(column, hashes(column.flatten(), absent))
    if pa.types.is_dictionary(kind) or pa.types.is_string(kind):
        return ids.of_strings(column if pa.types.is_dictionary(kind) else pc.dictionary_encode(column))
    if pa.types.is_decimal(kind):
        return np.stack(wide.lanes_of(column), axis=1)
    return ids.of_integers(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))


def _of_fields(column: pa.StructArray, absent: Mapping[str, object]) -> Lanes:
    out = np.zeros((len(column), 2), np.uint64)
    for at, field in enumerate(column.type):
        values = column.field(at)
        given = _given(values, absent.get(field.name))
        if given is None or given.any():
            mark = ids.of_integers(np.array([at], np.int64))
            if given is None or given.all():
                out = ids.combine(out, hashes(values, absent) ^ mark)
            else:
                rows = np.nonzero(given)[0]
                out[rows] = ids.combine(out[rows], hashes(values.take(pa.array(rows)), absent) ^ mark)
    return out


def _given(values: pa.Array, absent: object) -> Mask | None:
    """The rows where a field counts; None for all of them."""
    if values.null_count == len(values):
        return np.zeros(len(values), np.bool_)
    given: Mask | None = values.is_valid().to_numpy(zero_copy_only=False) if values.null_count else None
    if absent is None:
        return given
    if pa.types.is_decimal(values.type):
        high, low = wide.lanes_of(values)
        differs = (high != 0) | (low != 0) if not absent else np.ones(len(values), np.bool_)
    else:
        differs = pc.not_equal(values, pa.scalar(absent)).fill_null(True).to_numpy(zero_copy_only=False)
    return differs if given is None else given & differs


def _of_lists(column: pa.ListArray, items: Lanes) -> Lanes:
    """Fold the items of each row's list in their order, all rows at once; an empty list hashes like no other."""
    sizes = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    first = np.cumsum(sizes) - sizes
    out = ids.of_integers(sizes)
    rows = np.nonzero(sizes > 0)[0]
    place = 0
    while len(rows):
        out[rows] = ids.combine(out[rows], items[first[rows] + place])
        place += 1
        rows = rows[sizes[rows] > place]
    return out
