"""Questions to Arrow columns, answered as numpy masks."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]


def valid(column: pa.Array) -> Mask:
    """Where a column has a value."""
    return column.is_valid().to_numpy(zero_copy_only=False) if column.null_count else np.ones(len(column), np.bool_)


def is_one(column: pa.DictionaryArray, *words: str) -> Mask:
    """Where a column of words has one of some; null is none of them."""
    known = column.dictionary.to_pylist()
    codes = column.indices.fill_null(-1) if column.null_count else column.indices
    found = np.zeros(len(column), np.bool_)
    for code in [known.index(word) for word in words if word in known]:
        found |= codes.to_numpy(zero_copy_only=False) == code
    return found


def sizes(column: pa.Array) -> npt.NDArray[np.int64]:
    """How many entries each list or map has; 0 for null."""
    if pa.types.is_map(column.type):
        return np.diff(column.offsets.to_numpy()).astype(np.int64)
    return pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
