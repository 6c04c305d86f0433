"""The token: what one committed interval is, and the chain that proves it.

The chain is SHA-256 over the chain of the interval before, the digests of this interval's records and this token's own
figures; whoever keeps one head elsewhere can show later that nothing before it was changed.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from flows import codecs
from flows.pipeline import Reader
from schemas import segments
from tieout.usage import NO_CLOCK

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Token:
    """One interval of one partition of a flow; instants in UTC microseconds."""

    flow: str
    partition: int
    sequence: int
    generation: int = 1
    cells: int = 1
    state_format: int = 1
    positions: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    clock: int = NO_CLOCK
    oldest_held_at: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    amounts: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    previous_chain: str = ""
    chain: str = ""

    @property
    def batch_id(self) -> str:
        """The interval's name."""
        return f"{self.flow}-{self.partition}-{self.sequence}"

    def figures(self) -> dict[str, Any]:
        """What it says, by name; its maps are its own, not copies."""
        return {name: getattr(self, name) for name in _NAMES}

    def read(self) -> dict[str, int]:
        """Its positions but for those of topics that are read now and then only: what they have more is no lag."""
        return {name: position for name, position in self.positions.items() if "#" not in name}

    def linked(self) -> str:
        """The chain that these figures give."""
        figures = {name: value for name, value in self.figures().items() if name != "chain"}
        return hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()


_NAMES = tuple(one.name for one in fields(Token))


def encode(token: Token) -> bytes:
    """A token as its framed Avro value."""
    row = token.figures() | {"batch_id": token.batch_id}
    row["clock"] = None if token.clock == NO_CLOCK else _moment(token.clock)
    row["oldest_held_at"] = None if token.oldest_held_at is None else _moment(token.oldest_held_at)
    for name in ("positions", "written", "counts", "totals", "amounts", "digests"):
        row[name] = dict(sorted(row[name].items()))
    return codecs.documents("state_token", [row])[0].as_py()


def record(token: Token) -> pa.RecordBatch:
    """A token as a record of its topic."""
    return segments.records(pa.array([encode(token)], pa.large_binary()), None, np.array([token.clock]))


def decode(values: pa.Array) -> list[Token]:
    """Tokens from their values; ValueError where one cannot be read."""
    decoded = codecs.own("state_token").decode(values)
    if decoded.rejected:
        msg = f"token {decoded.rejected[0].row} cannot be read: {decoded.rejected[0].message}"
        raise ValueError(msg)
    tokens = []
    for row in decoded.batch.to_pylist():
        del row["batch_id"]
        row["clock"] = NO_CLOCK if row["clock"] is None else _micros(row["clock"])
        row["oldest_held_at"] = None if row["oldest_held_at"] is None else _micros(row["oldest_held_at"])
        tokens.append(Token(**_fields(row)))
    return tokens


def all_of(reader: Reader) -> Iterator[Token]:
    """The tokens of a partition, in order."""
    at, end = reader.start, reader.refresh()
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        yield from decode(lot.records["value"])
        at = lot.end


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """A decoded row with its maps as dicts."""
    return {name: dict(value) if isinstance(value, list) else value for name, value in row.items()}


def _moment(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
