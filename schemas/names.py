"""Avro types by name: what a schema defines, and a type with its definition in place of its name.

In: schemas as fastavro parses them (full names everywhere). Out: definitions; Avro specification 1.12, "Names".
"""

from schemas.catalog import Avro

_NAMED = ("record", "error", "enum", "fixed")


def collect(avro: Avro) -> dict[str, Avro]:
    """All types that a schema defines, by full name."""
    named: dict[str, Avro] = {}
    _collect(avro, named)
    return named


def _collect(avro: Avro, named: dict[str, Avro]) -> None:
    if isinstance(avro, list):
        for branch in avro:
            _collect(branch, named)
    elif isinstance(avro, dict):
        if avro.get("type") in _NAMED:
            named[avro["name"]] = avro
        for part in ("items", "values", "type"):
            _collect(avro.get(part), named)
        for field in avro.get("fields", ()):
            _collect(field["type"], named)


def full(avro: Avro, named: dict[str, Avro]) -> Avro:
    """A type with its definition in place of its name, and without braces that say nothing."""
    if isinstance(avro, str) and avro in named:
        return named[avro]
    if isinstance(avro, dict) and isinstance(avro["type"], dict | list):
        return full(avro["type"], named)
    return avro


def kind_of(avro: Avro) -> str:
    """The name of a type: ``long``, ``record``, ``map``."""
    return avro["type"] if isinstance(avro, dict) else avro
