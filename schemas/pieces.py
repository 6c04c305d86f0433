"""Many small byte strings joined row by row, without a loop over rows.

In: for each row the same sequence of pieces, each a constant, a block of as many bytes in every row, one of few words,
or one run of bytes out of a pool. Out: one byte string per row. All runs lie in one pool; a column of pieces is a
column of their numbers; joining is one ``take`` over the numbers of all rows, whose data buffer then already holds the
rows one after the other. Its price goes by the pieces, so neighbours become one before: constants, blocks and words of
one length are laid side by side; words take constants in, and of few words beside few others every pair is a word.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64s = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
BLOCK: Final = 256
"""Texts and words of one length are laid side by side with their neighbours up to so many bytes."""


class Block(NamedTuple):
    """As many bytes in every row: shape (rows, bytes)."""

    rows: Bytes


class Words(NamedTuple):
    """One of some words in every row, by its place among them."""

    words: pa.LargeBinaryArray
    codes: I32


class Beside(NamedTuple):
    """Constants and blocks that follow one another."""

    parts: tuple[bytes | Block, ...]
    width: int

    def lay(self, out: Bytes) -> None:
        """Write them into rows of this width, a few at a time, so that they stay in the cache until they are whole."""
        template = np.frombuffer(b"".join(part if isinstance(part, bytes) else bytes(part.rows.shape[1]) for part in self.parts), np.uint8)
        for first in range(0, len(out), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            out[rows] = template
            end = 0
            for part in self.parts:
                begin, end = end, end + (len(part) if isinstance(part, bytes) else part.rows.shape[1])
                if isinstance(part, Block):
                    whole = f"V{end - begin}"  # a run is copied as one value, not byte by byte
                    out[rows, begin:end].view(whole)[:] = part.rows[rows].view(whole)


Piece = bytes | Block | Words | Beside | I64
"""A piece of every row: the same bytes for all, bytes of one number, a word, or for each row the number of a run in the pool."""

_U64 = np.uint64
_SMALL: Final = 1024
_AT_ONCE: Final = 4096
"""Rows that are laid side by side at once."""
_FEW: Final = 8
"""Words are few where so many rows come to each."""
_SEVENS: Final = [1 << 7 * i for i in range(1, 9)]
"""From each of these on a varint takes one byte more; the last is beyond eight bytes."""
_EIGHTS: Final = [1 << 8 * i - 1 for i in range(1, 9)]
"""From each of these sizes on a signed number takes one byte more."""
_MORE: Final = np.array([0x8080808080808080 & (1 << 8 * i) - 1 for i in range(8)], _U64)
"""The bits that say that a byte is not the last, by how many bytes there are besides the last."""
_BYTES: Final = np.array([(1 << 8 * i) - 1 for i in range(8)], _U64)
"""The bits of so many bytes."""
_LENGTHS: Final = np.array([2 * i << 8 * i for i in range(8)], _U64)
"""So many bytes as a varint, in the byte above them."""


def masked(pool: "Pool", piece: Piece, mask: Mask | None) -> Piece:
    """The piece in the rows of the mask, no bytes in the others."""
    if mask is None:
        return piece
    return np.where(mask, pool.number(piece, len(mask)), Pool.EMPTY)


def varint(value: int) -> bytes:
    """One number as a zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_VARINTS: Final = b"".join(map(varint, range(_SMALL)))
_VARINT_ENDS: Final = np.cumsum([0, *(len(varint(i)) for i in range(_SMALL))])


