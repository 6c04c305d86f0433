"""The commands of people: keys, reference data, proposals, approvals, and looking at what came of them."""

import base64
import json
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from flows import cli, signing
from tests import governed
from tests.flow import governed_folders as place

CUSTOMER = {"kind": "customer", "key": "acme", "valid_from": "2020-01-01T00:00:00Z", "customer": {"aliases": {"crm": "0061"}}}
CARD = {"kind": "rate_card", "key": "list", "valid_from": "2020-01-01T00:00:00Z", "rate_card": {"version": 1, "charges": governed.CHARGES}}
ONE = {"contract_id": "c-acme", "version": 1, "customer_id": "acme", "effective_from": "2026-01-01T00:00:00Z", "rate_card": {"rate_card_id": "list", "version": 1}}
CHEAPER = governed.CHARGES[0] | {"price": {"model": "per_unit", "unit_price": "0.005"}}
TWO = ONE | {"version": 2, "change": {"kind": "amendment"}, "effective_from": "2026-03-01T00:00:00Z", "overrides": [CHEAPER]}


@pytest.fixture
def desk(tmp_path, capsys, monkeypatch):
    """`desk(words)`: the answer of a command as JSON rows; `desk(words, code)`: what it says on stderr, with that exit code."""
    monkeypatch.chdir(tmp_path)

    def ask(words, code=0):
        where = [] if words[0] in ("key",) else ["--dir", "data"]
        found = cli.main([*words, *where, "--output", "ndjson"])
        said = capsys.readouterr()
        assert found == code, said.err
        return [json.loads(line) for line in said.out.splitlines()] if code in (0, 3) or said.out else said.err

    def write(name, *documents):
        (tmp_path / name).write_text("\n".join(json.dumps(one) for one in documents))
        return name

    def sign(name, reason="because"):
        return ["--key", f"{name}.pem", "--author", name, "--reason", reason]

    ask.write, ask.sign = write, sign
    users = []
    for name in ("una", "ben"):
        (made,) = ask(["key", "make", f"{name}.pem"])
        users.append({"kind": "user", "key": name, "valid_from": "2020-01-01T00:00:00Z", "user": {"name": name.title(), "public_key": made["public_key"]}})
    ask(["reference", "put", write("reference.jsonl", *users, CUSTOMER, CARD), "--author", "root", "--reason", "the beginning"])
    return ask


def test_a_key_is_made_once_for_its_owner_alone_and_its_public_half_can_be_shown(tmp_path, desk):
    path = tmp_path / "una.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (shown,) = desk(["key", "show", "una.pem"])
    assert base64.b64decode(shown["public_key"]) == signing.public_of(signing.load(path))
    assert "exists already" in desk(["key", "make", "una.pem"], 1)
    assert "cannot be read" in desk(["key", "show", "nobody.pem"], 1)
    (tmp_path / "text.pem").write_text("no key")
    assert "is no unencrypted private key in PEM" in desk(["key", "show", "text.pem"], 1)


def test_from_a_proposal_to_a_published_version(desk):
    (proposed,) = desk(["contract", "propose", desk.write("one.json", ONE), *desk.sign("una")])
    assert (proposed["proposed"], proposed["author"], proposed["change"]) == ("c-acme/1", "una", "new")
    (draft,) = desk(["contract", "show"])
    assert (draft["subject"], draft["state"], draft["note"]) == ("c-acme/1", "draft", "waits for approval")
    assert "cannot approve it" in desk(["approve", "c-acme/1", *desk.sign("una")], 1)
    (approved,) = desk(["approve", "c-acme/1", *desk.sign("ben")])
    assert (approved["subject"], approved["requested_by"]) == ("c-acme/1", "una")
    assert {row["figure"]: row["value"] for row in desk(["run", "contract"])}["published"] == 1
    (row,) = desk(["contract", "show", "c-acme"])
    assert (row["state"], row["requested_by"], row["approved_by"]) == ("active", "una", "ben")
    assert "no proposal of c-acme/1 waits" in desk(["approve", "c-acme/1", *desk.sign("ben")], 1)
    fields = {row["path"]: row["value"] for row in desk(["contract", "show", "c-acme/1"])}
    assert (fields["charges[calls].price.unit_price"], fields["change.approved_by"]) == ("0.01", "ben")


