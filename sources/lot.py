"""Records as a source hands them over: in the order of their log, each with its position."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Lot:
    """Records of one partition (``schemas.segments.RECORDS``), their rising positions, and where to go on from."""

    positions: npt.NDArray[np.int64]
    records: pa.RecordBatch
    end: int
    beside: Callable[[int], tuple[bytes | None, list[dict[str, Any]] | None]] | None = None
    """The key and headers of a row, where a source leaves their columns null because hardly any row needs them."""

    def row_of(self, position: int) -> int | None:
        """The row of a position; None where it is not in the lot."""
        row = int(np.searchsorted(self.positions, position))
        return row if row < len(self.positions) and self.positions[row] == position else None

    def record(self, row: int) -> dict[str, Any]:
        """One record whole: value, key, timestamp and headers."""
        found: dict[str, Any] = {name: column[row].as_py() for name, column in zip(self.records.schema.names, self.records.columns, strict=True)}
        if self.beside is not None:
            found["key"], found["headers"] = self.beside(row)
        return found
