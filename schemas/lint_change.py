"""The financial lint of a change: what registries accept as compatible although figures change or get lost.

In: the schema before and after. Out: findings, by field:
``scale_changed``, ``precision_changed``, ``decimal_dropped``, ``decimal_added``, ``time_unit_changed``,
``logical_type_changed`` (dropped and added too), ``default_changed`` and ``default_added`` (on money),
``union_order_changed`` (where a default depends on it), ``field_lost``, ``field_renamed``, ``alias_lost``,
``name_changed``, ``symbol_lost`` and ``enum_default_changed``.
Source: docs/decisions/0004-schema-ids.md.
"""

from collections.abc import Iterator
from typing import Any, Final

import fastavro

from schemas.catalog import Avro
from schemas.finding import Finding, child
from schemas.lint import is_decimal, money_like
from schemas.names import collect, full, kind_of

_UNITS: Final = ("millis", "micros", "nanos")
_ABSENT: Final = object()
_NOTHING: Final[tuple[Any, ...]] = (None, [], {})
"""Defaults without a figure in them."""


def changes(old: Avro, new: Avro, *, forward: bool) -> list[Finding]:
    """All findings of a change; ``forward``: consumers that still have the old schema read new records, too."""
    before, after = fastavro.parse_schema(old), fastavro.parse_schema(new)
    return list(_Change(before, after, forward=forward).run())


class _Change:
    """Two versions of a schema, side by side."""

    def __init__(self, before: Avro, after: Avro, *, forward: bool) -> None:
        self._before, self._after, self._forward = before, after, forward
        self._was, self._is = collect(before), collect(after)
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> Iterator[Finding]:
        return self._type(self._before, self._after, "")

    def _type(self, old: Avro, new: Avro, path: str) -> Iterator[Finding]:
        old, new = full(old, self._was), full(new, self._is)
        if isinstance(old, list) or isinstance(new, list):
            for pair in self._branches(old, new):
                yield from self._type(*pair, path)
            return
        yield from _logical(old, new, path)
        kind = kind_of(new)
        if kind_of(old) != kind:
            return  # whether it can be read at all is Avro's own question
        if kind in ("record", "error", "enum", "fixed"):
            pair = (old["name"], new["name"])
            if pair in self._seen:
                return
            self._seen.add(pair)
            if old["name"] != new["name"] and old["name"] not in new.get("aliases", ()):
                yield Finding("name_changed", path, f"{kind} {old['name']} is now {new['name']}: readers that choose by full name lose it; keep name and namespace, or add the alias {old['name']!r}")
        match kind:
            case "record" | "error":
                yield from self._record(old, new, path)
            case "enum":
                yield from _enum(old, new, path)
            case "array":
                yield from self._type(old["items"], new["items"], f"{path}[]")
            case "map":
                yield from self._type(old["values"], new["values"], f"{path}{{}}")

    def _branches(self, old: Avro, new: Avro) -> list[tuple[Avro, Avro]]:
        """Branches of two unions that belong together: of one name or kind, else the only ones beside null."""
        left = [full(branch, self._was) for branch in (old if isinstance(old, list) else [old]) if branch != "null"]
        right = [full(branch, self._is) for branch in (new if isinstance(new, list) else [new]) if branch != "null"]
        if len(left) == len(right) == 1:
            return [(left[0], right[0])]
        known = {_label(branch): branch for branch in right}
        return [(branch, known[_label(branch)]) for branch in left if _label(branch) in known]

    def _record(self, old: Avro, new: Avro, path: str) -> Iterator[Finding]:
        names = {field["name"]: field for field in new["fields"]}
        aliases = {alias: field for field in new["fields"] for alias in field.get("aliases", ())}
        followed = set()
        for field in old["fields"]:
            name, here = field["name"], child(path, field["name"])
            successor = names.get(name, aliases.get(name))
            if successor is None:
                yield Finding("field_lost", here, "the field is gone, and what it holds with it; keep it, or give the field that follows it this name as an alias")
                continue
            followed.add(successor["name"])
            if successor["name"] != name and self._forward:
                yield Finding("field_renamed", here, f"the field is now {successor['name']}: consumers that have the version before find nothing under the old name and take its default; keep the name")
            for alias in field.get("aliases", ()):
                if alias not in successor.get("aliases", ()) and alias != successor["name"]:
                    yield Finding("alias_lost", here, f"alias {alias!r} is gone: records of the version that had this name lose the field; keep the alias")
            yield from self._field(field, successor, here)
        for field in new["fields"]:
            if field["name"] not in followed and money_like(field["name"]) and field.get("default") not in _NOTHING:
                yield Finding("default_added", child(path, field["name"]), f"older records would be read as if they said {field['default']!r}; make it nullable with default null")

    def _field(self, old: Avro, new: Avro, path: str) -> Iterator[Finding]:
        before, after = old.get("default", _ABSENT), new.get("default", _ABSENT)
        if before != after and (self._money(old, self._was) or self._money(new, self._is)):
            yield Finding("default_changed", path, f"the default of a figure of money was {_said(before)} and is {_said(after)}: records without it change their value; keep the default")
        if ("default" in old or "default" in new) and _reordered(old["type"], new["type"], self._was, self._is):
            yield Finding("union_order_changed", path, "the union's branches changed their order, and a default is of the first; keep the order")
        yield from self._type(old["type"], new["type"], path)

    def _money(self, field: Avro, named: dict[str, Avro]) -> bool:
        avro = full(field["type"], named)
        branches = avro if isinstance(avro, list) else [avro]
        return money_like(field["name"]) or any(is_decimal(full(branch, named)) for branch in branches)


