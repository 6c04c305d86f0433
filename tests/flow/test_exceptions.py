"""Exceptions of a real run in a folder: listed, shown with what they rest on, assigned, resolved, waived, and resolved by themselves."""

import json

import pyarrow as pa
import pytest

from flows import cli, codecs, command_records, local_engine, topics, usage
from flows.commands import governed
from flows.file_place import FilePlace
from flows.replay import replay
from schemas import catalog
from schemas.lock import Lock
from sinks.errors import SinkError
from tests.flow import folders
from tieout.usage_stage import Limits

TIME = "2026-01-05T00:00:00Z"


def event(name, quantity="1", meter="calls", time=TIME, customer="k0", **more):
    return {"id": name, "source": "s", "customer_id": customer, "meter": meter, "time": time, "quantity": quantity, **more}


def run(root):
    pipeline = usage.pipeline(FilePlace(root), range(2))
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()


@pytest.fixture
def filled(tmp_path):
    """A conflict, an event on a meter that no charge takes, one of an unknown customer that waits for 8 days, a refused version."""
    folders.write(tmp_path, [event("a"), event("a", "2", corrects=None), event("b", meter="unheard"), event("c", customer="k1")], [folders.contract("k0")])
    run(tmp_path)
    other = folders.contract("k0", effective_from="2025-11-01T00:00:00Z")
    folders.write(tmp_path, [event(f"late-{name}", time="2026-01-13T00:00:00Z", customer=name) for name in ("k0", "k2", "k3", "k4")], [other])
    run(tmp_path)
    return tmp_path


@pytest.fixture
def ask(filled, capsys):
    """A ``tieout exception`` command on the folder, and its answer."""

    def answer(*arguments, code=0, author="ada", show="json"):
        capsys.readouterr()
        assert cli.main(["exception", *arguments, "--dir", str(filled), "--author", author, "--output", show]) == code
        printed = capsys.readouterr()
        return json.loads(printed.out) if code == 0 and show == "json" else printed.err if code else printed.out

    return answer


def of_kind(ask, kind, *more):
    [row] = ask("ls", "--kind", kind, "--state", "all", *more)
    return row


def commands(root):
    reader = FilePlace(root).reader(topics.COMMANDS, 0)
    return [found.command for found in command_records.between(reader, 0, reader.refresh())]


def test_the_queue_of_a_run_is_listed_the_oldest_first(ask):
    rows = ask("ls")
    assert sorted((row["kind"], row["customer_id"], row["owner"], row["state"]) for row in rows) == [
        ("contract_refused", "k0", "contracts", "open"), ("hold_no_charge", "k0", "pricing", "open"),
        ("hold_no_customer", "k1", "contracts", "open"), ("usage_conflict", "k0", "metering", "open"),
    ]
    assert [row["age_seconds"] for row in rows] == sorted((row["age_seconds"] for row in rows), reverse=True)
    assert {row["amount_at_risk"] for row in rows} == {None}
    assert (rows[-1]["kind"], rows[-1]["opened_at"]) == ("hold_no_customer", "2026-01-13T00:00:00+00:00")


@pytest.mark.parametrize(
    ("filters", "kinds"),
    [
        (("--owner", "contracts"), {"contract_refused", "hold_no_customer"}),
        (("--customer", "k1"), {"hold_no_customer"}),
        (("--kind", "usage_conflict"), {"usage_conflict"}),
        (("--state", "assigned"), set()),
        (("--older-than", "1d"), {"contract_refused", "hold_no_customer", "hold_no_charge", "usage_conflict"}),
        (("--older-than", "999999d"), set()),
        (("--owner", "contracts", "--customer", "k0"), {"contract_refused"}),
    ],
)
def test_the_queue_is_narrowed(ask, filters, kinds):
    assert {row["kind"] for row in ask("ls", *filters)} == kinds


def test_a_table_ends_with_what_each_owner_has(ask):
    first, second = ask("ls", show="table").split("by owner")
    assert "usage_conflict" in first
    assert [[cell.strip() for cell in line.strip("│").split("│")][:2] for line in second.splitlines() if line.startswith("│")] == [
        ["contracts", "2"], ["metering", "1"], ["pricing", "1"],
    ]


def test_a_conflict_is_shown_with_both_payloads_as_they_came(ask, filled):
    [shown] = ask("show", of_kind(ask, "usage_conflict")["exception_id"])
    sent = [value for values in folders.output(filled, topic=topics.USAGE) for value in values]
    assert [payload["event"]["quantity"] for payload in shown["payloads"]] == ["1.000000000", "2.000000000"]
    assert [payload["event"]["id"] for payload in shown["payloads"]] == ["a", "a"]
    assert all(bytes.fromhex(payload["value"]) in sent for payload in shown["payloads"])
    assert (shown["evidence"], shown["history"], shown["without_effect"]) == (["source s"], [], [])
    assert shown["object"] == {"type": "usage_event", "id": "a"}


