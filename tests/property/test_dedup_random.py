"""Dedup in parts and files against a dull memory: whatever the sizes of parts, the clock, repeats and restarts."""

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.seen_files import SeenFiles
from sinks.seen_stamps import Stamp
from tieout import ids
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Entries, Seen, few
from tieout.seen_part import Part, hashed
from tieout.seen_rows import MemoryRows

HORIZON = 20
LAST = (2**64 - 1) * pow(0x9E3779B97F4A7C15, -1, 2**64) % 2**64  # of a table's last bucket, whatever its size
row = st.tuples(st.integers(0, 30), st.integers(0, 1), st.integers(-30, 30), st.sampled_from([0, 0, 0, 0, 0, 0, 1, 5, 10, 20, 21, 90]))
ends = st.sampled_from(["commit", "commit", "commit", "crash", "lose", "restart", "tear", "change", "delete"])
batches = st.lists(st.tuples(st.lists(row, max_size=40), ends, st.integers(0, 10**6)), max_size=12)
shapes = st.sampled_from([(2, 4), (3, 16), (40, 1000), (1 << 16, 1 << 25)])
keys = st.sampled_from([
    lambda n: (n * 7 + 1, n), lambda n: (5, n), lambda n: (n, 5), lambda n: (n % 3, n // 3), lambda n: (LAST, n), lambda n: ((n << 60) % 2**64, n << 33),
])


class Memory:
    """One row at a time, by the rule."""

    def __init__(self):
        self.entries = {}

    def judge(self, name, content, time, clock, position):
        entry = self.entries.get(name)
        if entry is None or entry[1] < clock - HORIZON:
            self.entries[name] = (content, max(time, clock), position)
            return NEW, position
        return (DUPLICATE if entry[0] == content else CONFLICT), entry[2]


def columns(part, key, clock, position):
    clocks = clock + np.cumsum([step for *_, step in part]).astype(np.int64)
    lanes = np.array([key(name) for name, *_ in part], np.uint64).reshape(-1, 2)
    times = clocks + np.array([apart for _, _, apart, _ in part], np.int64)
    return lanes, np.array([content for _, content, *_ in part], np.uint64), times, clocks, np.arange(position, position + len(part))


@settings(deadline=None, max_examples=150)
@given(batches, shapes, keys)
def test_parts_of_any_size_equal_a_dull_memory_row_by_row(work, shape, key):
    seen, memory, clock, position = Seen(HORIZON, least=shape[0], most=shape[1]), Memory(), 1000, 0
    log = []
    for part, then, _ in work:
        given_ = columns(part, key, clock, position)
        expected = [memory.judge(name, content, int(t), int(c), int(p)) for (name, content, *_), t, c, p in zip(part, *given_[2:], strict=True)]
        found = seen.judge(*given_)
        assert list(zip(found.kind.tolist(), found.first_position.tolist(), strict=True)) == expected
        new = found.kind == NEW
        assert all((a == b).all() for a, b in zip(found.entries, (given_[0][new], given_[1][new], np.maximum(given_[2], given_[3])[new], given_[4][new]), strict=True))
        log.append(found.entries)
        clock, position = int(given_[3][-1]) if part else clock, position + len(part)
        seen.sweep(clock)
        if then == "restart":
            seen = Seen(HORIZON, least=shape[0], most=shape[1])
            seen.restore(Entries(*(np.concatenate(column) for column in zip(*log, strict=True))))


def damage(folder, how, chance):
    paths = sorted(folder.iterdir())
    path = paths[chance % len(paths)]
    size = path.stat().st_size
    if how == "lose":
        for path in paths:
            path.unlink()
    elif how == "delete":
        path.unlink()
    elif how == "tear":
        os.truncate(path, chance // 7 % (size + 1))
    elif how == "change" and size:
        raw = bytearray(path.read_bytes())
        raw[chance // 7 % size] ^= 1 << chance % 8
        path.write_bytes(raw)


@settings(deadline=None, max_examples=150)
@given(batches, shapes, st.sampled_from([(4, 8, 1), (7, 16, 5), (64, 32, 20), (1000, 1 << 20, 1 << 13)]))
def test_files_and_the_log_after_them_equal_a_dull_memory_over_any_restart(work, shape, sizes):
    """The log holds what was committed; a crash loses the rest, and files are lost, torn, changed and deleted."""
    with tempfile.TemporaryDirectory() as folder:
        options = dict(zip(("memory_rows", "file_rows", "stamp_rows"), sizes, strict=True))
        files = SeenFiles.open(Path(folder), **options)
        seen, memory, clock, position, log = Seen(HORIZON, files, least=shape[0], most=shape[1]), Memory(), 1000, 0, []
        for part, then, chance in work:
            before = dict(memory.entries), clock, position
            given_ = columns(part, lambda n: (n + 1, n), clock, position)
            expected = [memory.judge(name, content, int(t), int(c), int(p)) for (name, content, *_), t, c, p in zip(part, *given_[2:], strict=True)]
            found = seen.judge(*given_)
            assert list(zip(found.kind.tolist(), found.first_position.tolist(), strict=True)) == expected
            clock, position = int(given_[3][-1]) if part else clock, position + len(part)
            seen.sweep(clock)
            if then == "crash":
                memory.entries, clock, position = before
            else:
                log.append(found.entries)
                files.save(Stamp(len(log) - 1, 0))
            if then != "commit":
                files.close()
                damage(Path(folder), then, chance)
                files = SeenFiles.open(Path(folder), **options)
                assert then != "lose" or files.stamp is None
                seen = Seen(HORIZON, files, least=shape[0], most=shape[1])
                for entries in log[0 if files.stamp is None else files.stamp.position + 1 :]:
                    seen.restore(entries)
        files.close()


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 3) | st.just(LAST), st.integers(0, 3) | st.just(2**40)), max_size=50), max_size=6))
def test_a_part_names_every_row_of_an_identity_and_few_others(batches_):
    part, entered = Part(max(1, sum(map(len, batches_)))), []
    part.open(10, 0)
    for batch in batches_:
        lanes = np.array(batch, np.uint64).reshape(-1, 2)
        sorted_ = hashed(lanes)
        part.enter(sorted_, 10 + len(entered) + sorted_.order)
        entered += batch
    lanes = np.array([*entered, (7, 7)], np.uint64)
    sought = hashed(lanes)
    places, numbers = part.candidates(sought)
    pairs = list(zip(sought.order[places].tolist(), numbers.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    for at, key in enumerate([*entered, (7, 7)]):
        same = {10 + number for number, other in enumerate(entered) if other == key}
        named = {number for row_, number in pairs if row_ == at}
        assert same <= named
        assert {max(entered[number - 10][1] % 2**32, 1) for number in named} <= {max(key[1] % 2**32, 1)}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 200_000), max_size=5), st.integers(0, 300_000))
