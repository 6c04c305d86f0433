"""Many Avro bodies read side by side: one buffer, one position per row, every row advanced field by field.

In: framed bodies joined into one buffer. Out: Arrow columns of the fields as they are read, and for each row that
broke the first fault: what, at which byte, at which field. A broken row reads as nothing until it is shed, between two
fields of the body; its neighbours never move, because every row has a position and an end of its own.

The encoding read here is that of the Avro specification 1.12 (zigzag varints, length-prefixed bytes, blocks).
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.faults import Broken, Fault

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
U64 = np.uint64
PAD: Final = 128
"""Bytes of zeros in front of the bodies and behind them."""
WORD: Final = 8
_FEW: Final = 8
"""Of so many rows one at most may be longer than a byte, to be read on its own."""
_ALIKE: Final = 64
"""Runs of one length up to this are copied as they lie, without an index; fewer than the zeros behind the bodies."""
_NEVER: Final = 2**62
"""Where a broken row ends."""
_LIMB_BYTES: Final = 16
_ALWAYS: Final = 19
"""Digits that hold any 64-bit number."""
_SEVEN: Final = np.uint8(127)
_NO_SHORT: Final = np.uint8(0x81)
"""The bits of a byte that is no whole number, or is one below 0."""
_STOP: Final = U64(0x8080808080808080)
_SEVENS: Final = [
    (U64(0x7F007F007F007F00), U64(1)), (U64(0x3FFF00003FFF0000), U64(2)), (U64(0x0FFFFFFF00000000), U64(4)),
]  # fmt: skip
"""Bits of a word that are moved together, and by how many, to bring the seven bits of each byte side by side."""


class Buffer:
    """The joined bytes of a batch, padded on both sides so that a word may be read anywhere.

    What breaks is sent to the zeros at the end: it reads as 0 there, as the empty text, as a list without items.
    """

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
        self.limit = len(self.raw) - PAD
        place = offsets + (PAD - first)
        self.start, self.end = place[:-1], place[1:]
        if self.null is not None:
            self.end = np.where(self.null, self.start, self.end)

    def runs(self, begin: I64, size: int) -> npt.NDArray[np.void]:
        """Runs of one size, one a row."""
        return np.ndarray((len(self.raw) - size + 1,), f"V{size}", self.raw, strides=(1,))[begin]

    def body(self, row: int, skip: int) -> bytes:
        """One row's bytes after its frame."""
        return self.raw[int(self.start[row]) + skip : int(self.end[row])]


