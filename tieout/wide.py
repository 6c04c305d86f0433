"""Exact arithmetic on columns: 128-bit integers as two lanes, for money that must never wrap.

In: ``int64`` columns, and the buffers of Arrow decimals. Out: 128-bit results as (high, low) lanes of ``uint64`` in
two's complement, which are the bytes of an Arrow ``decimal128``. Every function states the bound under which it is
exact; callers check the bound and take Python's own integers beyond it. No float takes part.

Source: docs/semantics.md section 1 (types: an overflow is an error with the record, never a wrapped number).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
_M32: Final = np.uint64(0xFFFFFFFF)
_S32: Final = np.uint64(32)
DIGITS_38: Final = 10**38
_NIBBLES: Final = np.zeros(256, np.uint64)
_NIBBLES[[ord(digit) for digit in "0123456789abcdef"]] = np.arange(16)
_SHIFTS: Final = np.arange(60, -4, -4).astype(np.uint64)


def multiply(a: U64, b: U64) -> tuple[U64, U64]:
    """The full product of two unsigned columns; never overflows."""
    a0, a1, b0, b1 = a & _M32, a >> _S32, b & _M32, b >> _S32
    low = a0 * b0
    m1, m2 = a0 * b1, a1 * b0
    middle = (low >> _S32) + (m1 & _M32) + (m2 & _M32)
    high = a1 * b1 + (m1 >> _S32) + (m2 >> _S32) + (middle >> _S32)
    return high, (low & _M32) | (middle << _S32)


def add(ah: U64, al: U64, bh: U64, bl: U64) -> tuple[U64, U64]:
    """Sum modulo 2**128; exact when the caller's bound keeps it inside."""
    low = al + bl
    return ah + bh + (low < al), low


def subtract(ah: U64, al: U64, bh: U64, bl: U64) -> tuple[U64, U64]:
    """Difference in two's complement; exact when both sides are below 2**127."""
    return ah - bh - (al < bl), al - bl


def divide(high: U64, low: U64, divisor: U64) -> tuple[U64, U64]:
    """Floor of unsigned 128-bit values by divisors below 2**32."""
    q = []
    rest = np.zeros_like(low)
    for limb in (high >> _S32, high & _M32, low >> _S32, low & _M32):
        current = (rest << _S32) | limb
        part = current // divisor
        rest = current - part * divisor
        q.append(part)
    return (q[0] << _S32) | q[1], (q[2] << _S32) | q[3]


def decimals(high: U64, low: U64, precision: int, scale: int) -> pa.Array:
    """Lanes as an Arrow decimal column."""
    data = np.empty((len(low), 2), np.uint64)
    data[:, 0], data[:, 1] = low, high
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(low), [None, pa.py_buffer(data)])


def decimals_of(units: Sequence[int], precision: int, scale: int) -> pa.Array:
    """Python integers (in units of 10**-scale) as an Arrow decimal column; more digits than ``precision`` is an error."""
    limit = 10**precision
    for value in units:
        if not -limit < value < limit:
            msg = f"{value} x 10^-{scale} needs more than {precision} digits; the amount or quantity is out of range"
            raise OverflowError(msg)
    raw = b"".join(value.to_bytes(16, "little", signed=True) for value in units)
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(units), [None, pa.py_buffer(raw)])


def lanes_of(column: pa.Array) -> tuple[U64, U64]:
    """The (high, low) lanes of an Arrow decimal128 column; nulls read as whatever the buffer holds."""
    raw = np.frombuffer(column.buffers()[1], np.uint64, 2 * len(column), column.offset * 16).reshape(-1, 2)
    return raw[:, 1], raw[:, 0]


def narrow(column: pa.Array) -> tuple[I64, npt.NDArray[np.bool_]]:
    """Unscaled values as ``int64`` and a mask of the rows that fit (a null row reads 0 and fits)."""
    high, low = lanes_of(column)
    values = low.view(np.int64) if low.flags.c_contiguous else np.ascontiguousarray(low).view(np.int64)
    fits = (values >> np.int64(63)).view(np.uint64) == high
    if column.null_count:
        null = column.is_null().to_numpy(zero_copy_only=False)
        values, fits = np.where(null, np.int64(0), values), fits | null
    return values, fits


def integers(column: pa.Array) -> list[int | None]:
    """Unscaled values of a decimal column as Python integers."""
    raw = np.ascontiguousarray(np.stack(lanes_of(column)[::-1], axis=1)).tobytes()
    valid = column.is_valid().to_pylist()
    return [int.from_bytes(raw[16 * i : 16 * i + 16], "little", signed=True) if ok else None for i, ok in enumerate(valid)]


def total(high: U64, low: U64) -> int:
    """The exact sum of a column of signed 128-bit values."""
    parts = (low & _M32, low >> _S32, high & _M32, (high.view(np.int64) >> np.int64(32)))
    return sum(int(part.sum()) << (32 * place) for place, part in enumerate(parts))


def hexadecimal(column: pa.Array) -> tuple[U64, U64]:
    """Texts of 32 hexadecimal digits as (high, low) lanes."""
    plain = column.cast(pa.string())
    offsets = np.frombuffer(plain.buffers()[1], np.int32, len(plain) + 1, plain.offset * 4)
    digits = np.frombuffer(plain.buffers()[2], np.uint8)[int(offsets[0]) : int(offsets[-1])].reshape(-1, 32)
    nibbles = _NIBBLES[digits] << np.concatenate([_SHIFTS, _SHIFTS])
    return np.bitwise_or.reduce(nibbles[:, :16], axis=1), np.bitwise_or.reduce(nibbles[:, 16:], axis=1)


def signed_sums(lanes: tuple[U64, U64], order: I64, first: I64) -> list[int]:
    """The exact sums of signed 128-bit figures by key: rows in ``order``, each key's rows beginning at ``first``; 2^31 of them at most."""
    top = np.ascontiguousarray(lanes[0][order]).view(np.int64) >> np.int64(32)
    return _together(_limbs(lanes, order, first), np.add.reduceat(top, first).tolist())


def unsigned_sums(lanes: tuple[U64, U64], order: I64, first: I64) -> list[int]:
    """The exact sums of unsigned 128-bit figures by key."""
    return _together(_limbs(lanes, order, first), np.add.reduceat(lanes[0][order] >> _S32, first).tolist())


def _limbs(lanes: tuple[U64, U64], order: I64, first: I64) -> list[list[int]]:
    """The sums of the three lower limbs of 32 bits of each key's rows; a sum of 2^31 of them still fits."""
    high, low = lanes[0][order], lanes[1][order]
    return [np.add.reduceat(part, first).tolist() for part in (low & _M32, low >> _S32, high & _M32)]


def _together(limbs: list[list[int]], top: list[int]) -> list[int]:
    return [a + (b << 32) + (c << 64) + (d << 96) for a, b, c, d in zip(*limbs, top, strict=True)]
