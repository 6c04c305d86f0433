"""Terms that change within a billing period, and what pays twice if nobody looks: ledgers to check by hand."""

import re
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from tests.unit.test_invoicing import USAGE, Book, Taxes, fee, ledger
from tests.unit.test_quote import ask
from tieout import payment_terms, usage_document
from tieout.contracts import parse_contract
from tieout.invoicing.credits import grants
from tieout.invoicing.notes import void
from tieout.period import micros
from tieout.quote import Case, quote
from tieout.reference import ReferenceBook, ReferenceRecord


@pytest.mark.parametrize(("timing", "amount"), [("advance", 10000), ("arrears", 30000)])
def test_a_fee_that_is_not_prorated_is_charged_once_however_many_versions_share_its_month(timing, amount):
    def version(number, start, price, **more):
        return {"version": number, "effective_from": start, "charges": [fee(price, proration="none", timing=timing)], **more}

    book = Book(
        version(1, "2026-01-01T00:00:00Z", "100"), version(2, "2026-01-10T00:00:00Z", "200", status="suspended"), version(3, "2026-01-20T00:00:00Z", "300"),
    )  # fmt: skip
    assert ledger(*book.close("2026-01-01").invoices) == [("fee", "f", amount)]


def test_an_amendment_of_other_terms_does_not_charge_an_unprorated_fee_again():
    base = {"charges": [fee("100", proration="none", timing="advance")]}
    book = Book(base)
    book.close("2026-01-01")
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-01-15T00:00:00Z", "coupons": []})
    assert ledger(*book.close("2026-02-01").invoices) == [("fee", "f", 10000)]


@pytest.mark.parametrize("end", [{"effective_to": "2026-01-20T00:00:00Z"}, {"status": "terminated"}, {"status": "suspended"}])
def test_the_last_month_of_a_contract_keeps_its_coupon_and_its_minimum(end):
    base = {"charges": [USAGE | {"minimum": "50"}], "coupons": [{"coupon_id": "x", "percent": "10"}]}
    versions = [base | end] if "effective_to" in end else [base, base | end | {"version": 2, "effective_from": "2026-01-20T00:00:00Z"}]
    book = Book(*versions)
    assert ledger(*book.close("2026-01-01", book.used("2026-01-01", "30")).invoices) == [
        ("usage", "u", 3000), ("minimum", "u", 2000), ("coupon", "u", -300), ("coupon", "u", -200),
    ]


def test_a_grant_does_not_pay_for_usage_that_a_commitment_has_paid_before():
    commitment = {"commitment_id": "p", "kind": "prepaid", "amount": "100", "interval": "year"}
    book = Book({"charges": [USAGE], "commitments": [commitment], "credits": [{"grant_id": "g", "amount": "50"}]})
    first = book.close("2026-01-01", book.used("2026-01-01", "90")).invoices[0]
    assert (first.total, first.credits, first.amount_due) == (10000, (), 10000)  # the 90 are part of the 100
    second = book.close("2026-02-01", book.used("2026-02-01", "30")).invoices[0]
    assert ledger(second) == [("usage", "u", 3000), ("commitment", "", -1000)]
    assert ([(use.applied, use.balance) for use in second.credits], second.amount_due) == ([(2000, 3000)], 0)


def test_a_void_of_a_delta_gives_back_what_credits_paid_of_it_net_of_its_coupon():
    book = Book({"charges": [USAGE], "coupons": [{"coupon_id": "x", "percent": "50"}], "credits": [{"grant_id": "g", "amount": "500"}]})
    book.close("2026-01-01", book.used("2026-01-01", "100"))
    late = book.close("2026-02-01", book.used("2026-01-01", "20")).invoices[0]
    assert (ledger(late), late.amount_due) == ([("delta", "u", 2000), ("delta", "u", -1000), ("usage", "u", 0)], 0)
    back = void(book.account, book.timeline[0].version, late, grants(book.timeline), late.period.end_us)
    assert ([(use.applied, use.balance) for use in back.document.credits], back.document.amount_due) == ([(-1000, 45000)], 0)
    book.account = back.account
    again = book.close("2026-02-01").invoices[0]
    assert (ledger(again), again.amount_due) == (ledger(late), 0)