def _label(avro: Avro) -> str:
    """What tells the branches of a union apart: a named type's name without namespace, else its kind."""
    return avro["name"].rpartition(".")[2] if isinstance(avro, dict) and "name" in avro else kind_of(avro)


def _reordered(old: Avro, new: Avro, was: dict[str, Avro], now: dict[str, Avro]) -> bool:
    if not isinstance(old, list) or not isinstance(new, list):
        return False
    left, right = [_label(full(branch, was)) for branch in old], [_label(full(branch, now)) for branch in new]
    return [label for label in left if label in right] != [label for label in right if label in left]


def _said(default: object) -> str:
    return "absent" if default is _ABSENT else repr(default)


def _logical(old: Avro, new: Avro, path: str) -> Iterator[Finding]:
    before = old.get("logicalType") if isinstance(old, dict) else None
    after = new.get("logicalType") if isinstance(new, dict) else None
    if before == after == "decimal":
        yield from _decimal(old, new, path)
    elif before == "decimal":
        yield Finding("decimal_dropped", path, f"was a decimal of scale {old.get('scale', 0)} and is {_kind(new)}: the same bytes are no figure any more; keep the decimal")
    elif after == "decimal":
        yield Finding("decimal_added", path, f"was {_kind(old)} and is a decimal of scale {new.get('scale', 0)}: what older records hold becomes a figure that nobody wrote; add a new field")
    elif before != after:
        left, right = _unit(before), _unit(after)
        if left is not None and right is not None and left[0] == right[0]:
            yield Finding("time_unit_changed", path, f"was in {left[1]} and is in {right[1]}: readers that go by one of them are wrong by a factor of 1000 or more; keep the unit, or add a new field")
        else:
            yield Finding("logical_type_changed", path, f"was {before or 'plain'} and is {after or 'plain'} on {_kind(new)}: the same bytes mean something else; keep the logical type, or add a new field")


def _decimal(old: Avro, new: Avro, path: str) -> Iterator[Finding]:
    scales, precisions = [(one.get(key, 0), other.get(key, 0)) for key in ("scale", "precision") for one, other in ((old, new),)]
    if scales[0] != scales[1]:
        yield Finding("scale_changed", path, f"the scale was {scales[0]} and is {scales[1]}: readers that go by one of them are wrong by a factor of 10^{abs(scales[0] - scales[1])}; keep the scale, or add a new field")
    if precisions[0] != precisions[1]:
        yield Finding("precision_changed", path, f"the precision was {precisions[0]} and is {precisions[1]}: some readers refuse another precision, and figures with more digits are refused by one side; keep it, or add a new field")


def _unit(logical: str | None) -> tuple[str, str] | None:
    """A time's family and unit."""
    family, _, unit = (logical or "").rpartition("-")
    return (family, unit) if unit in _UNITS else None


def _kind(avro: Avro) -> str:
    return str(kind_of(avro))


def _enum(old: Avro, new: Avro, path: str) -> Iterator[Finding]:
    lost = [symbol for symbol in old["symbols"] if symbol not in new["symbols"]]
    if lost:
        yield Finding("symbol_lost", path, f"symbol {', '.join(lost)} is gone: older records that say so are read as {new.get('default', 'nothing')!r}; keep it")
    if old.get("default") != new.get("default"):
        yield Finding("enum_default_changed", path, f"the default was {old.get('default')!r} and is {new.get('default')!r}: what a reader does not know changes its meaning; keep the default")
