"""``tieout schema``: schemas linted, compared with what was released, registered, and their ids written down.

``lint`` looks at schemas alone. ``check`` compares them with the registry's latest versions and with an earlier release
(a git revision or a folder), by Avro's rules and by the financial lint. ``register`` does that against the registry and
then registers what is new; nothing where a single schema has a finding. ``lock`` writes the registry's ids of this
release's schemas into a lock file. Exit code 3: findings. Source: docs/decisions/0004-schema-ids.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

from flows import output
from flows.cli import DIFFERENCES, DONE, CommandError
from flows.commands import released
from schemas import catalog
from schemas import lock as locks
from schemas.catalog import Avro
from schemas.compatibility import alike, backward, forward
from schemas.finding import Finding
from schemas.lint import lint
from schemas.lint_change import changes
from schemas.lock import Lock
from schemas.registry import Registry

_ITSELF: Final = "itself"


class Candidate(NamedTuple):
    """A schema that is looked at: its file's name, the subject that it is a version of, where it lies."""

    name: str
    subject: str
    avro: Avro
    folder: Path


def run(options: argparse.Namespace) -> int:
    """Answer ``lint``, ``check``, ``register`` or ``lock``."""
    return int(_COMMANDS[options.what](options))


def _lint(options: argparse.Namespace) -> int:
    rows = [row for one in _candidates(options.files) for row in _rows(one, _ITSELF, lint(one.avro), "clean")]
    return _shown(rows, options, "schemas by themselves")


def _check(options: argparse.Namespace) -> int:
    if options.registry is None and options.against is None:
        msg = "schema check: compare with what? give --registry URL, --against REVISION_OR_FOLDER, or both"
        raise CommandError(msg, 2)
    candidates = _candidates(options.files)
    rows = [row for one in candidates for row in _rows(one, _ITSELF, lint(one.avro), "clean")]
    if options.against is not None:
        rows += list(_against(options.against, candidates, whole=not options.files))
    if options.registry is not None:
        rows += _with(options, lambda registry: [row for one in candidates for row in _registered(registry, one)])
    return _shown(rows, options, "schemas, and what they are compared with")


def _register(options: argparse.Namespace) -> int:
    candidates = _candidates(options.files)
    return int(_with(options, lambda registry: _publish(registry, candidates, options)))


def _publish(registry: Registry, candidates: Sequence[Candidate], options: argparse.Namespace) -> int:
    """Register all, or, where one has a finding, none."""
    found = [
        row for one in candidates
        for row in (*_rows(one, _ITSELF, lint(one.avro), "clean"), *_registered(registry, one, unruled=False))
    ]  # fmt: skip
    if _findings(found):
        return _shown(found, options, "nothing is registered")
    rows = []
    for one in candidates:
        rule = catalog.compatibility(one.subject)
        known = registry.find(one.subject, one.avro)
        registry.set_compatibility(one.subject, rule)
        schema_id = known.schema_id if known is not None else registry.register(one.subject, one.avro)
        rows.append({"schema": one.name, "subject": one.subject, "id": schema_id, "rule": rule, "result": "known" if known else "registered"})
    output.show(rows, options.output, f"schemas in {registry.url}")
    return DONE


def _lock(options: argparse.Namespace) -> int:
    path = Path(options.lock)
    before = locks.entries(path) or {}
    pinned, rows = {}, []

    def ask(registry: Registry) -> None:
        for name in catalog.names():
            schema = catalog.load(name)
            found = registry.find(schema.subject, schema.avro)
            was = before.get(name, {}).get("id")
            result = "not_registered" if found is None else "new" if was is None else "kept" if was == found.schema_id else "changed"
            rows.append({"schema": name, "subject": schema.subject, "id": None if found is None else found.schema_id, "result": result})
            if found is not None:
                pinned[name] = replace(schema, schema_id=found.schema_id)

    _with(options, ask)
    whole = len(pinned) == len(rows)
    output.show(rows, options.output, f"ids in {path}" if whole else f"{path} is not written")
    if not whole:
        output.say(f"schemas are missing in the registry; run 'tieout schema register --registry {options.registry}' first")
        return DIFFERENCES
    written = path.with_name(f".{path.name}.writing")
    written.write_text(locks.text(Lock(pinned, locks.refused_of(path, before))))
    written.replace(path)
    return DONE


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {"lint": _lint, "check": _check, "register": _register, "lock": _lock}


def _candidates(given: Sequence[str]) -> list[Candidate]:
    """The files named (folders: what is in them), or the catalogue; a file is called as its schema or as its topic."""
    folder = Path(str(files("schemas").joinpath("avro")))
    paths = [Path(name) for name in given] or [folder / f"{name}.avsc" for name in catalog.names()]
    found = [inner for path in paths for inner in (sorted(path.glob("*.avsc")) if path.is_dir() else [path])]
    return [_candidate(path) for path in found]


