"""The ticker on a real broker, and what ticks do to partitions to which nothing comes."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pytest

from flows import codecs, command_records, local_engine, rescale, route, route_topics, tick_topic, ticker, topics, usage
from flows import token as tokens
from flows.flow_metrics import FlowMetrics
from flows.kafka_heads import KafkaHeads
from flows.kafka_place import KafkaPlace
from flows.route_live import ROUTE
from flows.stack import loopback
from flows.usage_live import Live, LiveCell
from flows.verification import verify
from sinks.errors import Fenced
from tests.flow import folders
from tests.flow.test_usage_flow import event
from tests.kafka import installations
from tieout import ticks
from tieout.usage import NO_CLOCK
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
RAW = 3


def now():
    return time.time_ns() // 1000


def tick(place, minute):
    """A tick that can be read when this returns."""
    log = place.fence(ticker.NAME, 0)
    log.commit(0, {topics.COMMANDS: command_records.record(ticks.command(minute))}, {}, None)
    log.close()
    reader = place.written(topics.COMMANDS, 0)
    reader.refresh()
    reader.close()


def minutes(place):
    """The times of all ticks, in their order."""
    values = installations.values(place, topics.COMMANDS, 1)[0]
    batch = codecs.own("command").decode(pa.array(values, pa.large_binary())).batch
    assert set(batch["kind"].to_pylist()) <= {"tick"}
    return batch["at"].cast(pa.int64()).to_pylist()


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def start(broker, topic_prefix):
    """`start()`: a ticker as a process that has written its minute, and its health port."""
    running = []

    def begin():
        [port] = loopback.free(1)
        command = [
            sys.executable, "-m", "flows.cli", "run", "ticker", "--bootstrap", broker.bootstrap, "--installation", topic_prefix,
            "--topic-prefix", f"{topic_prefix}.", "--health-address", f"127.0.0.1:{port}", "--output", "ndjson",
        ]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        until(lambda: loopback.get(port, "/health") is not None)
        return running[-1]

    try:
        yield begin
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_ticker_moves_idle_partitions_and_killed_it_writes_no_minute_twice(broker, topic_prefix, start):
    place = installations.make(broker.bootstrap, topic_prefix)
    installations.put(place, [event("a"), event("b", customer="k3")], [folders.contract("k0"), folders.contract("k3")])
    before = installations.drain(place)
    stop, seen = Event(), []
    cell = LiveCell(place, [0, 1], Live(), FlowMetrics("usage", [0, 1]), local_engine.run, stop.is_set, seen.append)
    running = Thread(target=cell.attempt)
    running.start()
    first = ticks.minute_of(now())
    try:
        for _ in range(3):
            start().kill()
        last = start()
        until(lambda: all(cell.tokens.get(p) and cell.tokens[p].clock >= first for p in (0, 1)))
    finally:
        stop.set()
        running.join(30)
    found = minutes(place)
    assert found == sorted(set(found))
    assert found[0] >= first
    assert all(minute == ticks.minute_of(minute) for minute in found)
    last.send_signal(signal.SIGTERM)
    said, told = last.communicate(timeout=30)
    assert (last.returncode, told) == (0, "")
    assert said.strip() == f'{{"minute": "{ticks.command(minutes(place)[-1]).subject_id}"}}'
    for partition in (0, 1):
        moved = cell.tokens[partition]
        assert moved.clock in found
        assert before[partition].sequence < moved.sequence <= before[partition].sequence + len(found)  # a commit for a tick, none for a look
        assert moved.totals == before[partition].totals
        assert verify(place, partition)["breaks"] == []
    assert {token.clock for token in installations.drain(place).values()} == {minutes(place)[-1]}


def test_a_second_ticker_ends_the_first(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    moment = [ticks.minute_of(now()) - 10 * ticks.MINUTE]
    said = []

    def another_comes(seconds):
        assert 0 < seconds <= 60
        moment[0] += ticks.MINUTE
        if len(said) == 2:
            place.fence(ticker.NAME, 0).close()
        return False

    with pytest.raises(Fenced, match="another process has taken"):
        ticker.keep_ticking(place, lambda: moment[0], another_comes, said.append)
    assert minutes(place) == said == [said[0], said[0] + ticks.MINUTE]
    assert ticker.written(place) == said[-1]


def test_a_ticker_whose_clock_runs_ahead_moves_no_clock_beyond_the_brokers(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    before = now()
    tick(place, ticks.minute_of(now()) + 60 * ticks.MINUTE)
    found = installations.drain(place)
    assert all(before - 1000 <= token.clock <= now() for token in found.values())
    assert all(token.counts["received"] == 0 for token in found.values())


def test_a_tick_waits_behind_usage_that_was_there_before_it(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    usage_ = [event(f"e{i}", customer=f"k{i % 4}", time=f"2026-01-{i % 9 + 2:02}T00:00:00Z") for i in range(200)]
    installations.put(place, usage_, [folders.contract(f"k{i}") for i in range(4)])
    minute = ticks.minute_of(now())
    tick(place, minute)
    found = installations.drain(place, rows=20)
    assert sum(token.totals["priced"] for token in found.values()) == 200
    assert {token.clock for token in found.values()} == {minute}
    for partition in range(2):
        clocks = [token.clock for token in tokens.all_of(place.reader(usage.TOKEN, partition))]
        assert len(clocks) >= 3
        assert max(clocks[:-1]) < minute


def test_behind_a_route_ticks_count_when_every_raw_partition_has_come_so_far(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    routing = KafkaPlace(place.settings, place.installation, place.prefix, flow="route")
    route_topics.create(place.admin, place.prefix, RAW, 1, Limits())
    until(lambda: route.TOKEN in place.topics())
    minute = ticks.minute_of(now())
    tick(place, minute)
    assert {token.clock for token in installations.drain(place).values()} == {NO_CLOCK}
    for mine in ([0, 2], [0, 1, 2]):
        cell = LiveCell(routing, mine, Live(drain=True), FlowMetrics("route", mine, fates=route.FATES), local_engine.run, lambda: False, print, flow=ROUTE)
        cell.attempt()
        assert {token.clock for token in cell.tokens.values()} == {minute}
        assert {token.positions[tick_topic.NAME] for token in cell.tokens.values()} == {1}
        assert {token.clock for token in installations.drain(place).values()} == {minute if len(mine) == RAW else NO_CLOCK}
    assert {token.sequence for token in cell.tokens.values()} == {1}  # the same tick is committed once


def test_the_last_records_of_a_topic_are_found_behind_marks_and_followed(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    assert place.heads("no.such.topic") is None
    heads = place.heads(usage.TOKEN)
    assert isinstance(heads, KafkaHeads)
    assert heads.values() == [None, None]
    installations.put(place, [event("a")], [folders.contract("k0")])
    last = installations.drain(place)
    written = {p: tokens.encode(token) for p, token in last.items() if token.sequence}
    until(lambda: {p: value for p, value in enumerate(heads.values()) if value} == written)
    later = place.heads(usage.TOKEN)
    assert {p: value for p, value in enumerate(later.values()) if value} == written
    for one in (heads, later, later):
        one.close()


def test_another_number_of_cells_after_ticks_and_waivers_have_counted(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    tick(place, ticks.minute_of(now()))
    before = installations.drain(place)
    assert all({tick_topic.NAME, command_records.WAIVERS} < token.positions.keys() for token in before.values())
    assert rescale.rescale(place, "usage", 2, 1) == 2
    assert [token.positions for token in installations.drain(place).values()] == [token.positions for token in before.values()]