def test_a_table_shows_one_whole(ask):
    text = ask("show", of_kind(ask, "hold_no_charge")["exception_id"], show="table")
    assert '"meter": "unheard"' in text
    assert "hold_id" in text


def test_an_exception_is_assigned_and_resolved_and_stays_so(ask, filled):
    name = of_kind(ask, "usage_conflict")["exception_id"]
    ask("assign", name, "--to", "bea", author="cyd")
    assert [(row["owner"], row["state"]) for row in ask("ls", "--owner", "bea")] == [("bea", "assigned")]
    ask("resolve", name, "--reason", "2 was a test", author="bea")
    assert ask("ls", "--owner", "bea") == []
    [shown] = ask("show", name)
    assert (shown["state"], shown["resolution"]) == ("resolved", "bea: 2 was a test")
    assert [line.split(" at ")[0] for line in shown["history"]] == ["assign to bea by cyd", "resolve by bea"]
    assert "is resolved (bea: 2 was a test) and stays so" in ask("resolve", name, "--reason", "again", code=1)
    assert [(command.kind, command.subject_type, command.subject_id, command.author, command.reason) for command in commands(filled)] == [
        ("assign", "exception", name, "cyd", ""), ("resolve", "exception", name, "bea", "2 was a test"),
    ]
    run(filled)
    assert of_kind(ask, "usage_conflict")["state"] == "resolved"


def test_several_are_settled_at_once_or_none(ask, filled):
    conflict, refused = (of_kind(ask, kind)["exception_id"] for kind in ("usage_conflict", "contract_refused"))
    assert "cannot be waived" in ask("waive", conflict, refused, "--reason", "x", code=1)
    assert commands(filled) == []
    assert [row["exception"] for row in ask("resolve", conflict, refused, conflict, "--reason", "x")] == [conflict, refused]
    assert {row["kind"] for row in ask("ls")} == {"hold_no_charge", "hold_no_customer"}


def test_a_held_event_is_waived_by_a_command_that_names_the_hold_and_nothing_is_pretended(ask, filled):
    found = of_kind(ask, "hold_no_charge")
    name, hold_id = found["exception_id"], found["hold_id"]
    assert "is resolved by itself when the event is released" in ask("resolve", name, "--reason", "x", code=1)
    assert ask("waive", name, "--reason", "below a cent")[0]["subject"] == f"hold {hold_id}"
    after = of_kind(ask, "hold_no_charge")
    assert after["state"] == "open"
    assert after["waiver_asked"].startswith("waive by ada at ")
    assert "waiver asked for" in ask("ls", show="table")
    assert "was asked for by ada (below a cent)" in ask("waive", name, "--reason", "again", code=1)
    reader = FilePlace(filled).reader(topics.COMMANDS, 0)
    end = reader.refresh()
    assert [found.command.subject_id for found in command_records.about(reader, 0, end, "waive", "hold")] == [hold_id]
    assert command_records.about(reader, 0, end, "waive", "exception") == []
    assert command_records.about(reader, end, end, "waive", "hold") == []
    [held] = [row for row in hold_records(filled) if row["hold_id"] == hold_id]
    assert held["state"] == "held"
    run(filled)
    assert [row["state"] for row in hold_records(filled) if row["hold_id"] == hold_id] == ["held", "waived"]
    assert of_kind(ask, "hold_no_charge")["state"] == "waived"
    assert [row.token.counts["rejected"] for partition in range(2) for row in replay(filled, partition, Limits(), 100) if row.token.counts["released"]] == [1]
    assert not [row for partition in range(2) for row in replay(filled, partition, Limits(), 100) if row.different]


def hold_records(root):
    return [row for values in folders.output(root, topic=topics.HOLDS) for row in codecs.own("hold").decode(pa.array(values, pa.large_binary())).batch.to_pylist()]


def test_an_exception_is_resolved_by_itself_when_its_event_is_released(ask, filled):
    ask("waive", of_kind(ask, "hold_no_customer")["exception_id"], "--reason", "not needed any more")
    folders.write(filled, [event("d", time="2026-01-13T01:00:00Z")], [folders.contract("k1")])
    run(filled)
    found = of_kind(ask, "hold_no_customer")
    assert (found["state"], found["resolution"], found["waiver_asked"]) == ("resolved", "the event was released", None)
    assert "is resolved (the event was released)" in ask("assign", found["exception_id"], "--to", "bea", code=1)


def test_an_exception_is_waived_when_the_contract_waives_its_event(ask, filled):
    ended = folders.contract("k1") | {"status": "terminated", "billing": {"inactive_usage": "waive"}}
    folders.write(filled, [event("d", time="2026-01-13T01:00:00Z")], [ended])
    run(filled)
    found = of_kind(ask, "hold_no_customer")
    assert (found["state"], found["resolution"]) == ("waived", "the contract waives such usage")


