"""A partition pauses when more than 1,000 of 10,000 consecutive rows are rejected, and goes on when it is released."""

import json
import re

import pytest

from flows import bytewax_engine, cli, codecs, local_engine, topics, usage
from flows.file_place import FilePlace
from flows.pause import PartitionPaused
from flows.replay import replay
from flows.verification import verify
from sources.files import TopicReader
from tests.flow import folders
from tieout import ids
from tieout.usage_stage import Limits

ENGINES = {"local": local_engine.run, "bytewax": bytewax_engine.run}
OUTPUTS = (topics.RATED, topics.HOLDS, topics.EXCEPTIONS, usage.DEAD)
SPOILT = range(3000, 5000)
"""The rows of partition 0 that are undecodable; after 1,001 of them it pauses."""
_AT = [[name for name in (f"k{i}" for i in range(30)) if ids.partition_of(name, 2) == partition] for partition in range(2)]
CUSTOMERS = (*_AT[0][:3], _AT[1][0])
"""Three quarters of the usage are in partition 0."""


def events(rows=8000):
    stamp = "2026-01-05T{:02d}:{:02d}:{:02d}Z".format
    return [
        {"id": f"e{i}", "source": "s", "customer_id": CUSTOMERS[i % 4], "meter": "calls", "time": stamp(i // 3600, i // 60 % 60, i % 60), "quantity": str(i % 7 + 1)}
        for i in range(rows)
    ]


@pytest.fixture(scope="module")
def work():
    return events(), [folders.contract(customer) for customer in CUSTOMERS]


def spoil(monkeypatch, spoilt):
    """Every row of partition 0 in a range is poison."""
    whole = folders.publish.usage

    def publish(ingress, values, customers, stamps, partitions, source):
        rows = [at for at, name in enumerate(customers.to_pylist()) if ids.partition_of(name, partitions) == 0]
        changed = values.to_pylist()
        for at in spoilt:
            changed[rows[at]] = folders.POISON
        return whole(ingress, folders.pa.array(changed, folders.pa.large_binary()), customers, stamps, partitions, source)

    monkeypatch.setattr(folders.publish, "usage", publish)


def run(root, engine="local", rows=25_000):
    """One run to its end; what it said where it ended paused."""
    pipeline = usage.pipeline(FilePlace(root), range(2), rows=rows)
    try:
        ENGINES[engine](pipeline)
    except PartitionPaused as paused:
        return str(paused)
    finally:
        for cell in pipeline.cells.values():
            cell.close()
    return None


def tokens(root):
    return [list(usage.tokens.all_of(TopicReader(root, usage.TOKEN, partition))) for partition in range(2)]


def release(root, subject="usage-0", **more):
    return cli.main(["release", subject, "--dir", str(root), "--reason", "gateway rolled back", "--author", "ada", "--output", "json"])


def outputs(root):
    return {topic: folders.output(root, topic=topic) for topic in OUTPUTS}


def facts(root):
    """The rated records but for the name of their interval."""
    return [{name: value for name, value in row.items() if name != "batch_id"} for row in folders.rated(root)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("rows", [25_000, 700])
def test_it_stops_at_the_row_that_decides_and_the_other_partition_goes_on(tmp_path, monkeypatch, work, engine, rows):
    spoil(monkeypatch, SPOILT)
    folders.write(tmp_path, *work)
    there = [end(tmp_path, partition) for partition in range(2)]
    said = run(tmp_path, engine, rows)
    assert "usage-0 is paused: 1,001 of 1,001 consecutive rows are rejected (1,001 undecodable)" in said
    assert "tieout release usage-0 --reason" in said
    last = [found[-1] for found in tokens(tmp_path)]
    assert [token.positions[topics.USAGE] for token in last] == [SPOILT[1000] + 1, there[1]]
    assert [len(found) for found in folders.output(tmp_path, topic=usage.DEAD)] == [1001, 0]
    assert all(verify(FilePlace(tmp_path), partition)["breaks"] == [] for partition in range(2))


def end(root, partition):
    return TopicReader(root, topics.USAGE, partition).refresh()


def test_a_pause_survives_restarts_and_a_release_lets_it_go_on_until_the_next(tmp_path, monkeypatch, work, capsys):
    spoil(monkeypatch, SPOILT)
    folders.write(tmp_path, *work)
    first = run(tmp_path)
    before = tokens(tmp_path)
    assert run(tmp_path) == first
    assert tokens(tmp_path) == before
    assert release(tmp_path) == 0
    assert json.loads(capsys.readouterr().out)[0]["rejected"] == {"undecodable": 1001}
    assert run(tmp_path) is None
    assert [len(found) for found in folders.output(tmp_path, topic=usage.DEAD)] == [2000, 0]
    assert tokens(tmp_path)[0][-1].positions[topics.USAGE] == end(tmp_path, 0)


def test_a_paused_and_released_folder_comes_to_what_one_without_a_limit_comes_to(tmp_path, monkeypatch, work):
    spoil(monkeypatch, range(1000, 5500))
    for name in ("paused", "whole"):
        folders.write(tmp_path / name, *work)
    pauses = 0
    while run(tmp_path / "paused", rows=900) is not None:
        pauses += 1
        assert release(tmp_path / "paused") == 0
    assert pauses == 4
    monkeypatch.setattr(usage, "Rejects", lambda: None)
    run(tmp_path / "whole")
    paused, whole = outputs(tmp_path / "paused"), outputs(tmp_path / "whole")
    assert [paused[topic] for topic in OUTPUTS[1:]] == [whole[topic] for topic in OUTPUTS[1:]]
    assert facts(tmp_path / "paused") == facts(tmp_path / "whole") != []
    assert tokens(tmp_path / "paused")[0][-1].totals == tokens(tmp_path / "whole")[0][-1].totals
    for partition in range(2):
        assert not any(interval.different for interval in replay(tmp_path / "paused", partition, Limits(), 333))


def test_the_window_is_kept_over_restarts(tmp_path, monkeypatch, work):
    spoil(monkeypatch, SPOILT)
    folders.write(tmp_path, *work)
    monkeypatch.setattr(usage.UsageSource, "poll", _one_lot(usage.UsageSource.poll))
    runs = 1
    while run(tmp_path, rows=600) is None:
        runs += 1
    assert runs == 7
    assert tokens(tmp_path)[0][-1].positions[topics.USAGE] == SPOILT[1000] + 1


def _one_lot(poll):
    """A run reads one lot and ends."""

    def once(source):
        if source._looked and source._cell.paused is None:
            source._end = source._position = source._cell.position
            return None
        return poll(source)

    return once


def test_only_what_is_paused_can_be_released(tmp_path, monkeypatch, work, capsys):
    folders.write(tmp_path, *work)
    run(tmp_path)
    answers = [release(tmp_path), release(tmp_path, "usage-2"), release(tmp_path, "billing-0"), release(tmp_path, "usage-x")]
    assert answers == [1, 2, 2, 2]
    assert "usage-0 is not paused" in capsys.readouterr().err


def test_a_release_is_a_command_record(tmp_path, monkeypatch, work):
    spoil(monkeypatch, SPOILT)
    folders.write(tmp_path, *work)
    run(tmp_path)
    release(tmp_path)
    reader = TopicReader(tmp_path, topics.COMMANDS, 0)
    reader.refresh()
    [command] = codecs.own("command").decode(reader.read(0, 10)["value"]).batch.to_pylist()
    assert (command["kind"], command["subject"], command["author"]) == ("release", {"type": "partition", "id": "usage-0"}, "ada")
    assert re.fullmatch(r"[0-9a-f]{32}", command["command_id"])


def test_the_command_line_ends_with_an_error_that_says_how_to_go_on(tmp_path, monkeypatch, work, capsys):
    spoil(monkeypatch, SPOILT)
    folders.write(tmp_path, *work)
    assert cli.main(["run", "usage", "--dir", str(tmp_path), "--engine", "local"]) == 1
    assert "1,001 undecodable" in capsys.readouterr().err