def test_two_versions_side_by_side_and_which_governs_when(desk):
    for name, document in (("one.json", ONE), ("two.json", TWO)):
        desk(["contract", "propose", desk.write(name, document), *desk.sign("una")])
    desk(["approve", "c-acme/1", *desk.sign("ben")])
    assert [(row["state"], row["note"]) for row in desk(["contract", "show"])] == [("approved", "waits for the contract flow to run"), ("draft", "waits for approval")]
    drafted = {row["path"]: (row["c-acme/1"], row["c-acme/2"]) for row in desk(["contract", "diff", "c-acme/1", "c-acme/2"], 3)}
    assert drafted["charges[calls].price.unit_price"] == ("0.01", "0.005")
    assert drafted["effective_from"] == ("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z")
    desk(["approve", "c-acme/2", *desk.sign("ben")])
    desk(["run", "contract"])
    rows = desk(["contract", "timeline", "c-acme"])
    assert [(row["version"], row["governs"]) for row in rows] == [
        (1, ["2026-01-01T00:00:00Z .. 2026-03-01T00:00:00Z"]), (2, ["2026-03-01T00:00:00Z .. open"]),
    ]
    assert all(row["recorded_at"] for row in rows)
    assert desk(["contract", "diff", "c-acme/2", "c-acme/2"]) == []


def test_a_backdated_version_that_ends_leaves_two_stretches_to_the_one_before(desk):
    late = TWO | {"effective_from": "2026-02-01T00:00:00Z", "effective_to": "2026-02-15T00:00:00Z"}
    desk(["contract", "propose", desk.write("both.json", [ONE, late]), *desk.sign("una")])
    for subject in ("c-acme/2", "c-acme/1"):
        desk(["approve", subject, *desk.sign("ben")])
    desk(["run", "contract"])
    first, _ = desk(["contract", "timeline", "c-acme"])
    assert first["governs"] == ["2026-01-01T00:00:00Z .. 2026-02-01T00:00:00Z", "2026-02-15T00:00:00Z .. open"]


def test_a_rejected_proposal_makes_room(desk):
    desk(["contract", "propose", desk.write("one.json", ONE), *desk.sign("una")])
    (rejected,) = desk(["reject", "c-acme/1", *desk.sign("ben", "last year's list")])
    assert rejected["command"] == "reject"
    desk(["run", "contract"])
    assert desk(["contract", "show"]) == []
    desk(["contract", "propose", "one.json", *desk.sign("una")])
    assert desk(["contract", "show"])[0]["state"] == "draft"


def test_a_file_is_checked_by_itself_and_against_what_is_there(desk, capsys):
    wrong = desk.write("wrong.json", ONE | {"customer_id": "acmee", "currency": "XXQ"})
    assert cli.main(["contract", "validate", wrong, "--output", "ndjson"]) == 1  # without a place
    assert [json.loads(line)["path"] for line in capsys.readouterr().out.splitlines()] == ["currency"]
    unknown = desk.write("unknown.json", ONE | {"customer_id": "acmee"})
    assert cli.main(["contract", "validate", unknown, "--output", "ndjson"]) == 0
    capsys.readouterr()
    (row,) = desk(["contract", "validate", unknown], 1)
    assert (row["contract"], row["path"], row["code"]) == ("c-acme/1", "customer_id", "customer_unknown")
    assert desk(["contract", "validate", desk.write("one.json", ONE)]) == []
    said = desk(["contract", "propose", unknown, *desk.sign("una")], 1)
    assert "nothing was proposed\n  c-acme/1, customer_id: the reference data knows no customer 'acmee'" in said
    assert desk(["contract", "show"]) == []


def test_validate_knows_the_versions_that_are_published(desk):
    desk(["contract", "propose", desk.write("one.json", ONE), *desk.sign("una")])
    desk(["approve", "c-acme/1", *desk.sign("ben")])
    desk(["run", "contract"])
    (other,) = desk(["contract", "validate", desk.write("other.json", ONE | {"currency": "EUR"})], 1)
    assert (other["code"], other["message"]) == ("version_conflict", "c-acme/1 is published with other content; propose version 2")
    (new,) = desk(["contract", "validate", desk.write("new.json", TWO | {"change": {"kind": "new"}})], 1)
    assert new["code"] == "change_not_first"


def test_a_contract_that_was_imported_is_not_amended_by_proposals(desk):
    desk(["import", "contracts", desk.write("imported.json", {name: value for name, value in ONE.items() if name != "rate_card"})])
    (row,) = desk(["contract", "validate", desk.write("two.json", TWO)], 1)
    assert row["code"] == "contract_imported"
    assert [stretch["governs"] for stretch in desk(["contract", "timeline", "c-acme"])] == [["2026-01-01T00:00:00Z .. open"]]


