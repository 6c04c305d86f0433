"""Runs of rated records: what lies in files is let go and is there again, and a search touches one block of it."""

import numpy as np
import pyarrow as pa
import pytest

from flows import rated_runs
from flows.rated_runs import Place, Run


@pytest.mark.parametrize("block", [1, 2, 7, 1024])
@pytest.mark.parametrize("distinct", [1, 5, 10_000])
def test_marks_lead_to_the_place_that_a_search_of_the_whole_stretch_finds(monkeypatch, block, distinct):
    monkeypatch.setattr(rated_runs, "_BLOCK", block)
    random = np.random.default_rng(block * distinct)
    for size in (0, 1, block, 3 * block, 3 * block + 1):
        values = np.sort(random.integers(0, distinct, size))
        marks = rated_runs._marks(values)
        for first, last in {(0, size), (size // 3, size), (size // 3, size // 2), (size // 2, size // 2)}:
            for wanted in (-1, 0, distinct // 2, int(random.integers(0, distinct)), distinct):
                for side in ("left", "right"):
                    assert rated_runs._search(values, marks, first, last, wanted, side) == first + np.searchsorted(values[first:last], wanted, side)


def test_runs_put_together_in_files_answer_as_one_in_memory_before_and_after_they_are_let_go():
    random = np.random.default_rng(3)
    size = 5000
    columns = [random.integers(0, 3, size).astype(np.uint64), random.integers(0, 400, size), random.integers(0, 2**63, size).astype(np.uint64), np.arange(size)]
    keys = pa.RecordBatch.from_arrays([pa.array(column) for column in columns], names=["customer", "time", "identity", "position"])
    values = pa.array([f"record {number}".encode() for number in range(size)], pa.large_binary())
    memory = Run.of(keys, values)
    files = Run.joined([Run.of(keys.slice(at, 2000), values.slice(at, 2000)) for at in range(0, size, 2000)])
    for _ in range(2):
        for customer in range(4):
            for time in (0, 17, 380):
                place = Place(time, int(columns[2][time]))
                start, end = files.after(np.uint64(customer), place, 390)
                assert (start, end) == memory.after(np.uint64(customer), place, 390)
                assert files.values(start, end).equals(memory.values(start, end))
                assert files.until(start, end, Place(200, 5)) == memory.until(start, end, Place(200, 5))
        assert files.of_identities(columns[2][:50]) == memory.of_identities(columns[2][:50])
        files.let_go()
