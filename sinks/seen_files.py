"""Remembered identities in local files: a cache of the log, never the truth.

In: rows of identities by number (``tieout.seen_rows``), and after each commit a stamp: the last record of the log
whose identities are among them. Out: the same rows by number, after a restart too, up to the last stamp that holds.

A file ``<first>.rows`` has a fixed number of rows, ``<first>.stamps`` beside it says how far they are covered. When a
folder is opened, what follows the last stamp that holds is cut off, and where a file is missing nothing is kept: the
log gives what the files do not. The youngest rows are in memory, so many as asked for; older ones are read when they
are wanted. Without a folder, or where another process holds it (perhaps a paused one that will write again), the
files are temporary and have no names.

Guarantee: none is needed, so nothing waits for the disk. Errors: ``SinkError`` (a folder or disk that cannot be
written) and under it ``FilesDamaged`` (rows that went missing while the files were in use).
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import IO, Final

import numpy as np

from sinks.errors import SinkError
from sinks.seen_stamps import LINE, NOTHING, Lines, Stamp, holding, line
from sinks.seen_tables import TableFiles
from tieout.seen_part import Table
from tieout.seen_rows import I64, ROW, Rows

_CHUNK: Final = 1 << 16


class FilesDamaged(SinkError):
    """Rows went missing while the files were in use."""


class SeenFiles:
    """The rows of one partition in files."""

    def __init__(self, directory: Path | None, lock: IO[str] | None, memory_rows: int, file_rows: int, stamp_rows: int) -> None:
        self.directory, self._lock = directory, lock
        self.first = self.end = 0
        self.stamp: Stamp | None = None
        self._file_rows, self._stamp_rows, self._memory_rows = file_rows, stamp_rows, memory_rows
        self._recent = np.empty(memory_rows, ROW)  # row n at n modulo its length
        self._recent_from = self._written = self._stamped = 0
        self._due: tuple[int, int, Stamp] | None = None
        self._files: dict[int, IO[bytes]] = {}
        self._tables = TableFiles(directory)

    @classmethod
    def open(
        cls, directory: Path | None = None, *, memory_rows: int = 1 << 18, file_rows: int = 1 << 22, stamp_rows: int = 1 << 13
    ) -> "SeenFiles":
        """Open a folder with what holds in it; ``stamp`` says what that covers.

        ``memory_rows`` are kept in memory (40 bytes each); a stamp is written for every ``stamp_rows``.
        """
        lock = None
        if directory is not None:
            with _naming(directory):
                directory.mkdir(parents=True, exist_ok=True)
                lock = (directory / "lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                directory = lock = None
        files = cls(directory, lock, memory_rows, file_rows, stamp_rows)
        if directory is not None:
            with _naming(directory):
                files._load(directory)
        return files

    def append(self, rows: Rows) -> int:
        """Keep rows; the number of the first, the others follow without a gap."""
        number = self.end
        for at in range(0, len(rows), self._memory_rows):
            some = rows[at : at + self._memory_rows]
            if self.end + len(some) - self._written > self._memory_rows:
                self._write(self.end)
            place = self.end % self._memory_rows
            fits = min(len(some), self._memory_rows - place)
            self._recent[place : place + fits] = some[:fits]
            self._recent[: len(some) - fits] = some[fits:]
            self.end += len(some)
        return number

    def take(self, numbers: I64) -> Rows:
        """Rows by number, in the order asked; all between ``first`` and ``end``."""
        found = np.empty(len(numbers), ROW)
        recent = numbers >= max(self._recent_from, self.end - self._memory_rows)
        found[recent] = self._recent[numbers[recent] % self._memory_rows]
        if not recent.all():
            old = ~recent
            files, places = np.divmod(numbers[old], self._file_rows)
            descriptors = [self._files[file].fileno() for file in files.tolist()]
            offsets = (places * ROW.itemsize).tolist()
            if hasattr(os, "posix_fadvise"):  # the disk fetches them side by side
                for descriptor, offset in zip(descriptors, offsets, strict=True):
                    os.posix_fadvise(descriptor, offset, ROW.itemsize, os.POSIX_FADV_WILLNEED)
            raw = b"".join(map(os.pread, descriptors, repeat(ROW.itemsize), offsets))
            found[old] = self._rows(raw, len(files))
        return found

    def scan(self, start: int) -> Iterator[tuple[int, Rows]]:
        """All rows from a number on, in order: the number of the first of some, and these."""
        self._write(self.end)
        for file, begin, end in self._pieces(max(start, self.first), self.end):
            for number in range(begin, end, _CHUNK):
                upto = min(number + _CHUNK, end)
                yield number, self._rows(self._read(file, number, upto), upto - number)

    def drop_before(self, number: int) -> None:
        """Nobody will ask for rows below a number any more; files in a folder go when a stamp has said so."""
        self.first = max(self.first, number)
        if self.directory is None:
            self._remove_before(self.first)

    def keep(self, table: Table) -> None:
        """A table over some of the rows: it is written bit by bit with the stamps to come."""
        self._tables.keep(table)

    def tables(self) -> list[Table]:
        """Tables over the rows from ``first`` on, one after another without a gap."""
        return self._tables.tables(self.first)

    def save(self, stamp: Stamp) -> None:
        """What has been appended and dropped so far is committed, and ``stamp`` is its last record."""
        self._due = (self.end, self.first, stamp)
        if self.end - self._stamped >= self._stamp_rows:
            self._put_stamps()
        with _naming(self.directory):
            self._tables.write_some()

    def clear(self) -> None:
        """Forget everything: the files belong to another log."""
        self._remove_before(self.end + self._file_rows)
        self._tables.clear()
        self.first = self.end = self._recent_from = self._written = self._stamped = 0
        self.stamp = self._due = None

    def close(self) -> None:
        """Write the stamp that is due and let the folder go."""
        try:
            self._put_stamps()
        finally:
            for file in self._files.values():
                file.close()
            self._files.clear()
            if self._lock is not None:
                self._lock.close()

    def _put_stamps(self) -> None:
        if self.directory is None or self._due is None or self._due[0] <= self._stamped:
            return
        end, oldest, stamp = self._due
        self._write(end)
        for file, start, upto in self._pieces(self._stamped, end):
            covered = stamp if upto == end else self.stamp or NOTHING
            made = line(self._file_rows, upto, oldest, covered, self._read(file, start, upto))
            with _naming(self.directory), self._path(file, "stamps").open("ab") as stamps:
                stamps.write(made)
        self._stamped, self.stamp = end, stamp
        self._remove_before(oldest)
        self._tables.remove_before(oldest)

    def _write(self, end: int) -> None:
        """Bring the rows below a number from memory into the files."""
        with _naming(self.directory):
            for file, start, upto in self._pieces(self._written, end):
                if file not in self._files:
                    self._files[file] = self._create(file)
                number = start
                while number < upto:
                    place = number % self._memory_rows
                    rows = self._recent[place : place + upto - number]
                    _put(self._files[file].fileno(), rows.tobytes(), (number - file * self._file_rows) * ROW.itemsize)
                    number += len(rows)
                self._written = upto

    def _pieces(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Numbers from start to end, cut at the ends of files: file, start, end."""
        while start < end:
            file = start // self._file_rows
            upto = min(end, (file + 1) * self._file_rows)
            yield file, start, upto
            start = upto

    def _read(self, file: int, start: int, end: int) -> bytes:
        offset = (start - file * self._file_rows) * ROW.itemsize
        return os.pread(self._files[file].fileno(), (end - start) * ROW.itemsize, offset)

    def _rows(self, raw: bytes, rows: int) -> Rows:
        if len(raw) != rows * ROW.itemsize:
            msg = f"{self.directory or tempfile.gettempdir()}: rows of remembered identities are missing; start again, they are rebuilt from the log"
            raise FilesDamaged(msg)
        return np.frombuffer(raw, ROW)

    def _create(self, file: int) -> IO[bytes]:
        if self.directory is None:
            return tempfile.TemporaryFile(buffering=0)
        self._path(file, "stamps").unlink(missing_ok=True)
        return self._path(file, "rows").open("w+b", buffering=0)

    def _remove_before(self, number: int) -> None:
        for file in [file for file in self._files if (file + 1) * self._file_rows <= number]:
            self._remove(file)

    def _remove(self, file: int) -> None:
        if file in self._files:
            self._files.pop(file).close()
        if self.directory is not None:
            self._path(file, "stamps").unlink(missing_ok=True)
            self._path(file, "rows").unlink(missing_ok=True)

    def _path(self, file: int, kind: str) -> Path:
        return (self.directory or Path()) / f"{file * self._file_rows:015d}.{kind}"

    def _load(self, directory: Path) -> None:
        """Keep the unbroken run of files up to the last stamp that holds; remove and cut off the rest."""
        names = sorted(int(path.stem) for path in directory.glob("*.rows") if path.stem.isdigit())
        names = [name for name in names if name % self._file_rows == 0]
        last, lines = np.zeros(1, LINE)[0], 0
        for name in names:
            if lines and name != last["end"]:
                break
            held = self._held(name // self._file_rows)
            if not len(held):
                break
            last, lines = held[-1], len(held)
        if lines and last["position"] >= 0 and names[0] <= last["oldest"]:
            self.stamp = Stamp(int(last["position"]), int(last["mark"]))
            self.first, self.end = int(last["oldest"]), int(last["end"])
        self._recent_from = self._written = self._stamped = self.end
        self._tidy(directory)
        self._tables.open(self.first, self.end)
        if self.end % self._file_rows:
            file = self.end // self._file_rows
            os.truncate(self._path(file, "stamps"), lines * LINE.itemsize)
            os.truncate(self._path(file, "rows"), (self.end - file * self._file_rows) * ROW.itemsize)

    def _held(self, file: int) -> Lines:
        """Open a file; its stamps that hold."""
        self._files[file] = self._path(file, "rows").open("r+b", buffering=0)
        stamps = self._path(file, "stamps")
        raw = stamps.read_bytes() if stamps.exists() else b""
        return holding(raw, file * self._file_rows, self._file_rows, lambda start, end: self._read(file, start, end))

    def _tidy(self, directory: Path) -> None:
        """Remove the files of rows that are not kept."""
        kept = {file for file, _, _ in self._pieces(self.first, self.end)}
        for file in self._files.keys() - kept:
            self._files.pop(file).close()
        names = {self._path(file, kind) for file in kept for kind in ("rows", "stamps")}
        for path in [*directory.glob("*.rows"), *directory.glob("*.stamps")]:
            if path not in names:
                path.unlink()


def _put(descriptor: int, raw: bytes, offset: int) -> None:
    """All of the bytes: a file system may take fewer at a time."""
    left = memoryview(raw)
    while left:
        done = os.pwrite(descriptor, left, offset)
        left, offset = left[done:], offset + done


@contextmanager
def _naming(directory: Path | None) -> Iterator[None]:
    """A system's error as one of ours, with what to do."""
    try:
        yield
    except OSError as error:
        place = directory or tempfile.gettempdir()
        msg = f"{place}: remembered identities cannot be written ({error.strerror or error}); free some space or make the folder writable, then start again: they are rebuilt from the log"
        raise SinkError(msg) from error
