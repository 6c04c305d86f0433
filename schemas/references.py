"""Schemas that take types from other subjects of a registry, written out whole.

In: a schema, and those that it refers to (each before the ones that need it). Out: one schema that needs no other.
"""

from collections.abc import Sequence

import fastavro

from schemas.catalog import Avro
from schemas.names import collect


def whole(avro: Avro, needed: Sequence[Avro]) -> Avro:
    """The schema with each type from elsewhere defined where it first appears; fastavro's errors where one is missing."""
    named: dict[str, Avro] = {}
    given: dict[str, Avro] = {}
    for one in needed:
        given |= collect(fastavro.parse_schema(one, named_schemas=named))
    return _put(fastavro.parse_schema(avro, named_schemas=named), given, set())


def _put(avro: Avro, given: dict[str, Avro], done: set[str]) -> Avro:
    if isinstance(avro, str) and avro in given and avro not in done:
        done.add(avro)
        return _put(given[avro], given, done)
    if isinstance(avro, list):
        return [_put(branch, given, done) for branch in avro]
    if not isinstance(avro, dict):
        return avro
    said = {key: value for key, value in avro.items() if not key.startswith("__")}
    for key in ("type", "items", "values"):
        if key in said:
            said[key] = _put(said[key], given, done)
    if "fields" in said:
        said["fields"] = [field | {"type": _put(field["type"], given, done)} for field in said["fields"]]
    return said
