"""Purchases of prepaid credits on invoices, as ledgers to check by hand."""

from tests.unit.test_invoicing import USAGE, Book, Taxes, fee, ledger
from tests.unit.test_quote import ask
from tieout.invoicing.notes import void


def bought(**more):
    return {"grant_id": "g", "amount": "500", "kind": "purchased", **more}


def test_a_purchase_is_billed_once_when_the_grant_begins_untaxed_and_undiscounted():
    book = Book(
        {"charges": [USAGE, fee("10")], "coupons": [{"coupon_id": "x", "percent": "10"}], "credits": [bought(effective_from="2026-02-10T00:00:00Z")],
         "commitments": [{"commitment_id": "min", "amount": "20"}]},
        taxes=Taxes({"p": "std"}, {"std": "20"}),
    )  # fmt: skip
    assert not [line for line in ledger(*book.close("2026-01-01", book.used("2026-01-01", "20")).invoices) if line[0] == "credit"]
    invoice = book.close("2026-02-01", book.used("2026-02-01", "40")).invoices[0]
    assert ledger(invoice) == [
        ("usage", "u", 4000), ("fee", "f", 1000), ("coupon", "u", -400), ("coupon", "f", -100), ("credit", "", 50000), ("tax", "", 900),
    ]
    assert (invoice.total, invoice.credits) == (55400, ())  # the 40 were used before the 10th, as far as anybody said
    after = book.close("2026-03-01", book.used("2026-03-01", "50")).invoices[0]
    assert [line for line in ledger(after) if line[0] == "credit"] == []
    assert [(use.applied, use.balance) for use in after.credits] == [(4500, 45500)]


def test_a_granted_credit_has_no_purchase():
    book = Book({"charges": [USAGE], "credits": [{"grant_id": "g", "amount": "500"}]})
    assert book.close("2026-01-01").invoices == ()


def test_a_purchase_that_an_amendment_brings_late_is_billed_with_the_next_close():
    book = Book({"charges": [USAGE]})
    first = book.documents[0]
    book.close("2026-01-01", book.used("2026-01-01", "70"))
    book.close("2026-02-01")
    book.learn(first, first | {"version": 2, "effective_from": "2026-03-01T00:00:00Z", "credits": [bought(effective_from="2026-01-01T00:00:00Z")]})
    invoice = book.close("2026-03-01").invoices[0]
    assert [(line.kind, line.period, line.amount) for line in invoice.lines] == [("credit", "2026-01", 50000), ("usage", "2026-03", 0)]
    assert ([(use.applied, use.balance) for use in invoice.credits], invoice.amount_due) == ([(7000, 43000)], 43000)


def test_a_larger_purchase_by_amendment_bills_the_difference_from_the_entity_that_sold_it():
    book = Book({"charges": [USAGE], "legal_entity_id": "us-inc", "credits": [bought()]})
    first = book.documents[0]
    assert ledger(*book.close("2026-01-01").invoices) == [("usage", "u", 0), ("credit", "", 50000)]
    book.learn(first, first | {"version": 2, "legal_entity_id": "de-gmbh", "effective_from": "2026-02-01T00:00:00Z", "credits": [bought(amount="600")]})
    told = {one.legal_entity_id: [(line.kind, line.amount) for line in one.lines] for one in book.close("2026-02-01").invoices}
    assert told == {"us-inc": [("delta", 10000)]}  # the other entity has nothing to say


def test_a_larger_purchase_is_billed_however_long_ago_the_first_one_was():
    book = Book({"charges": [USAGE], "credits": [bought()]})
    first = book.documents[0]
    for month in ("2026-01-01", "2026-02-01", "2026-03-01"):
        book.close(month)
    book.learn(first, first | {"version": 2, "effective_from": "2026-04-01T00:00:00Z", "credits": [bought(amount="600")]})
    assert ledger(*book.close("2026-04-01").invoices) == [("delta", "", 10000), ("usage", "u", 0)]


def test_a_void_of_a_purchase_is_billed_again_once():
    book = Book({"charges": [USAGE], "credits": [bought()]}, taxes=Taxes({"p": "std"}, {"std": "20"}))
    first = book.close("2026-01-01", book.used("2026-01-01", "1")).invoices[0]
    assert ledger(first) == [("usage", "u", 100), ("credit", "", 50000), ("tax", "", 20)]
    book.account = void(book.account, book.timeline[0].version, first, (), first.period.end_us).account
    assert ledger(*book.close("2026-01-01").invoices) == ledger(first)
    assert book.close("2026-01-01").invoices == ()


def test_a_quote_shows_the_purchase():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-15T00:00:00Z", "charges": [USAGE], "credits": [bought(effective_from="2025-12-01T00:00:00Z")]}
    answer = ask(None, [{"quantity": "30", "time": "2026-01-20T00:00:00Z"}], contract=contract)
    assert [(line["kind"], line["ref"], line["amount"]) for line in answer["lines"]] == [("usage", None, "30.00"), ("credit", "g", "500.00")]
    assert (answer["total"], answer["amount_due"]) == ("530.00", "500.00")