def _candidate(path: Path) -> Candidate:
    name = path.name.removesuffix(".avsc")
    try:
        avro = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        msg = f"{path}: cannot be read as JSON ({error}); give an .avsc file"
        raise CommandError(msg) from error
    return Candidate(name, catalog.SUBJECTS.get(name, f"{name}-value"), avro, path.parent)


def _with(options: argparse.Namespace, work: Callable[[Registry], Any]) -> Any:
    if options.registry is None:
        msg = f"schema {options.what}: give --registry URL"
        raise CommandError(msg, 2)
    registry = Registry(options.registry)
    try:
        return work(registry)
    finally:
        registry.close()


def _against(against: str, candidates: Sequence[Candidate], *, whole: bool) -> Iterator[dict[str, Any]]:
    """Compare with an earlier release; ``whole``: all that was there must still be there, under ids of its own."""
    before = {folder: released.schemas(against, folder) for folder in {one.folder for one in candidates}}
    for one in candidates:
        yield from _compared(one, against, before[one.folder].get(one.name))
    if whole:
        folder = candidates[0].folder
        for name in sorted(before[folder].keys() - {one.name for one in candidates}):
            if "." not in name:
                lost = Finding("schema_lost", "", "the schema is gone, and records that were written with it cannot be read; keep it")
                yield from _rows(Candidate(name, "", None, folder), against, [lost], "")
        yield from _reused(against, candidates)


def _reused(against: str, candidates: Sequence[Candidate]) -> Iterator[dict[str, Any]]:
    """Ids of the catalogue that stood for another schema then."""
    then = {entry["id"]: entry["fingerprint"] for entry in released.pinned(against, candidates[0].folder).values()}
    for one in candidates:
        schema = catalog.load(one.name)
        if then.get(schema.id, catalog.fingerprint(schema.avro)) != catalog.fingerprint(schema.avro):
            message = (
                f"id {schema.id} stood for another schema, and folders written then would be read by this one; give the schema "
                f"the next id in schemas/lock.json and keep the old one as schemas/avro/{one.name}.{schema.id}.avsc"
            )
            yield from _rows(one, against, [Finding("id_reused", "", message)], "")


def _registered(registry: Registry, one: Candidate, *, unruled: bool = True) -> list[dict[str, Any]]:
    """Compare with the latest version in the registry; ``unruled``: a missing rule of the subject is a finding."""
    latest, wanted = registry.latest(one.subject), catalog.compatibility(one.subject)
    rows = list(_compared(one, f"{one.subject} in the registry", None if latest is None else latest.avro))
    found = []
    if latest is not None and not registry.compatible(one.subject, one.avro):
        found.append(Finding("registry_refuses", "", f"the registry refuses it as the next version of {one.subject}; make it compatible with all versions, or begin a new topic"))
    if latest is not None and unruled and registry.compatibility(one.subject) != wanted:
        found.append(Finding("rule_missing", "", f"the registry does not hold {one.subject} to {wanted}; 'tieout schema register' sets it"))
    return rows + (_rows(one, f"{one.subject} in the registry", found, "") if found else [])


def _compared(one: Candidate, against: str, old: Avro | None) -> list[dict[str, Any]]:
    if old is None:
        return _rows(one, against, [], "new")
    broken = [found for avro in (old, one.avro) for found in lint(avro) if found.code == "invalid"]
    if broken:
        return _rows(one, against, broken[:1], "")
    both = catalog.compatibility(one.subject) == catalog.FULL
    found = backward(old, one.avro) + (forward(old, one.avro) if both else []) + changes(old, one.avro, forward=both)
    return _rows(one, against, found, "same" if alike(old, one.avro) else "compatible")


def _rows(one: Candidate, against: str, found: Sequence[Finding], otherwise: str) -> list[dict[str, Any]]:
    """A row for each finding, or one that says how it stands without any."""
    stands = found or [Finding(otherwise, "", "")]
    return [{"schema": one.name, "against": against, "result": code, "path": path, "message": message} for code, path, message in stands]


def _findings(rows: Sequence[dict[str, Any]]) -> int:
    return sum(1 for row in rows if row["message"])


def _shown(rows: Sequence[dict[str, Any]], options: argparse.Namespace, title: str) -> int:
    output.show(rows, options.output, title)
    count = _findings(rows)
    output.say(f"{count} finding{'' if count == 1 else 's'}")
    return DIFFERENCES if count else DONE
