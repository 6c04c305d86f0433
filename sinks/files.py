"""Topics in a directory, written with an exactly-once commit: all topics of a commit appear together or not at all.

Guarantee: commit n is written in a temporary directory, made durable, and renamed to its name, which must not exist;
then the parent is made durable. A kill at any instant leaves commit n whole or absent. One process writes a
partition: the fence is an exclusive lock that the system lifts when its holder dies.

Errors: those of ``sinks.errors``.
"""

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from schemas import segments
from sinks.errors import Fenced, OutOfOrder, SinkError

SMALL: Final = 8 << 20
MERGE_FROM: Final = 64
_TEMPORARY: Final = ".writing-"


class PartitionWriter:
    """The only writer of one partition of one flow."""

    def __init__(self, directory: Path, lock: IO[str]) -> None:
        self.directory = directory
        self._lock = lock
        self._clean()
        found = segments.commits(directory)
        self.last = found[-1].last if found else 0
        self.written = _ends(found)

    @classmethod
    def open(cls, root: Path, writer: str, partition: int) -> "PartitionWriter":
        """Fence a partition and clear what an interrupted commit left; Fenced where another process holds it."""
        directory = root / writer / f"{partition:04d}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock = (directory / "lock").open("a+")
        except OSError as error:
            msg = f"{directory}: cannot be written ({error.strerror}); make the folder writable, or choose another with --dir"
            raise SinkError(msg) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            msg = f"{directory}: process {holder} is writing this partition; wait for it to end, or stop it first"
            raise Fenced(msg) from None
        lock.seek(0)
        lock.truncate()
        lock.write(str(os.getpid()))
        lock.flush()
        return cls(directory, lock)

    def commit(self, number: int, topics: Mapping[str, pa.RecordBatch | pa.Table]) -> None:
        """Write one commit; SinkError leaves nothing behind."""
        if number != self.last + 1:
            msg = f"{self.directory}: commit {number} does not follow {self.last}; restore the partition and go on from there"
            raise OutOfOrder(msg)
        ends = dict(self.written)
        temporary = self.directory / f"{_TEMPORARY}{number}"
        try:
            temporary.mkdir()
            for topic, batch in topics.items():
                if batch.num_rows:
                    self._write(temporary, topic, batch, ends.get(topic, 0))
                    ends[topic] = ends.get(topic, 0) + batch.num_rows
            self._publish(temporary, segments.commit_name(number, number))
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            msg = f"{self.directory}: commit {number} failed ({error.strerror or error}); free some space or make the folder writable, then run again: nothing was half-written"
            raise SinkError(msg) from error
        self.last, self.written = number, ends

    def _write(self, directory: Path, topic: str, batch: pa.RecordBatch | pa.Table, position: int) -> None:
        path = directory / f"{topic}{segments.SUFFIX}"
        segments.write(path, batch, topic, position)
        _sync(path)

    def _publish(self, temporary: Path, name: str) -> None:
        _sync(temporary)
        target = self.directory / name
        if target.exists():
            msg = f"{target} exists already; another writer has been here"
            raise OutOfOrder(msg)
        temporary.rename(target)
        _sync(self.directory)

    def merge(self) -> bool:
        """Put a long tail of small commits together, by the same rename; whether there was one."""
        tail: list[segments.CommitDir] = []
        size = 0
        for commit in reversed(segments.commits(self.directory)):
            size += sum(path.stat().st_size for path in commit.path.iterdir())
            if size > SMALL:
                break
            tail.insert(0, commit)
        if len(tail) < MERGE_FROM:
            return False
        name = segments.commit_name(tail[0].first, tail[-1].last)
        temporary = self.directory / f"{_TEMPORARY}{name}"
        temporary.mkdir()
        for topic in sorted({path.name for commit in tail for path in commit.path.iterdir()}):
            paths = [commit.path / topic for commit in tail if (commit.path / topic).exists()]
            whole = pa.concat_tables([segments.read(path) for path in paths])
            self._write(temporary, topic.removesuffix(segments.SUFFIX), whole, segments.first_position(paths[0]))
        self._publish(temporary, name)
        for commit in tail:
            shutil.rmtree(commit.path)
        return True

    def drop_before(self, topic: str, number: int) -> None:
        """Remove a state topic's segments of commits before ``number``: a full state has replaced them."""
        if not topic.startswith("_tieout."):
            msg = f"{topic} bears money and is never dropped"
            raise ValueError(msg)
        for commit in segments.commits(self.directory):
            if commit.last < number:
                (commit.path / f"{topic}{segments.SUFFIX}").unlink(missing_ok=True)

    def close(self) -> None:
        """Give the partition up."""
        self._lock.close()

    def _clean(self) -> None:
        kept = {commit.path for commit in segments.commits(self.directory)}
        for path in self.directory.iterdir():
            if path.is_dir() and path not in kept:
                shutil.rmtree(path)


def _ends(found: list[segments.CommitDir]) -> dict[str, int]:
    """The position after the last record of each topic."""
    ends: dict[str, int] = {}
    for commit in reversed(found):
        for path in commit.path.glob(f"*{segments.SUFFIX}"):
            topic = path.name.removesuffix(segments.SUFFIX)
            if topic not in ends:
                ends[topic] = segments.first_position(path) + segments.count(path)
    return ends


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
