"""The catalogue of schemas: ``avro/*.avsc`` is the truth, and ids are pinned in ``lock.json``.

In: a schema's name. Out: the parsed Avro schema, its subject and id, and the Arrow schema of its records. A producer
never registers what it meets: an ``.avsc`` that differs from the lock is refused by a test and at load. An id stands
for one schema for ever: a schema that changes after a release takes a new id, and ``avro/<name>.<id>.avsc`` keeps the
old one for reading. A registry gives ids of its own: ``schemas.lock``, docs/decisions/0004-schema-ids.md.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import fastavro
import pyarrow as pa

Avro = Any
"""An Avro schema as JSON: a dict, a list (union) or a name."""

SUBJECTS: Final = {
    "usage_event": "usage.event.v1-value",
    "contract_version": "contract.version.v1-value",
    "reference_record": "reference.data.v1-value",
    "command": "governance.command.v1-value",
    "rated_usage": "usage.rated.v1-value",
    "hold": "usage.hold.v1-value",
    "dead_letter": "dead.letter.v1-value",
    "exception": "finance.exception.v1-value",
    "invoice": "billing.invoice.v1-value",
    "document": "billing.document.v1-value",
    "state_token": "_tieout.usage.token-value",
}


FULL: Final = "FULL_TRANSITIVE"
BACKWARD: Final = "BACKWARD_TRANSITIVE"


class CatalogError(ValueError):
    """A schema that is unknown, or not the one that the lock pins."""


@dataclass(frozen=True)
class Schema:
    """One schema of the catalogue."""

    name: str
    subject: str
    schema_id: int
    avro: Avro

    @property
    def id(self) -> int:
        """The schema's id, as it stands in each value's frame."""
        return self.schema_id

    @property
    def topic(self) -> str:
        """The topic whose values it describes."""
        return self.subject.removesuffix("-value")


@cache
def load(name: str) -> Schema:
    """A schema by the name of its file; CatalogError where it is unknown or differs from the lock."""
    try:
        text = _text(name)
    except FileNotFoundError:
        msg = f"no schema is called {name!r}; schemas/avro holds {', '.join(names())}"
        raise CatalogError(msg) from None
    pinned = _lock().get(name)
    avro = json.loads(text)
    if pinned is None or pinned["fingerprint"] != fingerprint(avro):
        msg = (
            f"schemas/avro/{name}.avsc is not the schema that schemas/lock.json pins; "
            "write the output of 'python -m schemas.catalog' to it and review the change"
        )
        raise CatalogError(msg)
    return Schema(name, SUBJECTS[name], pinned["id"], avro)


def names() -> list[str]:
    """All schemas of the catalogue."""
    return sorted(name for name in _stems() if "." not in name)


def past(name: str) -> dict[int, Avro]:
    """Released versions of a schema that this release does not write any more, by id."""
    found = [stem for stem in _stems() if stem.partition(".")[0] == name != stem]
    return {int(stem.partition(".")[2]): json.loads(_text(stem)) for stem in found}


def compatibility(subject: str) -> str:
    """What a registry holds new versions of a subject to.

    Usage comes from producers of all ages, so a new version must read all the old ones; what the flows write is also
    read by older consumers.
    """
    return BACKWARD if subject == SUBJECTS["usage_event"] else FULL


def _stems() -> list[str]:
    paths = files("schemas").joinpath("avro").iterdir()
    return [path.name.removesuffix(".avsc") for path in paths if path.name.endswith(".avsc")]


def _text(stem: str) -> str:
    return files("schemas").joinpath("avro", f"{stem}.avsc").read_text()


def fingerprint(avro: Avro) -> str:
    """SHA-256 over a schema without its documentation; it changes with whatever changes a figure's meaning.

    Avro's own canonical form leaves logical types out, and with them a decimal's scale; this one keeps them.
    """
    return hashlib.sha256(json.dumps(_bare(avro), sort_keys=True).encode()).hexdigest()


def _bare(avro: Avro) -> Avro:
    if isinstance(avro, dict):
        return {key: _bare(value) for key, value in avro.items() if key != "doc"}
    return [_bare(item) for item in avro] if isinstance(avro, list) else avro


@cache
def _lock() -> dict[str, dict[str, Any]]:
    return json.loads(files("schemas").joinpath("lock.json").read_text())


def arrow_schema(name: str) -> pa.Schema:
    """The Arrow schema of a record: what the codec decodes into and encodes from."""
    return pa.schema(list(arrow_type(fastavro.parse_schema(load(name).avro), {})))


_PRIMITIVE: Final = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL: Final = {
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("int", "date"): pa.date32(),
}


def arrow_type(avro: Avro, named: dict[str, Avro]) -> pa.DataType:
    """The Arrow type of an Avro type; CatalogError for what has none (unions other than with null)."""
    return _typed(avro, named, ())


def _typed(avro: Avro, named: dict[str, Avro], inside: tuple[str, ...]) -> pa.DataType:
    """The same, within records of these names."""
    kind = avro["type"] if isinstance(avro, dict) else avro
    if isinstance(kind, list):
        return _typed(non_null(kind), named, inside)
    if isinstance(kind, dict):
        return _typed(kind, named, inside)
    if kind in inside:
        msg = f"record {kind} contains itself; columns have a fixed depth"
        raise CatalogError(msg)
    if kind in named:
        return _typed(named[kind], named, inside)
    if isinstance(avro, dict):
        if "name" in avro:
            named[avro["name"]] = avro
            inside = (*inside, avro["name"])
        logical = _logical(avro, kind)
        if logical is not None:
            return logical
    return _complex(avro, kind, named, inside)


def _logical(avro: Avro, kind: str) -> pa.DataType | None:
    name = avro.get("logicalType")
    if name == "decimal" and kind in ("bytes", "fixed"):
        return pa.decimal128(avro["precision"], avro.get("scale", 0))
    return _LOGICAL.get((kind, name))


def _complex(avro: Avro, kind: str, named: dict[str, Avro], inside: tuple[str, ...]) -> pa.DataType:
    def field(name: str, inner: Avro) -> pa.Field:
        return pa.field(name, _typed(inner, named, inside), nullable=nullable(inner))

    match kind:
        case "record" | "error":
            return pa.struct([field(entry["name"], entry["type"]) for entry in avro["fields"]])
        case "enum":
            return pa.dictionary(pa.int32(), pa.string())
        case "array":
            return pa.list_(field("item", avro["items"]))
        case "map":
            return pa.map_(pa.string(), field("value", avro["values"]))
        case "fixed":
            return pa.binary(avro["size"])
        case _:
            if kind in _PRIMITIVE:
                return _PRIMITIVE[kind]
            msg = f"Avro type {kind!r} has no Arrow type here"
            raise CatalogError(msg)


def nullable(avro: Avro) -> bool:
    """Whether a type is a union with null, or null."""
    return (isinstance(avro, list) and "null" in avro) or avro == "null"


def non_null(union: list[Avro]) -> Avro:
    """The other branch of a union with null."""
    branches = [branch for branch in union if branch != "null"]
    if len(branches) != 1:
        msg = f"only unions of one type with null have columns; this one has {union}"
        raise CatalogError(msg)
    return branches[0]


def lock() -> str:
    """Build the text of ``lock.json`` for the schemas as they are: known ids stay, new schemas take the next."""
    pinned = dict(_lock()) if files("schemas").joinpath("lock.json").is_file() else {}
    following = max((entry["id"] for entry in pinned.values()), default=10) + 1
    for name in names():
        avro = json.loads(_text(name))
        if name not in pinned:
            pinned[name], following = {"id": following}, following + 1
        pinned[name] = {"id": pinned[name]["id"], "subject": SUBJECTS[name], "fingerprint": fingerprint(avro)}
    return json.dumps(dict(sorted(pinned.items())), indent=1) + "\n"


if __name__ == "__main__":
    print(lock(), end="")  # noqa: T201 - the command that a changed schema asks for: write it to schemas/lock.json