class Pool:
    """Runs of bytes by number. Number ``EMPTY`` is the empty run."""

    EMPTY: Final = 0

    def __init__(self) -> None:
        self._raw: list[bytes | memoryview | Beside] = []
        self._offsets: list[I64] = [np.zeros(1, np.int64)]
        self._size = 0
        self._count = 0
        self._constants: dict[bytes, int] = {b"": self.EMPTY}
        self.add(b"", np.zeros(2, np.int64))

    def add(self, raw: bytes | memoryview | Beside, offsets: I64) -> int:
        """Take over runs that lie one after the other; answers the number of the first one."""
        first = self._count
        self._offsets.append(offsets + self._size if self._size else offsets)
        self._raw.append(raw)
        self._size += int(offsets[-1]) if isinstance(raw, Beside) else len(raw)
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

    def number(self, piece: Piece, rows: int) -> int | I64 | I32:
        """A piece as numbers of runs."""
        if isinstance(piece, bytes):
            return self.constant(piece)
        if isinstance(piece, Words):
            return piece.codes + np.int32(self.add(memoryview(piece.words.buffers()[2] or b""), _ends(piece.words)))
        if isinstance(piece, Block):
            piece = Beside((piece,), piece.rows.shape[1])
        if not isinstance(piece, Beside):
            return piece
        first = self.add(piece, np.arange(rows + 1) * piece.width)
        return np.arange(first, first + rows)

    def longs(self, value: I64) -> Piece:
        """Zigzag varints of up to 64 bits."""
        least, most = (int(value.min()), int(value.max())) if len(value) else (0, 0)
        if least == most:
            return varint(least)
        if least >= 0 and most < _SMALL:
            ends = _VARINT_ENDS[least : most + 2]
            some = pa.py_buffer(_VARINTS[int(ends[0]) : int(ends[-1])])
            words = pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, [None, pa.py_buffer(ends - ends[0]), some])
            return Words(words, (value - least).astype(np.int32))
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
        if (high == (low.view(np.int64) >> 63).view(_U64)).all():
            size_low = np.abs(low.view(np.int64)).view(_U64)
            shortest, longest = _sizes(size_low, _EIGHTS)
            if longest < 8:
                return self._short(low, _size(size_low, _EIGHTS, shortest, longest))
        below = high >> _U64(63) == 1
        size_low = np.where(below, ~low + _U64(1), low)
        size_high = np.where(below, ~high + (size_low == 0), high)
        width = np.where(size_high > 0, 8 + _size(size_high, _EIGHTS, 1, 9), _size(size_low, _EIGHTS, 1, 9))
        raw = np.empty((len(low), 17), np.uint8)
        raw[:, 1:9] = high.byteswap().view(np.uint8).reshape(-1, 8)
        raw[:, 9:] = low.byteswap().view(np.uint8).reshape(-1, 8)
        end = np.arange(1, len(low) + 1) * 17
        flat = raw.ravel()
        begin = end - width - 1
        flat[begin] = width * 2
        return self.rows(flat, begin, end)

    def _short(self, low: U64s, width: I64) -> I64:
        """Decimals of up to seven bytes: the length stands in front of them in one word."""
        word = (low & _BYTES.take(width)) | _LENGTHS.take(width)
        end = np.arange(8, 8 * len(low) + 8, 8)
        return self.rows(word.byteswap().view(np.uint8), end - width - 1, end)

    def join(self, pieces: Sequence[Piece], rows: int) -> pa.LargeBinaryArray:
        """Each row's pieces, one after the other."""
        columns = _merged(pieces, rows)
        if not columns or rows == 0:
            return pa.array([b""] * rows, pa.large_binary())
        if len(columns) == 1 and isinstance(columns[0], Beside):
            width = columns[0].width
            only = np.empty((rows, width), np.uint8)
            columns[0].lay(only)
            ends = np.arange(rows + 1) * width
            return pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(ends), pa.py_buffer(only)])
        index = np.empty((len(columns), rows), np.int32)
        for place, column in enumerate(columns):
            index[place] = self.number(column, rows)
        offsets = np.concatenate(self._offsets[1:])
        runs = pa.Array.from_buffers(
            pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(self._data(rows))]
        )
        taken = pc.take(runs, pa.array(np.ascontiguousarray(index.T).ravel()), boundscheck=False)
        _, taken_ends, data = taken.buffers()
        every = np.frombuffer(taken_ends, np.int64)[: rows * len(columns) + 1 : len(columns)]
        return pa.Array.from_buffers(pa.large_binary(), rows, [None, pa.py_buffer(np.ascontiguousarray(every)), data])

    def _data(self, rows: int) -> Bytes:
        """All runs in one."""
        data, end = np.empty(self._size, np.uint8), 0
        for raw in self._raw:
            begin, end = end, end + (rows * raw.width if isinstance(raw, Beside) else len(raw))
            if isinstance(raw, Beside):
                raw.lay(data[begin:end].reshape(rows, raw.width))
            elif end > begin:
                data[begin:end] = np.frombuffer(raw, np.uint8)
        return data


