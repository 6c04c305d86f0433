"""One body at a time, by fastavro: for what the columns refuse, so that a fault of theirs never rejects an event.

In: the body of one row. Out: its record, or nothing where fastavro cannot read it, or not to its end. Decimals are
taken as bytes and made exact here, because fastavro rounds one that has too many digits.
"""

import io
from typing import Any, Final

import fastavro
import pyarrow as pa
from fastavro.read import SchemaResolutionError

from schemas.catalog import Avro
from schemas.names import collect, full, kind_of
from schemas.plan import column_of, decimal_of
from schemas.skip import least_bytes

_FAILURES: Final = (
    EOFError, ValueError, LookupError, TypeError, OverflowError, MemoryError, SchemaResolutionError, pa.ArrowException,
)  # fmt: skip


class Alone:
    """Reads bodies of one writer's schema for one reader's."""

    def __init__(self, writer: Avro, reader: Avro) -> None:
        self._named = collect(reader)
        self._reader = reader
        bare = _bare(writer)
        self._plain_writer = fastavro.parse_schema(bare)
        self._plain_reader = fastavro.parse_schema({**_bare(reader), "name": bare["name"]})
        self._safe = _bounded(writer, collect(writer), ())

    def read(self, body: bytes) -> dict[str, Any] | None:
        """The record of a whole body; None where it is broken, or where a few bytes could stand for any amount."""
        if not self._safe:
            return None
        stream = io.BytesIO(body)
        try:
            # whole first: what fastavro passes over it passes over beyond the body's end, as often as a count says
            fastavro.schemaless_reader(stream, self._plain_writer, None, handle_unicode_errors="replace")
            stream.seek(0)
            record = fastavro.schemaless_reader(stream, self._plain_writer, self._plain_reader)
            if stream.tell() != len(body):
                return None
            raised: dict[str, Any] = _raised(record, self._reader, self._named)
            self.columns([raised])
        except _FAILURES:
            return None
        return raised

    def columns(self, records: list[dict[str, Any]]) -> list[pa.Array]:
        """Records as columns of the reader's schema."""
        return [
            column_of([record[field["name"]] for record in records], field["type"], self._named)
            for field in self._reader["fields"]
        ]


def _bare(avro: Avro) -> Avro:
    """A schema without its decimals' meaning and without the parser's marks."""
    if isinstance(avro, list):
        return [_bare(branch) for branch in avro]
    if not isinstance(avro, dict):
        return avro
    decimal = avro.get("logicalType") == "decimal"
    kept = {key: value for key, value in avro.items() if not key.startswith("__")}
    if decimal:
        kept = {key: value for key, value in kept.items() if key not in ("logicalType", "precision", "scale")}
    return {key: value if key == "default" else _bare(value) for key, value in kept.items()}


def _bounded(avro: Avro, named: dict[str, Avro], inside: tuple[str, ...]) -> bool:
    """Whether a body's bytes bound its records: no list of items without bytes, no type inside itself."""
    avro = full(avro, named)
    if isinstance(avro, list):
        return all(_bounded(branch, named, inside) for branch in avro)
    match kind_of(avro):
        case "array":
            return least_bytes(avro["items"], named) > 0 and _bounded(avro["items"], named, inside)
        case "map":
            return _bounded(avro["values"], named, inside)
        case "record" | "error":
            name = avro["name"]
            return name not in inside and all(_bounded(f["type"], named, (*inside, name)) for f in avro["fields"])
        case _:
            return True


def _raised(
    value: Any,
    avro: Avro,
    named: dict[str, Avro],
) -> Any:
    """A record with its decimals as decimals."""
    avro = full(avro, named)
    if value is None:
        return None
    if isinstance(avro, list):
        return _raised(value, next(branch for branch in avro if branch != "null"), named)
    match kind_of(avro):
        case "bytes" | "fixed" if isinstance(avro, dict) and avro.get("logicalType") == "decimal":
            return decimal_of(value, avro.get("scale", 0))
        case "record" | "error":
            return {f["name"]: _raised(value[f["name"]], f["type"], named) for f in avro["fields"]}
        case "array":
            return [_raised(item, avro["items"], named) for item in value]
        case "map":
            return {key: _raised(item, avro["values"], named) for key, item in value.items()}
        case _:
            return value
