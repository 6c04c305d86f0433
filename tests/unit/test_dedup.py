"""Identities in parts: sizes, expiry, what the log keeps of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows import usage_state
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Entries, Seen

DAY = 86_400_000_000
HORIZON = 35 * DAY


def judge(seen, ids, at, content=0, event_time=None):
    ids = np.asarray(ids, np.int64)
    keys = np.stack([ids, ids], axis=1).astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93)
    clock = np.full(len(ids), at)
    time = clock if event_time is None else np.full(len(ids), event_time)
    verdicts = seen.judge(keys, np.full(len(ids), content, np.uint64), time, clock, ids)
    seen.sweep(at)
    return verdicts


def fill(seen, days, each, start=0):
    for day in days:
        ids = np.arange(start + day * each, start + (day + 1) * each)
        assert (judge(seen, ids, day * DAY).kind == NEW).all()


def test_a_conflict_is_found_at_the_far_end_of_the_horizon_whatever_the_events_time():
    seen = Seen(HORIZON, least=64)
    fill(seen, range(36), 100)
    last = 35 * DAY
    assert judge(seen, [5], last, content=1, event_time=last - 20 * DAY).kind.tolist() == [CONFLICT]
    assert judge(seen, [5], last, content=0, event_time=last).kind.tolist() == [DUPLICATE]
    assert judge(seen, [5], last + 1, content=1).kind.tolist() == [NEW]


def test_what_the_horizon_has_passed_is_dropped_in_whole_parts():
    seen = Seen(HORIZON, least=64)
    fill(seen, range(400), 100)
    assert 35 * 100 <= len(seen) <= 35 * 100 * 3 // 2
    assert len(seen._parts) <= 6
    assert seen._store.first == seen._parts[0].first > 300 * 100


def test_after_a_long_silence_everything_is_new_and_nothing_is_left():
    seen = Seen(HORIZON, least=64)
    fill(seen, range(30), 100)
    seen.sweep(100 * DAY)
    assert (len(seen), seen._store.first) == (0, 3000)
    assert (judge(seen, np.arange(3000), 100 * DAY).kind == NEW).all()


def test_a_table_is_sized_after_the_rate_and_never_more_than_doubles():
    seen = Seen(HORIZON, least=64)
    fill(seen, range(100), 1000)
    capacities = [part.capacity for part in seen._parts]
    assert all(8750 <= capacity <= 2 * 8750 for capacity in capacities)
    burst = Seen(HORIZON, least=64)
    for first in range(0, 100_000, 50):
        judge(burst, np.arange(first, first + 50), 0)
    capacities = [part.capacity for part in burst._parts]
    assert all(after <= 2 * before for before, after in zip(capacities, capacities[1:], strict=False))
    assert sum(capacities) <= 3 * len(burst)


def test_the_next_table_is_ready_before_it_is_needed():
    seen = Seen(HORIZON, least=2000)
    ready = []
    for first in range(0, 40_000, 100):
        parts, coming = len(seen._parts), seen._next
        judge(seen, np.arange(first, first + 100), 0)
        if len(seen._parts) > parts:
            assert seen._parts[-1] is coming
            ready.append(coming._warm >= len(coming._prints))
    assert len(ready) >= 4
    assert all(ready)


def test_a_batch_larger_than_a_part_takes_a_part_of_its_own():
    seen = Seen(HORIZON, least=10)
    assert (judge(seen, np.arange(1000), 0).kind == NEW).all()
    assert (judge(seen, np.arange(500, 5000), 0).kind == np.repeat([DUPLICATE, NEW], [500, 4000])).all()
    assert len(seen) == 5000


def test_what_a_store_holds_is_remembered_and_fills_few_parts():
    seen = Seen(HORIZON, least=64)
    fill(seen, range(34), 1000)
    again = Seen(HORIZON, seen._store, least=64)
    assert len(again) == len(seen) == 34_000
    assert len(again._parts) <= 5 < len(seen._parts)
    assert (judge(again, np.arange(34_000), 34 * DAY).kind == DUPLICATE).all()


def test_nothing_to_judge_is_no_trouble():
    seen = Seen(HORIZON)
    assert judge(seen, [], 0).kind.tolist() == []
    seen.restore(judge(seen, [], 0).entries)
    assert len(seen) == 0
    assert usage_state.entries_blobs(judge(seen, [], 0).entries) == []


instants = st.integers(-(2**62), 2**62)


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), instants, instants), min_size=1, max_size=20))
def test_identities_come_back_from_the_log_as_they_went(rows):
    high, low, digest, remembered, position = zip(*rows, strict=True)
    entries = Entries(np.array([high, low], np.uint64).T, np.array(digest, np.uint64), np.array(remembered), np.array(position))
    blobs = usage_state.entries_blobs(entries)
    assert len(blobs) == 1
    for there, back in zip(entries, usage_state.entries_of(blobs[0]), strict=True):
        assert back.tolist() == there.tolist()


@pytest.mark.parametrize("rows", [1, 25_000, 100_000])
def test_identities_of_a_batch_are_blobs_that_a_broker_takes(rows):
    random = np.random.default_rng(1)
    keys = random.integers(0, 2**64, (rows, 2), np.uint64)
    clock = 1_767_225_600_000_000 + np.cumsum(random.integers(0, 40_000, rows))
    entries = Entries(keys, keys[:, 0] ^ keys[:, 1], clock, 10**9 + np.cumsum(random.integers(1, 3, rows)))
    blobs = usage_state.entries_blobs(entries)
    assert sum(map(len, blobs)) <= 29 * rows + 2000
    assert all(len(blob) <= 900_000 for blob in blobs)
    back = [usage_state.entries_of(blob) for blob in blobs]
    assert sum(len(some.position) for some in back) == rows
    assert all((np.concatenate(columns) == there).all() for columns, there in zip(zip(*back, strict=True), entries, strict=True))
