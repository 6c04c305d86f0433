"""Dead letters in a folder: listed, shown, replayed once, discarded; and what a record keeps over its rejections."""

import json
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from flows import cli, codecs, dead_letter_queue, dead_letters, local_engine, topics, usage
from flows.file_place import FilePlace
from schemas import segments
from sinks.ingress import Ingress
from sources.errors import RetentionGap
from sources.files import TopicReader
from sources.lot import Lot
from tests.flow import folders
from tieout import ids, usage_document
from tieout.stage import DeadLetter

TIME = "2026-01-05T00:00:00Z"
STAMP = 1_767_571_200_000_000
NAMES = [next(name for name in (f"k{i}" for i in range(30)) if ids.partition_of(name, 2) == partition) for partition in range(2)]
"""A customer of each partition."""


def value(name, customer=None, when=TIME, **more):
    """A usage event's bytes."""
    document = {"id": name, "source": "s", "customer_id": customer or NAMES[0], "meter": "calls", "time": when, "quantity": "1"} | more
    return codecs.encode("usage_event", usage_document.columns([usage_document.parse(document)]))[0].as_py()


def append(root, *rows, partition=0, source=None):
    """Usage records (value, key, headers) as they are, into one partition."""
    headers = [None if len(row) < 3 or row[2] is None else [{"key": k, "value": v} for k, v in row[2]] for row in rows]
    batch = segments.records(
        pa.array([row[0] for row in rows], pa.large_binary()), pa.array([row[1] if len(row) > 1 else b"k" for row in rows], pa.large_binary()),
        np.full(len(rows), STAMP), pa.array(headers, segments.HEADERS),
    )
    ingress = Ingress.open(root, 2)
    ingress.append(topics.USAGE, {partition: batch}, source or f"{time.monotonic_ns()}")
    ingress.close()


def run(root):
    pipeline = usage.pipeline(FilePlace(root), range(2))
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()
    return [cell.token.totals for cell in pipeline.cells.values()]


def records(root, topic, partition=0):
    reader = TopicReader(root, topic, partition)
    return reader.read(0, reader.refresh()).to_pylist()


def said(record):
    return {header["key"].removeprefix("dlq."): header["value"].decode() for header in record["headers"] if header["key"].startswith("dlq.")}


@pytest.fixture
def ask(tmp_path, capsys):
    """A ``tieout dlq`` command on the folder, and its answer."""

    def answer(*arguments, code=0):
        assert cli.main(["dlq", *arguments, "--dir", str(tmp_path), "--author", "ada", "--output", "json"]) == code
        printed = capsys.readouterr()
        return json.loads(printed.out) if code == 0 else printed.err

    return answer


@pytest.fixture
def filled(tmp_path):
    """Four letters in partition 0 (torn, empty, null, too early), one in partition 1; one good event."""
    ingress = Ingress.open(tmp_path, 2)
    folders.publish.contracts(ingress, [folders.contract(name) for name in NAMES], 2, "contracts")
    ingress.close()
    append(tmp_path, (folders.POISON, None, [("trace", b"\xff\x00"), ("trace", b"2"), ("empty", b""), ("null", None)]), (b"", b""), (None, b"k"))
    append(tmp_path, (value("early", when="2026-01-09T00:00:00Z"), b"k"), (value("good"), b"k"))
    append(tmp_path, (b"\x01text", b"k"), partition=1)
    run(tmp_path)
    return tmp_path


def test_the_original_is_untouched_whatever_it_is(filled):
    found, sent = records(filled, usage.DEAD), records(filled, topics.USAGE)[:4]
    for letter, original in zip(found, sent, strict=True):
        assert (letter["value"], letter["key"], letter["timestamp"]) == (original["value"], original["key"], original["timestamp"])
        kept = [header for header in letter["headers"] if not header["key"].startswith("dlq.")]
        assert kept == (original["headers"] or [])
    assert [said(letter)["reason"] for letter in found] == ["undecodable", "undecodable", "undecodable", "too_early"]
    assert [said(letter).get("schema_id") for letter in found] == ["11", None, None, "11"]
    assert {name for letter in found for name in said(letter)} == set(dead_letters.NAMES)


