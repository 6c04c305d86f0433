"""Dedup at scale: CPU, memory, pauses and restarts with many identities in one cell, each size in its own process.

``python -m benchmarks.dedup --ids 100000000`` fills one ``Seen`` over files with so many identities, evenly over the
horizon, in batches of 25,000. Then come batches with 5 % duplicates and 1 % conflicts spread over the whole horizon,
first with the files in the system's cache, then with them dropped from it. At last the restarts: from the local
files, and from the log's blobs without them. Every verdict is checked. A pause is the time of one batch.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.memory import resident
from flows import usage_state
from sinks.seen_files import SeenFiles
from sinks.seen_stamps import Stamp
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Seen

HORIZON = 35 * 86_400_000_000
START = 20_000 * 86_400_000_000
ROWS = 25_000
BATCHES = 80
U64 = np.uint64


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", default="1000000,10000000", help="how many identities, several by commas")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _measure(options.one)
        return
    for ids in options.ids.split(","):
        print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
        subprocess.run([sys.executable, "-m", "benchmarks.dedup", "--one", ids], check=True)


def _measure(ids: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        cache, log = Path(name) / "cache", Path(name) / "log.arrow"
        files = SeenFiles.open(cache)
        seen = Seen(HORIZON, files)
        before = resident("VmRSS")
        step = HORIZON // ids
        with pa.OSFile(str(log), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("value", pa.large_binary())])) as writer:
            fill = Timed()
            for first in range(0, ids, ROWS):
                rows = np.arange(first, min(first + ROWS, ids))
                verdicts = fill.judge(seen, files, rows, rows, step)
                assert (verdicts.kind == NEW).all()
                blobs = usage_state.entries_blobs(verdicts.entries)
                writer.write_batch(pa.record_batch([pa.array(blobs, pa.large_binary())], names=["value"]))
        print(f"{ids:,} ids filled: {fill}; resident {resident('VmRSS') - before:,} MB more, {(resident('VmRSS') - before) * 1048576 / ids:.1f} bytes an id", flush=True)
        end = ids
        for label in ("files in the system's cache", "files dropped from it"):
            if label.startswith("files dropped"):
                _drop(cache)
            mixed, end = _mix(seen, files, ids, end, step)
            print(f"  5 % duplicates, 1 % conflicts, {label}: {mixed}; peak {resident('VmHWM'):,} MB", flush=True)
        files.close()
        del seen
        size = sum(path.stat().st_size for path in cache.iterdir())
        _restart("with the local files", lambda: _opened(cache), end, step, f"{size / end:.1f} bytes an id on disk")
        _restart("from the log alone", lambda: _restored(log), ids, step, f"{log.stat().st_size / ids:.1f} bytes an id in the log, without its compression")
        print(f"  peak at last {resident('VmHWM'):,} MB", flush=True)


class Timed:
    """CPU and wall time of batches: judge, sweep, and the stamp after the commit."""

    def __init__(self) -> None:
        self.rows, self.cpu, self.wall = 0, [], []

    def judge(self, seen, files, ids, content, step):
        """One batch, timed."""
        keys, digest = _keys(ids), _spread(content, 5)
        at = START + np.maximum.accumulate(ids) * step
        position = ids.copy()
        wall, cpu = time.perf_counter(), time.process_time()
        verdicts = seen.judge(keys, digest, at, at, position)
        seen.sweep(int(at[-1]))
        files.save(Stamp(int(ids.max()), 0))
        self.cpu.append(time.process_time() - cpu)
        self.wall.append(time.perf_counter() - wall)
        self.rows += len(ids)
        return verdicts

    def __str__(self) -> str:
        return (
            f"{sum(self.cpu) * 1e6 / self.rows:.2f} CPU-s/M ({sum(self.wall) * 1e6 / self.rows:.2f} s of wall), longest pause "
            f"{max(self.cpu) * 1000:.0f} ms CPU, {max(self.wall) * 1000:.0f} ms wall, median {np.median(self.cpu) * 1000:.0f} ms CPU"
        )


def _mix(seen, files, ids, end, step):
    """New ids with known ones from the whole horizon among them."""
    random, timed = np.random.default_rng(end), Timed()
    for _ in range(BATCHES):
        what = random.permutation(np.repeat([NEW, DUPLICATE, CONFLICT], [ROWS * 94 // 100, ROWS * 5 // 100, ROWS // 100]))
        new = what == NEW
        rows = np.empty(ROWS, np.int64)
        rows[new] = np.arange(end, end + new.sum())
        oldest = end + int(new.sum()) - ids  # what the clock at the end of the batch still remembers
        rows[~new] = random.integers(oldest, end, ROWS - new.sum())
        _check(timed.judge(seen, files, rows, np.where(what == CONFLICT, -1 - rows, rows), step), rows, what)
        end += int(new.sum())
    return timed, end


def _check(verdicts, rows, what):
    assert (verdicts.kind == what).all()
    assert (verdicts.first_position == rows).all()


def _opened(cache: Path) -> Seen:
    return Seen(HORIZON, SeenFiles.open(cache))


def _restored(log: Path) -> Seen:
    seen = Seen(HORIZON, SeenFiles.open())
    for blob in _blobs(log):
        seen.restore(usage_state.entries_of(blob))
    return seen


def _blobs(log: Path) -> Iterator[bytes]:
    with pa.OSFile(str(log)) as source:
        reader = pa.ipc.open_file(source)
        for batch in range(reader.num_record_batches):
            yield from reader.get_batch(batch)["value"].to_pylist()


def _restart(label, start, end, step, size):
    wall, cpu = time.perf_counter(), time.process_time()
    seen = start()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    random = np.random.default_rng(1)
    rows = random.integers(max(end - HORIZON // step, 0), end, ROWS)
    at = np.full(ROWS, START + end * step)
    verdicts = seen.judge(_keys(rows), _spread(rows, 5), at, at, rows)
    assert (verdicts.kind == DUPLICATE).all()
    assert (verdicts.first_position == rows).all()
    print(f"  restart {label}: {wall:.1f} s, {cpu:.1f} CPU-s; {len(seen):,} ids; {size}", flush=True)


def _keys(ids):
    return np.stack([_spread(ids, 1), _spread(ids, 3)], axis=1)


def _spread(ids, salt):
    x = (ids.astype(np.int64).view(U64) + U64(salt)) * U64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def _drop(cache: Path) -> None:
    for path in cache.glob("*.rows"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)



if __name__ == "__main__":
    main()
