"""The financial lint of one schema: what registries and Avro let through although it makes figures wrong.

In: a schema as JSON. Out: findings, by field:
``invalid`` (not Avro at all), ``money_float`` and ``money_plain`` (a money-like field that is no decimal),
``decimal_invalid``, ``logical_type_ignored`` and ``logical_type_misplaced`` (readers would take the plain type),
``default_bytes`` (a decimal's default that is not the bytes of the figure meant), ``default_branch`` (a default that is
not of its union's first branch), ``enum_default``, ``alias_clash``, ``name_twice`` and ``doc_missing``.
Source: docs/decisions/0004-schema-ids.md; Avro specification 1.12. Changes between versions: ``schemas.lint_change``.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from schemas.catalog import Avro
from schemas.finding import Finding, child
from schemas.names import collect, full, kind_of
from schemas.plan import decimal_of

PARSE_ERRORS: Final = (SchemaParseException, UnknownType, TypeError, KeyError, ValueError, AttributeError, RecursionError)
"""What fastavro raises on a schema that is none."""

_MONEY: Final = frozenset({
    "amount", "balance", "cost", "credit", "debit", "discount", "fee", "payment", "percent", "price", "proceeds",
    "quantity", "qty", "rate", "refund", "revenue", "ssp", "subtotal", "tax", "total", "vat",
})  # fmt: skip
_NOT_MONEY: Final = frozenset({
    "account", "at", "by", "card", "category", "class", "code", "count", "currency", "date", "day", "days", "digest",
    "event", "events", "hours", "id", "ids", "index", "invoice", "jurisdiction", "key", "kind", "label", "message",
    "method", "mode", "model", "name", "note", "number", "on", "reason", "ref", "reference", "scale", "state", "status",
    "terms", "treatment", "timing", "type", "unit", "units", "url", "version",
})  # fmt: skip
"""A name that ends in one of these is about money and no figure of it: ``tax_code``, ``payment_terms_days``."""

_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_NUMBER_AS_TEXT: Final = re.compile(r"[-+]?\d+(\.\d*)?")
_BASES: Final = {
    "decimal": ("bytes", "fixed"), "big-decimal": ("bytes",), "uuid": ("string", "fixed"), "date": ("int",),
    "time-millis": ("int",), "time-micros": ("long",), "duration": ("fixed",),
    **{f"{kind}-{unit}": ("long",) for kind in ("timestamp", "local-timestamp") for unit in ("millis", "micros", "nanos")},
}  # fmt: skip
_TYPED: Final = ("record", "error", "enum", "fixed")


def money_like(name: str) -> bool:
    """Whether a field's name says that it holds money, a price, a rate or a quantity."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _NOT_MONEY:
        return False
    endings = (("", ""), ("s", ""), ("es", ""), ("ies", "y"))
    return any(word.endswith(plural) and word.removesuffix(plural) + one in _MONEY for word in words for plural, one in endings)


def is_decimal(avro: Avro) -> bool:
    """Whether a type is a decimal that readers know as one."""
    return isinstance(avro, dict) and avro.get("logicalType") == "decimal" and kind_of(avro) in _BASES["decimal"]


def lint(avro: Avro) -> list[Finding]:
    """All findings of one schema, in the order of its fields."""
    try:
        parsed = fastavro.parse_schema(avro)
    except PARSE_ERRORS as error:
        return [Finding("invalid", "", f"is not an Avro schema: {error}; repair it")]
    return list(_type(parsed, collect(parsed), ""))


