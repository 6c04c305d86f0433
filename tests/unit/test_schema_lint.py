"""The financial lint: what a registry lets through although it makes figures wrong, each with its field and a remedy."""

import copy
import json
from typing import Any

import pytest

from schemas import catalog
from schemas.compatibility import alike, backward, forward
from schemas.lint import lint, money_like
from schemas.lint_change import changes

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 12}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
KIND = {"type": "enum", "name": "Kind", "doc": "A kind.", "symbols": ["usage", "carry", "unknown"], "default": "unknown"}
ABSENT = object()


def schema(*fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "namespace": "n", "doc": "A record.", "fields": list(fields), **more}


def field(name: str, kind: Any, default: Any = ABSENT, **more: Any) -> dict[str, Any]:
    given = {} if default is ABSENT else {"default": default}
    return {"name": name, "type": kind, "doc": "A field.", **given, **more}


def codes(avro: Any) -> list[tuple[str, str]]:
    return [(found.code, found.path) for found in lint(avro)]


@pytest.mark.parametrize("name", catalog.names())
def test_the_catalogue_has_no_finding_and_no_change_against_itself(name):
    avro = catalog.load(name).avro
    assert lint(avro) == []
    assert changes(avro, avro, forward=True) == backward(avro, avro) == forward(avro, avro) == []


ALONE = {
    "money as double": (field("amount", "double"), [("money_float", "amount")]),
    "money as optional float": (field("unit_price", ["null", "float"], None), [("money_float", "unit_price")]),
    "money as floats in a list": (field("fees", {"type": "array", "items": "double"}), [("money_float", "fees")]),
    "money as floats in a map": (field("totals", {"type": "map", "values": "double"}), [("money_float", "totals")]),
    "money as text": (field("total", "string"), [("money_plain", "total")]),
    "money as cents": (field("ssp", "long"), [("money_plain", "ssp")]),
    "money as bare bytes": (field("quantity", "bytes"), [("money_plain", "quantity")]),
    "money as text in a list": (field("prices", {"type": "array", "items": "string"}), [("money_plain", "prices")]),
    "counts in a map": (field("totals", {"type": "map", "values": "long"}), []),
    "a count": (field("fee_count", "long"), []),
    "a code": (field("tax_code", "string"), []),
    "not money": (field("ratio", "double"), []),
    "a decimal": (field("amount", DECIMAL), []),
    "a decimal with default 0": (field("amount", DECIMAL, "\0"), []),
    "a null default": (field("amount", ["null", DECIMAL], None), []),
    "a decimal on long": (
        field("amount", {"type": "long", "logicalType": "decimal", "precision": 9}),
        [("money_plain", "amount"), ("logical_type_ignored", "amount")],
    ),
    "a decimal on the field": (
        field("amount", "bytes", logicalType="decimal", precision=9, scale=2), [("logical_type_misplaced", "amount"), ("money_plain", "amount")],
    ),
    "a misspelt logical type": (field("at", {"type": "long", "logicalType": "timestamp-mircos"}), [("logical_type_ignored", "at")]),
    "no precision": (field("amount", {"type": "bytes", "logicalType": "decimal"}), [("decimal_invalid", "amount")]),
    "a number as text for bytes": (field("amount", DECIMAL, "0.00"), [("default_bytes", "amount")]),
    "the digit 0 for bytes": (field("amount", DECIMAL, "0"), [("default_bytes", "amount")]),
    "no bytes at all": (field("amount", DECIMAL, ""), [("default_bytes", "amount")]),
    "characters that are no bytes": (field("amount", DECIMAL, "€"), [("default_bytes", "amount")]),
    "more digits than the precision": (field("amount", DECIMAL | {"precision": 12}, "\x7f" * 8), [("default_bytes", "amount")]),
    "the wrong number of bytes": (
        field("amount", {"type": "fixed", "name": "F", "doc": "F.", "size": 4, "logicalType": "decimal", "precision": 9}, "\0"),
        [("default_bytes", "amount")],
    ),
    "a wrong default inside a list": (field("thresholds", {"type": "array", "items": DECIMAL}, ["100"]), [("default_bytes", "thresholds[]")]),
    "a default of another branch": (field("note", ["string", "null"], None), [("default_branch", "note")]),
    "an enum without default": (field("kind", {key: value for key, value in KIND.items() if key != "default"}), [("enum_default", "kind")]),
    "no doc": ({"name": "n", "type": "long"}, [("doc_missing", "n")]),
    "no doc inside": (
        field("lines", {"type": "array", "items": {"type": "record", "name": "Line", "doc": "L.", "fields": [{"name": "amount", "type": DECIMAL}]}}),
        [("doc_missing", "lines[].amount")],
    ),
    "its own second name": (field("a", "long", aliases=["b"]), []),
}


