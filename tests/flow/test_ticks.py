"""Ticks in a folder: the clock of a partition to which nobody sends usage, and what follows from it."""

import pyarrow as pa
import pytest

from flows import cli, codecs, command_records, contract, exception_records, tick_topic, topics, usage
from flows import token as tokens
from flows.file_place import FilePlace
from flows.replay import replay
from flows.token import Token
from flows.verification import verify, verify_contract
from sinks.ingress import Ingress
from sources.files import TopicReader
from tests import governed
from tests.flow import folders, governed_folders
from tests.flow.test_usage_flow import ENGINES, counts, event, run
from tieout import ticks
from tieout.contracts import instant
from tieout.governance import Command
from tieout.period import micros
from tieout.usage_stage import DAY, Limits

OUTPUTS = (topics.RATED, topics.HOLDS, topics.EXCEPTIONS, usage.DEAD, usage.TOKEN)


def at(text):
    return micros(instant(text))


def tick(root, *moments):
    """The ticks of minutes, in the commands of a folder."""
    ingress = Ingress.open(root, FilePlace(root).partitions())
    for moment in moments:
        command = ticks.command(at(moment))
        ingress.append(topics.COMMANDS, {0: command_records.record(command)}, command.command_id)
    ingress.close()


def commands(root):
    reader = FilePlace(root).reader(topics.COMMANDS, 0)
    return reader.lot(0, 1000, reader.refresh())


def exceptions(root):
    values = folders.output(root, 1, topics.EXCEPTIONS)[0]
    return [(row["kind"], row["opened_at"]) for row in codecs.own("exception").decode(pa.array(values, pa.large_binary())).batch.to_pylist()]


def replayed(root, rows, partitions=1):
    return [done.different for partition in range(partitions) for done in replay(root, partition, Limits(), rows)]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_held_event_of_an_idle_partition_is_escalated_by_ticks_alone_after_seven_days(tmp_path, engine):
    folders.write(tmp_path, [event("a", customer="nobody")], [folders.contract("k0")], partitions=1)
    run(tmp_path, engine, partitions=1)
    tick(tmp_path, "2026-01-11T23:59:00Z")
    [token] = run(tmp_path, engine, partitions=1)
    assert (token.sequence, token.clock, exceptions(tmp_path)) == (2, at("2026-01-11T23:59:00Z"), [])
    tick(tmp_path, "2026-01-12T00:00:00Z")
    [token] = run(tmp_path, engine, partitions=1)
    assert (token.sequence, counts([token])["waiting"]) == (3, 1)
    assert exceptions(tmp_path) == [("hold_no_customer", instant("2026-01-12T00:00:00Z"))]
    [token] = run(tmp_path, engine, partitions=1)
    assert token.sequence == 3  # no new tick, nothing to commit
    assert replayed(tmp_path, 1) == [()] * 3
    assert verify(FilePlace(tmp_path), 0)["breaks"] == []


def test_both_engines_write_the_same_bytes_with_ticks_and_a_replay_by_the_tokens_too(tmp_path):
    usage_, contracts = folders.events(5, 1500, 6), [folders.contract(f"k{i}") for i in range(6)]
    for engine in ENGINES:
        root = tmp_path / engine
        folders.write(root, usage_[:700], contracts)
        tick(root, "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z")
        run(root, engine, rows=150)
        later = [event(f"later{i}", meter=folders.METERS[i % 6], time="2026-02-20T00:00:00Z", customer=f"k{i % 6}") for i in range(40)]
        folders.write(root, usage_[700:] + later, contracts)
        tick(root, "2026-04-02T00:00:00Z")
        found = run(root, engine, rows=150)
        assert {token.clock for token in found} == {at("2026-04-02T00:00:00Z")}
    for topic in OUTPUTS:
        assert folders.output(tmp_path / "local", topic=topic) == folders.output(tmp_path / "bytewax", topic=topic)
    for rows in (1, 137, 5000):
        assert set(replayed(tmp_path / "local", rows, 2)) == {()}
    assert counts(found)["rejected"] > 500  # what comes after the first of March from the middle of January is too late
    assert counts(found)["priced"] > 600


@pytest.mark.parametrize("rows", [1, 3, 25_000])
def test_a_backlog_never_becomes_too_late_by_a_tick_that_is_newer_than_it(tmp_path, rows):
    folders.write(tmp_path, [event(f"e{i}", time=f"2026-01-{i + 1:02}T00:00:00Z") for i in range(8)], [folders.contract("k0")], partitions=1)
    tick(tmp_path, "2026-06-01T00:00:00Z")
    [token] = run(tmp_path, rows=rows, partitions=1)
    assert counts([token]) == {"priced": 8, "duplicate": 0, "conflict": 0, "rejected": 0, "waiting": 0}
    assert token.clock == at("2026-06-01T00:00:00Z")
    clocks = [t.clock for t in tokens.all_of(TopicReader(tmp_path, usage.TOKEN, 0))]
    assert clocks[-2] == at("2026-01-08T00:00:00Z")
    folders.write(tmp_path, [event("late", time="2026-01-09T00:00:00Z")], [], partitions=1)
    [token] = run(tmp_path, rows=rows, partitions=1)
    assert counts([token])["rejected"] == 1
    assert set(replayed(tmp_path, 2)) == {()}