def test_rows_in_memory_are_what_was_appended(sizes, dropped):
    store, first = MemoryRows(), []
    for size in sizes:
        rows = np.zeros(size, dtype=store.take(np.zeros(0, np.int64)).dtype)
        rows["position"] = np.arange(store.end, store.end + size)
        first.append(store.append(rows))
    assert first == [sum(sizes[:i]) for i in range(len(sizes))]
    dropped = min(dropped, store.end)
    store.drop_before(dropped)
    numbers = np.arange(store.end - 1, dropped - 1, -977)
    assert store.take(numbers)["position"].tolist() == numbers.tolist()
    scanned = [np.arange(number, number + len(rows)) for number, rows in store.scan(0) if (rows["position"] == np.arange(number, number + len(rows))).all()]
    assert np.array_equal(np.concatenate([np.zeros(0, int), *scanned]), np.arange(dropped, store.end))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=30))
def test_a_few_events_get_the_verdicts_of_the_table(events):
    names, digests, time = ([event[i] for event in events] for i in range(3))
    clock = np.maximum.accumulate(np.array(time, np.int64))
    keys = ids.of_integers(np.array(names, np.int64))
    rows = np.arange(len(events))
    verdicts = Seen(10).judge(keys, np.array(digests, np.uint64), np.array(time, np.int64), clock, rows)
    assert few(10, names, digests, np.maximum(time, clock).tolist(), clock.tolist(), rows.tolist()) == verdicts.kind.tolist()