def test_an_event_that_has_to_wait_again_for_the_same_reason_opens_another_exception(ask, filled):
    first = of_kind(ask, "hold_no_charge")
    unpriced = {"charge_id": "m", "meter": "unheard", "price": {"model": "matrix", "dimensions": ["region"], "prices": [{"match": {"region": "eu"}, "unit_price": "1"}]}}
    second = folders.contract("k0", 2) | {"charges": [*folders.CHARGES, unpriced]}
    folders.write(filled, [event("d", time="2026-01-14T00:00:00Z", meter="unheard", attributes={"region": "eu"})], [second])
    run(filled)
    assert of_kind(ask, "hold_no_charge")["state"] == "resolved"
    assert of_kind(ask, "hold_no_price")["state"] == "open"
    folders.write(filled, [event("f", time="2026-01-14T02:00:00Z")], [folders.contract("k0", 3)])
    run(filled)
    rows = ask("ls", "--kind", "hold_no_charge", "--state", "all")
    assert {row["exception_id"]: row["state"] for row in rows if row["opened_at"] == first["opened_at"]} == {first["exception_id"]: "resolved"}
    again = [(row["hold_id"], row["state"]) for row in rows if row["exception_id"] != first["exception_id"]]
    assert (first["hold_id"], "open") in again  # beside it the other event, which version 3 no longer prices
    assert len(again) == 2


def test_a_version_that_is_refused_once_more_later_is_another_exception(ask, filled):
    ask("resolve", of_kind(ask, "contract_refused")["exception_id"], "--reason", "sent by mistake")
    folders.write(filled, [event("d", time="2026-01-14T00:00:00Z")], [folders.contract("k0", effective_from="2025-10-01T00:00:00Z")])
    run(filled)
    assert sorted(row["state"] for row in ask("ls", "--kind", "contract_refused", "--state", "all")) == ["open", "resolved"]


def test_a_command_of_somebody_else_that_does_not_fit_is_told_and_has_no_effect(ask, filled, capsys):
    name = of_kind(ask, "usage_conflict")["exception_id"]
    with governed.writing(FilePlace(filled)) as write:
        write(command_records.Command("assign", "exception", name, "bot", 1, "x", "no json"))
        write(command_records.Command("resolve", "exception", "gone", "bot", 2, "x"))
        write(command_records.Command("approve", "exception", name, "bot", 3, "x"))
    [shown] = ask("show", name)
    assert (shown["state"], shown["history"]) == ("open", [])
    assert "nobody is named whom to assign it to" in shown["without_effect"][0]
    capsys.readouterr()
    assert cli.main(["exception", "ls", "--dir", str(filled)]) == 0
    assert "2 commands about exceptions had no effect; the last one: there is no exception gone" in capsys.readouterr().err


def test_while_somebody_settles_exceptions_nobody_else_does(ask, filled):
    name = of_kind(ask, "usage_conflict")["exception_id"]
    with governed.writing(FilePlace(filled)):
        ask("resolve", name, "--reason", "x", code=1)
        with pytest.raises(SinkError), governed.writing(FilePlace(filled)):
            pass
    ask("resolve", name, "--reason", "x")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "4f1c"), 1, "there is no exception 4f1c; 'tieout exception ls --state all' lists"),
        (("show",), 2, "name the exceptions"),
        (("ls", "4f1c"), 2, "'tieout exception show ID'"),
        (("assign", "4f1c"), 2, "say whom it is assigned to with --to NAME"),
        (("resolve", "4f1c"), 2, "say why with --reason TEXT"),
        (("waive", "4f1c"), 2, "say why with --reason TEXT"),
        (("waive", "4f1c", "--reason", "x"), 1, "there is no exception 4f1c"),
        (("ls", "--older-than", "yesterday"), 2, "is no stretch of time"),
    ],
)
def test_what_cannot_be_done_is_said(ask, arguments, code, words):
    assert words in ask(*arguments, code=code)


def test_exceptions_under_a_registry_s_ids_are_not_taken_for_none(tmp_path, capsys):
    lock = Lock({name: catalog.Schema(name, found.subject, 500 + place, found.avro) for place, (name, found) in enumerate((name, catalog.load(name)) for name in catalog.names())}, {})
    with codecs.pinned(lock, {}):
        folders.write(tmp_path, [event("b", meter="unheard")], [folders.contract("k0")])
        run(tmp_path)
    assert cli.main(["exception", "ls", "--dir", str(tmp_path)]) == 1
    assert "name it with --registry URL" in capsys.readouterr().err


def test_a_command_of_the_release_before_is_still_read(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")])
    with governed.writing(FilePlace(tmp_path)) as write:
        write(command_records.Command("release", "partition", "usage-0", "ada", 5, "mended"))
    reader = FilePlace(tmp_path).reader(topics.COMMANDS, 0)
    end = reader.refresh()
    value = reader.read(0, end)["value"][0].as_py()
    [kind] = codecs.own("command").decode(pa.array([value[:4] + bytes([14]) + value[5:]], pa.large_binary())).batch["kind"].to_pylist()
    assert (kind, [found.command.subject_id for found in command_records.about(reader, 0, end, "release", "partition")]) == ("release", ["usage-0"])
