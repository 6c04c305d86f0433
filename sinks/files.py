"""Topics in a directory, written with an exactly-once commit: all topics of a commit appear together or not at all.

Guarantee: commit n is written in a temporary directory, made durable, and renamed to its name, which must not exist;
then the parent is made durable. A kill at any instant leaves commit n whole or absent. One process writes a
partition: the fence is an exclusive lock that the system lifts when its holder dies. A topic that several writers add to
(``segments.SHARED``) takes its positions under the folder's lock, so its records follow each other without a gap.

Errors: those of ``sinks.errors``.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import pyarrow as pa

from schemas import segments
from sinks.errors import Fenced, OutOfOrder, SinkError

SMALL: Final = 8 << 20
MERGE_FROM: Final = 64
_TEMPORARY: Final = ".writing-"
_LOCK: Final = "shared.lock"


class PartitionWriter:
    """The only writer of one partition of one flow, or (``partition`` None) of a flow whose commits reach several."""

    def __init__(self, directory: Path, lock: IO[str], partition: int | None) -> None:
        self.directory, self.partition = directory, partition
        self._lock = lock
        self._shared = _SharedEnds(directory.parent.parent)
        self._clean()
        found = segments.commits(directory)
        self.last = found[-1].last if found else 0
        self.written = _ends(found)

    @classmethod
    def open(cls, root: Path, writer: str, partition: int | None) -> "PartitionWriter":
        """Fence a partition and clear what an interrupted commit left; Fenced where another process holds it."""
        directory = root / writer / (segments.ALL if partition is None else f"{partition:04d}")
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
        return cls(directory, lock, partition)

    def commit(self, number: int, topics: Mapping[str, pa.RecordBatch | pa.Table]) -> None:
        """Write one commit; SinkError leaves nothing behind. Where commits reach several partitions a name may be ``topic/partition``."""
        if number != self.last + 1:
            msg = f"{self.directory}: commit {number} does not follow {self.last}; restore the partition and go on from there"
            raise OutOfOrder(msg)
        ends = dict(self.written)
        temporary = self.directory / f"{_TEMPORARY}{number}"
        written = {self._placed(name): batch for name, batch in topics.items() if batch.num_rows}
        try:
            with self._shared.lock(any(topic in segments.SHARED for topic, _ in written)):
                temporary.mkdir()
                for (topic, partition), batch in written.items():
                    name = segments.name(topic, None if self.partition is not None else partition)
                    start = self._shared.end(topic, partition) if topic in segments.SHARED else ends.get(name, 0)
                    self._write(temporary / name, topic, batch, start)
                    ends[name] = start + batch.num_rows
                self._publish(temporary, segments.commit_name(number, number))
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            msg = f"{self.directory}: commit {number} failed ({error.strerror or error}); free some space or make the folder writable, then run again: nothing was half-written"
            raise SinkError(msg) from error
        self.last, self.written = number, ends

    def _placed(self, name: str) -> tuple[str, int]:
        topic, slash, number = name.partition("/")
        return topic, int(number) if slash else self.partition or 0

    @staticmethod
    def _write(path: Path, topic: str, batch: pa.RecordBatch | pa.Table, position: int) -> None:
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
        with self._shared.lock(needed=True):  # whoever looks for the end of a shared topic must find the one or the other
            tail = self._tail()
            if len(tail) < MERGE_FROM:
                return False
            name = segments.commit_name(tail[0].first, tail[-1].last)
            temporary = self.directory / f"{_TEMPORARY}{name}"
            temporary.mkdir()
            for file in sorted({path.name for commit in tail for path in commit.path.iterdir()}):
                paths = [commit.path / file for commit in tail if (commit.path / file).exists()]
                whole = pa.concat_tables([segments.read(path) for path in paths])
                self._write(temporary / file, segments.placed(file, self.partition)[0], whole, segments.first_position(paths[0]))
            self._publish(temporary, name)
            for commit in tail:
                shutil.rmtree(commit.path)
        return True

    def _tail(self) -> list[segments.CommitDir]:
        """The last commits that may become one: small, and without another writer's records between those of a shared topic."""
        tail: list[segments.CommitDir] = []
        size = 0
        starts: dict[str, int] = {}
        for commit in reversed(segments.commits(self.directory)):
            paths = list(commit.path.iterdir())
            size += sum(path.stat().st_size for path in paths)
            shared = [path for path in paths if segments.placed(path.name, self.partition)[0] in segments.SHARED]
            torn = [path for path in shared if path.name in starts and segments.first_position(path) + segments.count(path) != starts[path.name]]
            if size > SMALL or torn:
                break
            starts |= {path.name: segments.first_position(path) for path in shared}
            tail.insert(0, commit)
        return tail

    def drop_before(self, topic: str, number: int) -> None:
        """Remove a state topic's segments of commits before ``number``: a full state has replaced them."""
        if not topic.startswith("_tieout."):
            msg = f"{topic} bears money and is never dropped"
            raise ValueError(msg)
        name = segments.name(topic, None if self.partition is not None else 0)
        for commit in segments.commits(self.directory):
            if commit.last < number:
                (commit.path / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the partition up."""
        self._lock.close()

    def _clean(self) -> None:
        kept = {commit.path for commit in segments.commits(self.directory)}
        for path in self.directory.iterdir():
            if path.is_dir() and path not in kept:
                shutil.rmtree(path)


class _SharedEnds:
    """Where the topics of a folder end that several writers add to."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._looked: dict[tuple[Path, str], tuple[int, int]] = {}
        """By run and segment name: up to which commit it was looked at, and the end found."""

    @contextmanager
    def lock(self, needed: bool) -> Iterator[None]:  # noqa: FBT001 - said by name or by a condition
        """Within it nobody else of the folder takes positions of a shared topic; where it is not needed, nothing."""
        if not needed:
            yield
            return
        with (self._root / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def end(self, topic: str, partition: int) -> int:
        """The position after the last record, whoever wrote it."""
        return max((self._end_in(run, name) for run, name in segments.runs(self._root, topic, partition)), default=0)

    def _end_in(self, run: Path, name: str) -> int:
        looked, end = self._looked.get((run, name), (0, 0))
        found = segments.commits(run)
        for commit in reversed(found):
            if commit.last <= looked:
                break
            path = commit.path / name
            if path.exists():
                end = segments.first_position(path) + segments.count(path)
                break
        self._looked[run, name] = (found[-1].last if found else 0, end)
        return end


def _ends(found: list[segments.CommitDir]) -> dict[str, int]:
    """The position after the last record of each topic, by the name of its segments."""
    ends: dict[str, int] = {}
    for commit in reversed(found):
        for path in commit.path.glob(f"*{segments.SUFFIX}"):
            if path.name not in ends:
                ends[path.name] = segments.first_position(path) + segments.count(path)
    return ends


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
