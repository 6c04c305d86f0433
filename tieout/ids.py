"""Identity: every record's id is derived from what the record means, never drawn at random.

In: the fields of a key (strings, integers) or columns of them. Out: 128-bit hashes as two ``uint64`` lanes,
their hexadecimal text, and the partition of a customer. A key is a tuple hashed field by field: ``("a", "bc")``
and ``("ab", "c")`` differ. The figures are part of the stored format, so nothing here may change between releases.

Source: docs/semantics.md section 1 (identity); Kafka's murmur2 for the partition of a customer.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

U64 = np.uint64
Lanes = npt.NDArray[np.uint64]
"""Hashes of n keys: shape (n, 2), high lane first."""

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_C1, _C2, _C3, _C4 = U64(0x9E3779B97F4A7C15), U64(0xC2B2AE3D27D4EB4F), U64(0x165667B19E3779F9), U64(0xD6E8FEB86659FD93)
_F1, _F2, _G1, _G2 = U64(0xFF51AFD7ED558CCD), U64(0xC4CEB9FE1A85EC53), U64(0xBF58476D1CE4E5B9), U64(0x94D049BB133111EB)
_IC1, _IC2, _IC3, _IC4 = int(_C1), int(_C2), int(_C3), int(_C4)
_IF1, _IF2, _IG1, _IG2 = int(_F1), int(_F2), int(_G1), int(_G2)
_S33, _S30, _S27, _S31 = U64(33), U64(30), U64(27), U64(31)
_SEED, _M, _U24, _U13, _U15 = np.uint32(0x9747B28C), np.uint32(0x5BD1E995), np.uint32(24), np.uint32(13), np.uint32(15)
_HEX: Final = np.frombuffer(b"0123456789abcdef", np.uint8)[np.arange(1 << 16)[:, None] >> np.array([4, 0, 12, 8]) & 15].view(np.uint32).ravel()
"""The text of two bytes, the lower one first."""
_AT_A_TIME: Final = 4096
"""Strings that are Python's for a moment: few enough to be let go before they leave the cache."""


class EventKey(NamedTuple):
    """The identity of a usage event within its customer."""

    source: str
    event_id: str


def lanes(fields: Iterable[str | int | None]) -> tuple[int, int]:
    """Hash one key; the same fields always give the same pair, and no two splits of a text collide."""
    parts = []
    for field in fields:
        if field is None:
            parts.append(b"n")
        elif isinstance(field, int):
            parts.append(b"i" + field.to_bytes(16, "little", signed=True))
        else:
            raw = field.encode()
            parts += (b"s", len(raw).to_bytes(4, "little"), raw)
    value = xxhash.xxh3_128_intdigest(b"".join(parts))
    return value >> 64, value & _MASK


def text(fields: Iterable[str | int | None]) -> str:
    """The hash of one key as 32 hexadecimal digits."""
    high, low = lanes(fields)
    return f"{high:016x}{low:016x}"


def of_rows(pairs: Iterable[tuple[int, int]]) -> Lanes:
    """Pairs of lanes as an array."""
    return np.array(list(pairs), U64).reshape(-1, 2)


def of_strings(column: pa.Array) -> Lanes:
    """Hash each string of a column (n rows -> n hashes); null hashes like the empty string's absence, all bits zero."""
    if pa.types.is_dictionary(column.type):
        words = of_strings(column.dictionary)
        codes = column.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
        return np.vstack([words, np.zeros((1, 2), U64)]).take(codes, axis=0)
    raw = column.cast(pa.large_binary())
    digest = xxhash.xxh3_128_digest  # one C call a row: no vectorised hash of strings is stable between releases
    if raw.null_count:
        return np.frombuffer(b"".join([bytes(16) if v is None else digest(v) for v in raw.to_pylist()]), "<u8").reshape(-1, 2)
    parts = [b"".join(map(digest, raw.slice(at, _AT_A_TIME).to_pylist())) for at in range(0, len(raw), _AT_A_TIME)]
    return np.frombuffer(b"".join(parts), "<u8").reshape(-1, 2)


def of_integers(values: npt.NDArray[np.int64]) -> Lanes:
    """Spread integers over both lanes; one to one."""
    x = values.astype(np.int64).view(U64)
    out = np.empty((len(x), 2), U64)
    out[:, 0] = _fmix(x ^ _C3)
    out[:, 1] = _gmix(x + _C4)
    return out


