"""Stamps of a file of rows: how far it is covered by the log, and whether its bytes are still what was written.

In: ranges of rows as bytes, and the record of the log that covers them. Out: lines to append beside the rows; and
back, from the first line on, those that hold: a line that is torn or whose rows have changed ends them.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

_FORMAT: Final = 1
LINE: Final = np.dtype([
    ("format", "<u8"),  # and the rows of a file
    ("end", "<i8"),  # the number after the last row covered
    ("oldest", "<i8"),  # the first row still needed, perhaps of an earlier file
    ("position", "<i8"),  # of the last record of the log covered, -1: none
    ("mark", "<u8"),  # of that record
    ("rows", "<u8"),  # checksum of the rows since the line before, or since the file's beginning
    ("own", "<u8"),  # checksum of the fields above
])
Lines = npt.NDArray[Any]
"""Stamps of ``LINE``."""


class Stamp(NamedTuple):
    """The last record of the log that the files cover: its position, and a hash of its value to know it by."""

    position: int
    mark: int

    @classmethod
    def of(cls, position: int, value: bytes) -> "Stamp":
        """The stamp of a record."""
        return cls(position, xxhash.xxh3_64_intdigest(value))


NOTHING: Final = Stamp(-1, 0)


def line(file_rows: int, end: int, oldest: int, covered: Stamp, rows: bytes) -> bytes:
    """One line for the rows since the line before."""
    made = np.zeros(1, LINE)
    made[0] = (_format(file_rows), end, oldest, covered.position, covered.mark, xxhash.xxh3_64_intdigest(rows), 0)
    made["own"] = _own(made[0])
    return made.tobytes()


def holding(raw: bytes, first: int, file_rows: int, rows_of: Callable[[int, int], bytes]) -> Lines:
    """The lines that hold, of a file whose first row has a number; ``rows_of`` reads the rows between two numbers."""
    lines = np.frombuffer(raw[: len(raw) - len(raw) % LINE.itemsize], LINE)
    start = first
    for place, found in enumerate(lines):
        end = int(found["end"])
        sound = found["format"] == _format(file_rows) and found["own"] == _own(found) and start < end <= first + file_rows
        if not sound or xxhash.xxh3_64_intdigest(rows_of(start, end)) != found["rows"]:
            return lines[:place]
        start = end
    return lines


def _format(file_rows: int) -> int:
    return _FORMAT << 32 | file_rows


def _own(stamp: np.void) -> int:
    return xxhash.xxh3_64_intdigest(stamp.tobytes()[: -LINE["own"].itemsize])
