"""Lock files: the ids that one registry gave the schemas of this release.

In: a JSON file of the shape of ``schemas/lock.json`` (name: id, subject, fingerprint), written by ``tieout schema lock``
and kept with an installation's configuration. Out: the catalogue's schemas under those ids. A file that was written for
another release is refused. ``refused`` in it names ids that stand for nothing, with a reason: values that carry one are
rejected instead of waited for. Source: docs/decisions/0004-schema-ids.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from schemas import catalog
from schemas.catalog import CatalogError, Schema

NAME: Final = "schema-lock.json"
"""Where a lock file is looked for when none is named: in the working directory."""
_REFUSED: Final = "refused"
_HIGHEST: Final = 2**32


@dataclass(frozen=True, slots=True)
class Lock:
    """The catalogue's schemas by name, with a registry's ids; and the ids that stand for nothing, with the reason."""

    schemas: Mapping[str, Schema]
    refused: Mapping[int, str]


def read(path: Path) -> Lock:
    """The lock of a file; CatalogError where it is missing, broken or of another release."""
    content = entries(path)
    if content is None:
        msg = f"{path}: there is no lock file; write it with 'tieout schema lock --registry URL --lock {path}'"
        raise CatalogError(msg)
    refused = refused_of(path, content)
    schemas = {name: _pinned(path, name, content.get(name)) for name in catalog.names()}
    for schema in schemas.values():
        if schema.id in refused:
            msg = f"{path}: id {schema.id} is pinned for {schema.name} and refused as well; take it out of 'refused'"
            raise CatalogError(msg)
    return Lock(schemas, refused)


def entries(path: Path) -> dict[str, Any] | None:
    """What a lock file says, of whatever release it is; None where there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        msg = f"{path}: is not JSON ({error}); restore it, or delete it and write it again with 'tieout schema lock'"
        raise CatalogError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path}: is not a lock file; delete it and write it again with 'tieout schema lock'"
        raise CatalogError(msg)
    return content


def refused_of(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """The ids that a lock file refuses, with the reasons."""
    given = content.get(_REFUSED, {})
    if not isinstance(given, dict):
        msg = f"{path}: 'refused' is not an object; write {{\"<id>\": \"<reason>\"}}"
        raise CatalogError(msg)
    return {_id(path, _REFUSED, key): str(why) for key, why in given.items()}


def text(lock: Lock) -> str:
    """The text of a lock file."""
    pinned: dict[str, Any] = {
        name: {"id": schema.id, "subject": schema.subject, "fingerprint": catalog.fingerprint(schema.avro)}
        for name, schema in sorted(lock.schemas.items())
    }
    if lock.refused:
        pinned[_REFUSED] = {str(number): why for number, why in sorted(lock.refused.items())}
    return json.dumps(pinned, indent=1) + "\n"


def _pinned(path: Path, name: str, entry: Any) -> Schema:
    schema = catalog.load(name)
    known = isinstance(entry, dict) and entry.get("fingerprint") == catalog.fingerprint(schema.avro)
    if not known or entry.get("subject") != schema.subject:
        msg = (
            f"{path}: does not pin the {name} schema of this release; run 'tieout schema register' and "
            "'tieout schema lock' against the registry, and review the change"
        )
        raise CatalogError(msg)
    return replace(schema, schema_id=_id(path, name, entry.get("id")))


def _id(path: Path, where: str, number: Any) -> int:
    if not str(number).isdecimal() or not 0 < int(number) < _HIGHEST:
        msg = f"{path}: {where}: {number!r} is not a schema id; write the file again with 'tieout schema lock'"
        raise CatalogError(msg)
    return int(number)