def test_a_grant_without_a_beginning_pays_from_the_contracts_start_in_mid_month():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-15T00:00:00Z", "charges": [USAGE], "credits": [{"grant_id": "g", "amount": "50"}]}
    answer = ask(None, [{"quantity": "30", "time": "2026-01-20T00:00:00Z"}], contract=contract)
    assert (answer["credits"], answer["amount_due"]) == ([{"grant_id": "g", "applied": "30.00", "balance": "20.00"}], "0.00")


def test_a_grant_that_an_amendment_brings_leaves_alone_what_was_used_before_it():
    book = Book({"charges": [USAGE]})
    book.close("2026-01-01", book.used("2026-01-01", "100"))
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "credits": [{"grant_id": "g", "amount": "50"}]})
    invoice = book.close("2026-02-01", book.used("2026-01-01", "10"), book.used("2026-02-01", "5", version=2)).invoices[0]
    assert ledger(invoice) == [("delta", "u", 1000), ("usage", "u", 500)]
    assert ([use.applied for use in invoice.credits], invoice.amount_due) == ([500], 1000)


def test_a_grant_that_comes_late_pays_for_all_that_was_used_since_it_begins():
    book = Book({"charges": [USAGE]})
    book.close("2026-01-01", book.used("2026-01-01", "100"))
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "credits": [{"grant_id": "g", "amount": "70", "effective_from": "2026-01-01T00:00:00Z"}]})
    invoice = book.close("2026-02-01", book.used("2026-02-01", "5", version=2)).invoices[0]
    assert (ledger(invoice), [use.applied for use in invoice.credits], invoice.amount_due) == ([("usage", "u", 500)], [7000], -6500)


class ChangingRate(Taxes):
    """10 percent until February, 20 from then on."""

    def __init__(self):
        super().__init__({"p": "std"}, {})

    def percent(self, jurisdiction, tax_code, instant):
        return Fraction(10 if instant < micros(datetime(2026, 2, 1, tzinfo=UTC)) else 20)


def test_a_delta_has_the_tax_rate_of_its_original_period():
    book = Book({"charges": [USAGE], "coupons": [{"coupon_id": "x", "percent": "50"}]}, taxes=ChangingRate())
    book.close("2026-01-01", book.used("2026-01-01", "100"))
    assert ledger(*book.close("2026-02-01", book.used("2026-01-01", "20"), book.used("2026-02-01", "40")).invoices) == [
        ("delta", "u", 2000), ("delta", "u", -1000), ("delta", "", 100),  # 10 % of 10.00
        ("usage", "u", 4000), ("coupon", "u", -2000), ("tax", "", 400),  # 20 % of 20.00
    ]


def test_a_downgrade_in_mid_year_gives_back_what_was_charged_net_of_the_coupon_of_then():
    coupon = {"coupon_id": "x", "percent": "10", "until": "2026-02-01T00:00:00Z"}
    book = Book({"charges": [fee("1200", interval="year", timing="advance")], "coupons": [coupon]})
    assert ledger(*book.close("2026-01-01").invoices) == [("fee", "f", 120000), ("coupon", "f", -12000)]
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-07-02T00:00:00Z", "charges": [fee("600", interval="year", timing="advance")]})
    note = book.close("2026-07-01").invoices[0]
    assert ledger(note) == [("delta", "f", -60164), ("fee", "f", 30082), ("delta", "f", 6016), ("coupon", "f", -3008)]  # 183 of 365 days
    assert (note.kind, note.total) == ("credit_note", -27074)


