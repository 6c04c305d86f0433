"""Numbered documents as people see them: listed, one whole, as a page; run and proved by commands."""

import json

import pytest

from flows import cli, document_view
from flows.file_place import FilePlace
from tests.flow.test_document_flow import PARTITIONS, put
from tests.invoices import invoices
from tieout.invoicing.wire import invoice_document

COUNT = 4000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Numbered documents; those of one partition are too many to be read at once."""
    root = tmp_path_factory.mktemp("documents") / "data"
    put(root, invoices(COUNT))
    assert cli.main(["run", "document", "--dir", str(root), "--engine", "local"]) == 0
    return root


@pytest.fixture
def ask(folder, capsys):
    """`ask(words)`: the answer as JSON rows; `ask(words, code)`: what is said on stderr, with that exit code."""

    def asked(words, code=0):
        found = cli.main([*words, "--dir", str(folder), "--output", "ndjson"])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.err if code else [json.loads(line) for line in said.out.splitlines()]

    return asked


def test_all_documents_are_listed_with_their_numbers_and_what_is_due(ask):
    rows = ask(["document", "ls"])
    assert len(rows) == len({row["number"] for row in rows}) == COUNT - COUNT // 100
    assert list(rows[0]) == ["number", "kind", "customer_id", "contract_id", "issued_on", "due_on", "currency", "total", "amount_due"]
    yen = next(row for row in rows if row["number"] == "jp-kk-00000001")
    assert (yen["currency"], "." in yen["total"]) == ("JPY", False)


def test_every_document_is_found_by_its_number_and_is_its_invoice(ask, folder):
    place = FilePlace(folder)
    made = {one.invoice_id: one for one in invoices(COUNT)}
    all_ = list(document_view.all_of(place))
    for one in [*all_[::400], all_[-1]]:
        assert document_view.find(place, one.number) == one
        (shown,) = ask(["document", "show", one.number])
        assert shown == json.loads(json.dumps(invoice_document(made[shown["invoice_id"]]))) | {"number": one.number}


def test_a_document_is_printed_as_a_page_with_its_number(ask, tmp_path):
    page = tmp_path / "page.html"
    ask(["document", "show", "de-gmbh-00000002", "--html", str(page)])
    text = page.read_text()
    assert "de-gmbh-00000002" in text and "not numbered yet" not in text


@pytest.mark.parametrize(("words", "code", "told"), [
    (["show", "us-inc-09999999"], 1, "no document has the number us-inc-09999999"),
    (["show", "br-sa-00000001"], 1, "no document has the number br-sa-00000001"),
    (["show", "17"], 2, "'17' is no document number; one looks like us-inc-00000017"),
    (["show"], 2, "name the document"),
    (["ls", "us-inc-00000001"], 2, "lists all documents"),
])  # fmt: skip
def test_what_cannot_be_shown_is_said(ask, words, code, told):
    assert told in ask(["document", *words], code)


def test_a_run_tells_its_figures_and_verify_proves_the_flow(ask):
    assert {row["figure"]: row["value"] for row in ask(["run", "document", "--engine", "local"])} == {"received": COUNT, "numbered": COUNT - COUNT // 100, "draft": COUNT // 100}
    (row,) = ask(["verify"])
    assert (row["flow"], row["partition"], row["breaks"]) == ("document", 0, [])


def test_a_run_has_no_report(ask):
    assert "has no report" in ask(["run", "document", "--report", "r.html"], 2)


def test_the_topics_can_be_looked_into(ask):
    rows = ask(["topic", "peek", "billing.document.v1", "--limit", "1"])
    assert rows[0]["value"]["number"].endswith("-00000001")
    assert ask(["topic", "count", "billing.document.v1"])[-1] == {"partition": "all", "records": COUNT - COUNT // 100}
    assert PARTITIONS == len(ask(["topic", "count", "billing.invoice.v1"])) - 1