def test_letters_are_counted_by_reason_and_partition_with_the_oldest(filled, ask):
    rows = ask("ls")
    assert [(row["reason"], row["partition"], row["count"], row["letter"]) for row in rows] == [
        ("undecodable", 0, 3, "0:0"), ("too_early", 0, 1, "0:3"), ("undecodable", 1, 1, "1:0"),
    ]
    assert rows[0]["oldest"] == "2026-01-05T00:00:00+00:00"
    assert [row["count"] for row in ask("ls", "--reason", "too_early")] == [1]
    assert [row["partition"] for row in ask("ls", "--partition", "1")] == [1]
    assert ask("ls", "--since", "2026-02") == [] != ask("ls", "--since", "2026-01")
    assert ask("ls", "--since=-1m") == []


def test_a_letter_is_shown_whole(filled, ask):
    [torn], [early] = ask("show", "0:0"), ask("show", "0:3")
    assert (torn["reason"], torn["value"], torn["event"], torn["key"]) == ("undecodable", folders.POISON.hex(), None, None)
    assert [(header["key"], header["value"]) for header in torn["headers"]] == [("trace", "hex ff00"), ("trace", "2"), ("empty", ""), ("null", None)]
    assert (early["event"]["id"], early["path"], early["key"], early["undecodable"]) == ("early", "time", "k", None)
    assert len(ask("show", "--limit", "2")) == 2


def test_a_replay_puts_the_original_back_with_its_count_and_is_done_once(filled, ask):
    before = len(records(filled, topics.USAGE))
    assert ask("replay", "--reason", "too_early", "--dry-run") == [{"partition": 0, "reason": "too_early", "would be replayed": 1}]
    assert len(records(filled, topics.USAGE)) == before
    assert ask("replay", "--reason", "too_early") == [{"partition": 0, "reason": "too_early", "replayed": 1}]
    assert ask("replay", "--reason", "too_early") == []
    [back] = records(filled, topics.USAGE)[before:]
    original = records(filled, topics.USAGE)[3]
    assert (back["value"], back["key"]) == (original["value"], original["key"])
    assert said(back) == {"replay_count": "0", "first_failed_at": "2026-01-05T00:00:00+00:00"}
    assert back["timestamp"] > STAMP
    assert [row["count"] for row in ask("ls", "--reason", "too_early")] == []
    assert [row["state"] for row in ask("ls", "--reason", "too_early", "--all")] == ["replayed"]
    assert run(filled)[0]["priced"] == 2


def test_a_letter_rejected_again_counts_its_replays_and_keeps_when_it_first_failed(filled, ask):
    for replays in (1, 2):
        ask("replay", "--partition", "0", "--reason", "undecodable")
        run(filled)
        found = records(filled, usage.DEAD)[-3:]
        assert [said(letter)["replay_count"] for letter in found] == [str(replays)] * 3
        assert {said(letter)["first_failed_at"] for letter in found} == {"2026-01-05T00:00:00+00:00"}
        names = [header["key"] for header in found[0]["headers"]]
        assert names[:4] == ["trace", "trace", "empty", "null"]
        assert len(names[4:]) == len(set(names[4:]))
    assert [row["count"] for row in ask("ls", "--partition", "0")] == [3, 1]


