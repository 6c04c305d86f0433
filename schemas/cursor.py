"""Many Avro bodies read side by side: one buffer, one position per row, every row advanced field by field.

In: framed bodies joined into one buffer. Out: Arrow columns of the fields as they are read, and for each row that
broke the first fault: what, at which byte, at which field. A broken row stays where it is and reads as nothing; its
neighbours never move, because every row has a position and an end of its own.

The encoding read here is that of the Avro specification 1.12 (zigzag varints, length-prefixed bytes, blocks).
"""

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
U64 = np.uint64
PAD: Final = 32
_WORD: Final = 8
_FEW: Final = 8
"""Of so many rows one at most may be longer than a byte, to be read on its own."""
_LIMB_BYTES: Final = 16
_ALWAYS: Final = 19
"""Digits that hold any 64-bit number."""
_SEVEN: Final = np.uint8(127)
_STOP: Final = U64(0x8080808080808080)


class Fault(IntEnum):
    """What can be wrong with a body."""

    NONE = 0
    TRUNCATED = 1
    NEGATIVE_LENGTH = 2
    VARINT = 3
    UTF8 = 4
    DECIMAL = 5
    COUNT = 6
    INDEX = 7
    TRAILING = 8
    BOOLEAN = 9
    MISSING = 10
    MANY = 11
    DEPTH = 12


MESSAGES: Final = {
    Fault.TRUNCATED: "the body ends before the field does",
    Fault.NEGATIVE_LENGTH: "the length is below 0",
    Fault.VARINT: "the number does not fit its type",
    Fault.UTF8: "the text is not UTF-8",
    Fault.DECIMAL: "the decimal has too many digits",
    Fault.COUNT: "the block count cannot be right: more items than bytes",
    Fault.INDEX: "the union or enum index does not exist, or stands for what the reader does not know",
    Fault.TRAILING: "bytes are left after the last field",
    Fault.BOOLEAN: "the byte is neither true nor false",
    Fault.MISSING: "the field has no value, and one is required",
    Fault.MANY: "the list or map has more items than are read by columns",
    Fault.DEPTH: "records are nested too deep",
}


class Buffer:
    """The joined bytes of a batch, padded on both sides so that a word may be read anywhere."""

    def __init__(self, values: pa.Array) -> None:
        raw = values.cast(pa.large_binary()) if values.type != pa.large_binary() else values
        self.paths = [""]
        self.null = raw.is_null().to_numpy(zero_copy_only=False) if raw.null_count else None
        offsets = np.frombuffer(raw.buffers()[1], np.int64, len(raw) + 1, raw.offset * 8)
        first, last = (int(offsets[0]), int(offsets[-1])) if len(raw) else (0, 0)
        body = memoryview(raw.buffers()[2])[first:last] if last > first else b""
        self.raw = b"".join((bytes(PAD), body, bytes(PAD)))
        self.bytes = np.frombuffer(self.raw, np.uint8)
        self.words = np.ndarray((len(self.raw) - 7,), "<u8", buffer=self.raw, strides=(1,))
        self.start = offsets[:-1] - first + PAD
        self.end = offsets[1:] - first + PAD
        if self.null is not None:
            self.end = np.where(self.null, self.start, self.end)

    def body(self, row: int, skip: int) -> bytes:
        """One row's bytes after its frame."""
        return self.raw[int(self.start[row]) + skip : int(self.end[row])]