@pytest.mark.parametrize("name", ALONE)
def test_one_field_has_exactly_these_findings(name):
    given, expected = ALONE[name]
    assert codes(schema(given)) == expected
    assert all(found.message for found in lint(schema(given)))


def test_two_fields_that_claim_one_name_lose_one_of_them():
    both = schema(field("a", "long", aliases=["old"]), field("b", "long", aliases=["old"]))
    assert codes(both) == [("alias_clash", "a"), ("alias_clash", "b")]
    assert codes(schema(field("a", "long", aliases=["b"]), field("b", "long"))) == [("alias_clash", "a")]
    assert codes(schema(field("a", "long"), field("a", "long"))) == [("name_twice", "a")]


@pytest.mark.parametrize("broken", [{"type": "record", "name": "R"}, {"type": "surprise"}, {"type": "record", "fields": [3]}, 7, schema(field("a", "Gone"))])
def test_what_is_no_schema_is_one_finding_or_an_empty_record(broken):
    assert {found.code for found in lint(broken)} <= {"invalid", "doc_missing"}
    assert lint(broken)


@pytest.mark.parametrize("name", ["amount", "unit_price", "unitPrice", "amountDue", "amount_at_risk", "taxes", "quantities", "flat_fee", "VAT", "ssp"])
def test_these_names_are_money(name):
    assert money_like(name)


@pytest.mark.parametrize("name", ["tax_code", "rate_card", "payment_terms_days", "charge_id", "fee_count", "corporate", "iterated", "id", "", "due_on", "credits_invoice"])
def test_these_names_are_none(name):
    assert not money_like(name)


BASE = schema(
    field("amount", DECIMAL, aliases=["sum"]),
    field("fee", ["null", DECIMAL], None),
    field("at", MICROS),
    field("note", ["null", "string"], None),
    field("kind", KIND),
    field("lines", {"type": "array", "items": {"type": "record", "name": "Line", "doc": "L.", "fields": [field("price", DECIMAL), field("next", ["null", "Line"], None)]}}),
)


def changed(**by_name: Any) -> dict[str, Any]:
    """The base with some fields' attributes changed; None takes a field out."""
    avro = copy.deepcopy(BASE)
    avro["fields"] = [one | by_name.get(one["name"], {}) for one in avro["fields"] if by_name.get(one["name"], {}) is not None]
    return avro


def line_price(kind: Any) -> dict[str, Any]:
    avro = copy.deepcopy(BASE)
    avro["fields"][5]["type"]["items"]["fields"][0]["type"] = kind
    return avro