def combine(left: Lanes, right: Lanes) -> Lanes:
    """Hash the ordered pair of two hashes, row by row; with one side fixed it is one to one."""
    high = _fmix(left[:, 0] ^ (right[:, 0] * _C1 + _C2))
    low = _gmix(left[:, 1] + (right[:, 1] ^ _C3) * _C4)
    out = np.empty((len(high), 2), U64)
    np.add(high, low ^ _C2, out=out[:, 0])
    high *= _C1
    high ^= low
    out[:, 1] = _gmix(high)
    return out


Pair = tuple[int, int]
"""One hash: the high lane, the low lane."""


def of_text(text: str) -> Pair:
    """The hash of one string, as ``of_strings`` gives it."""
    digest = xxhash.xxh3_128_digest(text.encode())
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


def of_integer(value: int) -> Pair:
    """One integer, as ``of_integers`` gives it."""
    return _fmix_one(value & _MASK ^ _IC3), _gmix_one(value + _IC4 & _MASK)


def pair_of(left: Pair, right: Pair) -> Pair:
    """One ordered pair, as ``combine`` gives it."""
    high = _fmix_one(left[0] ^ (right[0] * _IC1 + _IC2 & _MASK))
    low = _gmix_one(left[1] + (right[1] ^ _IC3) * _IC4 & _MASK)
    return high + (low ^ _IC2) & _MASK, _gmix_one(low ^ (high * _IC1 & _MASK))


def hexadecimal(hashes: Lanes) -> pa.Array:
    """Hashes as a column of 32-digit strings."""
    n = len(hashes)
    data = _HEX.take(hashes.astype(">u8").view("<u2"))  # a lane's high bytes come first
    offsets = np.arange(0, 32 * n + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(data))


def partition_of(key: str, partitions: int) -> int:
    """The partition of a customer: murmur2 as Kafka's own clients compute it, so that other producers agree."""
    return (_murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def partitions_of(keys: pa.Array, partitions: int) -> npt.NDArray[np.int64]:
    """``partition_of`` for a column without nulls; all rows advance together, four bytes at a time."""
    raw = keys.cast(pa.large_binary())
    offsets = np.frombuffer(raw.buffers()[1], np.int64, len(raw) + 1, raw.offset * 8)
    data = np.zeros(int(offsets[-1]) + 4, np.uint8)  # a last word may reach beyond the last key
    if raw.buffers()[2] is not None:
        data[: offsets[-1]] = np.frombuffer(raw.buffers()[2], np.uint8)[: offsets[-1]]
    words = np.ndarray((len(data) - 3,), "<u4", buffer=data, strides=(1,))
    at, length = offsets[:-1], np.diff(offsets)
    found = _SEED ^ length.astype(np.uint32)
    whole, rest = length // 4, length % 4
    rows = np.nonzero(whole)[0]
    for step in range(int(whole.max(initial=0))):
        rows = rows[whole[rows] > step]
        word = words[at[rows] + 4 * step] * _M
        found[rows] = found[rows] * _M ^ (word ^ (word >> _U24)) * _M
    rows = np.nonzero(rest)[0]
    tail = words[at[rows] + 4 * whole[rows]] & ((1 << 8 * rest[rows]) - 1).astype(np.uint32)
    found[rows] = (found[rows] ^ tail) * _M
    found = (found ^ (found >> _U13)) * _M
    return ((found ^ (found >> _U15)) & np.uint32(0x7FFFFFFF)).astype(np.int64) % partitions


def _fmix(x: Lanes) -> Lanes:
    return _mix(x, (_S33, _F1), (_S33, _F2), _S33)


def _gmix(x: Lanes) -> Lanes:
    return _mix(x, (_S30, _G1), (_S27, _G2), _S31)


def _mix(x: Lanes, first: tuple[U64, U64], second: tuple[U64, U64], last: U64) -> Lanes:
    """Twice ``x ^= x >> shift; x *= factor``, and a last shift: in few arrays, for columns are larger than a cache."""
    for shift, factor in (first, second):
        moved = x >> shift
        moved ^= x
        moved *= factor
        x = moved
    moved = x >> last
    moved ^= x
    return moved


def _fmix_one(x: int) -> int:
    x = (x ^ (x >> 33)) * _IF1 & _MASK
    x = (x ^ (x >> 33)) * _IF2 & _MASK
    return x ^ (x >> 33)


def _gmix_one(x: int) -> int:
    x = (x ^ (x >> 30)) * _IG1 & _MASK
    x = (x ^ (x >> 27)) * _IG2 & _MASK
    return x ^ (x >> 31)


def _murmur2(data: bytes) -> int:
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    length = len(data)
    h = 0x9747B28C ^ length
    for at in range(0, length - length % 4, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)
