"""Whether what one schema wrote can be read by another, by the rules that registries hold schemas to.

In: a writer's and a reader's schema. Out: a finding for each place where a reader fails: for every record, or for those
that hold a value which the other schema lacks. Source: Avro specification 1.12, "Schema Resolution"; names of types
count without their namespace, as in Avro's own checker. What it lets through although it changes money is the
business of ``schemas.lint_change``.
"""

from typing import Final

import fastavro

from schemas.catalog import Avro
from schemas.finding import Finding, child
from schemas.names import collect, full, kind_of

_PROMOTED: Final = {
    ("int", "long"), ("int", "float"), ("int", "double"), ("long", "float"), ("long", "double"), ("float", "double"),
    ("string", "bytes"), ("bytes", "string"),
}  # fmt: skip
_NAMED: Final = ("record", "error", "enum", "fixed")
_NOTHING_SAID: Final = ("doc", "aliases", "namespace")


def backward(old: Avro, new: Avro) -> list[Finding]:
    """What keeps a reader of the new schema from reading old records."""
    return [
        Finding("not_backward", path, f"{why}: records of the version before cannot be read; {todo}")
        for path, why, todo in _Check(old, new, "give it a default (null for money)").run()
    ]


def forward(old: Avro, new: Avro) -> list[Finding]:
    """What keeps a reader of the old schema from reading new records."""
    return [
        Finding("not_forward", path, f"{why}: consumers that still have the version before cannot read new records; {todo}")
        for path, why, todo in _Check(new, old, "keep the field").run()
    ]


def alike(one: Avro, other: Avro) -> bool:
    """Whether two schemas write the same bytes with the same meaning.

    Documentation and aliases do not count (a registry may give a schema that differs in them the id of the earlier
    one), nor does how it is written down; logical types and all their figures do.
    """
    return bool(_plain(fastavro.parse_schema(one)) == _plain(fastavro.parse_schema(other)))


def _plain(avro: Avro) -> Avro:
    if isinstance(avro, list):
        return [_plain(branch) for branch in avro]
    if not isinstance(avro, dict):
        return avro
    said = {key: value for key, value in avro.items() if key not in _NOTHING_SAID and not key.startswith("__")}
    if set(said) == {"type"}:
        return _plain(said["type"])
    return {key: value if key == "default" else _fields(value) if key == "fields" else _plain(value) for key, value in said.items()}


def _fields(fields: list[Avro]) -> list[Avro]:
    return [
        {key: value if key == "default" else _plain(value) for key, value in field.items() if key not in _NOTHING_SAID}
        for field in fields
    ]


class _Check:
    """One writer's schema against one reader's: problems as (path, why, what to do)."""

    def __init__(self, writer: Avro, reader: Avro, missing: str) -> None:
        self._missing = missing
        self._writer, self._reader = fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        self._theirs, self._mine = collect(self._writer), collect(self._reader)
        self._inside: set[tuple[str, str]] = set()

    def run(self) -> list[tuple[str, str, str]]:
        return self._read(self._writer, self._reader, "")

    def _read(self, writer: Avro, reader: Avro, path: str) -> list[tuple[str, str, str]]:
        writer, reader = full(writer, self._theirs), full(reader, self._mine)
        if isinstance(writer, list):
            return [problem for branch in writer for problem in self._read(branch, reader, path)]
        if isinstance(reader, list):
            return self._union(writer, reader, path)
        theirs, mine = kind_of(writer), kind_of(reader)
        if (theirs, mine) in _PROMOTED:
            return []
        if theirs != mine:
            return [(path, f"type {theirs} is read as {mine}", "keep the type, or add a new field")]
        if theirs in _NAMED and not _same_name(writer, reader):
            todo = "keep the name, or give the new type the old one as an alias"
            return [(path, f"{theirs} {writer['name']} is read as {reader['name']}", todo)]
        match theirs:
            case "record" | "error":
                return self._record(writer, reader, path)
            case "enum":
                return _enum(writer, reader, path)
            case "fixed" if writer["size"] != reader["size"]:
                return [(path, f"fixed({writer['size']}) is read as fixed({reader['size']})", "keep the size")]
            case "array":
                return self._read(writer["items"], reader["items"], f"{path}[]")
            case "map":
                return self._read(writer["values"], reader["values"], f"{path}{{}}")
            case _:
                return []

    def _union(self, writer: Avro, reader: list[Avro], path: str) -> list[tuple[str, str, str]]:
        """The branch that reads it; where none does, what is wrong with the one of its kind."""
        wrong: list[tuple[str, str, str]] = []
        for branch in reader:
            found = self._read(writer, branch, path)
            if not found:
                return []
            if kind_of(full(branch, self._mine)) == kind_of(writer):
                wrong = found
        return wrong or [(path, f"no branch of the union reads {kind_of(writer)}", "keep the branch")]

    def _record(self, writer: Avro, reader: Avro, path: str) -> list[tuple[str, str, str]]:
        pair = (writer["name"], reader["name"])
        if pair in self._inside:  # a type within itself: it is being looked at
            return []
        self._inside.add(pair)
        theirs = {field["name"]: field for field in writer["fields"]}
        problems: list[tuple[str, str, str]] = []
        for field in reader["fields"]:
            here = child(path, field["name"])
            given = next((theirs[name] for name in (field["name"], *field.get("aliases", ())) if name in theirs), None)
            if given is not None:
                problems += self._read(given["type"], field["type"], here)
            elif "default" not in field:
                problems.append((here, "the field is required and not written", self._missing))
        self._inside.remove(pair)
        return problems


def _same_name(writer: Avro, reader: Avro) -> bool:
    known = [reader["name"], *reader.get("aliases", ())]
    return writer["name"].rpartition(".")[2] in [name.rpartition(".")[2] for name in known]


def _enum(writer: Avro, reader: Avro, path: str) -> list[tuple[str, str, str]]:
    lacking = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
    if not lacking or reader.get("default") in reader["symbols"]:
        return []
    return [(path, f"enum symbol {', '.join(lacking)} is not known and there is no default", "give the enum a default")]