CHANGED = {
    "scale 12 to 6": (changed(amount={"type": DECIMAL | {"scale": 6}}), [("scale_changed", "amount")]),
    "scale inside a list": (line_price(DECIMAL | {"scale": 2}), [("scale_changed", "lines[].price")]),
    "scale inside a union": (changed(fee={"type": ["null", DECIMAL | {"scale": 9}]}), [("scale_changed", "fee")]),
    "precision 38 to 20": (changed(amount={"type": DECIMAL | {"precision": 20}}), [("precision_changed", "amount")]),
    "decimal dropped": (changed(amount={"type": "bytes"}), [("decimal_dropped", "amount")]),
    "decimal to text": (changed(amount={"type": "string"}), [("decimal_dropped", "amount")]),
    "decimal added": (changed(note={"type": ["null", DECIMAL]}), [("decimal_added", "note")]),
    "micros to millis": (changed(at={"type": {"type": "long", "logicalType": "timestamp-millis"}}), [("time_unit_changed", "at")]),
    "micros to local micros": (changed(at={"type": {"type": "long", "logicalType": "local-timestamp-micros"}}), [("logical_type_changed", "at")]),
    "timestamp dropped": (changed(at={"type": "long"}), [("logical_type_changed", "at")]),
    "a default for money": (changed(amount={"default": "\0"}), [("default_changed", "amount")]),
    "money not null by default": (changed(fee={"type": [DECIMAL, "null"], "default": "\1"}), [("default_changed", "fee"), ("union_order_changed", "fee")]),
    "another default for text": (changed(note={"type": ["string", "null"], "default": ""}), [("union_order_changed", "note")]),
    "a field gone": (changed(fee=None), [("field_lost", "fee")]),
    "a field under another name": (changed(fee={"name": "charge"}), [("field_lost", "fee")]),
    "the same with an alias": (changed(fee={"name": "charge", "aliases": ["fee"]}), [("field_renamed", "fee")]),
    "an alias gone": (changed(amount={"aliases": []}), [("alias_lost", "amount")]),
    "a symbol gone": (changed(kind={"type": KIND | {"symbols": ["usage", "unknown"]}}), [("symbol_lost", "kind")]),
    "a symbol added": (changed(kind={"type": KIND | {"symbols": [*KIND["symbols"], "credit"]}}), []),
    "another enum default": (changed(kind={"type": KIND | {"default": "usage"}}), [("enum_default_changed", "kind")]),
    "another type name": (changed(kind={"type": KIND | {"name": "Sort"}}), [("name_changed", "kind")]),
    "the same with its alias": (changed(kind={"type": KIND | {"name": "Sort", "aliases": ["n.Kind"]}}), []),
    "another namespace": ({**BASE, "namespace": "m"}, [("name_changed", ""), ("name_changed", "kind"), ("name_changed", "lines[]")]),
    "money that old records did not say": ({**BASE, "fields": [*BASE["fields"], field("tax", DECIMAL, "\1")]}, [("default_added", "tax")]),
    "an optional field added": ({**BASE, "fields": [*BASE["fields"], field("tax", ["null", DECIMAL], None)]}, []),
    "words changed": (json.loads(json.dumps(BASE).replace("A field.", "Another word.")), []),
    "fields in another order": ({**BASE, "fields": BASE["fields"][::-1]}, []),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_change_has_exactly_these_findings(name):
    new, expected = CHANGED[name]
    found = changes(BASE, new, forward=True)
    assert [(one.code, one.path) for one in found] == expected
    assert all(";" in one.message for one in found), "a finding says what to do"


def test_a_renamed_field_is_no_finding_where_only_new_readers_count():
    renamed = changed(fee={"name": "charge", "aliases": ["fee"]})
    assert changes(BASE, renamed, forward=False) == []


def test_a_finding_names_both_figures_and_the_factor():
    found = changes(BASE, CHANGED["scale 12 to 6"][0], forward=True)[0]
    assert "was 12 and is 6" in found.message
    assert "10^6" in found.message


READING = {
    "a required field added": (schema(field("a", "long"), field("b", "long")), ["b"], []),
    "an optional field added": (schema(field("a", "long"), field("b", "long", 0)), [], []),
    "long to double": (schema(field("a", "double")), [], ["a"]),
    "long to text": (schema(field("a", "string")), ["a"], ["a"]),
    "made nullable": (schema(field("a", ["null", "long"])), [], ["a"]),
    "another record name": (schema(field("a", "long"), name="S"), [""], [""]),
    "another namespace": (schema(field("a", "long"), namespace="m"), [], []),
    "renamed with alias": (schema(field("b", "long", aliases=["a"])), [], ["a"]),
}


@pytest.mark.parametrize("name", READING)
def test_the_fields_that_cannot_be_read_are_named_in_both_directions(name):
    old = schema(field("a", "long"))
    new, unread, unread_by_old = READING[name]
    assert [found.path for found in backward(old, new)] == unread
    assert [found.path for found in forward(old, new)] == unread_by_old


def test_an_enum_needs_a_default_only_where_a_symbol_is_unknown():
    def of(symbols: list[str], **more: Any) -> Any:
        return schema(field("k", {"type": "enum", "name": "K", "symbols": symbols, **more}))

    assert [found.path for found in forward(of(["a"]), of(["a", "b"]))] == ["k"]
    assert backward(of(["a"]), of(["a", "b"])) == []
    assert forward(of(["a"], default="a"), of(["a", "b"], default="a")) == []


def test_a_type_within_itself_is_compared_once():
    node = schema(field("next", ["null", "R"], None), field("n", "long"))
    wider = schema(field("next", ["null", "R"], None), field("n", "double"))
    assert backward(node, wider) == []
    assert [found.path for found in forward(node, wider)] == ["n"]


def test_schemas_are_alike_whatever_they_say_in_words_and_however_they_are_written_down():
    text = json.dumps(BASE)
    assert alike(BASE, json.loads(text.replace("A field.", "Another word.")))
    assert alike(BASE, changed(amount={"aliases": []}))
    assert alike(BASE, json.loads(text.replace('"string"', '{"type": "string"}')))
    spelt = copy.deepcopy(BASE)
    spelt["name"] = "n.R"
    del spelt["namespace"]
    assert alike(BASE, spelt)
    for name in ("scale 12 to 6", "precision 38 to 20", "decimal dropped", "micros to millis", "a default for money", "fields in another order"):
        assert not alike(BASE, CHANGED[name][0]), name
