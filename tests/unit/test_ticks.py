"""Ticks by hand: when one counts, how they are looked for, and who holds them back."""

import pyarrow as pa

from flows import tick_topic
from flows import token as tokens
from flows.tick_topic import LOOK_SECONDS, TickTopic
from flows.token import Token
from sinks.ingress import Ingress
from sources.files import TopicReader
from tests.flow.test_ticks import at, tick
from tieout import ticks
from tieout.ticks import Pending, Tick
from tieout.usage import NO_CLOCK


def test_a_tick_counts_once_and_only_when_all_is_read_that_was_there_when_it_was_seen():
    pending = Pending()
    assert pending.take(0) is None
    pending.see(Tick(700, 700, 1), 10)
    assert (pending.take(4), pending.take(9), pending.due) == (None, None, False)
    pending.reached = 10
    assert pending.due
    assert (pending.take(10), pending.take(10), pending.due) == (Tick(700, 700, 1), None, False)


def test_the_tick_of_a_minute_says_which_and_has_an_id_of_its_own():
    command = ticks.command(ticks.minute_of(at("2026-11-25T13:34:58.123456Z")))
    assert (command.kind, command.subject_type, command.subject_id, command.at) == ("tick", "clock", "2026-11-25T13:34Z", at("2026-11-25T13:34:00Z"))
    assert command.signature is None


def topic(root, **more):
    now = [0.0]
    reader = TopicReader(root, "governance.command.v1", 0)
    return TickTopic(reader, steady=lambda: now[0], **more), now


def test_ticks_are_looked_for_now_and_then_for_all_partitions_at_once(tmp_path):
    Ingress.open(tmp_path, 1).close()
    found, now = topic(tmp_path)
    assert found.after(0) is None
    tick(tmp_path, "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z")
    assert found.after(0) is None
    now[0] = LOOK_SECONDS
    first = found.after(0)
    assert (first.instant, first.position) == (at("2026-01-01T00:01:00Z"), 2)
    assert (found.after(1), found.after(2)) == (first, None)
    tick(tmp_path, "2026-01-01T00:02:00Z")
    assert found.after(2) is None
    now[0] = 2 * LOOK_SECONDS
    assert found.after(2).position == 3


class Feeding:
    def __init__(self, *clocks):
        self.clocks = clocks

    def values(self):
        return [None if clock is None else tokens.encode(Token("route", 0, 1, clock=clock)) for clock in self.clocks]

    def close(self):
        pass


def test_the_least_clock_of_a_flow_is_that_of_its_slowest_partition_and_unknown_while_one_is():
    assert tick_topic.least_clock(Feeding(7_000_000, 5_000_000, 6_000_000)) == 5_000_000
    assert tick_topic.least_clock(Feeding(7_000_000, None)) == NO_CLOCK
    assert tick_topic.least_clock(Feeding(7_000_000, NO_CLOCK)) == NO_CLOCK


def test_a_tick_beyond_the_clock_of_a_feeding_flow_is_not_shown_until_that_has_come_so_far(tmp_path):
    Ingress.open(tmp_path, 1).close()
    tick(tmp_path, *(f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00Z" for minute in range(200)))
    feeding = Feeding(at("2026-01-01T00:03:59Z"), None)
    found, now = topic(tmp_path, feeding=feeding)
    assert found.after(0) is None
    feeding.clocks = (at("2026-01-01T00:03:59Z"), at("2026-01-01T03:00:00Z"))
    now[0] += LOOK_SECONDS
    assert found.after(0) == Tick(at("2026-01-01T00:03:00Z"), at("2026-01-01T00:03:00Z"), 4)
    feeding.clocks = (at("2026-01-01T05:00:00Z"),) * 2
    now[0] += LOOK_SECONDS
    assert found.after(4).position == 200


def test_a_record_among_the_commands_that_cannot_be_read_is_no_tick(tmp_path):
    Ingress.open(tmp_path, 1).close()
    tick(tmp_path, "2026-01-01T00:00:00Z")
    ingress = Ingress.open(tmp_path, 1)
    reader = TopicReader(tmp_path, "governance.command.v1", 0)
    reader.refresh()
    good = reader.read(0, 1)
    broken = good.set_column(1, good.schema.field(1), pa.array([b"\0\0\0\0\x0e\xff"], pa.large_binary()))
    ingress.append("governance.command.v1", {0: broken}, "broken")
    ingress.close()
    assert tick_topic.newest(reader, 0, reader.refresh()).position == 1