def test_a_level_that_is_carried_over_is_charged_in_a_period_that_only_a_tick_begins(tmp_path):
    folders.write(tmp_path, [event("a", meter="seats", quantity="3", time="2026-01-05T00:00:00Z")], [folders.contract("k0")], partitions=1)
    run(tmp_path, partitions=1)
    tick(tmp_path, "2026-03-01T00:01:00Z")
    run(tmp_path, partitions=1)
    sums = {}
    for row in folders.rated(tmp_path, 1):
        sums[row["billing_period"]] = sums.get(row["billing_period"], 0) + row["amount"]
    assert sums == {"2026-01": 21, "2026-02": 21, "2026-03": 21}
    assert set(replayed(tmp_path, 1)) == {()}


def test_a_partition_that_never_had_a_row_gets_its_clock_from_a_tick(tmp_path):
    Ingress.open(tmp_path, 2).close()
    tick(tmp_path, "2026-01-05T00:00:00Z")
    assert [(token.sequence, token.clock) for token in run(tmp_path)] == [(1, at("2026-01-05T00:00:00Z"))] * 2


def test_a_tick_that_moves_no_clock_commits_nothing(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")], partitions=1)
    first = run(tmp_path, partitions=1)
    tick(tmp_path, "2026-01-04T23:59:00Z", "2026-01-05T00:00:00Z")
    assert run(tmp_path, partitions=1) == first


def test_a_tick_counts_no_further_than_its_record_time(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")], partitions=1)
    forged = command_records.record(ticks.command(at("2036-01-01T00:00:00Z")))
    ingress = Ingress.open(tmp_path, 1)
    ingress.append(topics.COMMANDS, {0: forged.set_column(2, forged.schema.field(2), pa.array([at("2026-01-06T00:00:07Z")], pa.int64()))}, "forged")
    ingress.close()
    assert run(tmp_path, partitions=1)[0].clock == at("2026-01-06T00:00:07Z")


def test_a_tick_that_is_recorded_twice_changes_nothing_the_second_time(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")], partitions=1)
    tick(tmp_path, "2026-01-06T00:00:00Z")
    first = run(tmp_path, partitions=1)
    again = command_records.record(ticks.command(at("2026-01-06T00:00:00Z")))
    ingress = Ingress.open(tmp_path, 1)
    ingress.append(topics.COMMANDS, {0: again}, "again")
    ingress.close()
    assert run(tmp_path, partitions=1) == first


def test_behind_a_route_a_tick_waits_until_all_its_partitions_have_come_so_far(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")], partitions=1)
    tick(tmp_path, "2026-01-06T00:00:00Z", "2026-01-06T00:01:00Z", "2026-01-06T00:02:00Z")

    def route(partition, sequence, clock):
        log = FilePlace(tmp_path).fence("route", partition)
        log.commit(sequence, {topics.state_topics("route")[2]: tokens.record(Token("route", partition, sequence, clock=at(clock)))}, {}, None)
        log.close()

    route(1, 1, "2026-01-06T00:09:00Z")  # the first partition has not said anything yet
    assert run(tmp_path, partitions=1)[0].clock == at("2026-01-05T00:00:00Z")
    route(0, 1, "2026-01-06T00:01:30Z")
    [token] = run(tmp_path, partitions=1)
    assert (token.clock, token.positions[tick_topic.NAME]) == (at("2026-01-06T00:01:00Z"), 2)
    route(0, 2, "2026-01-06T00:02:00Z")
    [token] = run(tmp_path, partitions=1)
    assert (token.clock, token.positions[tick_topic.NAME]) == (at("2026-01-06T00:02:00Z"), 3)
    assert set(replayed(tmp_path, 1)) == {()}


def test_the_contract_flow_passes_ticks_over_and_folds_again_to_the_same_counts(tmp_path):
    governed_folders.make(tmp_path)
    tick(tmp_path, "2026-01-06T00:00:00Z")
    assert governed_folders.run(tmp_path).sequence == 0  # nothing but ticks: nothing to commit
    release = Command("release", command_records.PARTITION, "usage-0", "ops", governed.START, "mended")
    governed_folders.send(tmp_path, release)
    tick(tmp_path, "2026-01-06T00:01:00Z")
    token = governed_folders.run(tmp_path)
    assert (token.sequence, token.counts["received"], token.counts["other"]) == (1, 1, 1)
    assert token.positions[command_records.NAME] == 3
    assert governed_folders.run(tmp_path) == token
    assert [found for found in folders.output(tmp_path, 3, topics.EXCEPTIONS) if found] == []


def test_the_contract_flow_commits_for_ticks_alone_once_in_a_while_and_counts_none(tmp_path, monkeypatch):
    governed_folders.make(tmp_path)
    tick(tmp_path, "2026-01-06T00:00:00Z", "2026-01-06T00:01:00Z")
    monkeypatch.setattr(contract, "IDLE_SECONDS", 0.0)
    token = governed_folders.run(tmp_path)
    assert (token.sequence, token.positions[command_records.NAME], set(token.counts.values())) == (1, 2, {0})
    assert governed_folders.run(tmp_path) == token
    assert verify_contract(FilePlace(tmp_path))["breaks"] == []


def test_what_people_asked_for_is_read_without_the_ticks_between(tmp_path):
    Ingress.open(tmp_path, 1).close()
    release = Command("release", command_records.PARTITION, "usage-0", "ada", 5, "mended")
    waive = Command("waive", "hold", "h1", "ada", 6, "a test")
    tick(tmp_path, "2026-01-06T00:00:00Z")
    governed_folders.send(tmp_path, release)
    governed_folders.send(tmp_path, waive)
    tick(tmp_path, *(f"2026-01-06T{minute // 60:02}:{minute % 60:02}:00Z" for minute in range(1, 90)))
    reader = FilePlace(tmp_path).reader(topics.COMMANDS, 0)
    end = reader.refresh()
    assert [found.command for found in command_records.between(reader, 0, end)] == [release, waive]
    assert [found.command for found in command_records.about(reader, 0, end, "release", command_records.PARTITION)] == [release]
    acts, ignored = exception_records._acts(FilePlace(tmp_path))
    assert ([act.kind for act in acts], list(ignored)) == (["waive"], [])
    assert tick_topic.newest(reader, 0, end).at == at("2026-01-06T01:29:00Z")
    assert tick_topic.newest(reader, 0, end, at("2026-01-06T00:00:30Z")) == ticks.Tick(at("2026-01-06T00:00:00Z"), at("2026-01-06T00:00:00Z"), 1)
    assert tick_topic.newest(reader, 1, end, at("2026-01-06T00:00:30Z")) is None


def test_waived_holds_are_found_after_many_ticks_and_replayed(tmp_path):
    folders.write(tmp_path, [event("a", customer="nobody")], [folders.contract("k0")], partitions=1)
    tick(tmp_path, "2026-01-06T00:00:00Z")
    run(tmp_path, partitions=1)
    hold = codecs.own("hold").decode(pa.array(folders.output(tmp_path, 1, topics.HOLDS)[0], pa.large_binary())).batch["hold_id"][0].as_py()
    governed_folders.send(tmp_path, Command("waive", "hold", hold, "ada", 5, "a test"))
    tick(tmp_path, "2026-01-06T00:01:00Z")
    [token] = run(tmp_path, partitions=1)
    assert (counts([token])["rejected"], counts([token])["waiting"]) == (1, 0)
    tick(tmp_path, "2026-01-06T00:02:00Z")
    [token] = run(tmp_path, partitions=1)
    assert token.positions[command_records.WAIVERS] == token.positions[tick_topic.NAME] == 4
    assert set(replayed(tmp_path, 1)) == {()}


def test_the_ticker_gives_a_folder_the_tick_of_a_minute_once(tmp_path, monkeypatch, capsys):
    Ingress.open(tmp_path, 1).close()
    now = at("2026-01-06T00:00:59Z") * 1000
    monkeypatch.setattr("time.time_ns", lambda: now)
    assert [cli.main(["run", "ticker", "--dir", str(tmp_path), "--output", "ndjson"]) for _ in range(2)] == [0, 0]
    now += 1_000_000_000
    assert cli.main(["run", "ticker", "--dir", str(tmp_path), "--output", "ndjson"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '{"minute": "2026-01-06T00:00Z", "new": true}', '{"minute": "2026-01-06T00:00Z", "new": false}', '{"minute": "2026-01-06T00:01Z", "new": true}',
    ]
    lot = commands(tmp_path)
    assert lot.records["timestamp"].to_pylist() == [at("2026-01-06T00:00:00Z"), at("2026-01-06T00:01:00Z")]
    row = codecs.own("command").decode(lot.records["value"]).batch.to_pylist()[0]
    assert (row["kind"], row["author"], row["signature"]) == ("tick", "ticker", None)
    assert cli.main(["run", "ticker"]) == 2
    assert DAY == 24 * 60 * ticks.MINUTE
