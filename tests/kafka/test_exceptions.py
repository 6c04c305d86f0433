"""Exceptions on a real broker: what a cell opened is listed, settled by one person at a time, and seen at once."""

import json

import pytest
from cryptography.hazmat.primitives import serialization

from flows import command_records, contract_topics, exception_records, governed_ingress, reference_records, topics
from flows.commands import governed
from sinks.errors import Fenced
from tests import governed as people
from tests.flow import folders, governed_folders
from tests.kafka import installations
from tests.kafka.test_dead_letters import command, ready
from tieout import exception_queue
from tieout.reference_document import parse
from tieout.usage_stage import Limits


def event(name, quantity="1", meter="calls", customer="k0", time="2026-01-05T00:00:00Z"):
    return {"id": name, "source": "s", "customer_id": customer, "meter": meter, "time": time, "quantity": quantity}


@pytest.fixture
def place(broker, topic_prefix):
    """A conflict, and an event that no charge takes, in different partitions."""
    made = ready(installations.make(broker.bootstrap, topic_prefix))
    usage = [event("a"), event("a", "2"), event("b", meter="unheard", customer="k1"), event("c", meter="unheard", customer="k0")]
    installations.put(made, usage, [folders.contract(name) for name in ("k0", "k1")])
    installations.drain(made)
    yield made
    made.close()


def ask(place, capsys, *arguments, code=0):
    capsys.readouterr()
    command(place, "exception", *arguments, code=code)
    printed = capsys.readouterr()
    return json.loads(printed.out) if code == 0 else printed.err


def test_what_is_asked_for_is_seen_at_once_and_an_exception_follows_its_event(place, capsys):
    rows = {(row["kind"], row["customer_id"]): row["exception_id"] for row in ask(place, capsys, "ls")}
    assert set(rows) == {("usage_conflict", "k0"), ("hold_no_charge", "k0"), ("hold_no_charge", "k1")}
    conflict, unheard = rows["usage_conflict", "k0"], rows["hold_no_charge", "k1"]
    [shown] = ask(place, capsys, "show", conflict)
    assert [payload["event"]["quantity"] for payload in shown["payloads"]] == ["1.000000000", "2.000000000"]
    for number, to in enumerate(("bea", "cyd", "dan"), 1):
        ask(place, capsys, "assign", conflict, "--to", to)
        [row] = ask(place, capsys, "ls", "--state", "assigned")
        assert (row["owner"], len(ask(place, capsys, "show", conflict)[0]["history"])) == (to, number)
    ask(place, capsys, "resolve", conflict, "--reason", "1 stands")
    assert "is resolved (ada: 1 stands) and stays so" in ask(place, capsys, "resolve", conflict, "--reason", "2 stands", code=1)
    [asked] = ask(place, capsys, "waive", unheard, "--reason", "a trial")
    reader = place.written(topics.COMMANDS, 0)
    end = reader.refresh()
    assert [found.command.subject_id for found in command_records.about(reader, 0, end, "waive", "hold")] == [asked["subject"].removeprefix("hold ")]
    reader.close()
    assert [row["waiver_asked"] is not None for row in ask(place, capsys, "ls", "--customer", "k1")] == [True]
    charges = [*folders.CHARGES, {"charge_id": "u", "meter": "unheard", "price": {"model": "per_unit", "unit_price": "1"}}]
    installations.put(place, [event("d", time="2026-01-06T00:00:00Z", customer="k1")], [folders.contract("k1", 2) | {"charges": charges}])
    installations.drain(place)
    [released] = ask(place, capsys, "ls", "--customer", "k1", "--state", "all")
    assert (released["state"], released["resolution"]) == ("resolved", "the event was released")
    assert [row["kind"] for row in ask(place, capsys, "ls")] == ["hold_no_charge"]


def test_of_two_who_settle_exceptions_at_once_only_one_can(place, capsys):
    name = next(row["exception_id"] for row in ask(place, capsys, "ls") if row["kind"] == "usage_conflict")
    with governed.writing(place) as write:
        ask(place, capsys, "resolve", name, "--reason", "1 stands")
        with pytest.raises(Fenced):
            write(command_records.Command("waive", "exception", name, "bea", 5, "let it be"))
    [shown] = ask(place, capsys, "show", name)
    assert (shown["state"], shown["without_effect"]) == ("resolved", [])


def test_once_a_broker_s_reference_data_has_users_only_a_signed_waiver_lets_an_event_go(place, capsys, tmp_path):
    contract_topics.create(place.admin, place.prefix, installations.PARTITIONS, 1, Limits())
    governed_ingress.append(place, topics.REFERENCE, reference_records.records([parse(user) for user in (governed_folders.user("ada"), governed_folders.user("ben"))]), "users")
    names = [row["exception_id"] for row in ask(place, capsys, "ls", "--kind", "hold_no_charge")]
    assert "this would not count, nothing was written: the command is not signed" in ask(place, capsys, "waive", names[0], "--reason", "a trial", code=1)
    items = exception_records.queue(place).items
    with governed.writing(place) as write:
        write(exception_records.command(exception_queue.about(items[names[0]], "waive", "ada", 5, "past the command line")))
    key = tmp_path / "ada.pem"
    key.write_bytes(people.key("ada").private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    ask(place, capsys, "waive", names[1], "--reason", "below a cent", "--key", str(key))
    installations.put(place, [event("d", time="2026-01-06T00:00:00Z", customer=customer) for customer in ("k0", "k1")])
    tokens = installations.drain(place)
    states = {row["exception_id"]: row["state"] for row in ask(place, capsys, "ls", "--state", "all")}
    assert [states[name] for name in names] == ["open", "waived"]
    assert sum(token.totals.get("waiting", 0) for token in tokens.values()) == 1
