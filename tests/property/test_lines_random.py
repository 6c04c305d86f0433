"""Lines at hand are those that were made, whatever lines came before and whichever share a place."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tieout import ids
from tieout.rating.lines import Line, Lines
from tieout.rating.tariff_columns import SLOT_BITS

MONTH = 2_678_400_000_000
LINES = st.tuples(st.sampled_from([0, 1, 2, 8192, 8193, 16384]), st.sampled_from([0, 1, 7, 8, 16]), st.integers(0, 3))
"""Versions and charges of which several meet in a place, and the number of the period."""


def made(tariff, start):
    """What a line has, from the line alone."""
    correlation = ids.combine(ids.of_integers(tariff), ids.of_integers(start))
    return Line(tariff * 5 + start // MONTH, correlation, ids.combine(correlation, ids.of_integers(tariff)))


@given(st.lists(st.lists(LINES, max_size=12), min_size=1, max_size=6))
def test_what_a_line_has_is_its_own_and_is_not_made_twice_in_a_row(batches):
    lines = Lines()
    for batch in batches:
        tariff = np.array([version << SLOT_BITS | slot for version, slot, _ in batch], np.int64)
        start = np.array([number * MONTH for *_, number in batch], np.int64)
        for again in (False, True):
            asked = []
            found = lines.of(tariff, start, lambda rows: asked.extend(rows.tolist()) or made(tariff[rows], start[rows]))
            for mine, right in zip(found, made(tariff, start), strict=True):
                assert (mine == right).all()
            assert len(set(asked)) == len(asked) <= len(batch)
            if len(set(batch)) == 1:
                assert len(asked) <= (0 if again else 1)
