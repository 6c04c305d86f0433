"""``tieout invoice``: statements over contracts and entities, payment terms from reference data, credit notes as pages."""

import json

import pytest

from flows import cli
from tests.unit.test_invoicing import USAGE, fee

FACTS = [
    {"kind": "customer", "key": "k", "customer": {"tax_jurisdiction": "DE", "tax_treatment": "standard", "payment_terms_days": 14}},
    {"kind": "product", "key": "p", "product": {"name": "P", "tax_code": "std"}},
    {"kind": "tax_rate", "key": "de", "tax_rate": {"jurisdiction": "DE", "tax_code": "std", "rate_percent": "20"}},
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two contracts of one customer; the second has a line of another legal entity."""
    monkeypatch.chdir(tmp_path)
    base = {"customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "legal_entity_id": "us-inc"}
    one = base | {"contract_id": "one", "charges": [USAGE]}
    two = base | {"contract_id": "two", "charges": [fee("10"), fee("20") | {"charge_id": "g", "legal_entity_id": "de-gmbh"}], "billing": {"payment_terms_days": 60}}
    (tmp_path / "contracts.json").write_text(json.dumps([one, two]))
    events = [
        {"id": "a", "quantity": "50", "contract_id": "one", "time": "2026-01-10T00:00:00Z"},
        {"id": "b", "quantity": "20", "contract_id": "one", "time": "2026-02-10T00:00:00Z", "corrects": {"source": "quote", "id": "a"}},
    ]
    (tmp_path / "usage.jsonl").write_text("\n".join(json.dumps(event) for event in events))
    (tmp_path / "facts.jsonl").write_text("\n".join(json.dumps(fact | {"valid_from": "2020-01-01T00:00:00Z"}) for fact in FACTS))
    return tmp_path


def ask(capsys, period, *more, output="json"):
    options = ["invoice", "--contract", "contracts.json", "--usage", "usage.jsonl", "--reference", "facts.jsonl", "--period", period, "--output", output, *more]
    assert cli.main(options) == 0
    told = capsys.readouterr().out
    return json.loads(told) if output == "json" else told


def test_a_statement_sums_all_contracts_and_legal_entities(files, capsys):
    told = ask(capsys, "2026-02", "--statement", "--html", "page.html")
    (statement,) = told["statements"]
    assert [(one["contract_id"], one["legal_entity_id"], one["kind"], one["total"]) for one in statement["documents"]] == [
        ("two", "de-gmbh", "invoice", "24.00"), ("one", "us-inc", "credit_note", "-36.00"), ("two", "us-inc", "invoice", "12.00"),
    ]
    assert [(one["legal_entity_id"], one["amount_due"]) for one in statement["by_entity"]] == [("de-gmbh", "24.00"), ("us-inc", "-24.00")]
    assert (statement["total"], statement["amount_due"]) == ("0.00", "0.00")
    page = (files / "page.html").read_text()
    assert page.index("Statement") < page.index("Invoice</h1>")
    assert "statements" not in ask(capsys, "2026-02")
    assert "by legal entity" in ask(capsys, "2026-02", "--statement", output="table")


def test_the_page_of_a_credit_note_says_what_is_in_the_customers_favour_and_no_due_date(files, capsys):
    ask(capsys, "2026-02", "--html", "page.html")
    note = next(sheet for sheet in (files / "page.html").read_text().split("<main")[1:] if "Credit note</h1>" in sheet)
    assert "Amount in your favour in USD" in note
    assert ">36.00<" in note
    assert "<dt>Due</dt>" not in note
    assert "earlier documents" in note


def test_payment_terms_are_the_contracts_else_the_customers(files, capsys):
    due = {(one["contract_id"], one["issued_on"], one["due_on"]) for one in ask(capsys, "2026-01")["invoices"]}
    assert due == {("one", "2026-02-02", "2026-02-16"), ("two", "2026-02-02", "2026-04-03")}


def test_a_batch_has_statements_where_they_are_asked_for(files, capsys):
    case = {"id": 1, "contracts": json.loads((files / "contracts.json").read_text()), "period": "2026-01"}
    (files / "cases.jsonl").write_text(json.dumps(case))
    assert cli.main(["invoice", "--batch", "cases.jsonl", "--statement"]) == 0
    assert [one["total"] for one in json.loads(capsys.readouterr().out)["statements"]] == ["30.00"]
