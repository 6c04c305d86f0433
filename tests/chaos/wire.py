"""Framed Avro as the campaign writes and reads it: fastavro and the schema files only, none of the product's codecs.

Instants are UTC microseconds as integers; decimals are ``Decimal``.
"""

import functools
import io
import json
import struct
from pathlib import Path

from fastavro import parse_schema, schemaless_reader, schemaless_writer

SCHEMAS = Path(__file__).parents[2] / "schemas"


class Undecodable(ValueError):
    """A value that is no record of the schema; ``reason`` is the dead letter's."""

    def __init__(self, reason):
        super().__init__(reason)
        self.reason = reason


@functools.cache
def schema(name):
    """The parsed schema and the id that frames it; instants stay integers."""
    avro = _without_instants(json.loads((SCHEMAS / "avro" / f"{name}.avsc").read_text()))
    return parse_schema(avro), json.loads((SCHEMAS / "lock.json").read_text())[name]["id"]


def _without_instants(part):
    if isinstance(part, dict):
        return {key: _without_instants(value) for key, value in part.items() if value != "timestamp-micros"}
    return [_without_instants(value) for value in part] if isinstance(part, list) else part


def encode(name, row):
    avro, schema_id = schema(name)
    out = io.BytesIO()
    out.write(struct.pack(">bI", 0, schema_id))
    schemaless_writer(out, avro, row)
    return out.getvalue()


def decode(name, value):
    """A row; Undecodable where the value is not exactly one record."""
    avro, schema_id = schema(name)
    if value is None or len(value) < 5 or value[0] != 0:
        raise Undecodable("undecodable")
    if struct.unpack_from(">I", value, 1)[0] != schema_id:
        raise Undecodable("schema_unknown")
    body = io.BytesIO(value)
    body.seek(5)
    try:
        row = schemaless_reader(body, avro, None)
    except (EOFError, IndexError, ValueError, TypeError, OverflowError, KeyError, MemoryError, struct.error) as error:
        raise Undecodable("undecodable") from error
    if body.tell() != len(value):
        raise Undecodable("undecodable")
    return row
