"""Tables over rows of identities in local files: a cache beside the rows, never the truth.

In: tables of parts that take no more (``tieout.seen_part``). Out: the same after a restart, those that are whole and
follow one another from the first row needed; the rows after them are read and entered again. A file ``<first>.table``
is written a slice at a time, so that no commit waits for it, under another name until its checksum is there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import numpy as np
import xxhash

from tieout.seen_part import Table

_SLICE: Final = 1 << 20
_AT_ONCE: Final = 2 << 20
_FACTS: Final = 8
_CHECKSUM_BYTES: Final = 8


class TableFiles:
    """The tables in a folder; without one nothing is kept."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._kept: dict[Path, tuple[int, int]] = {}
        self._due: list[Table] = []
        self._slices: Iterator[int] = iter(())

    def open(self, first: int, end: int) -> None:
        """Look what is there; what is unfinished or not within the rows from ``first`` to ``end`` is removed."""
        for path in sorted(self._directory.glob("*.table*")) if self._directory is not None else ():
            with path.open("rb") as file:
                facts = np.fromfile(file, "<i8", _FACTS)
            if path.suffix == ".table" and _sized(path, facts) and first <= facts[1] <= facts[2] <= end:
                self._kept[path] = int(facts[1]), int(facts[2])
            else:
                path.unlink()

    def tables(self, first: int) -> list[Table]:
        """The whole ones that follow one another from a number on."""
        found = []
        for path, (start, end) in sorted(self._kept.items()):
            table = _read(path) if start == first else None
            if table is None:
                break
            found.append(table)
            first = end
        return found

    def keep(self, table: Table) -> None:
        """A table to write, bit by bit."""
        if self._directory is not None:
            self._due.append(table)

    def write_some(self) -> None:
        """Write a little of what is due."""
        left = _AT_ONCE
        while left > 0:
            written = next(self._slices, None)
            if written is not None:
                left -= written
            elif self._directory is not None and self._due:
                self._slices = self._write(self._directory, self._due.pop(0))
            else:
                return

    def remove_before(self, number: int) -> None:
        """Remove the tables of rows below a number."""
        self._due = [table for table in self._due if table.facts[2] > number]
        for path in [path for path, (_, end) in self._kept.items() if end <= number]:
            del self._kept[path]
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all."""
        self._due, self._slices = [], iter(())
        self.remove_before(max((end for _, end in self._kept.values()), default=0))

    def _write(self, directory: Path, table: Table) -> Iterator[int]:
        path = directory / f"{table.facts[1]:015d}.table"
        unfinished = path.with_suffix(".table-unfinished")
        checksum = xxhash.xxh3_64()
        with unfinished.open("wb", buffering=0) as file:
            for raw in _bytes(table):
                for at in range(0, len(raw), _SLICE):
                    some = raw[at : at + _SLICE]
                    _put(file, some)
                    checksum.update(some)
                    yield len(some)
            _put(file, memoryview(checksum.digest()))
        unfinished.rename(path)
        self._kept[path] = int(table.facts[1]), int(table.facts[2])


def _bytes(table: Table) -> list[memoryview]:
    return [table.facts.astype("<i8").data.cast("B"), table.prints.data.cast("B"), table.numbers.data.cast("B")]


def _put(file: IO[bytes], raw: memoryview) -> None:
    """All of the bytes: a file system may take fewer at a time."""
    while raw:
        raw = raw[file.write(raw) :]


def _sized(path: Path, facts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> bool:
    return len(facts) == _FACTS and path.stat().st_size == _FACTS * 8 + int(facts[7]) * 8 + _CHECKSUM_BYTES


def _read(path: Path) -> Table | None:
    """A table, if its bytes are what was written."""
    with path.open("rb") as file:
        facts = np.fromfile(file, "<i8", _FACTS)
        table = Table(facts, np.fromfile(file, "<u4", facts[7]), np.fromfile(file, "<u4", facts[7]))
        expected = file.read()
    checksum = xxhash.xxh3_64()
    for raw in _bytes(table):
        checksum.update(raw)
    return table if expected == checksum.digest() else None
