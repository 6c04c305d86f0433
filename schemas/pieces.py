"""Many small byte strings joined row by row, without a loop over rows.

In: for each row the same sequence of pieces, each a constant or one run of bytes out of a pool. Out: one byte string
per row. All runs lie in one pool; a column of pieces is a column of their numbers; joining is one ``take`` over the
numbers of all rows, whose data buffer then already holds the rows one after the other.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
U64s = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Piece = bytes | I64
"""A piece of every row: the same bytes for all, or for each row the number of a run in the pool."""

_U64 = np.uint64
_SMALL: Final = 1024


def masked(pool: "Pool", piece: Piece, mask: Mask | None) -> Piece:
    """The piece in the rows of the mask, no bytes in the others."""
    if mask is None:
        return piece
    return np.where(mask, pool.constant(piece) if isinstance(piece, bytes) else piece, Pool.EMPTY)


def varint(value: int) -> bytes:
    """One number as a zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_SMALL_VARINTS: Final = [varint(i) for i in range(_SMALL)]


class Pool:
    """Runs of bytes by number. Number ``EMPTY`` is the empty run."""

    EMPTY: Final = 0

    def __init__(self) -> None:
        self._raw: list[bytes | memoryview] = []
        self._offsets: list[I64] = [np.zeros(1, np.int64)]
        self._size = 0
        self._count = 0
        self._constants: dict[bytes, int] = {b"": self.EMPTY}
        self._small: int | None = None
        self.add(b"", np.zeros(2, np.int64))

    def add(self, raw: bytes | memoryview, offsets: I64) -> int:
        """Take over runs that lie one after the other; answers the number of the first one."""
        first = self._count
        self._offsets.append(offsets + self._size if self._size else offsets)
        self._raw.append(raw)
        self._size += len(raw)
        self._count += len(offsets)
        return first

    def constant(self, raw: bytes) -> int:
        """The number of a run, kept once."""
        number = self._constants.get(raw)
        if number is None:
            number = self._constants[raw] = self.add(raw, np.array([0, len(raw)], np.int64))
        return number

    def rows(self, raw: npt.NDArray[np.uint8], begin: I64, end: I64) -> I64:
        """One run per row, at rising places of a buffer that may have gaps between them."""
        offsets = np.empty(2 * len(begin), np.int64)
        offsets[0::2], offsets[1::2] = begin, end
        first = self.add(raw.data, offsets)
        numbers: I64 = np.arange(first, first + 2 * len(begin), 2)
        return numbers

    def longs(self, value: I64) -> Piece:
        """Zigzag varints of up to 64 bits."""
        least, most = (int(value.min()), int(value.max())) if len(value) else (0, 0)
        if least == most:
            return varint(least)
        if least >= 0 and most < _SMALL:
            if self._small is None:
                sizes = np.cumsum([0, *map(len, _SMALL_VARINTS)])
                self._small = self.add(b"".join(_SMALL_VARINTS), sizes)
            return value + self._small
        rest = ((value << 1) ^ (value >> 63)).view(_U64)
        raw = np.zeros((len(value), 10), np.uint8)
        size = np.ones(len(value), np.int64)
        for i in range(10):
            following = rest >> _U64(7)
            more = following > 0
            raw[:, i] = (rest & _U64(127)).astype(np.uint8) | (more.view(np.uint8) << 7)
            if not more.any():
                break
            size += more
            rest = following
        begin = np.arange(len(value)) * 10
        return self.rows(raw.ravel(), begin, begin + size)

    def decimals(self, high: U64s, low: U64s) -> I64:
        """Length-prefixed two's complement, big-endian, as short as fastavro writes it: bits and a sign."""
        below = high >> _U64(63) == 1
        size_low = np.where(below, ~low + _U64(1), low)
        size_high = np.where(below, ~high + (size_low == 0), high)
        width = np.ones(len(low), np.int64)
        for i in range(1, 9):
            width += size_low >= _U64(1 << (8 * i - 1))
        wide = size_high > 0
        words = 1
        if bool(wide.any()) or bool((width > 8).any()):
            words = 2
            wider = np.full(len(low), 9, np.int64)
            for i in range(1, 9):
                wider += size_high >= _U64(1 << (8 * i - 1))
            width = np.where(wide, wider, width)
        span = 8 * words + 1
        raw = np.empty((len(low), span), np.uint8)
        raw[:, span - 8 :] = low.byteswap().view(np.uint8).reshape(-1, 8)
        if words == 2:
            raw[:, 1:9] = high.byteswap().view(np.uint8).reshape(-1, 8)
        end = np.arange(1, len(low) + 1) * span
        flat = raw.ravel()
        begin = end - width - 1
        flat[begin] = width * 2
        return self.rows(flat, begin, end)

    def join(self, pieces: Sequence[Piece], rows: int) -> pa.LargeBinaryArray:
        """Each row's pieces, one after the other."""
        columns = _merged(pieces)
        if not columns or rows == 0:
            return pa.array([b""] * rows, pa.large_binary())
        numbers = [self.constant(column) if isinstance(column, bytes) else column for column in columns]
        index = np.empty((rows, len(numbers)), np.int32)
        for place, number in enumerate(numbers):
            index[:, place] = number
        offsets = np.concatenate(self._offsets[1:])
        runs = pa.Array.from_buffers(
            pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(self._raw))]
        )
        taken = runs.take(pa.array(index.ravel()))
        _, ends, data = taken.buffers()
        every = np.frombuffer(ends, np.int64)[: rows * len(numbers) + 1 : len(numbers)]
        return pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(np.ascontiguousarray(every)), data])


def _merged(pieces: Sequence[Piece]) -> list[Piece]:
    """Constants that follow one another become one."""
    merged: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            if merged and isinstance(merged[-1], bytes):
                merged[-1] += piece
            elif piece:
                merged.append(piece)
        else:
            merged.append(piece)
    return merged