class Cursor:
    """The rows of a buffer (or some of them), each with its position, its end and its first fault."""

    def __init__(self, buffer: Buffer, rows: I64, start: I64, end: I64) -> None:
        self.buffer = buffer
        self.rows = rows
        self.n = len(rows)
        self.pos = start
        self.end = end
        self.fault = np.zeros(self.n, np.int8)
        self.fault_at = np.zeros(self.n, np.int64)
        self.fault_path = np.zeros(self.n, np.int32)
        self.broken = 0
        self.path = ""

    def part(self, chosen: Mask) -> "Cursor":
        """Some of the rows, to be read on their own and put back with ``merge``."""
        at = np.flatnonzero(chosen)
        part = Cursor(self.buffer, self.rows[at], self.pos[at], self.end[at])
        part.path = self.path
        if self.broken:
            part.fault, part.fault_at, part.fault_path = self.fault[at], self.fault_at[at], self.fault_path[at]
            part.broken = int(np.count_nonzero(part.fault))
        return part

    def merge(self, chosen: Mask, part: "Cursor") -> None:
        """Take positions and faults of the part back."""
        at = np.flatnonzero(chosen)
        self.pos[at] = part.pos
        if part.broken:
            self.broken += part.broken - int(np.count_nonzero(self.fault[at]))
            self.end[at] = part.end
            self.fault[at], self.fault_at[at], self.fault_path[at] = part.fault, part.fault_at, part.fault_path

    def blame(self, wrong: Mask, fault: Fault, at: I64 | None = None) -> None:
        """Mark rows as broken at their position (or ``at``); a broken row has nothing left to read, and no other fault."""
        if not wrong.any():
            return
        new = np.flatnonzero(wrong & (self.fault == 0)) if self.broken else np.flatnonzero(wrong)
        if not len(new):
            return
        place = self.pos if at is None else at
        self.fault[new] = fault
        self.fault_at[new] = place[new] - self.buffer.start[self.rows[new]]
        if self.buffer.paths[-1] != self.path:
            self.buffer.paths.append(self.path)
        self.fault_path[new] = len(self.buffer.paths) - 1
        self.pos, self.end = self.pos.copy(), self.end.copy()  # what was read may hold on to them
        self.pos[new], self.end[new] = self.buffer.limit, _NEVER
        self.broken += len(new)

    def shed(self) -> list[Broken]:
        """Part with the broken rows, and say what was wrong with them."""
        if not self.broken:
            return []
        broken = [
            Broken(int(self.rows[i]), Fault(int(self.fault[i])), int(self.fault_at[i]), self.buffer.paths[self.fault_path[i]])
            for i in np.flatnonzero(self.fault).tolist()
        ]
        stay = np.flatnonzero(self.fault == 0)
        self.rows, self.pos, self.end = self.rows[stay], self.pos[stay], self.end[stay]
        self.fault, self.fault_at, self.fault_path = self.fault[stay], self.fault_at[stay], self.fault_path[stay]
        self.n, self.broken = len(stay), 0
        return broken

    def sound(self, value: I64, broken: int) -> I64:
        """What was read while the broken rows were so many: 0 in the rows that have broken since."""
        return value if self.broken == broken else np.where(self.fault > 0, 0, value)

    def whole(self, rows: Mask) -> bool:
        """Whether these are all of the rows that are not broken."""
        return bool((rows | (self.fault > 0)).all() if self.broken else rows.all())

    def advance(self, by: I64 | int) -> None:
        """Move on; rows that have not so many bytes left are broken."""
        after = self.pos + by
        over = after > self.end
        if over.any():
            self.blame(over, Fault.TRUNCATED)
            after = np.where(over, self.pos, after)
        if self.broken:
            np.minimum(after, self.buffer.limit, out=after)
        self.pos = after

    def same(self) -> int | None:
        """The number that follows, where it is one byte and the same in every row; else nothing is read."""
        first = self.buffer.bytes[self.pos]
        if not self.n or first[0] > _SEVEN or (first != first[0]).any() or (self.pos >= self.end).any():
            return None
        self.advance(1)
        return (int(first[0]) >> 1) ^ -int(first[0] & 1)

    def passed_if(self, expected: bytes) -> int:
        """How many of these bytes (a word at most) follow in every row, from the first on; they are passed over."""
        differ = int(np.bitwise_or.reduce(self.buffer.words[self.pos] ^ U64(int.from_bytes(expected, "little"))))
        count = min(len(expected), ((differ & -differ).bit_length() - 1) // 8 if differ else WORD)
        if (self.pos + count > self.end).any():
            return 0
        self.advance(count)
        return count

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
        """Varints of up to eight bytes at these positions and their sizes; of a longer one its first 56 bits, and 9."""
        word = self.buffer.words[pos]
        stop = ~word & _STOP
        upto = stop ^ (stop - U64(1))
        size = (np.bitwise_count(upto) >> 3).astype(np.int64)
        size += stop == 0
        word &= upto & U64(0x7F7F7F7F7F7F7F7F)
        for high, by in _SEVENS:
            moved = word & high
            word ^= moved
            word |= moved >> by
        return (word >> U64(1)).view(np.int64) ^ -(word & U64(1)).view(np.int64), size

    def _move(self, value: I64, size: I64) -> None:
        """Move on by the sizes of varints; what is longer than eight bytes is read to its end first."""
        if int(size.max()) > WORD:
            self._nine_or_ten(size > WORD, value, size)
        self.advance(size)

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
        wrong[at] = more & (tenth > 1) & (self.pos[at] + 10 <= self.end[at])  # else the tenth byte is another row's
        self.blame(wrong, Fault.VARINT)

    def int32(self) -> I64:
        """A zigzag varint that must fit 32 bits."""
        value = self.long()
        self.blame((value < -(2**31)) | (value >= 2**31), Fault.VARINT)
        return value

    def span(self) -> tuple[I64, I64]:
        """A length-prefixed run of bytes: where it begins and how long it is; 0 for a broken row."""
        first = self.buffer.bytes[self.pos]
        if not (first & _NO_SHORT).any() and not self.broken:  # nearly always: short runs that end where they should
            begin, length = self.pos + 1, (first >> 1).astype(np.int64)
            after = begin + length
            if not (after > self.end).any():
                self.pos = after
                return begin, length
        broken = self.broken
        length = self.long()
        wrong = length < 0
        if wrong.any():
            self.blame(wrong, Fault.NEGATIVE_LENGTH)
        self.blame(length > self.end - self.pos, Fault.TRUNCATED)
        begin, length = self.pos, self.sound(length, broken)
        self.pos = begin + length
        return begin, length

    def skip(self) -> None:
        """Pass over a length-prefixed run of bytes."""
        self.span()

    def passed(self) -> None:
        """Pass over a varint."""
        self.long()

    def fixed(self, size: int) -> tuple[I64, I64]:
        """A run of ``size`` bytes; of 0 for a broken row."""
        begin, length = self.pos, np.full(self.n, size)
        self.advance(size)
        if not self.broken:
            return begin, length
        return np.where(self.fault > 0, self.pos, begin), np.where(self.fault > 0, 0, length)

    def texts(self, begin: I64, length: I64, *, utf8: bool) -> pa.Array:
        """Runs as a column of strings or bytes; what is not UTF-8 breaks its row."""
        if self.n == 0:
            return pa.array([], pa.string() if utf8 else pa.binary())
        taken = self._taken(begin, length)
        if not utf8:
            return taken
        if _ascii(taken):
            return pa.Array.from_buffers(pa.string(), self.n, taken.buffers())
        text = pa.Array.from_buffers(pa.string(), self.n, taken.buffers())
        try:
            text.validate(full=True)
        except pa.ArrowInvalid:
            self._check_utf8(begin, length)
            text = pa.Array.from_buffers(pa.string(), self.n, self._taken(begin, length).buffers())
        return text

    def _taken(self, begin: I64, length: I64) -> pa.Array:
        """Runs as bytes; of broken rows anything that is text."""
        size = int(length.max())
        if 0 < size <= _ALIKE and self.whole(length == size):
            at = np.where(self.fault > 0, self.buffer.limit, begin) if self.broken else begin
            ends = np.arange(0, (self.n + 1) * size, size, dtype=np.int32)
            return pa.Array.from_buffers(
                pa.binary(), self.n, [None, pa.py_buffer(ends), pa.py_buffer(self.buffer.runs(at, size).view(np.uint8))]
            )
        if self.broken:  # the places of runs must rise
            begin = np.where(self.fault > 0, self.buffer.start[self.rows], begin)
            length = np.where(self.fault > 0, 0, length)
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
        most = int(length.max(initial=0))
        if most <= WORD:
            half = (WORD - length) << 2  # in two steps, because a word cannot be moved by all of its bits
            top = word >> half >> half
            top[length == 0] = 0  # all bits of a number moved away leave its sign, which is another field's
            low, high = top.view(U64), (top >> np.int64(63)).view(U64)
        else:
            short = length <= WORD
            half = np.where(short, WORD - length, _LIMB_BYTES - length) << 2
            top = word >> half >> half
            top[length == 0] = 0
            last = self.buffer.words[np.maximum(begin + length - WORD, 0)].byteswap()
            low = np.where(short, top.view(U64), last)
            high = np.where(short, (top >> np.int64(63)).view(U64), top.view(U64))
        if precision < _ALWAYS or most > WORD:
            self.blame(too_large(high, low, 10**precision), Fault.DECIMAL, begin)
        data = np.empty((self.n, 2), U64)
        data[:, 0], data[:, 1] = low, high
        if self.broken:
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


def _ascii(runs: pa.Array) -> bool:
    """Whether no byte of a column's runs is above 127, so that they are UTF-8 for certain."""
    data = runs.buffers()[2]
    return data is None or int(np.frombuffer(data, np.uint8).max(initial=0)) < 128


def too_large(high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], limit: int) -> Mask:
    """Which signed 128-bit values do not lie strictly between ``-limit`` and ``limit``."""
    sign = high.view(np.int64)
    if limit >= 2**64 and len(sign) and sign.min() >= -1 and sign.max() <= 0:
        return np.zeros(len(high), np.bool_)
    below = (high >> U64(63)) == 1
    size_low = np.where(below, ~low + U64(1), low)
    size_high = np.where(below, ~high + (size_low == 0), high)
    top, bottom = U64(limit >> 64), U64(limit & (2**64 - 1))
    wrong: Mask = (size_high > top) | ((size_high == top) & (size_low >= bottom))
    return wrong
