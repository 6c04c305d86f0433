"""Local files of identities: what a stamp covers is there after a restart, everything else comes from the log."""

import errno
import os
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

from sinks.errors import SinkError
from sinks.seen_files import FilesDamaged, SeenFiles
from sinks.seen_stamps import Stamp
from tieout.dedup import DUPLICATE, NEW, Entries, Seen
from tieout.seen_rows import ROW

SMALL = {"memory_rows": 10, "file_rows": 16, "stamp_rows": 1}


def rows(start, end):
    made = np.zeros(end - start, ROW)
    for name in ROW.names:
        made[name] = np.arange(start, end)
    return made


def filled(folder, upto, each=5, **options):
    files = SeenFiles.open(folder, **SMALL | options)
    for start in range(0, upto, each):
        files.append(rows(start, min(start + each, upto)))
        files.save(Stamp.of(start // each, b"record %d" % (start // each)))
    return files


def held(files):
    return [int(position) for _, some in files.scan(0) for position in some["position"]]


def test_a_restart_finds_the_rows_and_the_record_of_the_log_that_they_end_with(tmp_path):
    filled(tmp_path, 63).close()
    files = SeenFiles.open(tmp_path, **SMALL)
    assert files.stamp == Stamp.of(12, b"record 12") != Stamp.of(12, b"another")
    assert held(files) == list(range(63))
    assert files.append(rows(63, 64)) == 63
    assert files.take(np.array([63, 0, 62, 17]))["digest"].tolist() == [63, 0, 62, 17]


def test_what_came_after_the_last_commit_is_cut_off(tmp_path):
    files = filled(tmp_path, 20)
    files.append(rows(20, 60))
    files.close()
    again = SeenFiles.open(tmp_path, **SMALL)
    assert (again.stamp.position, held(again)) == (3, list(range(20)))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.rows")) == 20 * ROW.itemsize


def test_few_rows_wait_for_a_stamp_until_there_are_enough_or_the_folder_is_closed(tmp_path):
    files = filled(tmp_path, 14, stamp_rows=10)
    assert files.stamp.position == 1
    files.append(rows(14, 20))
    files.close()
    again = SeenFiles.open(tmp_path, **SMALL)
    assert (again.stamp.position, held(again)) == (2, list(range(14)))


@pytest.mark.parametrize("kind", ["rows", "stamps"])
@pytest.mark.parametrize("how", ["torn", "changed"])
def test_a_damaged_file_ends_what_is_covered_and_goes_on_from_there(tmp_path, kind, how):
    filled(tmp_path, 64).close()
    path = tmp_path / f"{32:015d}.{kind}"  # rows 32 to 47: four stamps, the second for rows 35 to 39
    at = 6 * ROW.itemsize if kind == "rows" else path.stat().st_size * 3 // 8
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw[:at] if how == "torn" else raw)
    files = SeenFiles.open(tmp_path, **SMALL)
    assert (files.stamp.position, held(files)) == (6, list(range(35)))
    assert not list(tmp_path.glob(f"{48:015d}.*"))
    files.append(rows(35, 70))
    files.save(Stamp(13, 0))
    files.close()
    assert held(SeenFiles.open(tmp_path, **SMALL)) == list(range(70))


def test_a_commit_over_the_end_of_a_file_counts_only_when_both_files_hold(tmp_path):
    filled(tmp_path, 20).close()  # the last commit: rows 15 of one file, 16 to 19 of the next
    (tmp_path / f"{16:015d}.stamps").unlink()
    files = SeenFiles.open(tmp_path, **SMALL)
    assert (files.stamp.position, held(files)) == (2, list(range(16)))


def test_where_the_oldest_needed_file_is_missing_nothing_is_kept(tmp_path):
    filled(tmp_path, 64).close()
    (tmp_path / f"{0:015d}.rows").unlink()
    files = SeenFiles.open(tmp_path, **SMALL)
    assert (files.stamp, files.end, held(files)) == (None, 0, [])
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_files_of_another_shape_are_removed(tmp_path):
    filled(tmp_path, 64, file_rows=8).close()
    files = SeenFiles.open(tmp_path, **SMALL)
    assert (files.stamp, [path.name for path in tmp_path.iterdir()]) == (None, ["lock"])


def test_files_whose_rows_are_dropped_go_with_the_next_stamp_and_not_before(tmp_path):
    files = filled(tmp_path, 50)
    files.drop_before(33)
    assert len(list(tmp_path.glob("*.rows"))) == 4  # what drops them may still fail to commit
    files.append(rows(50, 51))
    files.save(Stamp(10, 0))
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [f"{at:015d}.{kind}" for at in (32, 48) for kind in ("rows", "stamps")]
    files.close()
    again = SeenFiles.open(tmp_path, **SMALL)
    assert (again.first, held(again)) == (33, list(range(33, 51)))


def test_what_an_uncommitted_batch_dropped_is_there_again(tmp_path):
    files = filled(tmp_path, 50)
    files.append(rows(50, 55))
    files.drop_before(45)
    files.close()
    assert held(SeenFiles.open(tmp_path, **SMALL)) == list(range(50))


def test_a_folder_that_another_process_holds_is_left_alone(tmp_path):
    first = filled(tmp_path, 20)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    second = SeenFiles.open(tmp_path, **SMALL)
    assert (second.directory, second.stamp) == (None, None)
    second.append(rows(0, 40))
    second.save(Stamp(9, 0))
    assert second.take(np.array([3, 39]))["position"].tolist() == [3, 39]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    first.close()
    assert SeenFiles.open(tmp_path, **SMALL).directory == tmp_path


def test_without_a_folder_memory_holds_so_many_rows_and_nameless_files_the_rest():
    files = SeenFiles.open(**SMALL)
    for start in range(0, 1000, 25):
        files.append(rows(start, start + 25))
    assert len(files._recent) == 10
    numbers = np.random.default_rng(1).permutation(1000)
    assert files.take(numbers)["high"].tolist() == numbers.tolist()
    files.drop_before(992)
    assert list(files._files) == [62]
    assert files.take(np.arange(992, 1000))["low"].tolist() == list(range(992, 1000))
    files.close()


def test_files_of_another_log_are_forgotten(tmp_path):
    files = filled(tmp_path, 40)
    files.clear()
    assert (files.stamp, files.end, held(files)) == (None, 0, [])
    files.append(rows(0, 7))
    files.save(Stamp(0, 1))
    files.close()
    again = SeenFiles.open(tmp_path, **SMALL)
    assert (again.stamp, held(again)) == (Stamp(0, 1), list(range(7)))


def test_a_full_disk_is_told_with_its_remedy(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = SeenFiles.open(tmp_path, **SMALL)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SinkError, match=r"No space left on device.*free some space.*rebuilt from the log"):
        files.append(rows(0, 30))


def test_rows_that_go_missing_in_use_are_an_error_and_never_a_new_identity(tmp_path):
    files = filled(tmp_path, 40)
    os.truncate(tmp_path / f"{0:015d}.rows", 100)
    with pytest.raises(FilesDamaged, match="start again, they are rebuilt from the log"):
        files.take(np.array([2, 3]))


def judged(seen, files, start, end):
    ids = np.arange(start, end)
    keys = np.stack([ids, ids], axis=1).astype(np.uint64)
    verdicts = seen.judge(keys, ids.astype(np.uint64), ids, ids, ids)
    files.save(Stamp(end, 0))
    return set(verdicts.kind.tolist())


def with_tables(folder):
    """4,000 identities in parts of 100 and more, and the names of the tables kept of them."""
    files = SeenFiles.open(folder)
    seen = Seen(10**6, files, least=100, most=1000)
    for start in range(0, 4000, 50):
        assert judged(seen, files, start, start + 50) == {NEW}
    assert [part.first for part in seen._parts] == [0, 100, 300, 700, 1500, 2500, 3500]
    files.close()
    return sorted(folder.glob("*.table"))


def test_tables_of_closed_parts_save_entering_their_rows_again(tmp_path):
    assert len(with_tables(tmp_path)) == 6
    files = SeenFiles.open(tmp_path)
    files.scan, scanned = lambda start: iter(()), files.scan  # no row of a kept table is read
    seen = Seen(10**6, files, least=100, most=1000)
    assert len(seen) == 3500
    assert judged(seen, files, 0, 3500) == {DUPLICATE}
    assert [number for number, _ in scanned(3500)] == [3500]


@pytest.mark.parametrize("how", ["torn", "changed", "immense", "deleted"])
def test_a_damaged_table_costs_time_and_no_identity(tmp_path, how):
    path = with_tables(tmp_path)[2]
    raw = bytearray(path.read_bytes())
    raw[62 if how == "immense" else len(raw) // 2] ^= 1  # byte 62: of the number of its slots
    path.unlink()
    if how != "deleted":
        path.write_bytes(raw[:-9] if how == "torn" else raw)
    files = SeenFiles.open(tmp_path)
    assert [int(table.facts[1]) for table in files.tables()] == [0, 100]
    seen = Seen(10**6, files, least=100, most=1000)
    assert judged(seen, files, 0, 4000) == {DUPLICATE}


def test_a_table_over_rows_that_were_cut_off_is_removed(tmp_path):
    paths = with_tables(tmp_path)
    rows_file = next(tmp_path.glob("*.rows"))
    os.truncate(rows_file, 2600 * ROW.itemsize)
    os.truncate(rows_file.with_suffix(".stamps"), 0)
    files = SeenFiles.open(tmp_path)
    assert (files.end, files.tables(), list(tmp_path.glob("*.table"))) == (0, [], [])
    assert len(paths) == 6


def test_tables_of_another_log_are_forgotten(tmp_path):
    with_tables(tmp_path)
    files = SeenFiles.open(tmp_path)
    files.clear()
    assert (files.tables(), [path.name for path in tmp_path.iterdir()]) == ([], ["lock"])
    assert judged(Seen(10**6, files), files, 0, 50) == {NEW}


def test_a_table_goes_with_its_rows(tmp_path):
    with_tables(tmp_path)
    files = SeenFiles.open(tmp_path)
    seen = Seen(1000, files, least=100, most=1000)
    seen.sweep(3600)
    seen.restore(Entries(np.zeros((9000, 2), np.uint64), *[np.full(9000, 3600)] * 3))
    files.save(Stamp(9000, 0))
    files.close()
    assert sorted(path.name for path in tmp_path.glob("*.table")) == [f"{at:015d}.table" for at in (2500, 3500)]


WRITE = """
import sys
from pathlib import Path
from sinks.seen_files import SeenFiles
from sinks.seen_stamps import Stamp
from tests.unit.test_dedup_files import rows
files = SeenFiles.open(Path(sys.argv[1]), memory_rows=1000, file_rows=5000, stamp_rows=1)
while True:
    end = files.end + 700
    files.append(rows(files.end, end))
    files.save(Stamp(end, 0))
    if end > 20_000:
        files.drop_before(end - 20_000)
    print("saved", flush=True)
"""


def _between_two_files(files):
    """Killed when the end of one file was stamped and the beginning of the next was not: its last rows are remembered twice, the log has them."""
    return files.end % 5000 == 0 and files.end - 700 < files.stamp.position < files.end


@pytest.mark.kill
def test_a_killed_process_leaves_what_its_last_stamp_says(tmp_path):
    rnd, ends = random.Random(7), [0]
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITE, tmp_path], stdout=subprocess.PIPE, text=True)
        for _ in range(rnd.randrange(1, 60)):
            assert process.stdout.readline() == "saved\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        files = SeenFiles.open(tmp_path, memory_rows=1000, file_rows=5000, stamp_rows=1)
        assert held(files) == list(range(files.first, files.end))
        assert files.stamp is None or files.stamp.position == files.end or _between_two_files(files)
        ends.append(files.end)
        files.close()
    assert all(after >= before + 700 for before, after in zip(ends, ends[1:], strict=False))
