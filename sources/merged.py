"""All partitions of a topic as one input: what a step reads that needs them together.

In: lots of single partitions. Out: one lot of their records, partition after partition, in which a position counts the
records of all partitions; it keeps the lots that it was made of, because a token names the position in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas import segments
from sources.lot import Lot


@dataclass(frozen=True, slots=True)
class MergedLot(Lot):
    """Lots of several partitions as one; ``end`` is the sum of the positions to go on from."""

    parts: tuple[tuple[int, Lot], ...] = ()
    """Each lot with its partition, in the order of its records."""

    def origin(self, row: int) -> tuple[int, int]:
        """The partition and the position there of a row."""
        for partition, lot in self.parts:
            if row < len(lot.positions):
                return partition, int(lot.positions[row])
            row -= len(lot.positions)
        msg = f"the lot has no row {row} more"
        raise IndexError(msg)


def merge(parts: Sequence[tuple[int, Lot]], end: int) -> MergedLot:
    """Lots with their partitions as one lot that ends at a sum of positions."""
    batches = [lot.records for _, lot in parts]
    records = pa.Table.from_batches(batches, schema=segments.RECORDS).combine_chunks().to_batches()
    count = sum(map(len, batches))
    whole = records[0] if records else pa.RecordBatch.from_pylist([], schema=segments.RECORDS)
    return MergedLot(np.arange(end - count, end), whole, end, parts=tuple(parts))
