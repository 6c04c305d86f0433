"""Topics of a folder that several writers add to: one run of positions without a gap, whoever writes, merges or dies."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import topics
from schemas import segments
from sinks.files import MERGE_FROM, PartitionWriter
from sources.errors import SourceError
from sources.files import TopicReader, list_topics

SHARED, OWN = topics.EXCEPTIONS, topics.RATED


def records(*values):
    return segments.records(pa.array([str(value).encode() for value in values], pa.large_binary()), None, np.zeros(len(values), np.int64))


def writer(root, name, partition=0):
    return PartitionWriter.open(root, name, partition)


def read(root, topic=SHARED, partition=0):
    reader = TopicReader(root, topic, partition)
    end = reader.refresh()
    lot = reader.lot(reader.start, end)
    assert lot.positions.tolist() == list(range(end))
    return [value.decode() for value in lot.records["value"].to_pylist()]


def test_the_shared_topics_are_those_of_several_flows():
    assert {topics.CONTRACTS, topics.EXCEPTIONS} == segments.SHARED


def test_records_of_several_writers_follow_each_other_in_the_order_of_their_commits(tmp_path):
    one, two, whole = writer(tmp_path, "one"), writer(tmp_path, "two"), writer(tmp_path, "all-of-it", None)
    one.commit(1, {SHARED: records("a", "b"), OWN: records("x")})
    whole.commit(1, {f"{SHARED}/0": records("c"), f"{SHARED}/1": records("elsewhere"), "_tieout.t.token": records("t")})
    two.commit(1, {SHARED: records("d")})
    one.commit(2, {SHARED: records("e")})
    whole.commit(2, {f"{SHARED}/0": records("f", "g")})
    assert read(tmp_path) == ["a", "b", "c", "d", "e", "f", "g"]
    assert read(tmp_path, partition=1) == ["elsewhere"]
    assert (read(tmp_path, OWN), read(tmp_path, "_tieout.t.token")) == (["x"], ["t"])
    sizes = {(topic, partition): (start, end) for topic, partition, start, end, _ in list_topics(tmp_path)}
    assert sizes == {(SHARED, 0): (0, 7), (SHARED, 1): (0, 1), (OWN, 0): (0, 1), ("_tieout.t.token", 0): (0, 1)}


def test_a_writer_that_is_opened_again_goes_on_behind_the_others(tmp_path):
    one = writer(tmp_path, "one")
    one.commit(1, {SHARED: records("a")})
    one.close()
    two = writer(tmp_path, "two")
    two.commit(1, {SHARED: records("b")})
    again = writer(tmp_path, "one")
    again.commit(2, {SHARED: records("c")})
    assert read(tmp_path) == ["a", "b", "c"]


def test_a_reader_sees_what_comes_while_it_stays_open(tmp_path):
    one, two, reader = writer(tmp_path, "one"), writer(tmp_path, "two"), TopicReader(tmp_path, SHARED, 0)
    for number in range(1, 6):
        one.commit(number, {SHARED: records(number)})
        two.commit(number, {SHARED: records(-number)})
        assert reader.refresh() == 2 * number
        assert [int(value) for value in reader.read(2 * number - 2, 2)["value"].to_pylist()] == [number, -number]


def test_what_stands_behind_a_gap_is_left_to_the_next_look(tmp_path):
    """A reader may list one writer before a commit and another after a later one."""
    one, two = writer(tmp_path, "one"), writer(tmp_path, "two")
    one.commit(1, {SHARED: records("a")})
    two.commit(1, {SHARED: records("b")})
    one.commit(2, {SHARED: records("c")})
    hidden = tmp_path / "hidden"
    (tmp_path / "two" / "0000" / segments.commit_name(1, 1)).rename(hidden)
    reader = TopicReader(tmp_path, SHARED, 0)
    assert reader.refresh() == 1
    hidden.rename(tmp_path / "two" / "0000" / segments.commit_name(1, 1))
    assert reader.refresh() == 3


def test_a_topic_that_is_not_shared_still_has_one_writer(tmp_path):
    writer(tmp_path, "one").commit(1, {OWN: records("a")})
    writer(tmp_path, "two").commit(1, {OWN: records("b")})
    with pytest.raises(SourceError, match="2 writers under .*; a topic has one"):
        TopicReader(tmp_path, OWN, 0).refresh()


def test_small_commits_are_put_together_as_far_as_no_other_writers_records_lie_between(tmp_path):
    one, two, whole = writer(tmp_path, "one"), writer(tmp_path, "two"), writer(tmp_path, "w", None)
    expected = []
    for number in range(1, MERGE_FROM + 6):
        one.commit(number, {SHARED: records(f"a{number}"), OWN: records(number)})
        expected.append(f"a{number}")
        if number == 5:
            two.commit(1, {SHARED: records("between")})
            expected.append("between")
    assert one.merge()
    assert read(tmp_path) == expected
    assert read(tmp_path, OWN) == [str(number) for number in range(1, MERGE_FROM + 6)]
    assert len(segments.commits(one.directory)) == 6
    one.commit(MERGE_FROM + 6, {SHARED: records("last")})
    assert read(tmp_path) == [*expected, "last"]
    for number in range(1, MERGE_FROM + 1):
        whole.commit(number, {f"{SHARED}/1": records(number), "_tieout.w.token": records(number)})
    assert whole.merge() and len(segments.commits(whole.directory)) == 1
    assert read(tmp_path, partition=1) == read(tmp_path, "_tieout.w.token") == [str(number) for number in range(1, MERGE_FROM + 1)]
    whole.commit(MERGE_FROM + 1, {f"{SHARED}/1": records("last")})
    assert read(tmp_path, partition=1)[-1] == "last"


def test_what_another_writer_has_merged_counts_as_it_did(tmp_path):
    one, two = writer(tmp_path, "one"), writer(tmp_path, "two")
    two.commit(1, {SHARED: records("z")})
    for number in range(1, MERGE_FROM + 1):
        one.commit(number, {SHARED: records(number)})
    assert one.merge()
    two.commit(2, {SHARED: records("end")})
    assert read(tmp_path) == ["z", *(str(number) for number in range(1, MERGE_FROM + 1)), "end"]


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.unit.test_shared_topics import SHARED, records, writer
one = writer(Path(sys.argv[1]), sys.argv[2])
for number in range(1, 131):
    one.commit(number, {SHARED: records(f"{sys.argv[2]}{number}")})
    if number % 64 == 0:
        one.merge()
"""


def test_processes_that_write_at_once_leave_no_gap_and_nothing_twice(tmp_path):
    root = str(Path(__file__).parents[2])
    running = [subprocess.Popen([sys.executable, "-c", WRITE, str(tmp_path), name, root], cwd=root) for name in "abc"]
    reader, seen = TopicReader(tmp_path, SHARED, 0), []
    while any(process.poll() is None for process in running):
        end = reader.refresh()
        assert end >= len(seen)
        seen += [value.decode() for value in reader.read(len(seen), end - len(seen))["value"].to_pylist()]
    assert [process.returncode for process in running] == [0, 0, 0]
    whole = read(tmp_path)
    assert whole[: len(seen)] == seen
    assert [[value for value in whole if value[0] == name] for name in "abc"] == [[f"{name}{number}" for number in range(1, 131)] for name in "abc"]