def test_a_discarded_letter_is_settled_with_a_reason_and_nothing_is_deleted(filled, ask):
    assert ask("discard", "0:1", "0:2", "--because", "the gateway's probes") == [{"partition": 0, "reason": "undecodable", "discarded": 2}]
    assert [(row["reason"], row["count"]) for row in ask("ls", "--partition", "0")] == [("too_early", 1), ("undecodable", 1)]
    [shown] = ask("show", "0:1")
    assert shown["settled"].startswith("discarded by ada at ")
    assert shown["settled"].endswith(": the gateway's probes")
    assert len(records(filled, usage.DEAD)) == 4
    assert ask("replay", "0:1") == []
    assert ask("replay", "--partition", "0") == [{"partition": 0, "reason": "too_early", "replayed": 1}, {"partition": 0, "reason": "undecodable", "replayed": 1}]


def test_a_replay_that_was_killed_goes_on_where_it_was(filled, ask, monkeypatch):
    monkeypatch.setattr("flows.commands.dlq.AT_ONCE", 2)
    append(filled, *[(b"\x01bad", b"k")] * 7)
    run(filled)
    before = len(records(filled, topics.USAGE))
    commits = []

    def killed(ingress, topic, batches, source, whole=Ingress.append):
        if len(commits) == 2:
            raise KeyboardInterrupt
        commits.append(source)
        return whole(ingress, topic, batches, source)

    with monkeypatch.context() as patched:
        patched.setattr(Ingress, "append", killed)
        ask("replay", "--partition", "0", "--reason", "undecodable", code=1)
    assert len(records(filled, topics.USAGE)) == before + 4
    assert ask("replay", "--partition", "0", "--reason", "undecodable") == [{"partition": 0, "reason": "undecodable", "replayed": 6}]
    back = records(filled, topics.USAGE)[before:]
    assert [record["value"] for record in back] == [folders.POISON, b"", None, *[b"\x01bad"] * 7]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "0:99"), 1, "there is no dead letter 0:99"),
        (("show", "seven"), 2, "write PARTITION:OFFSET"),
        (("ls", "--partition", "7"), 2, "there is no partition 7, the last one is 1"),
        (("ls", "--since", "yesterday"), 2, "is no time"),
        (("discard", "0:0"), 2, "--because TEXT"),
        (("discard", "--because", "all of it"), 2, "say which"),
    ],
)
def test_what_cannot_be_done_is_said(filled, ask, arguments, code, words):
    assert words in ask(*arguments, code=code)


def test_headers_of_a_stranger_that_look_like_ours_do_no_harm(filled, ask):
    append(filled, (folders.POISON, b"k", [("dlq.replay_count", b"many"), ("dlq.first_failed_at", b"\xff"), ("dlq.reason", None), ("dlq.other", b"x")]))
    run(filled)
    letter = records(filled, usage.DEAD)[-1]
    assert (said(letter)["replay_count"], said(letter)["reason"], said(letter)["other"]) == ("1", "undecodable", "x")
    assert datetime.fromisoformat(said(letter)["first_failed_at"]) == datetime(2026, 1, 5, tzinfo=UTC)


def test_a_waived_hold_that_outlived_the_topic_is_a_dead_letter_of_its_kept_bytes():
    def gone(position):
        msg = f"position {position} is below retention"
        raise RetentionGap(msg)

    kept = DeadLetter(7, "waived", "the contract waives it", value=b"\x00\x00\x00\x00\x0bbytes")
    [record] = dead_letters.records([kept], topics.USAGE, 0, "usage", gone).to_pylist()
    assert (record["value"], record["key"], said(record)["offset"], said(record)["schema_id"]) == (kept.value, None, "7", "11")
    with pytest.raises(RetentionGap):
        dead_letters.records([DeadLetter(7, "too_late", "late")], topics.USAGE, 0, "usage", gone)
    nothing = Lot(np.empty(0, np.int64), pa.RecordBatch.from_pylist([], schema=segments.RECORDS), 8)
    with pytest.raises(LookupError):
        dead_letters.records([DeadLetter(7, "too_late", "late")], topics.USAGE, 0, "usage", lambda _: nothing)


def test_positions_are_noted_by_ranges():
    assert dead_letter_queue._ranges([3, 4, 5, 9, 11, 12]) == [[3, 5], [9, 9], [11, 12]]