def _type(avro: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    """A type where it is defined; a type by its name has been looked at already."""
    if isinstance(avro, list):
        for branch in avro:
            yield from _type(branch, named, path)
        return
    if not isinstance(avro, dict):
        return
    yield from _logical(avro, path)
    kind = kind_of(avro)
    if isinstance(kind, dict | list):
        yield from _type(kind, named, path)
        return
    if kind in _TYPED and not avro.get("doc"):
        yield Finding("doc_missing", path, f"{kind} {avro['name']} has no doc; say in a sentence what it is")
    match kind:
        case "record" | "error":
            yield from _record(avro, named, path)
        case "enum" if "default" not in avro:
            yield Finding("enum_default", path, f"enum {avro['name']} has no default: a newer symbol could not be read; add a symbol 'unknown' and make it the default")
        case "array":
            yield from _type(avro["items"], named, f"{path}[]")
        case "map":
            yield from _type(avro["values"], named, f"{path}{{}}")


def _record(avro: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    names = [field["name"] for field in avro["fields"]]
    taken: set[str] = set()
    for field in avro["fields"]:
        here = child(path, field["name"])
        if field["name"] in taken:
            yield Finding("name_twice", here, "the record has two fields of this name, and readers take one of them; rename one")
        taken.add(field["name"])
        yield from _aliases(field, names, avro, here)
        yield from _field(field, named, here)
        yield from _type(field["type"], named, here)


def _aliases(field: Avro, names: list[str], record: Avro, path: str) -> Iterator[Finding]:
    others = [alias for other in record["fields"] if other is not field for alias in other.get("aliases", ())]
    for alias in field.get("aliases", ()):
        if alias in names or alias in others:
            yield Finding("alias_clash", path, f"alias {alias!r} is another field's name or alias, so one of both is lost to a reader; take it from one of them")


def _field(field: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    if not field.get("doc"):
        yield Finding("doc_missing", path, "the field has no doc; say what it means, with unit and scale")
    if "logicalType" in field:
        yield Finding("logical_type_misplaced", path, f"'logicalType' stands beside the type, where readers do not see it; write \"type\": {{\"type\": ..., \"logicalType\": \"{field['logicalType']}\"}}")
    if money_like(field["name"]):
        yield from _money(field["type"], named, path)
    if "default" in field:
        yield from _default(field, named, path)


def _money(avro: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    """A money-like field: floats anywhere; other plain types except in maps, whose keys say what each value is."""
    avro = full(avro, named)
    if isinstance(avro, list):
        for branch in avro:
            yield from _money(branch, named, path)
        return
    kind = kind_of(avro)
    inner = {"array": "items", "map": "values"}.get(kind)
    if inner is not None:
        found = _money(avro[inner], named, path)
        yield from (one for one in found if kind == "array" or one.code == "money_float")
    elif kind in ("float", "double"):
        yield Finding("money_float", path, f"a figure of money as {kind} is not exact; write bytes with logicalType decimal, precision and scale")
    elif kind in ("int", "long", "string", "bytes", "fixed") and not is_decimal(avro):
        yield Finding("money_plain", path, f"a figure of money as plain {kind} has no scale that a reader could see; write bytes with logicalType decimal, or name the field for what it is ('..._count', '..._id')")


def _logical(avro: Avro, path: str) -> Iterator[Finding]:
    name = avro.get("logicalType")
    if name is None:
        return
    kind = kind_of(avro)
    if name not in _BASES:
        known = ", ".join(sorted(_BASES))
        yield Finding("logical_type_ignored", path, f"no reader knows the logical type {name!r} and takes plain {kind}; write one of {known}")
    elif kind not in _BASES[name]:
        yield Finding("logical_type_ignored", path, f"{name} on {kind} is ignored by readers; write it on {' or '.join(_BASES[name])}")
    elif name == "decimal":
        precision, scale = avro.get("precision"), avro.get("scale", 0)
        if not isinstance(precision, int) or not isinstance(scale, int) or not 0 <= scale <= precision or precision < 1:
            yield Finding("decimal_invalid", path, f"a decimal of precision {precision} and scale {scale} is ignored by readers; give it a precision, and a scale from 0 to the precision")


def _default(field: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    avro, default = full(field["type"], named), field["default"]
    if isinstance(avro, list):
        first = full(avro[0], named) if avro else "null"
        if (default is None) != (first == "null"):
            yield Finding("default_branch", path, f"the default {default!r} is not of the union's first branch, and readers differ on it; put its branch first")
            return
        avro = first
    yield from _figures(default, avro, named, path)


def _figures(default: Any, avro: Avro, named: dict[str, Avro], path: str) -> Iterator[Finding]:
    """The decimals within a default."""
    avro = full(avro, named)
    kind = kind_of(avro) if not isinstance(avro, list) else "union"
    if is_decimal(avro):
        yield from _bytes(default, avro, path)
    elif kind == "array":
        for item in default:
            yield from _figures(item, avro["items"], named, f"{path}[]")
    elif kind == "map":
        for item in default.values():
            yield from _figures(item, avro["values"], named, f"{path}{{}}")
    elif kind == "record":
        for field in avro["fields"]:
            if field["name"] in default:
                yield from _figures(default[field["name"]], field["type"], named, child(path, field["name"]))
    elif kind == "union" and default is not None:
        yield from _figures(default, next((branch for branch in avro if branch != "null"), "null"), named, path)


def _bytes(default: Any, avro: Avro, path: str) -> Iterator[Finding]:
    todo = r'write the bytes of the unscaled value as code points ("\u0000" is 0), or make it null'
    if not isinstance(default, str) or not default or max(map(ord, default)) > 255:
        yield Finding("default_bytes", path, f"the default {default!r} is no bytes; {todo}")
        return
    figure = decimal_of(default.encode("latin-1"), avro.get("scale", 0))
    if kind_of(avro) == "fixed" and len(default) != avro["size"]:
        yield Finding("default_bytes", path, f"the default has {len(default)} bytes and the type {avro['size']}; {todo}")
    elif len(figure.as_tuple().digits) > avro.get("precision", 0):
        yield Finding("default_bytes", path, f"the default is {figure:f}, with more digits than precision {avro.get('precision')}; {todo}")
    elif _NUMBER_AS_TEXT.fullmatch(default):
        yield Finding("default_bytes", path, f"the default {default!r} is read as {figure:f}, because its characters are taken as bytes; {todo}")
