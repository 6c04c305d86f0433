"""Clocks with ticks against a dull oracle, row by row: whatever arrives when, and however it is cut into intervals."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.tick_topic import PartitionTicks
from tieout import ticks
from tieout.ticks import Tick
from tieout.usage import NO_CLOCK, clocks

arrival = st.one_of(
    st.tuples(st.just("row"), st.integers(-40, 5)),  # event time against now
    st.tuples(st.just("tick"), st.integers(-2, 30)),  # its own time against now: a wrong writer's is ahead
    st.tuples(st.just("read"), st.integers(1, 6)),  # so many rows at most are read as one interval
    st.tuples(st.just("read"), st.just(0)),  # an interval without rows, where nothing is left to read
)


class Topics:
    """What has arrived by now; each arrival takes an instant."""

    def __init__(self):
        self.now, self.rows, self.ticks = 100, [], []

    def put(self, what, apart):
        self.now += 1
        (self.rows if what == "row" else self.ticks).append((self.now + apart, self.now))

    def after(self, position):
        if len(self.ticks) <= position:
            return None
        at, record = self.ticks[-1]
        return Tick(min(at, record), at, len(self.ticks))


class Partition:
    """Intervals by columns, as the flows fold them; ``intervals`` are what a token would say: (rows until, ticks until)."""

    def __init__(self):
        self.clock, self.read, self.counted, self.ticks = NO_CLOCK, 0, 0, PartitionTicks(None, None)
        self.by_row, self.intervals = [], []

    def interval(self, topics, rows):
        lot = topics.rows[self.read : self.read + rows]
        self.ticks.topic, self.ticks.end = topics, lambda: len(topics.rows)
        tick = self.ticks.before(SimpleNamespace(positions=range(self.read, self.read + len(lot)), end=self.read), self.counted, self.clock)
        if tick is not None:
            assert tick.instant > self.clock
            self.clock, self.counted = tick.instant, tick.position
        given_ = np.array(lot, np.int64).reshape(-1, 2)
        found = clocks(self.clock, given_[:, 0], given_[:, 1], np.ones(len(lot), np.bool_)).tolist()
        self.by_row += found
        self.clock = found[-1] if found else self.clock
        self.read += len(lot)
        self.ticks.read(self.read)
        self.intervals.append((self.read, self.counted))


def dull(topics, intervals):
    """The clock at every row by the tokens: a tick counts where its interval begins, then row after row."""
    clock, read, counted, by_row = NO_CLOCK, 0, 0, []
    for until, ticked in intervals:
        if ticked > counted:
            clock = max(clock, min(topics.ticks[ticked - 1]))
        for row in topics.rows[read:until]:
            clock = max(clock, min(row))
            by_row.append(clock)
        read, counted = until, ticked
    return by_row, clock


@settings(deadline=None, max_examples=300)
@given(st.lists(arrival, max_size=80))
def test_clocks_equal_the_oracles_row_by_row_and_no_tick_overtakes_what_was_there_before_it(work):
    topics, partition = Topics(), Partition()
    arrived = []
    for what, number in work:
        if what != "read":
            arrived += [len(topics.ticks)] if what == "row" else []
            topics.put(what, number)
        elif number or partition.read == len(topics.rows):
            partition.interval(topics, number)
    while partition.read < len(topics.rows) or partition.ticks.due:
        partition.interval(topics, 3)
    assert (partition.by_row, partition.clock) == dull(topics, partition.intervals)
    for row, ticks_before in enumerate(arrived):
        # a row sees the ticks that were recorded before it came, and those of rows before it, nothing newer
        seen = [min(tick) for tick in topics.ticks[:ticks_before]] + [min(other) for other in topics.rows[: row + 1]]
        assert partition.by_row[row] <= max(seen)
        assert partition.by_row[row] <= topics.rows[row][1]  # so never ahead of its record time
    partition.interval(topics, 0)  # a last look
    partition.interval(topics, 0)
    if topics.ticks:
        assert partition.clock >= min(topics.ticks[-1])


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30), st.integers(0, 60), st.lists(st.integers(1, 29), max_size=6))
def test_the_cut_of_an_interval_into_batches_changes_no_clock(rows, tick, cuts):
    whole = clocks(tick, *np.array(rows, np.int64).T, np.ones(len(rows), np.bool_)).tolist()
    found, clock = [], tick
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, end in zip(edges, edges[1:], strict=False):
        part = np.array(rows[start:end], np.int64)
        found += clocks(clock, part[:, 0], part[:, 1], np.ones(len(part), np.bool_)).tolist()
        clock = found[-1]
    assert found == whole


@given(st.integers(0, 10**16))
def test_the_tick_of_a_minute_is_the_same_whenever_in_the_minute_it_is_made(instant):
    minute = ticks.minute_of(instant)
    made = ticks.command(minute)
    assert minute <= instant < minute + ticks.MINUTE
    assert made == ticks.command(ticks.minute_of(minute + ticks.MINUTE - 1))
    assert made.command_id != ticks.command(minute + ticks.MINUTE).command_id
