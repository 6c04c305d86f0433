"""The schema registry as it is: what it accepts, what we refuse, ids that are learnt, pinned and confirmed."""

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient

from flows import codecs
from flows.commands import schema as command
from schemas import catalog
from schemas import lock as locks
from schemas.catalog import BACKWARD, FULL
from schemas.codec import Decoder
from schemas.compatibility import alike, backward, forward
from schemas.errors import LockMismatch, RegistryAway, RegistryRefused, UnknownSchema
from schemas.lint_change import changes
from schemas.lock import Lock
from schemas.registry import Registry
from tests import versions

RATED = catalog.load("rated_usage").avro


@pytest.fixture
def client(registry):
    client = Registry(registry.url)
    yield client
    client.close()


def values(*rows):
    return pa.array(rows, pa.large_binary())


def edited(avro: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    """The schema with one thing changed; ``change`` gets its fields by name."""
    made = copy.deepcopy(avro)
    change({field["name"]: field for field in made["fields"]} | {"": made})
    return made


def typed(name, **more):
    return lambda fields: fields[name]["type"].update(more)


def added(field):
    return lambda fields: fields[""]["fields"].append(field)


def cause_kind(fields: dict[str, Any]) -> dict[str, Any]:
    return fields["cause"]["type"]["fields"][0]["type"]


MONEY_ERRORS = {
    "scale 9 to 6": (typed("quantity", scale=6), "scale_changed"),
    "precision 38 to 20": (typed("amount", precision=20), "precision_changed"),
    "decimal dropped": (lambda fields: fields["amount"].update(type="bytes"), "decimal_dropped"),
    "micros to millis": (typed("time", logicalType="timestamp-millis"), "time_unit_changed"),
    "a timestamp dropped": (lambda fields: fields["time"].update(type="long"), "logical_type_changed"),
    "money by default": (lambda fields: fields["amount"].update(default="\1"), "default_changed"),
    "an optional field renamed": (lambda fields: fields["group"].update(name="groups"), "field_lost"),
    "the same with an alias": (lambda fields: fields["group"].update(name="groups", aliases=["group"]), "field_renamed"),
    "a symbol gone": (lambda fields: cause_kind(fields)["symbols"].remove("carry"), "symbol_lost"),
    "another namespace": (lambda fields: fields[""].update(namespace="other"), "name_changed"),
    "the union turned round": (lambda fields: fields["group"].update(type=fields["group"]["type"][::-1], default=[]), "union_order_changed"),
}


@pytest.mark.parametrize("name", MONEY_ERRORS)
def test_what_full_transitive_accepts_although_figures_change_is_refused_by_the_financial_lint(client, topic_prefix, name):
    change, code = MONEY_ERRORS[name]
    subject, wrong = f"{topic_prefix}rated-value", edited(RATED, change)
    client.set_compatibility(subject, FULL)
    first = client.register(subject, RATED)
    assert client.compatible(subject, wrong)
    assert client.register(subject, wrong) != first, "the registry took it as a version of its own"
    assert [one.version for one in client.versions(subject)] == [1, 2]
    assert backward(RATED, wrong) == forward(RATED, wrong) == []
    assert code in {found.code for found in changes(RATED, wrong, forward=True)}


READING = {
    "nothing": lambda _: None,
    "a required field": added({"name": "x", "type": "string"}),
    "an optional field": added({"name": "x", "type": ["null", "string"], "default": None}),
    "a field with a default": added({"name": "x", "type": "long", "default": 0}),
    "a required field gone": lambda fields: fields[""]["fields"].remove(fields["charge_id"]),
    "an optional field gone": lambda fields: fields[""]["fields"].remove(fields["group"]),
    "int to long": lambda fields: fields["contract_version"].update(type="long"),
    "int to text": lambda fields: fields["contract_version"].update(type="string"),
    "text to bytes": lambda fields: fields["meter"].update(type="bytes"),
    "made nullable": lambda fields: fields["meter"].update(type=["null", "string"]),
    "null taken away": lambda fields: fields["group"].update(type=fields["group"]["type"][1], default=[]),
    "a branch more": lambda fields: fields["group"].update(type=[*fields["group"]["type"], "long"]),
    "items of another type": lambda fields: fields["group"].update(type=["null", {"type": "array", "items": "long"}]),
    "a symbol more": lambda fields: cause_kind(fields)["symbols"].append("rebate"),
    "a symbol more and no default": lambda fields: (cause_kind(fields)["symbols"].append("rebate"), cause_kind(fields).pop("default")),
    "a symbol less and no default": lambda fields: (cause_kind(fields)["symbols"].remove("carry"), cause_kind(fields).pop("default")),
    "another record name": lambda fields: fields[""].update(name="Rated"),
    "another enum name": lambda fields: cause_kind(fields).update(name="Kind"),
    "a required field inside": lambda fields: fields["cause"]["type"]["fields"].append({"name": "x", "type": "string"}),
    "renamed with alias": lambda fields: fields["meter"].update(name="gauge", aliases=["meter"]),
    "renamed without": lambda fields: fields["meter"].update(name="gauge"),
}  # fmt: skip


@pytest.mark.parametrize(("rule", "ours"), [("BACKWARD", backward), ("FORWARD", forward)])
def test_our_reading_of_avros_rules_is_the_registrys(client, topic_prefix, rule, ours):
    """So that a check against an earlier release, with no registry at hand, says what the registry would."""
    subject = f"{topic_prefix}rules-value"
    client.register(subject, RATED)
    client.set_compatibility(subject, rule)
    schemas = {name: edited(RATED, change) for name, change in READING.items()}
    theirs = {name: client.compatible(subject, new) for name, new in schemas.items()}
    assert {name: ours(RATED, new) == [] for name, new in schemas.items()} == theirs
    assert 5 < sum(theirs.values()) < len(theirs) - 5, "both verdicts are met"


def test_registering_again_gives_the_same_id_and_no_version(client, topic_prefix):
    subject = f"{topic_prefix}usage-value"
    assert client.latest(subject) is None
    assert client.versions(subject) == []
    assert client.compatible(subject, RATED), "a new subject takes anything"
    assert client.compatibility(subject) is None
    first = client.register(subject, RATED)
    client.set_compatibility(subject, BACKWARD)
    assert client.register(subject, RATED) == first
    assert [(one.schema_id, one.version) for one in client.versions(subject)] == [(first, 1)]
    assert client.latest(subject).schema_id == first
    assert client.compatibility(subject) == BACKWARD
    assert alike(client.writer(first), RATED)
    assert client.find(subject, RATED).version == 1
    assert client.find(subject, edited(RATED, typed("quantity", scale=6))) is None


def test_a_schema_that_is_not_compatible_is_refused_with_where_to_look(client, topic_prefix):
    subject = f"{topic_prefix}usage-value"
    client.set_compatibility(subject, FULL)
    client.register(subject, RATED)
    wrong = edited(RATED, added({"name": "x", "type": "string"}))
    assert not client.compatible(subject, wrong)
    with pytest.raises(RegistryRefused, match=r"refuses \(409: .*'tieout schema check --registry URL' says"):
        client.register(subject, wrong)


def test_the_registry_gives_an_alias_or_another_word_no_id_of_their_own_and_that_is_no_mismatch(client, topic_prefix):
    subject = f"{topic_prefix}usage-value"
    first = client.register(subject, RATED)
    told = edited(RATED, lambda fields: fields["amount"].update(doc="Said otherwise.", aliases=["sum"]))
    assert client.register(subject, told) == first
    assert client.find(subject, told).schema_id == first


def test_four_releases_of_usage_register_in_their_order_and_are_learnt_from_mixed_batches(client, registry, topic_prefix):
    events, subject = versions.usage_event(), f"{topic_prefix}usage.event.v1-value"
    client.set_compatibility(subject, FULL)
    ids = {name: client.register(subject, avro) for name, avro in events.items()}
    assert len(set(ids.values())) == 4
    rows = [versions.framed(ids[name], avro, versions.event(i)) for i in range(50) for name, avro in events.items()]
    asked = []
    fresh = Registry(registry.url)

    def writer(schema_id):
        asked.append(schema_id)
        return fresh.writer(schema_id)

    for reader in events.values():
        decoder = Decoder(reader, {})
        for _ in range(2):
            codecs.learn(decoder, values(*rows), writer)
        decoded = decoder.decode(values(*rows))
        assert decoded.rejected == []
        assert decoded.batch["id"].to_pylist() == [f"evt-{i}" for i in range(50) for _ in range(4)]
        assert sum(decoded.batch["quantity"].to_pylist()) == 4 * sum(Decimal(i % 50 + 1) / 8 for i in range(50))
    assert asked == sorted(ids.values()) * 4
    fresh.close()


def test_four_releases_of_rated_usage_register_in_their_order(client, topic_prefix):
    subject = f"{topic_prefix}usage.rated.v1-value"
    client.set_compatibility(subject, FULL)
    ids = [client.register(subject, avro) for avro in versions.rated_usage().values()]
    assert len(set(ids)) == 4


def test_an_id_that_the_registry_lacks_stops_the_batch_and_rejects_nothing(client, registry):
    decoder = Decoder(catalog.load("usage_event"), {})
    with pytest.raises(UnknownSchema, match=f"schema id 2000000000 is not in the registry {registry.url}") as failure:
        codecs.learn(decoder, values(b"\0\x77\x35\x94\0body"), client.writer)
    assert failure.value.schema_id == 2_000_000_000


def test_types_that_a_schema_takes_from_another_subject_are_read(client, registry, topic_prefix):
    key = {"type": "record", "name": "Key", "namespace": "x", "fields": [{"name": "id", "type": "string"}]}
    main = {"type": "record", "name": "E", "namespace": "x", "fields": [{"name": "a", "type": "x.Key"}, {"name": "b", "type": ["null", "x.Key"], "default": None}]}
    client.register(f"{topic_prefix}key-value", key)
    with SchemaRegistryClient({"url": registry.url}) as theirs:
        number = theirs.register_schema(f"{topic_prefix}e-value", Schema(json.dumps(main), "AVRO", [SchemaReference("x.Key", f"{topic_prefix}key-value", 1)]))
    whole = client.writer(number)
    value = versions.framed(number, whole, {"a": {"id": "1"}, "b": {"id": "2"}})
    assert Decoder(whole, {number: whole}).decode(values(value)).batch.to_pylist() == [{"a": {"id": "1"}, "b": {"id": "2"}}]


def run(capsys, what, *files, **more):
    options = {"registry": None, "against": None, "lock": "unused", "output": "ndjson", **more}
    code = command.run(argparse.Namespace(what=what, files=[str(file) for file in files], **options))
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_coarser_scale_is_found_by_check_and_not_registered(client, registry, topic_prefix, tmp_path, capsys):
    topic = f"{topic_prefix}rated.v1"
    path = tmp_path / f"{topic}.avsc"
    path.write_text(json.dumps(RATED))
    code, rows = run(capsys, "register", path, registry=registry.url)
    assert (code, rows[0]["result"], rows[0]["rule"]) == (0, "registered", FULL)
    assert client.compatibility(f"{topic}-value") == FULL
    path.write_text(json.dumps(edited(RATED, typed("quantity", scale=6))))
    for what in ("check", "register"):
        code, rows = run(capsys, what, path, registry=registry.url)
        assert code == 3
        assert [(row["result"], row["path"]) for row in rows if row["message"]] == [("scale_changed", "quantity")]
    assert len(client.versions(f"{topic}-value")) == 1
    path.write_text(json.dumps(edited(RATED, added({"name": "x", "type": "string", "doc": "X."}))))
    code, rows = run(capsys, "check", path, registry=registry.url)
    assert code == 3
    assert [row["result"] for row in rows if row["message"]] == ["not_backward", "registry_refuses"]
    path.write_text(json.dumps(versions.rated_usage()["N+1"]))
    code, rows = run(capsys, "check", path, registry=registry.url)
    assert (code, [row["result"] for row in rows]) == (0, ["clean", "compatible"])


def test_a_subject_without_its_rule_is_a_finding_until_register_sets_it(client, registry, topic_prefix, tmp_path, capsys):
    topic = f"{topic_prefix}rated.v1"
    path = tmp_path / f"{topic}.avsc"
    path.write_text(json.dumps(RATED))
    client.register(f"{topic}-value", RATED)
    client.set_compatibility(f"{topic}-value", "NONE")
    code, rows = run(capsys, "check", path, registry=registry.url)
    assert (code, [row["result"] for row in rows]) == (3, ["clean", "same", "rule_missing"])
    code, rows = run(capsys, "register", path, registry=registry.url)
    assert (code, rows[0]["result"]) == (0, "known")
    assert run(capsys, "check", path, registry=registry.url)[0] == 0


def test_the_catalogue_is_registered_locked_confirmed_and_survives_the_registrys_end(new_registry, tmp_path, capsys):
    """One story on a registry of its own: what a platform team does, then what a flow meets."""
    url, path = new_registry.url, tmp_path / "lock.json"
    assert run(capsys, "lock", registry=url, lock=str(path)) == (3, [
        {"schema": name, "subject": catalog.SUBJECTS[name], "id": None, "result": "not_registered"} for name in catalog.names()
    ])  # fmt: skip
    assert not path.exists()
    first, again = run(capsys, "register", registry=url), run(capsys, "register", registry=url)
    assert (first[0], {row["result"] for row in first[1]}) == (0, {"registered"})
    assert (again[0], {row["result"] for row in again[1]}) == (0, {"known"})
    ids = {row["schema"]: row["id"] for row in first[1]}
    assert ids == {row["schema"]: row["id"] for row in again[1]}
    assert {row["rule"] for row in first[1] if row["schema"] != "usage_event"} == {FULL}
    assert run(capsys, "lock", registry=url, lock=str(path))[0] == 0
    lock = locks.read(path)
    assert {name: schema.id for name, schema in lock.schemas.items()} == ids
    path.write_text(locks.text(replace(lock, refused={9999: "garbage"})))
    assert {row["result"] for row in run(capsys, "lock", registry=url, lock=str(path))[1]} == {"kept"}
    assert locks.read(path).refused == {9999: "garbage"}
    assert {row["result"] for row in run(capsys, "check", registry=url)[1]} == {"clean", "same"}

    client = Registry(url)
    assert client.confirm(lock) == {name: {} for name in ids}
    table = pa.RecordBatch.from_pylist([versions.event(1)], schema=catalog.arrow_schema("usage_event"))
    with codecs.pinned(lock, client.confirm(lock)):
        value = codecs.encode("usage_event", table)[0].as_py()
    assert int.from_bytes(value[1:5], "big") == ids["usage_event"]

    older = versions.usage_event()["N-1"]
    number = client.register(catalog.SUBJECTS["usage_event"], older)
    assert client.confirm(lock)["usage_event"].keys() == {number}
    swapped = lock.schemas | {"hold": replace(lock.schemas["hold"], schema_id=ids["command"])}
    for wrong in (Lock(swapped, {}), Lock(lock.schemas | {"hold": replace(lock.schemas["hold"], schema_id=77_777)}, {})):
        with pytest.raises(LockMismatch, match=r"pins id \d+ for usage.hold.v1-value, and the registry .* 'tieout schema lock'"):
            client.confirm(wrong)

    fresh, decoder, batch = Registry(url), Decoder(catalog.load("usage_event"), {}), values(value)
    new_registry.kill()
    with pytest.raises(RegistryAway):
        codecs.learn(decoder, batch, fresh.writer)
    codecs.learn(decoder, batch, client.writer)  # what has been asked once needs no registry
    assert decoder.decode(batch).rejected == []
    new_registry.start()
    codecs.learn(Decoder(catalog.load("usage_event"), {}), batch, fresh.writer)
    for one in (client, fresh):
        one.close()
