"""What people do about exceptions and paused partitions, signed: once there are users, nothing else counts, anywhere."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization

from flows import cli, command_records, exception_records, local_engine, pause, signing, topics, usage
from flows.authority import Authority
from flows.commands import governed
from flows.file_place import FilePlace
from flows.pause import Gate
from flows.replay import replay
from tests import governed as people
from tests.flow import folders, governed_folders
from tieout.usage_stage import Limits

TIME = "2026-01-05T00:00:00Z"


def event(name, **more):
    return {"id": name, "source": "s", "customer_id": "k0", "meter": "unheard", "time": TIME, "quantity": "1", **more}


def run(root):
    pipeline = usage.pipeline(FilePlace(root), range(1))
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()
    return pipeline.cells[0].token


@pytest.fixture
def filled(tmp_path):
    """A conflict and two events that nobody can price."""
    root = tmp_path / "data"
    folders.write(root, [event("a", meter="calls"), event("a", meter="calls", quantity="2"), event("b"), event("c")], [folders.contract("k0")], 1)
    run(root)
    return root


def key_file(folder, name):
    path = folder / f"{name}.pem"
    path.write_bytes(people.key(name).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return path


def exceptions(root, kind):
    queue = exception_records.queue(FilePlace(root))
    return sorted((item for item in queue.items.values() if item.opened.kind == kind), key=lambda item: item.opened.object_id)


def ask(root, *arguments, author="una", signer=None):
    signed = () if signer is None else ("--key", str(key_file(root.parent, signer)))
    return cli.main([*arguments, "--dir", str(root), "--author", author, "--reason", "looked at", "--output", "json", *signed])


def written(root):
    reader = FilePlace(root).reader(topics.COMMANDS, 0)
    return [found.command for found in command_records.between(reader, 0, reader.refresh())]


def asked(root, item, signer=None, author="una", **changed):
    """A waiver of an event, written past the command line."""
    act = exception_records.exception_queue.about(item, "waive", author, people.START, "let it be")
    command = exception_records.command(act)
    command = replace(command if signer is None else signing.signed(command, people.key(signer)), **changed)
    with governed.writing(FilePlace(root)) as write:
        write(command)


def test_without_users_nobody_needs_a_key(filled):
    [conflict] = exceptions(filled, "usage_conflict")
    assert ask(filled, "exception", "resolve", conflict.opened.exception_id) == 0
    assert exceptions(filled, "usage_conflict")[0].state == "resolved"
    assert written(filled)[0].signature is None


@pytest.mark.parametrize(
    ("author", "signer", "words"),
    [("una", None, "the command is not signed"), ("una", "ben", "is not made with the key of user 'una'"), ("eve", "eve", "knows no user 'eve'")],
)
def test_with_users_the_command_line_writes_nothing_that_would_not_count(filled, capsys, author, signer, words):
    governed_folders.know(filled, *governed_folders.USERS)
    [conflict] = exceptions(filled, "usage_conflict")
    assert ask(filled, "exception", "assign", conflict.opened.exception_id, "--to", "bea", author=author, signer=signer) == 1
    said = capsys.readouterr().err
    assert words in said and "--key FILE" in said
    assert written(filled) == []


def test_a_signed_command_counts_for_the_queue_and_for_the_flow(filled):
    governed_folders.know(filled, *governed_folders.USERS)
    [conflict], [b, c] = exceptions(filled, "usage_conflict"), exceptions(filled, "hold_no_charge")
    assert ask(filled, "exception", "resolve", conflict.opened.exception_id, signer="una") == 0
    assert ask(filled, "exception", "waive", b.opened.exception_id, author="ben", signer="ben") == 0
    folders.write(filled, [event("d", meter="calls")], [], 1)
    token = run(filled)
    assert exceptions(filled, "usage_conflict")[0].state == "resolved"
    assert [item.state for item in exceptions(filled, "hold_no_charge")] == ["waived", "open"]
    assert token.totals["rejected"] == 1 and token.positions[topics.in_partition(topics.REFERENCE, 0)] == 3
    # whoever comes to know of the users later judges as it was judged: a key that is taken back now waived it then
    governed_folders.know(filled, governed_folders.reference("user", "ben", {"name": "Ben", "public_key": None}))
    assert all(not replayed.different for replayed in replay(filled, 0, Limits(), 2))
    assert c.opened.hold_id is not None


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "the command is not signed"), ({"signer": "ben"}, "is not made with the key of user 'una'"), ({"signer": "eve", "author": "eve"}, "knows no user 'eve'"),
        ({"signer": "una", "reason": "changed"}, "the command was changed after it"),
    ],
)
def test_what_somebody_writes_past_the_command_line_has_no_effect_and_is_told(filled, how, words):
    governed_folders.know(filled, *governed_folders.USERS)
    asked(filled, exceptions(filled, "hold_no_charge")[0], **how)
    folders.write(filled, [event("d", meter="calls")], [], 1)
    token = run(filled)
    item = exceptions(filled, "hold_no_charge")[0]
    assert (item.state, item.acts, token.totals["rejected"], token.totals["waiting"]) == ("open", (), 0, 2)
    [refused] = exception_records.queue(FilePlace(filled)).refused
    assert refused.exception_id == item.opened.exception_id and words in refused.why
    assert all(not replayed.different for replayed in replay(filled, 0, Limits(), 2))


def test_what_was_done_before_the_first_user_stands(filled):
    [conflict] = exceptions(filled, "usage_conflict")
    assert ask(filled, "exception", "resolve", conflict.opened.exception_id) == 0
    governed_folders.know(filled, *(user | {"recorded_at": "2126-01-01T00:00:00Z"} for user in governed_folders.USERS))
    assert exceptions(filled, "usage_conflict")[0].state == "resolved"


def test_a_paused_partition_is_released_by_a_signed_command_only(filled, monkeypatch, capsys):
    governed_folders.know(filled, *governed_folders.USERS)
    place = FilePlace(filled)
    gate = Gate("usage", 0, place.reader(topics.COMMANDS, 0), Authority(place))
    for at, signer in enumerate((None, "ben", "una"), people.START):
        release, start = command_records.Command(pause.RELEASE, command_records.PARTITION, "usage-0", "una", at, "mended"), gate.shut()
        with governed.writing(place) as write:
            write(release if signer is None else signing.signed(release, people.key(signer)))
        assert (gate.released(start) is not None) == (signer == "una")
    monkeypatch.setattr(pause, "found", lambda *_: usage.Rejects())
    assert ask(filled, "release", "usage-0") == 1
    assert "the command is not signed" in capsys.readouterr().err
    assert ask(filled, "release", "usage-0", signer="una") == 0
    assert json.loads(capsys.readouterr().out)[0]["author"] == "una"
    assert written(filled)[-1].signature is not None
