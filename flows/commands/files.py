"""Reading the files that users name: JSON and JSON lines, plain or gzipped, with errors that name file and line."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from flows.cli import CommandError
from sinks.ingress import partitions_of


def open_text(name: str) -> IO[str]:
    """A text file, gzipped or not; ``-`` is standard input."""
    if name == "-":
        return sys.stdin
    path = Path(name)
    try:
        return gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give the path of an existing file"
        raise CommandError(msg) from error


def read_json(name: str) -> Any:
    """One JSON document."""
    with open_text(name) as file:
        try:
            return json.load(file)
        except (ValueError, EOFError) as error:
            msg = f"{name}: is not JSON ({error}); check the file"
            raise CommandError(msg) from error


def read_lines(name: str) -> Iterator[tuple[int, Any]]:
    """JSON lines with their numbers; empty lines are left out."""
    with open_text(name) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line)
            except ValueError as error:
                msg = f"{name}, line {number}: is not JSON ({error}); mend the line"
                raise CommandError(msg) from error


def folder(name: str) -> tuple[Path, int]:
    """An existing folder of topics and its number of partitions."""
    root = Path(name)
    partitions = partitions_of(root)
    if partitions is None:
        msg = f"{root}: is no folder of topics; make one with 'tieout generate' or 'tieout import', or check --dir"
        raise CommandError(msg)
    return root, partitions