def _sizes(numbers: U64s, bounds: Sequence[int]) -> tuple[int, int]:
    """The least and the most bytes that numbers take: one, and one more from each bound on."""
    return bisect_right(bounds, int(numbers.min(initial=bounds[-1]))) + 1, bisect_right(bounds, int(numbers.max(initial=0))) + 1


def _size(numbers: U64s, bounds: Sequence[int], shortest: int, longest: int) -> I64:
    """The bytes that each number takes; ``shortest`` and ``longest`` are all that occur."""
    size = np.full(len(numbers), shortest, np.int64)
    for bound in bounds[shortest - 1 : longest - 1]:
        size += numbers >= _U64(bound)
    return size


def _ends(words: pa.LargeBinaryArray) -> I64:
    return np.frombuffer(words.buffers()[1], np.int64, len(words) + 1)


def _merged(pieces: Sequence[Piece], rows: int) -> list[Piece]:
    """The pieces, those that follow one another as one where they can be."""
    merged: list[Piece] = []
    for one in pieces:
        if isinstance(one, bytes) and not one:
            continue
        piece = _alike(one) if isinstance(one, Words) else Beside((one,), one.rows.shape[1]) if isinstance(one, Block) else one
        both = _both(merged[-1], piece, rows) if merged else None
        merged[-1:] = [*merged[-1:], piece] if both is None else [both]
    return merged


def _alike(piece: Words) -> Words | Beside:
    """Words as a block, where those that occur are of one length."""
    ends, codes = _ends(piece.words), piece.codes.astype(np.int64)
    occurs = np.zeros(len(piece.words), np.bool_)
    occurs[codes] = True
    size = np.diff(ends)[occurs]
    width = int(size[0])
    if not 0 < width <= BLOCK or (size != width).any():
        return piece
    raw = np.frombuffer(piece.words.buffers()[2], np.uint8)
    begin = np.minimum(ends[:-1], len(raw) - width)  # of words that do not occur anything may be taken
    table = np.ndarray((len(raw) - width + 1,), f"V{width}", raw, strides=(1,))[begin]
    return Beside((Block(table[codes].view(np.uint8).reshape(-1, width)),), width)


def _both(left: Piece, right: Piece, rows: int) -> Piece | None:
    """Two pieces as one; None where it would not be cheaper."""
    match left, right:
        case bytes(), bytes():
            return left + right
        case (bytes() | Beside()), (bytes() | Beside()):
            before, after = _beside(left), _beside(right)
            return Beside(before.parts + after.parts, before.width + after.width)
        case Words(), bytes():
            return Words(_glued(left.words, right), left.codes) if len(left.words) * _FEW <= rows else None
        case bytes(), Words():
            return Words(_glued(left, right.words), right.codes) if len(right.words) * _FEW <= rows else None
        case Words(), Words() if len(left.words) * len(right.words) * _FEW <= rows:
            first, second = np.divmod(np.arange(len(left.words) * len(right.words)), len(right.words))
            both = _glued(left.words.take(pa.array(first)), right.words.take(pa.array(second)))
            return Words(both, left.codes * np.int32(len(right.words)) + right.codes)
        case _:
            return None


def _beside(piece: bytes | Beside) -> Beside:
    return Beside((piece,), len(piece)) if isinstance(piece, bytes) else piece


def _glued(*words: pa.LargeBinaryArray | bytes) -> pa.LargeBinaryArray:
    """Words with what follows each of them."""
    parts = [pa.scalar(part, pa.large_binary()) if isinstance(part, bytes) else part for part in words]
    return pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))
