"""Whose ids values carry: the catalogue's in a folder, a registry's where a lock file pins them; new ones are learnt."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from flows import codecs
from schemas import catalog
from schemas import lock as locks
from schemas.catalog import CatalogError
from schemas.codec import Decoder
from schemas.errors import RegistryAway, UnknownSchema, UnusableSchema
from schemas.lock import Lock
from tests import versions

USAGE = catalog.load("usage_event")
EVENTS = versions.usage_event()


def values(*rows):
    return pa.array(rows, pa.large_binary())


def framed(number, i=0):
    return versions.framed(number, USAGE.avro, versions.event(i))


def lock_of(**ids):
    """A lock with ids from 500 on, and some set."""
    schemas = {name: replace(catalog.load(name), schema_id=ids.get(name, 500 + place)) for place, name in enumerate(catalog.names())}
    return Lock(schemas, {})


def test_unknown_ids_are_those_of_frames_without_a_writer_in_rising_order():
    decoder = Decoder(USAGE, {11: USAGE.avro})
    assert decoder.unknown_ids(values(framed(11))) == []
    assert decoder.unknown_ids(values(framed(7), framed(11), framed(7), framed(5), b"\0\xff\xff\xff\xff")) == [5, 7, 2**32 - 1]


@pytest.mark.parametrize("rows", [(), (None,), (b"",), (b"\0\0\0\0",), (b"\1\0\0\0\7body",), (None, b"{}", b"\0\0")])
def test_what_has_no_frame_has_no_id(rows):
    assert Decoder(USAGE, {}).unknown_ids(values(*rows)) == []


def test_ids_are_found_in_any_slice_and_behind_nulls_and_in_either_binary_type():
    rows = [framed(7), None, b"", framed(8), b"\0\0\0\0\x09", b"x"]
    for kind in (pa.large_binary(), pa.binary()):
        whole = pa.array(rows, kind)
        for start in range(len(rows)):
            for stop in range(start, len(rows) + 1):
                expected = sorted({int.from_bytes(row[1:5], "big") for row in rows[start:stop] if row and len(row) >= 5})
                assert Decoder(USAGE, {}).unknown_ids(whole[start:stop]) == expected


def test_a_null_row_that_has_bytes_in_its_buffer_has_no_id():
    whole = values(framed(7), framed(8))
    masked = pa.Array.from_buffers(pa.large_binary(), 2, [pa.py_buffer(bytes([0b01])), *whole.buffers()[1:]])
    assert Decoder(USAGE, {}).unknown_ids(masked) == [7]


def test_a_writer_that_is_learnt_reads_what_waited_for_it_and_never_changes():
    decoder = Decoder(USAGE, {})
    row = versions.framed(9, EVENTS["N-2"], {name: value for name, value in versions.event(3).items()})
    assert [refused.reason for refused in decoder.decode(values(row)).rejected] == ["schema_unknown"]
    decoder.add_writer(9, EVENTS["N-2"])
    decoder.add_writer(9, EVENTS["N"])
    assert decoder.unknown_ids(values(row)) == []
    assert decoder.decode(values(row)).batch["id"].to_pylist() == ["evt-3"]


def test_values_of_a_refused_writer_are_rejected_with_its_reason_and_their_neighbours_are_read():
    decoder = Decoder(USAGE, {11: USAGE.avro})
    decoder.refuse_writer(7, "schema id 7 is PROTOBUF, not Avro; write usage as Avro")
    decoded = decoder.decode(values(framed(11, 1), framed(7), framed(11, 2)))
    assert decoded.batch["id"].to_pylist() == ["evt-1", "evt-2"]
    assert decoded.rejected == [(1, "undecodable", "schema id 7 is PROTOBUF, not Avro; write usage as Avro", None, 7)]


def test_learning_asks_once_an_id_and_rejects_what_is_no_avro():
    asked = []

    def writer(schema_id):
        asked.append(schema_id)
        if schema_id == 8:
            raise UnusableSchema("schema id 8 is JSON, not Avro; write usage as Avro")
        return USAGE.avro

    decoder = Decoder(USAGE, {})
    batch = values(framed(7, 1), framed(8), framed(7, 2), b"poison")
    for _ in range(3):
        codecs.learn(decoder, batch, writer)
    decoded = decoder.decode(batch)
    assert asked == [7, 8]
    assert decoded.batch["id"].to_pylist() == ["evt-1", "evt-2"]
    assert [(refused.row, refused.schema_id) for refused in decoded.rejected] == [(1, 8), (3, None)]


@pytest.mark.parametrize("failure", [RegistryAway("down"), UnknownSchema(7, "not there")])
def test_while_the_registry_cannot_say_nothing_is_decoded_or_rejected_and_it_is_asked_again(failure):
    answers = [failure, USAGE.avro]

    def writer(_schema_id):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    decoder, batch = Decoder(USAGE, {}), values(framed(7, 1))
    with pytest.raises(type(failure)):
        codecs.learn(decoder, batch, writer)
    assert decoder.unknown_ids(batch) == [7]
    codecs.learn(decoder, batch, writer)
    assert decoder.decode(batch).rejected == []


def test_within_pinned_values_carry_the_locks_ids_and_own_records_of_other_versions_are_read():
    table = pa.RecordBatch.from_pylist([versions.event(1)], schema=catalog.arrow_schema("usage_event"))
    older = versions.framed(61, EVENTS["N-1"], versions.event(2))
    with codecs.pinned(lock_of(usage_event=77), {"usage_event": {61: EVENTS["N-1"]}}):
        value = codecs.encode("usage_event", table)[0].as_py()
        assert value[:5] == b"\0\0\0\0\x4d"
        assert codecs.own("usage_event").decode(values(value, older)).batch["id"].to_pylist() == ["evt-1", "evt-2"]
        assert codecs.decoder("usage_event", {}).unknown_ids(values(framed(11))) == [11]
    assert codecs.encode("usage_event", table)[0].as_py()[:5] == b"\0\0\0\0\x0b"
    assert codecs.own("usage_event").unknown_ids(values(value)) == [77]


def test_an_id_that_the_lock_refuses_is_rejected_and_not_asked_for():
    lock = replace(lock_of(usage_event=77), refused={9999: "garbage of gateway-eu"})
    with codecs.pinned(lock, {}):
        decoder = codecs.decoder("usage_event", {})
    batch = values(framed(77, 1), framed(9999))
    assert decoder.unknown_ids(batch) == []
    refused = decoder.decode(batch).rejected
    assert [(one.row, one.reason, one.schema_id) for one in refused] == [(1, "undecodable", 9999)]
    assert "garbage of gateway-eu" in refused[0].message


def test_a_released_version_that_is_no_longer_written_is_still_read_in_folders(monkeypatch):
    kept = {"usage_event.10": json.dumps(EVENTS["N-2"])}
    stems, text = catalog._stems(), catalog._text
    monkeypatch.setattr(catalog, "_stems", lambda: [*stems, *kept])
    monkeypatch.setattr(catalog, "_text", lambda stem: kept.get(stem) or text(stem))
    assert catalog.names() == sorted(stem for stem in stems if "." not in stem)
    assert catalog.past("usage_event") == {10: EVENTS["N-2"]}
    assert catalog.past("hold") == {}
    row = versions.framed(10, EVENTS["N-2"], versions.event(5))
    assert codecs.decoder("usage_event", {}).decode(values(row, framed(11, 6))).batch["id"].to_pylist() == ["evt-5", "evt-6"]


def test_only_usage_is_held_to_backward_compatibility_alone():
    rules = {name: catalog.compatibility(subject) for name, subject in catalog.SUBJECTS.items()}
    assert [name for name, rule in rules.items() if rule == "BACKWARD_TRANSITIVE"] == ["usage_event"]
    assert set(rules.values()) == {"BACKWARD_TRANSITIVE", "FULL_TRANSITIVE"}


def test_a_lock_file_comes_back_as_it_was_written(tmp_path):
    lock = replace(lock_of(hold=3), refused={9: "nothing"})
    path = tmp_path / "lock.json"
    path.write_text(locks.text(lock))
    assert locks.read(path) == lock
    assert locks.text(locks.read(path)) == path.read_text()


def broken_lock(change):
    content = json.loads(locks.text(lock_of()))
    change(content)
    return json.dumps(content)


BROKEN = {
    "not JSON": ("{", "is not JSON.*restore it"),
    "a list": ("[]", "is not a lock file"),
    "a schema missing": (broken_lock(lambda c: c.pop("hold")), "does not pin the hold schema of this release; run 'tieout schema register'"),
    "another release": (broken_lock(lambda c: c["hold"].update(fingerprint="0")), "does not pin the hold schema of this release"),
    "another subject": (broken_lock(lambda c: c["hold"].update(subject="x-value")), "does not pin the hold schema"),
    "no id": (broken_lock(lambda c: c["hold"].pop("id")), "hold: None is not a schema id"),
    "an id of 0": (broken_lock(lambda c: c["hold"].update(id=0)), "hold: 0 is not a schema id"),
    "an id of 2^32": (broken_lock(lambda c: c["hold"].update(id=2**32)), "is not a schema id"),
    "a refused word": (broken_lock(lambda c: c.update(refused={"x": "why"})), "refused: 'x' is not a schema id"),
    "a refused list": (broken_lock(lambda c: c.update(refused=[1])), "'refused' is not an object"),
    "a pinned id refused": (broken_lock(lambda c: c.update(refused={str(c["hold"]["id"]): "why"})), "pinned for hold and refused as well"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_lock_file_that_cannot_be_trusted_is_refused_with_what_to_do(tmp_path, name):
    text, message = BROKEN[name]
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(CatalogError, match=message):
        locks.read(path)


def test_a_missing_lock_file_is_refused_with_the_command_that_writes_it(tmp_path):
    with pytest.raises(CatalogError, match="write it with 'tieout schema lock --registry URL --lock .*absent.json'"):
        locks.read(tmp_path / "absent.json")


def test_ids_of_a_large_batch_of_two_writers_are_found():
    rows = [framed(7), framed(11)] * 5000
    rng = np.random.default_rng(1)
    assert Decoder(USAGE, {11: USAGE.avro}).unknown_ids(values(*[rows[i] for i in rng.permutation(len(rows))])) == [7]