def test_a_suspension_known_late_gives_back_its_days_of_an_annual_fee():
    book = Book({"charges": [fee("365", interval="year", timing="advance")]})
    book.close("2026-01-01")
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "status": "suspended", "effective_from": "2026-03-01T00:00:00Z", "effective_to": "2026-03-11T00:00:00Z"})
    note = book.close("2026-03-01").invoices[0]
    assert (ledger(note), note.total) == ([("delta", "f", -30600), ("fee", "f", 29600)], -1000)  # from March 1 back, from March 11 anew


@pytest.mark.parametrize(
    ("billing", "path"),
    [({"period": "quarter"}, "billing.period"), ({"anchor_day": 15}, "billing.anchor_day"), ({"time_zone": "Asia/Tokyo"}, "billing.time_zone")],
)
def test_a_version_with_another_billing_calendar_is_refused_by_name(billing, path):
    base = {"contract_id": "c", "customer_id": "k", "charges": [USAGE]}
    contracts = [base | {"version": 1, "effective_from": "2026-01-01T00:00:00Z"}, base | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "billing": billing}]
    error = refused(contracts)
    assert (error.path, error.code) == (path, "calendar_changed")
    assert "open a new contract" in error.message


def test_a_contract_goes_from_dollars_to_euros_with_a_billing_period():
    """Until March in USD; from April in EUR: each month has its coupon and its minimum, and the year's fee goes back from April 1."""
    terms = {"coupons": [{"coupon_id": "x", "percent": "10"}], "billing": {"time_zone": "Europe/Berlin"}, "effective_from": "2025-12-31T23:00:00Z"}
    charges = [USAGE | {"minimum": "50"}, fee("365", interval="year", timing="advance")]
    dollars = terms | {"charges": charges, "commitments": [{"commitment_id": "usd", "amount": "100", "interval": "quarter"}]}
    book = Book(dollars)
    assert money(book.close("2026-01-01", book.used("2026-01-01", "30"))) == [
        ("USD", [("usage", "u", 3000), ("fee", "f", 36500), ("minimum", "u", 2000), ("coupon", "u", -300), ("coupon", "f", -3650), ("coupon", "u", -200)]),
    ]  # fmt: skip
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "currency": "EUR", "effective_from": "2026-03-31T22:00:00Z", "commitments": [{"commitment_id": "eur", "amount": "10"}]})
    assert money(book.close("2026-03-01", book.used("2026-03-01", "20"))) == [
        # from April 1, 275 of 365 days of the fee go back with their coupon; what is charged of them is in euros, and 10 percent off
        ("USD", [("delta", "f", -27500), ("delta", "f", 2750), ("usage", "u", 2000), ("minimum", "u", 3000), ("coupon", "u", -200), ("coupon", "u", -300)]),
        ("EUR", [("fee", "f", 27500), ("coupon", "f", -2750)]),
    ]  # fmt: skip
    april = book.close("2026-04-01", book.used("2026-04-01", "40", version=2), book.used("2026-03-01", "7"))
    assert money(april) == [
        ("USD", [("delta", "u", 700), ("delta", "u", -700), ("delta", "u", -70), ("delta", "u", 70)]),
        ("EUR", [("usage", "u", 4000), ("minimum", "u", 1000), ("coupon", "u", -400), ("coupon", "u", -100)]),
    ]  # fmt: skip


def money(billed):
    return [(one.currency, ledger(one)) for one in billed.invoices]


@pytest.mark.parametrize(
    ("second", "path", "words"),
    [
        ({"effective_from": "2026-02-15T00:00:00Z"}, "currency", "from USD to EUR on 2026-02-15, within the billing period 2026-02; let it begin with a billing period \\(2026-03-01, in UTC\\)"),
        ({"effective_from": "2026-02-01T00:00:00Z", "effective_to": "2026-03-10T00:00:00Z"}, "currency", "from EUR to USD on 2026-03-10"),  # and back in mid-period
        ({"effective_from": "2026-02-01T00:00:00Z", "commitments": [{"commitment_id": "m", "amount": "5"}]}, "commitments.0.commitment_id", "commitment m is in USD before"),
    ],
)
def test_a_billing_period_or_a_commitment_in_two_currencies_is_refused_by_name(second, path, words):
    base = {"contract_id": "c", "customer_id": "k", "charges": [USAGE]}
    first = base | {"version": 1, "effective_from": "2026-01-01T00:00:00Z", "commitments": [{"commitment_id": "m", "amount": "5"}]}
    error = refused([first, base | {"version": 2, "currency": "EUR"} | second])
    assert (error.path, error.code) == (path, "currency_changed")
    assert re.search(words, error.message)


