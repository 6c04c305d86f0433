"""The schemas of an earlier release: from a folder of ``.avsc`` files, or from a git revision.

In: a folder or a revision, and the folder in which the schemas lie today. Out: the schemas by the names of their
files, and the ids that were pinned. Nothing is checked out.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

from flows.cli import CommandError
from schemas.catalog import Avro

_LOCK: Final = "lock.json"


def schemas(against: str, folder: Path) -> dict[str, Avro]:
    """The schemas that lay in a folder, by the names of their files without ``.avsc``."""
    texts = _in_folder(Path(against)) if Path(against).is_dir() else _in_git(_commit(against, folder), folder)
    return {name: _parsed(against, name, text) for name, text in texts.items()}


def pinned(against: str, folder: Path) -> dict[str, Any]:
    """The catalogue's lock file as it was, beside the schemas or above them; empty where there was none."""
    if Path(against).is_dir():
        found = next((path for path in (Path(against, _LOCK), Path(against).parent / _LOCK) if path.is_file()), None)
        return {} if found is None else _parsed(against, _LOCK, found.read_text())
    text = _git(folder, "show", f"{_commit(against, folder)}:../{_LOCK}")
    return {} if text is None else _parsed(against, _LOCK, text)


def _in_folder(folder: Path) -> dict[str, str]:
    return {path.name.removesuffix(".avsc"): path.read_text() for path in sorted(folder.glob("*.avsc"))}


def _in_git(commit: str, folder: Path) -> dict[str, str]:
    listed = (_git(folder, "ls-tree", "--name-only", commit, "./") or "").splitlines()
    names = [name.removesuffix(".avsc") for name in listed if name.endswith(".avsc")]
    return {name: _git(folder, "show", f"{commit}:./{name}.avsc") or "" for name in names}


def _commit(revision: str, folder: Path) -> str:
    found = _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found is None:
        msg = f"--against {revision}: is neither a folder nor a revision of the git checkout that {folder} lies in; give a tag, a commit, or a folder of .avsc files"
        raise CommandError(msg)
    return found.strip()


def _git(folder: Path, *arguments: str) -> str | None:
    """What git says; None where it fails."""
    program = shutil.which("git")
    if program is None:
        msg = "--against a revision needs git, and there is none on the PATH; install it, or give a folder of .avsc files"
        raise CommandError(msg)
    answer = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    return None if answer.returncode else answer.stdout


def _parsed(against: str, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        msg = f"--against {against}: {name} is not JSON there ({error}); give another release"
        raise CommandError(msg) from error
