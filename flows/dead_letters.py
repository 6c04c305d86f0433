"""Dead letters: what a flow rejects, whole, with why; and what is put back when one is replayed.

In: the rejected rows of an interval, the topic and partition that they came from, and a way to the original records.
Out: a record for each, with the original's key, value, timestamp and headers untouched and ``dlq.*`` headers added. A
record that was rejected before, and replayed, has the headers of its earlier rejection replaced, counts one replay more
and keeps when it first failed. Source: docs/interfaces.md (dead letters).
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from schemas import segments
from sources.errors import RetentionGap
from sources.lot import Lot
from tieout.stage import DeadLetter

VERSION: Final = "0.1.0"
NAMES: Final = (
    "reason", "message", "path", "topic", "partition", "offset", "stage", "flow", "version", "schema_id", "first_failed_at", "replay_count",
)
"""The headers, without their prefix."""
_PREFIX: Final = "dlq."
_OWN: Final = frozenset(_PREFIX + name for name in NAMES)
_FRAME: Final = 5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STAGES: Final = {
    "undecodable": "decode", "schema_unknown": "decode", "too_late": "time", "too_early": "time", "waived": "contract",
    "customer_ambiguous": "customer",
}

Originals = Callable[[int], Lot]
"""A lot that holds the record at a position."""
Header = dict[str, Any]


def records(letters: Sequence[DeadLetter], topic: str, partition: int, flow: str, original: Originals) -> pa.RecordBatch:
    """Dead letters as topic records, in their order."""
    values, keys, stamps, headers = [], [], [], []
    for dead in letters:
        record = _original(dead, topic, original)
        said = said_of(record["headers"])
        values.append(record["value"])
        keys.append(record["key"])
        stamps.append(record["timestamp"])
        own = {
            "reason": dead.reason, "message": dead.message, "path": dead.path, "topic": topic,
            "partition": str(partition), "offset": str(dead.position), "stage": _STAGES.get(dead.reason, "range"),
            "flow": flow, "version": VERSION, "schema_id": _schema_id(dead, record["value"]),
            "first_failed_at": _first_failed_at(said, stamps[-1]), "replay_count": str(replay_count(said) + 1 if "replay_count" in said else 0),
        }
        headers.append([*without_own(record["headers"]), *_headers(own)])
    return segments.records(
        pa.array(values, pa.large_binary()), pa.array(keys, pa.large_binary()), np.array(stamps, np.int64),
        pa.array(headers, segments.HEADERS),
    )


def replayed(headers: Sequence[Header]) -> list[Header]:
    """The headers with which the original of a dead letter is put back: its own, how often it was replayed, when it first failed."""
    said = said_of(headers)
    carried = {"replay_count": str(replay_count(said)), "first_failed_at": said.get("first_failed_at")}
    return [*without_own(headers), *_headers(carried)]


def said_of(headers: Sequence[Header] | None) -> dict[str, str]:
    """What the headers of a rejection say, by name without the prefix."""
    found = {header["key"]: header["value"] or b"" for header in headers or () if header["key"] in _OWN}
    return {name.removeprefix(_PREFIX): value.decode(errors="replace") for name, value in found.items()}


def without_own(headers: Sequence[Header] | None) -> list[Header]:
    """The headers that the record came with, in their order."""
    return [header for header in headers or () if header["key"] not in _OWN]


def replay_count(said: dict[str, str]) -> int:
    """How often a record was replayed before; 0 where a header says no number."""
    text = said.get("replay_count", "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def record_at(position: int, topic: str, original: Originals) -> dict[str, Any]:
    """The original record at a position of a topic."""
    lot = original(position)
    row = lot.row_of(position)
    if row is None:
        msg = f"{topic}: the record at position {position} is gone, and what became of it cannot be told without it; restore the topic"
        raise LookupError(msg)
    return lot.record(row)


def _original(dead: DeadLetter, topic: str, original: Originals) -> dict[str, Any]:
    """The original record; of a hold that outlived its topic's retention the value, which the hold has kept."""
    try:
        return record_at(dead.position, topic, original)
    except (LookupError, RetentionGap):
        if dead.value is None:
            raise
        return {"key": None, "value": dead.value, "timestamp": 0, "headers": None}


def _schema_id(dead: DeadLetter, value: bytes | None) -> str | None:
    """The writer's schema as the value's frame names it."""
    if dead.schema_id is None and value is not None and len(value) >= _FRAME and value[0] == 0:
        return str(int.from_bytes(value[1:_FRAME], "big"))
    return None if dead.schema_id is None else str(dead.schema_id)


def _first_failed_at(said: dict[str, str], stamp: int) -> str:
    """The record time of the first delivery: of this one, unless an earlier rejection says it."""
    earlier = said.get("first_failed_at", "")
    try:
        datetime.fromisoformat(earlier)
    except ValueError:
        return (_EPOCH + timedelta(microseconds=stamp)).isoformat()
    return earlier


def _headers(own: dict[str, str | None]) -> list[Header]:
    return [{"key": _PREFIX + name, "value": text.encode()} for name, text in own.items() if text is not None]
