"""Records as a source hands them over: in the order of their log, each with its position."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Lot:
    """Records of one partition (``schemas.segments.RECORDS``), their rising positions, and where to go on from."""

    positions: npt.NDArray[np.int64]
    records: pa.RecordBatch
    end: int

    def row_of(self, position: int) -> int | None:
        """The row of a position; None where it is not in the lot."""
        row = int(np.searchsorted(self.positions, position))
        return row if row < len(self.positions) and self.positions[row] == position else None