def test_a_refused_proposal_is_shown_with_what_to_do(desk):
    document = ONE | {"change": {"kind": "renewal"}}
    renewal = replace(governed.propose(document), at=time.time_ns() // 1000)
    place.send(Path("data"), governed.propose(ONE, author="mallory"), governed.propose(ONE), signing.signed(renewal, signing.load(Path("una.pem"))))
    assert {row["figure"]: row["value"] for row in desk(["run", "contract"])}["refusals"] == 3
    (row,) = desk(["contract", "show"])  # whoever did not sign as a known author has no part in the contract's story
    assert (row["subject"], row["state"]) == ("c-acme/1", "refused")
    assert row["note"].startswith("refused: change.kind: version 1 of a contract is its beginning; write change kind 'new'")
    desk(["contract", "propose", desk.write("one.json", ONE), *desk.sign("una")])
    desk(["approve", "c-acme/1", *desk.sign("ben")])
    desk(["run", "contract"])
    (row,) = desk(["contract", "show", "c-acme"])
    assert (row["state"], row["note"]) == ("active", None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["contract", "propose", "one.json", "--reason", "r"], "give --key"),
        (["contract", "propose", "one.json", "--key", "una.pem"], "give --reason"),
        (["contract", "timeline"], "name one contract"),
        (["contract", "diff", "c-acme/1"], "name two versions"),
        (["contract", "diff", "c-acme", "c-acme/1"], "is no contract version; write the contract"),
        (["approve", "c-acme", "--key", "una.pem", "--reason", "r"], "is no contract version; write the contract"),
        (["contract", "validate"], "name one file"),
        (["reference", "show", "customer"], "name kind and key"),
        (["reference", "ls", "colours"], "there is no kind 'colours'"),
        (["reference", "put"], "name one file of JSON lines"),
        (["run", "contract", "--report", "r.html"], "has no report"),
    ],
)
def test_a_command_that_is_not_whole_says_what_is_missing(desk, words, said):
    desk.write("one.json", ONE)
    assert said in desk(words, 2)


def test_what_is_not_there_is_said(desk):
    assert "knows no contract 'c-none'" in desk(["contract", "show", "c-none"], 1)
    assert "has no published version of contract 'c-none'" in desk(["contract", "timeline", "c-none"], 1)
    assert "has no version c-none/1, published or proposed" in desk(["contract", "diff", "c-none/1", "c-none/2"], 1)
    assert "has no customer 'nobody'" in desk(["reference", "show", "customer", "nobody"], 1)


# reference data


def test_reference_data_keeps_who_changed_what_and_why_and_the_last_record_that_is_valid_holds(desk):
    moved = CUSTOMER | {"customer": {"aliases": {"crm": "0061", "erp": "K7"}, "tax_jurisdiction": "DE"}, "reason": "moved to Berlin", "author": "cid"}
    desk(["reference", "put", desk.write("moved.jsonl", moved)])
    first, second = desk(["reference", "show", "customer", "acme"])
    assert (first["author"], first["reason"], first["holds_now"]) == ("root", "the beginning", False)
    assert (second["author"], second["reason"], second["holds_now"]) == ("cid", "moved to Berlin", True)
    assert second["customer"] == {"aliases": {"crm": "0061", "erp": "K7"}, "tax_jurisdiction": "DE", "erp_ids": {}}
    (row,) = desk(["reference", "ls", "customer"])
    assert (row["records"], row["holds_now"]["tax_jurisdiction"]) == (2, "DE")
    assert [row["key"] for row in desk(["reference", "ls"])] == ["acme", "list", "ben", "una"]
    (card,) = desk(["reference", "show", "rate_card", "list"])
    assert card["rate_card"] == {"version": 1, "charges": governed.CHARGES}


