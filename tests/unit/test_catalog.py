"""The schemas themselves: pinned, documented, and with the scales that money needs."""

import json
from importlib.resources import files
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from schemas import catalog

NAMES = [
    "command",
    "contract_version",
    "dead_letter",
    "document",
    "exception",
    "hold",
    "invoice",
    "rated_usage",
    "reference_record",
    "state_token",
    "usage_event",
]
SCALES = {
    ("rated_usage", "quantity"): (28, 9),
    ("rated_usage", "amount"): (38, 12),
    ("usage_event", "quantity"): (28, 9),
    ("usage_event", "amount"): (38, 12),
    ("exception", "amount_at_risk"): (38, 12),
    ("invoice", "total"): (38, 12),
    ("invoice", "amount_due"): (38, 12),
    ("document", "total"): (38, 12),
}


def parts(avro: Any) -> list[dict[str, Any]]:
    """All named types and fields of a schema."""
    if isinstance(avro, list):
        return [part for branch in avro for part in parts(branch)]
    if not isinstance(avro, dict):
        return []
    found = [avro] if "name" in avro else []
    return found + [part for key in ("fields", "type", "items", "values") for part in parts(avro.get(key))]


def test_the_catalogue_holds_these_schemas() -> None:
    assert catalog.names() == NAMES
    assert set(catalog.SUBJECTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_the_one_that_the_lock_pins(name: str) -> None:
    schema = catalog.load(name)
    pinned = json.loads(files("schemas").joinpath("lock.json").read_text())[name]
    assert pinned == {"id": schema.id, "subject": schema.subject, "fingerprint": catalog.fingerprint(schema.avro)}
    assert schema.subject == f"{schema.topic}-value"


def test_the_lock_is_what_the_command_prints_and_its_ids_are_distinct() -> None:
    assert files("schemas").joinpath("lock.json").read_text() == catalog.lock()
    ids = [catalog.load(name).id for name in NAMES]
    assert len(set(ids)) == len(NAMES)
    assert not set(ids) & {number for name in NAMES for number in catalog.past(name)}
    assert catalog.load("usage_event").id == 11


@pytest.mark.parametrize("name", NAMES)
def test_every_type_and_field_is_documented_and_in_one_namespace(name: str) -> None:
    avro = catalog.load(name).avro
    assert avro["namespace"] == "tieout.v1"
    assert [part["name"] for part in parts(avro) if not part.get("doc")] == []
    fastavro.parse_schema(avro)


@pytest.mark.parametrize("name", NAMES)
def test_every_enum_has_a_default_so_that_a_newer_writer_can_be_read(name: str) -> None:
    enums = [part for part in parts(catalog.load(name).avro) if part.get("type") == "enum"]
    assert [enum["name"] for enum in enums if enum.get("default") not in enum["symbols"]] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_optional_field_defaults_to_null(name: str) -> None:
    optional = [part for part in parts(catalog.load(name).avro) if isinstance(part.get("type"), list)]
    assert [field["name"] for field in optional if field.get("default", "") is not None] == []


def test_money_and_quantities_have_their_scales_and_nothing_is_a_float() -> None:
    for (name, field), (precision, scale) in SCALES.items():
        assert catalog.arrow_schema(name).field(field).type == pa.decimal128(precision, scale)
    for name in NAMES:
        text = json.dumps(catalog.load(name).avro)
        assert '"float"' not in text
        assert '"double"' not in text


def test_changing_a_scale_changes_the_fingerprint_and_changing_a_comment_does_not() -> None:
    avro = catalog.load("rated_usage").avro
    coarser = json.loads(json.dumps(avro).replace('"scale": 9', '"scale": 6'))
    reworded = json.loads(json.dumps(avro).replace("The contract.", "The agreement."))
    assert coarser != avro
    assert catalog.fingerprint(coarser) != catalog.fingerprint(avro)
    assert reworded != avro
    assert catalog.fingerprint(reworded) == catalog.fingerprint(avro)


def test_a_field_that_is_named_doc_counts_for_the_fingerprint() -> None:
    with_doc = {"type": "record", "name": "R", "fields": [{"name": "doc", "type": "string"}]}
    assert catalog.fingerprint(with_doc) != catalog.fingerprint({**with_doc, "fields": []})


def test_an_unknown_schema_is_refused_with_what_there_is() -> None:
    with pytest.raises(catalog.CatalogError, match=r"no schema is called 'usage'.*usage_event"):
        catalog.load("usage")


def test_a_schema_that_differs_from_the_lock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"usage_event": {"id": 11, "subject": "usage.event.v1-value", "fingerprint": "0"}}
    monkeypatch.setattr(catalog, "_lock", lambda: wrong)
    catalog.load.cache_clear()
    try:
        with pytest.raises(catalog.CatalogError, match="is not the schema that"):
            catalog.load("usage_event")
    finally:
        catalog.load.cache_clear()


def test_the_usage_events_fields_stand_in_their_order() -> None:
    assert catalog.arrow_schema("usage_event").names == [
        "id",
        "source",
        "customer_id",
        "meter",
        "time",
        "quantity",
        "attributes",
        "contract_id",
        "amount",
        "corrects",
        "voids",
    ]


@pytest.mark.parametrize(
    ("avro", "message"),
    [(["string", "long"], "only unions of one type with null"), ("surprise", "'surprise' has no Arrow type")],
)
def test_a_type_without_a_column_is_refused(avro: Any, message: str) -> None:
    with pytest.raises(catalog.CatalogError, match=message):
        catalog.arrow_type(avro, {})


def test_a_numbered_document_is_the_invoice_with_a_number() -> None:
    invoice, document = catalog.load("invoice").avro["fields"], catalog.load("document").avro["fields"]
    assert [field["name"] for field in document[:2]] == ["number", "sequence"]
    assert document[2:] == invoice
