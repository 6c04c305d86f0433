"""The window over consecutive rows: when rejected rows pause a partition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieout.rejection import Rejects


def take(rejects, flags, sizes):
    """Feed the flags in batches; the row that paused, by a stage that looks at a batch at a time."""
    at = 0
    for size in sizes:
        batch = flags[at : at + size]
        numbers = np.flatnonzero(batch) + at
        last = rejects.take(numbers, ["bad"] * len(numbers), at + len(batch)) if len(numbers) else None
        if last is not None:
            return last
        at += size
    return None


def plainly(flags, rows, most):
    """Row by row: the first at which more than ``most`` of the last ``rows`` are rejected."""
    return next((at for at in range(len(flags)) if sum(flags[max(0, at - rows + 1) : at + 1]) > most), None)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.booleans(), max_size=120), st.integers(1, 12), st.data())
def test_it_pauses_at_the_same_row_however_rows_are_batched(flags, rows, data):
    most = data.draw(st.integers(1, rows))
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=120, max_size=120))
    assert take(Rejects(rows, most), flags, sizes) == plainly(flags, rows, most)


def test_a_tenth_of_ten_thousand_rows_passes_and_one_more_pauses():
    flags = np.zeros(30_000, np.bool_)
    flags[5_000:15_000:10] = True
    assert take(Rejects(), flags, [7_000] * 5) is None
    flags[14_999] = True
    rejects = Rejects()
    assert take(rejects, flags, [7_000] * 5) == 14_999
    assert (rejects.paused, len(rejects.numbers), rejects.span) == (True, 1_001, 10_000)


def test_it_pauses_as_soon_as_it_is_decided_even_in_the_first_rows():
    assert take(Rejects(), np.ones(25_000, np.bool_), [25_000]) == 1_000


def test_rejected_rows_that_lie_further_apart_never_pause():
    flags = np.zeros(200_000, np.bool_)
    flags[::11] = True
    assert take(Rejects(), flags, [25_000] * 8) is None


def test_a_released_window_starts_anew():
    rejects = Rejects(10, 2)
    assert rejects.take(np.array([3, 4, 5]), ["late", "late", "torn"], 10) == 5
    assert rejects.by_reason() == {"late": 2, "torn": 1}
    rejects.release()
    assert (rejects.paused, rejects.by_reason(), rejects.span) == (False, {}, 0)
    assert rejects.take(np.array([6, 7]), ["torn", "torn"], 10) is None
    assert rejects.take(np.array([10]), ["torn"], 20) == 10


@pytest.mark.parametrize("cut", [0, 4, 9, 12, 15])
def test_a_window_put_back_goes_on_as_if_nothing_had_happened(cut):
    numbers = np.array([0, 2, 5, 9, 11, 14, 15, 16])
    first = Rejects(8, 3)
    assert first.take(numbers[numbers < cut], ["x"] * int((numbers < cut).sum()), cut) is None
    again = Rejects(8, 3)
    again.put_back(first.numbers, first.reasons, paused=first.paused)
    rest = numbers[numbers >= cut]
    assert again.take(rest, ["x"] * len(rest), 30) == plainly([at in set(numbers.tolist()) for at in range(30)], 8, 3) == 15
