"""Many small byte strings joined row by row, without a loop over rows.

In: for each row the same sequence of pieces, each a constant, a block of as many bytes in every row, or one run of
bytes out of a pool. Out: one byte string per row. All runs lie in one pool; a column of pieces is a column of their
numbers; joining is one ``take`` over the numbers of all rows, whose data buffer then already holds the rows one after
the other. Constants and blocks that follow one another are laid side by side first and are one run a row.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]
U64s = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


class Block(NamedTuple):
    """As many bytes in every row: shape (rows, bytes)."""

    rows: npt.NDArray[np.uint8]


Piece = bytes | Block | I64
"""A piece of every row: the same bytes for all, a block, or for each row the number of a run in the pool."""

_U64 = np.uint64
_SMALL: Final = 1024
_SEVENS: Final = [1 << 7 * i for i in range(1, 9)]
"""From each of these on a varint takes one byte more; the last is beyond eight bytes."""
_EIGHTS: Final = [1 << 8 * i - 1 for i in range(1, 9)]
"""From each of these sizes on a signed number takes one byte more."""
_MORE: Final = np.array([0x8080808080808080 & (1 << 8 * i) - 1 for i in range(8)], _U64)
"""The bits that say that a byte is not the last, by how many bytes there are besides the last."""


def masked(pool: "Pool", piece: Piece, mask: Mask | None) -> Piece:
    """The piece in the rows of the mask, no bytes in the others."""
    if mask is None:
        return piece
    return np.where(mask, pool.number(piece), Pool.EMPTY)


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

    def number(self, piece: Piece) -> int | I64:
        """A piece as numbers of runs."""
        if isinstance(piece, bytes):
            return self.constant(piece)
        if not isinstance(piece, Block):
            return piece
        rows, width = piece.rows.shape
        first = self.add(np.ascontiguousarray(piece.rows).ravel().data, np.arange(rows + 1) * width)
        return np.arange(first, first + rows)

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
        shortest, longest = _sizes(rest, _SEVENS)
        if longest <= 8:
            return self._eight(rest, shortest, longest)
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

    def _eight(self, rest: U64s, shortest: int, longest: int) -> Piece:
        """Varints of up to eight bytes: the seven bits of each are moved to where its byte is."""
        word = (rest & _U64(0x0FFFFFFF)) | ((rest << _U64(4)) & _U64(0x0FFFFFFF00000000))
        word = (word & _U64(0x00003FFF00003FFF)) | ((word << _U64(2)) & _U64(0x3FFF00003FFF0000))
        word = (word & _U64(0x007F007F007F007F)) | ((word << _U64(1)) & _U64(0x7F007F007F007F00))
        if shortest == longest:
            return Block((word | _MORE[longest - 1]).view(np.uint8).reshape(-1, 8)[:, :longest])
        size = _size(rest, _SEVENS, shortest, longest)
        begin = np.arange(len(rest)) * 8
        return self.rows((word | _MORE.take(size - 1)).view(np.uint8), begin, begin + size)

    def decimals(self, high: U64s, low: U64s) -> I64:
        """Length-prefixed two's complement, big-endian, as short as fastavro writes it: bits and a sign."""
        below = high >> _U64(63) == 1
        size_low = np.where(below, ~low + _U64(1), low)
        size_high = np.where(below, ~high + (size_low == 0), high)
        shortest, longest = _sizes(size_low, _EIGHTS)
        width = _size(size_low, _EIGHTS, shortest, longest)
        wide = size_high > 0
        words = 1
        if longest > 8 or bool(wide.any()):
            words = 2
            width = np.where(wide, 8 + _size(size_high, _EIGHTS, 1, 9), width)
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
        columns = _merged(pieces, rows)
        if not columns or rows == 0:
            return pa.array([b""] * rows, pa.large_binary())
        index = np.empty((len(columns), rows), np.int32)
        for place, column in enumerate(columns):
            index[place] = self.number(column)
        offsets = np.concatenate(self._offsets[1:])
        runs = pa.Array.from_buffers(
            pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(self._raw))]
        )
        taken = pc.take(runs, pa.array(np.ascontiguousarray(index.T).ravel()), boundscheck=False)
        _, ends, data = taken.buffers()
        every = np.frombuffer(ends, np.int64)[: rows * len(columns) + 1 : len(columns)]
        return pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(np.ascontiguousarray(every)), data])


def _sizes(numbers: U64s, bounds: Sequence[int]) -> tuple[int, int]:
    """The least and the most bytes that numbers take: one, and one more from each bound on."""
    return bisect_right(bounds, int(numbers.min(initial=bounds[-1]))) + 1, bisect_right(bounds, int(numbers.max(initial=0))) + 1


def _size(numbers: U64s, bounds: Sequence[int], shortest: int, longest: int) -> I64:
    """The bytes that each number takes; ``shortest`` and ``longest`` are all that occur."""
    size = np.full(len(numbers), shortest, np.int64)
    for bound in bounds[shortest - 1 : longest - 1]:
        size += numbers >= _U64(bound)
    return size


def _merged(pieces: Sequence[Piece], rows: int) -> list[Piece]:
    """Constants and blocks that follow one another become one."""
    merged: list[Piece] = []
    beside: list[bytes | Block] = []
    for piece in pieces:
        if isinstance(piece, bytes | Block):
            beside.append(piece)
        else:
            merged += [*_side_by_side(beside, rows), piece]
            beside = []
    return merged + _side_by_side(beside, rows)


def _side_by_side(pieces: Sequence[bytes | Block], rows: int) -> list[Piece]:
    """Constants and blocks as one piece, or none."""
    template = b"".join(piece if isinstance(piece, bytes) else bytes(piece.rows.shape[1]) for piece in pieces)
    if not template:
        return []
    if not any(isinstance(piece, Block) for piece in pieces):
        return [template]
    block = np.empty((rows, len(template)), np.uint8)
    block[:] = np.frombuffer(template, np.uint8)
    end = 0
    for piece in pieces:
        begin, end = end, end + (len(piece) if isinstance(piece, bytes) else piece.rows.shape[1])
        if isinstance(piece, Block):
            block[:, begin:end] = piece.rows
    return [Block(block)]
