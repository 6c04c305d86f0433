"""Looking into a run by marks: one block of a mapped column is touched, and the place is that of a search of all of it."""

import numpy as np
import pytest

from flows import rated_runs


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