def test_a_grant_that_ends_before_it_begins_is_refused():
    credit = {"grant_id": "g", "amount": "5", "effective_from": "2026-02-01T00:00:00Z", "expires_at": "2026-02-01T00:00:00Z"}
    error = refused([{"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE], "credits": [credit]}])
    assert (error.path, error.code) == ("credits.0.expires_at", "value_error")


def refused(contracts):
    answer = next(quote([Case([parse_contract(one) for one in contracts], 0, 0)], usage_document.columns([])))
    return answer.problems[0]


@pytest.mark.parametrize(("contract", "customer", "due"), [(10, 45, "2026-02-11"), (None, 45, "2026-03-18"), (None, None, "2026-03-03"), (0, 45, "2026-02-01")])
def test_an_invoice_is_due_by_the_contracts_terms_else_the_customers_else_in_30_days(contract, customer, due):
    book = Book({"charges": [USAGE], "billing": {"payment_terms_days": contract}})
    facts = ReferenceBook()
    value = {"payment_terms_days": customer}
    facts.learn([ReferenceRecord("customer", "k", 0, None, 0, "", None, value, (0, 0))])
    book.timeline = tuple(one._replace(version=payment_terms.resolve(one.version, facts)) for one in book.timeline)
    (invoice,) = book.close("2026-01-01", book.used("2026-01-01", "1")).invoices
    assert (invoice.issued_on, invoice.due_on) == ("2026-02-01", due)


def test_late_usage_under_exception_is_billed_once_finance_has_accepted_it():
    book = Book({"charges": [USAGE], "billing": {"late_usage": "exception"}})
    first = book.close("2026-01-01", book.used("2026-01-01", "30")).invoices[0]
    book.close("2026-02-01", book.used("2026-02-01", "7"))
    january, february = book.used("2026-01-01", "5"), book.used("2026-02-01", "2")
    waits = book.close("2026-03-01", january, february)
    assert (waits.late, ledger(*waits.invoices)) == ((january, february), [])
    more = book.used("2026-01-01", "1")  # came beside what was accepted, and nobody has decided about it
    done = book.close("2026-04-01", more, accepted=[january])
    assert (done.late, ledger(*done.invoices)) == ((more,), [("delta", "u", 500), ("usage", "u", 0)])
    assert done.invoices[0].lines[0].delta_of == first.lines[0].line_id
    assert book.close("2026-05-01").invoices == ()  # one decision, one billing
    assert book.account.open_amount == 0


def test_accepted_late_usage_computes_the_whole_original_period_again():
    """30.00 were billed to the minimum of 50.00 and with 10 percent off; 25.00 more make 55.00, and 5.50 off."""
    book = Book({"charges": [USAGE | {"minimum": "50"}], "coupons": [{"coupon_id": "x", "percent": "10"}], "billing": {"late_usage": "exception"}})
    assert book.close("2026-01-01", book.used("2026-01-01", "30")).invoices[0].total == 4500
    note = book.close("2026-02-01", accepted=[book.used("2026-01-01", "25")]).invoices[0]
    assert [line for line in ledger(note) if line[2]][:4] == [("delta", "u", 2500), ("delta", "u", -250), ("delta", "u", -2000), ("delta", "u", 200)]
    assert sum(line.amount for line in note.lines if line.period == "2026-01") == 450