class Cursor:
    """The rows of a buffer (or some of them), each with its position, its end and its first fault."""

    def __init__(self, buffer: Buffer, rows: I64, start: I64) -> None:
        self.buffer = buffer
        self.rows = rows
        self.n = len(rows)
        self.pos = start.astype(np.int64)
        self.end = buffer.end[rows].astype(np.int64)
        self.fault = np.zeros(self.n, np.int8)
        self.fault_at = np.zeros(self.n, np.int64)
        self.fault_path = np.zeros(self.n, np.int32)
        self.path = ""

    def part(self, chosen: Mask) -> "Cursor":
        """Some of the rows, to be read on their own and put back with ``merge``."""
        at = np.nonzero(chosen)[0]
        part = Cursor(self.buffer, self.rows[at], self.pos[at])
        part.end, part.fault, part.path = self.end[at], self.fault[at], self.path
        part.fault_at, part.fault_path = self.fault_at[at], self.fault_path[at]
        return part

    def merge(self, chosen: Mask, part: "Cursor") -> None:
        """Take positions and faults of the part back."""
        at = np.nonzero(chosen)[0]
        self.pos[at], self.end[at] = part.pos, part.end
        self.fault[at], self.fault_at[at], self.fault_path[at] = part.fault, part.fault_at, part.fault_path

    def blame(self, wrong: Mask, fault: Fault, at: I64 | None = None) -> None:
        """Mark rows as broken at their position (or ``at``); a broken row has nothing left to read."""
        if not wrong.any():
            return
        new = np.nonzero(wrong & (self.fault == 0))[0]
        if len(new):
            place = self.pos if at is None else at
            self.fault[new] = fault
            self.fault_at[new] = place[new] - self.buffer.start[self.rows[new]]
            if self.buffer.paths[-1] != self.path:
                self.buffer.paths.append(self.path)
            self.fault_path[new] = len(self.buffer.paths) - 1
        self.pos = np.where(wrong, self.buffer.start[self.rows], self.pos)
        self.end = np.where(wrong, self.pos, self.end)

    def advance(self, by: I64 | int) -> None:
        """Move on; rows that have not so many bytes left are broken, and stand still."""
        after = self.pos + by
        over = after > self.end
        if over.any():
            self.blame(over, Fault.TRUNCATED)
            after = np.where(over, self.pos, after)
        self.pos = after

    def long(self) -> I64:
        """A zigzag varint of up to 64 bits."""
        first = self.buffer.bytes[self.pos]
        value = ((first >> 1).view(np.int8) ^ -(first & 1).view(np.int8)).astype(np.int64)  # in bytes: a tenth of what it costs in words
        more = np.flatnonzero(first > _SEVEN)
        if not len(more):  # one byte each: lengths, counts, union branches
            self.advance(1)
        elif len(more) * _FEW < self.n:
            size = np.ones(self.n, np.int64)
            value[more], size[more] = self._several(self.pos[more])
            self._move(value, size)
        else:
            value, size = self._several(self.pos)
            self._move(value, size)
        return value

    def _several(self, pos: I64) -> tuple[I64, I64]:
        """Varints of up to eight bytes at these positions and their sizes; of a longer one its first 56 bits."""
        word = self.buffer.words[pos]
        stop = ~word & _STOP
        below = (stop & (~stop + U64(1))) - U64(1)
        word &= below & U64(0x7F7F7F7F7F7F7F7F)
        word = (word & U64(0x007F007F007F007F)) | ((word & U64(0x7F007F007F007F00)) >> U64(1))
        word = (word & U64(0x00003FFF00003FFF)) | ((word & U64(0x3FFF00003FFF0000)) >> U64(2))
        word = (word & U64(0x0FFFFFFF)) | ((word & U64(0x0FFFFFFF00000000)) >> U64(4))
        size = np.minimum((np.bitwise_count(below) >> 3) + 1, 8).astype(np.int64)
        return (word >> U64(1)).view(np.int64) ^ -(word & U64(1)).view(np.int64), size

    def _move(self, value: I64, size: I64) -> None:
        """Move on by the sizes of varints; what is longer than eight bytes is read to its end first."""
        longer = size == _WORD
        if longer.any():
            longer &= self.buffer.bytes[self.pos + _WORD - 1] > _SEVEN
            if longer.any():
                self._nine_or_ten(longer, value, size)
        self.advance(np.where(self.fault > 0, 0, size) if self.fault.any() else size)

    def _nine_or_ten(self, longer: Mask, value: I64, size: I64) -> None:
        """Varints of nine or ten bytes: the first eight hold 56 bits, the rest follows them."""
        at = np.nonzero(longer)[0]
        ninth, tenth = self.buffer.bytes[self.pos[at] + 8], self.buffer.bytes[self.pos[at] + 9]
        low = ((value[at] << 1) ^ (value[at] >> 63)).view(U64)
        more = ninth > _SEVEN
        number = low | (ninth & _SEVEN).astype(U64) << U64(56) | np.where(more, tenth, 0).astype(U64) << U64(63)
        value[at] = (number >> U64(1)).view(np.int64) ^ -(number & U64(1)).view(np.int64)
        size[at] = np.where(more, 10, 9)
        wrong = np.zeros(self.n, np.bool_)
        wrong[at] = more & (tenth > 1)
        self.blame(wrong, Fault.VARINT)

    def int32(self) -> I64:
        """A zigzag varint that must fit 32 bits."""
        value = self.long()
        self.blame((value < -(2**31)) | (value >= 2**31), Fault.VARINT)
        return value

    def span(self) -> tuple[I64, I64]:
        """A length-prefixed run of bytes: where it begins and how long it is; (row start, 0) for a broken row."""
        length = self.long()
        wrong = length < 0
        if wrong.any():
            self.blame(wrong, Fault.NEGATIVE_LENGTH)
        too_long = length > self.end - self.pos
        if too_long.any():
            self.blame(too_long, Fault.TRUNCATED)
        if (wrong | too_long).any() or self.fault.any():
            length = np.where(self.fault > 0, 0, length)
        begin = self.pos
        self.pos = begin + length
        return begin, length

    def skip(self) -> None:
        """Pass over a length-prefixed run of bytes."""
        self.span()

    def passed(self) -> None:
        """Pass over a varint."""
        self.long()

    def fixed(self, size: int) -> tuple[I64, I64]:
        """A run of ``size`` bytes."""
        begin = self.pos
        self.advance(size)
        whole = self.fault == 0
        return np.where(whole, begin, self.pos), np.where(whole, size, 0)

    def texts(self, begin: I64, length: I64, *, utf8: bool) -> pa.Array:
        """Runs as a column of strings or bytes; what is not UTF-8 breaks its row."""
        if self.n == 0:
            return pa.array([], pa.string() if utf8 else pa.binary())
        taken = self._taken(begin, length)
        if not utf8:
            return taken
        text = pa.Array.from_buffers(pa.string(), self.n, taken.buffers())
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            self._check_utf8(begin, length)
            taken = self._taken(begin, np.where(self.fault > 0, 0, length))
            text = pa.Array.from_buffers(pa.string(), self.n, taken.buffers())
        return text

    def _taken(self, begin: I64, length: I64) -> pa.Array:
        offsets = np.empty(2 * self.n, np.int32)
        offsets[0::2], offsets[1::2] = begin, begin + length
        runs = pa.Array.from_buffers(
            pa.binary(), 2 * self.n - 1, [None, pa.py_buffer(offsets), pa.py_buffer(self.buffer.raw)]
        )
        return pc.take(runs, pa.array(np.arange(0, 2 * self.n, 2)), boundscheck=False)

    def _check_utf8(self, begin: I64, length: I64) -> None:
        """Find the rows whose text is not UTF-8: seldom, so one by one."""
        wrong = np.zeros(self.n, np.bool_)
        for i, (at, size) in enumerate(zip(begin.tolist(), length.tolist(), strict=True)):
            try:
                self.buffer.raw[at : at + size].decode()
            except UnicodeDecodeError:
                wrong[i] = True
        self.blame(wrong, Fault.UTF8, begin)

    def decimals(self, begin: I64, length: I64, precision: int, scale: int) -> pa.Array:
        """Big-endian two's complement runs as decimal128; more digits than ``precision`` break the row."""
        over = length > _LIMB_BYTES
        if over.any():
            begin, length = self._shorten(begin, length, over)
        word = self.buffer.words[begin].byteswap().view(np.int64)
        short = length <= 8
        if short.all():
            top = word >> np.minimum((8 - length) * 8, 63)
            top[length == 0] = 0
            low, high = top.view(U64), (top >> np.int64(63)).view(U64)
        else:
            shift = np.where(short, 8 - length, np.maximum(16 - length, 0)) * 8
            top = np.where(length == 0, 0, word >> np.minimum(shift, 63))
            last = self.buffer.words[np.maximum(begin + length - 8, 0)].byteswap()
            low = np.where(short, top.view(U64), last)
            high = np.where(short, (top >> np.int64(63)).view(U64), top.view(U64))
        if precision < _ALWAYS or not short.all():
            self.blame(too_large(high, low, 10**precision), Fault.DECIMAL, begin)
        data = np.empty((self.n, 2), U64)
        data[:, 0], data[:, 1] = low, high
        if self.fault.any():
            data[self.fault > 0] = 0
        return pa.Array.from_buffers(pa.decimal128(precision, scale), self.n, [None, pa.py_buffer(data)])

    def _shorten(self, begin: I64, length: I64, over: Mask) -> tuple[I64, I64]:
        """Drop sign bytes in front of what fits 16 bytes; break what does not fit."""
        wrong = np.zeros(self.n, np.bool_)
        begin, length = begin.copy(), length.copy()
        for i in np.nonzero(over)[0].tolist():
            raw = self.buffer.raw[int(begin[i]) : int(begin[i] + length[i])]
            wrong[i] = not -(2**127) <= int.from_bytes(raw, "big", signed=True) < 2**127
            begin[i], length[i] = begin[i] + length[i] - _LIMB_BYTES, _LIMB_BYTES
        self.blame(wrong, Fault.DECIMAL, begin)
        return np.where(wrong, self.pos, begin), np.where(wrong, 0, length)


def too_large(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], limit: int) -> Mask:
    """Which signed 128-bit values do not lie strictly between ``-limit`` and ``limit``."""
    below = (high >> U64(63)) == 1
    size_low = np.where(below, ~low + U64(1), low)
    size_high = np.where(below, ~high + (size_low == 0), high)
    top, bottom = U64(limit >> 64), U64(limit & (2**64 - 1))
    wrong: Mask = (size_high > top) | ((size_high == top) & (size_low >= bottom))
    return wrong