def test_every_kind_of_reference_data_comes_back_as_it_was_put_in(desk):
    documents = [
        {"kind": "product", "key": "llm", "product": {"name": "LLM", "tax_code": "saas"}},
        {"kind": "legal_entity", "key": "us-inc", "legal_entity": {"name": "US Inc", "currency": "USD"}},
        {"kind": "meter", "key": "calls", "meter": {"unit": "call"}},
        {"kind": "tax_rate", "key": "DE saas", "tax_rate": {"jurisdiction": "DE", "tax_code": "saas", "rate_percent": "19"}},
        {"kind": "exchange_rate", "key": "EUR USD", "exchange_rate": {"from_currency": "EUR", "to_currency": "USD", "rate": "1.080000000001"}},
        {"kind": "account_mapping", "key": "us-inc revenue", "account_mapping": {"legal_entity_id": "us-inc", "role": "revenue", "account": "4000"}},
    ]
    desk(["reference", "put", desk.write("all.jsonl", *({"valid_from": "2020-01-01T00:00:00Z"} | one for one in documents))])
    for one in documents:
        (row,) = desk(["reference", "show", one["kind"], one["key"]])
        assert {name: value.rstrip("0").rstrip(".") if name in ("rate", "rate_percent") else value for name, value in row[one["kind"]].items()} == one[one["kind"]]


FROM = {"valid_from": "2020-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (FROM | {"kind": "customer", "key": "a"}, "document: a record of kind 'customer' has the field 'customer' and no other kind's; it has nothing"),
        (FROM | {"kind": "customer", "key": "a", "customer": {}, "meter": {"unit": "u"}}, "it has 'customer', 'meter'"),
        (FROM | {"kind": "colour", "key": "a"}, "kind: Input should be 'customer'"),
        (FROM | {"kind": "customer", "key": "", "customer": {}}, "key: String should have at least 1 character"),
        ({"kind": "customer", "key": "a", "customer": {}}, "valid_from: Field required"),
        (FROM | {"kind": "customer", "key": "a", "customer": {}, "valid_to": "2020-01-01T00:00:00Z"}, "the interval is empty: 'valid_to' must lie after 'valid_from'"),
        (FROM | {"kind": "customer", "key": "a", "customer": {"colour": "red"}}, "customer.colour: unknown field"),
        ({"valid_from": "2020-01-01", "kind": "meter", "key": "a", "meter": {"unit": "u"}}, "valid_from: '2020-01-01' needs a time with its zone"),
        (FROM | {"kind": "user", "key": "a", "user": {"name": "A", "public_key": "abc"}}, "user.public_key: is no Ed25519 public key"),
        (FROM | {"kind": "tax_rate", "key": "a", "tax_rate": {"jurisdiction": "DE", "tax_code": "s", "rate_percent": 19}}, "tax_rate.rate_percent: write decimals as strings"),
        (FROM | {"kind": "tax_rate", "key": "a", "tax_rate": {"jurisdiction": "DE", "tax_code": "s", "rate_percent": "-1"}}, "tax_rate.rate_percent: -1 is below 0"),
        (FROM | {"kind": "exchange_rate", "key": "a", "exchange_rate": {"from_currency": "XXQ", "to_currency": "USD", "rate": "1"}}, "exchange_rate.from_currency: "),
        (FROM | {"kind": "exchange_rate", "key": "a", "exchange_rate": {"from_currency": "EUR", "to_currency": "USD", "rate": "1000000000000"}}, "needs more than 24 digits"),
        (FROM | {"kind": "rate_card", "key": "a", "rate_card": {"version": 1, "charges": "[]"}}, "rate_card.charges: write the charges as a list"),
        (FROM | {"kind": "rate_card", "key": "a", "rate_card": {"version": 1, "charges": [{"charge_id": "c"}]}}, "rate_card.charges: charge.price: Field required"),
        (FROM | {"kind": "rate_card", "key": "a", "rate_card": {"version": 1, "charges": governed.CHARGES * 2}}, "charge ids must differ; ['calls'] stand more than once"),
        (FROM | {"kind": "customer", "key": "a", "customer": {}, "recorded_at": "2999-01-01T00:00:00Z"}, "recorded_at: lies ahead of now"),
        ([], "is no JSON object"),
    ],
)
def test_a_reference_record_that_cannot_be_taken_is_refused_with_its_line_and_path(desk, document, said):
    before = desk(["reference", "ls"])
    error = desk(["reference", "put", desk.write("wrong.jsonl", FROM | {"kind": "meter", "key": "fine", "meter": {"unit": "u"}}, document)], 1)
    assert said in error and "refused, nothing was recorded" in error
    assert desk(["reference", "ls"]) == before


def test_the_same_file_is_recorded_once_in_a_folder_where_it_says_when(desk):
    dated = CUSTOMER | {"recorded_at": "2025-01-01T00:00:00Z", "author": "root"}
    for _ in range(2):
        desk(["reference", "put", desk.write("dated.jsonl", dated)])
    assert len(desk(["reference", "show", "customer", "acme"])) == 2
