"""Invoices as ledgers that a finance reader can check by hand."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from tests.property.test_invoicing_random import timeline_of
from tests.unit.test_quote import ask
from tieout.invoicing.bill import bill
from tieout.invoicing.credits import grants
from tieout.invoicing.notes import ReleaseRefused, credit_amounts, credit_lines, void
from tieout.invoicing.records import Account, UsageSum
from tieout.invoicing.statement import statements
from tieout.invoicing.tax import TaxPayer
from tieout.period import micros


class Book:
    """A contract with its account: closes months, one after the other."""

    def __init__(self, *versions, taxes=None):
        base = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z"}
        self.documents = [base | version for version in versions]
        self.account, self.taxes = Account("c"), taxes
        self.learn(*self.documents)

    def learn(self, *documents):
        self.timeline = timeline_of(*documents)

    def month(self, start):
        return self.timeline[0].version.billing.calendar.containing(micros(datetime.fromisoformat(start).replace(hour=12, tzinfo=UTC)))

    def close(self, start, *usage, expect_held=False, accepted=()):
        period = self.month(start)
        done = bill(self.account, self.timeline, period, usage, taxes=self.taxes, as_of=period.end_us, accepted=accepted)
        assert (done.held is not None) == expect_held
        self.account = done.account
        return done

    def used(self, start, amount, charge="u", quantity=0, version=1, since=None):
        at = self.month(start).start_us
        return UsageSum(charge, None, at, version, at if since is None else since, quantity * 10**9, int(Fraction(amount) * 10**12), 1, 1, 7)


def ledger(*invoices):
    return [(line.kind, line.key.charge_id, line.amount) for one in invoices for line in one.lines]


def rows(answer):
    return [(line["period"], line["kind"], line["charge_id"], line["amount"]) for line in answer["lines"]]


USAGE = {"charge_id": "u", "product_id": "p", "meter": "m", "price": {"model": "per_unit", "unit_price": "1"}}


def fee(amount, **more):
    return {"charge_id": "f", "product_id": "p", "price": {"model": "flat", "amount": amount}, **more}


def test_an_annual_subscription_in_advance_with_monthly_overage():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [
        fee("12000", interval="year", timing="advance"),
        {"charge_id": "calls", "meter": "m", "included_quantity": "1000", "price": {"model": "graduated", "tiers": [{"up_to": "500", "unit_price": "0.1"}, {"up_to": None, "unit_price": "0.08"}]}}]}
    events = [{"quantity": "900", "time": "2026-01-10T00:00:00Z"}, {"quantity": "1750", "time": "2026-02-10T00:00:00Z"}]
    answer = ask(None, events, contract=contract)
    assert rows(answer) == [
        ("2026-01", "usage", "calls", "0.00"), ("2026-01", "fee", "f", "12000.00"),
        ("2026-02", "usage", "calls", "70.00"),  # 500 x 0.10 + 250 x 0.08
    ]
    assert [(tier["up_to"], tier["quantity"], tier["amount"]) for tier in answer["lines"][2]["tiers"]] == [("500", "500", "50"), (None, "250", "20")]


def test_discount_then_maximum_then_minimum_then_commitment_then_coupon():
    charge = USAGE | {"discount_percent": "10", "maximum": "150", "minimum": "160"}
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [charge], "commitments": [{"commitment_id": "min", "amount": "200"}], "coupons": [{"coupon_id": "x", "percent": "5"}]}
    answer = ask(None, [{"quantity": "200"}], contract=contract)
    assert rows(answer) == [
        ("2026-01", "usage", "u", "150.00"),  # 200 - 10 % = 180, at most 150
        ("2026-01", "minimum", "u", "10.00"),  # to 160
        ("2026-01", "commitment", None, "40.00"),  # to 200
        ("2026-01", "coupon", "u", "-7.50"), ("2026-01", "coupon", "u", "-0.50"), ("2026-01", "coupon", None, "-2.00"),
    ]
    assert answer["total"] == "190.00"


def test_credits_that_expire_in_mid_period_pay_only_for_usage_before():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE, fee("10")], "credits": [
        {"grant_id": "old", "amount": "100", "expires_at": "2026-01-16T00:00:00Z"}, {"grant_id": "new", "amount": "25"}]}
    events = [{"quantity": "40", "time": "2026-01-10T00:00:00Z"}, {"quantity": "30", "time": "2026-01-16T00:00:00Z"}]
    answer = ask(None, events, contract=contract)
    assert answer["total"] == "80.00"
    assert answer["credits"] == [{"grant_id": "old", "applied": "40.00", "balance": "0.00"}, {"grant_id": "new", "applied": "25.00", "balance": "0.00"}]
    assert answer["amount_due"] == "15.00"  # 5 of usage, 10 of fee


def test_what_expires_is_breakage_once():
    book = Book({"charges": [USAGE], "credits": [{"grant_id": "g", "amount": "100", "kind": "purchased", "expires_at": "2026-02-01T00:00:00Z"}]})
    assert [(gone.grant_id, gone.kind, gone.amount) for gone in book.close("2026-01-01", book.used("2026-01-01", "30")).broken] == [("g", "purchased", 7000)]
    assert book.close("2026-02-01", book.used("2026-02-01", "5")).broken == ()
    assert book.account.burns[0].amount == 3000


@pytest.mark.parametrize(
    ("month", "change", "proration", "parts"),
    [
        ("2028-02", "2028-02-16T05:00:00Z", "day", ["51.72", "96.55"]),  # 15/29 of 100, 14/29 of 200
        ("2028-03", "2028-03-12T05:00:00Z", "day", ["35.48", "129.03"]),  # 11/31 of 100, 20/31 of 200
        ("2028-03", "2028-03-12T05:00:00Z", "second", ["35.53", "128.94"]),  # 264 h and 479 h of the month's 743: the clock goes forward
    ],
)
def test_an_upgrade_in_mid_period_in_new_york(month, change, proration, parts):
    def version(number, start, amount):
        return {"contract_id": "c", "customer_id": "k", "version": number, "effective_from": start, "billing": {"time_zone": "America/New_York"}, "charges": [fee(amount, proration=proration)]}

    answer = ask(None, [], contracts=[version(1, "2028-01-01T05:00:00Z", "100"), version(2, change, "200")], as_of="2028-04-02T05:00:00Z")
    assert [line["amount"] for line in answer["lines"] if line["period"] == month] == parts


def test_an_upgrade_of_an_annual_fee_gives_back_what_was_charged_and_charges_anew():
    def version(number, start, amount, percent="0"):
        return {"version": number, "effective_from": start, "charges": [fee(amount, interval="year", timing="advance", discount_percent=percent)]}

    book = Book(version(1, "2026-01-01T00:00:00Z", "1000", "10"))
    assert ledger(*book.close("2026-01-01").invoices) == [("fee", "f", 90000)]
    base = book.documents[0]
    book.learn(base, base | version(2, "2026-07-01T00:00:00Z", "2000"))
    invoice = book.close("2026-07-01").invoices[0]
    assert ledger(invoice) == [("delta", "f", -45370), ("fee", "f", 100822)]  # 900 x 184/365 back, 2000 x 184/365 anew
    assert invoice.lines[0].start_us == invoice.lines[1].start_us == micros(datetime(2026, 7, 1, tzinfo=UTC))


def test_a_termination_gives_back_the_rest_of_an_annual_fee_as_a_credit_note():
    book = Book({"charges": [fee("365", interval="year", timing="advance")]})
    book.close("2026-01-01")
    base = book.documents[0]
    book.learn(base, base | {"version": 2, "status": "terminated", "effective_from": "2026-03-01T00:00:00Z"})
    note = book.close("2026-02-01").invoices[0]
    assert (note.kind, ledger(note)) == ("credit_note", [("delta", "f", -30600)])


def test_a_suspended_stretch_costs_nothing_and_a_start_in_mid_year_has_its_fee():
    base = {"contract_id": "c", "customer_id": "k", "charges": [fee("365", interval="year", timing="advance")]}
    contracts = [
        base | {"version": 1, "effective_from": "2026-03-02T00:00:00Z"},
        base | {"version": 2, "status": "suspended", "effective_from": "2026-04-01T00:00:00Z"},
        base | {"version": 3, "effective_from": "2026-05-01T00:00:00Z"},
    ]
    assert rows(ask(None, [], contracts=contracts, as_of="2026-06-02T00:00:00Z")) == [("2026-03", "fee", "f", "30.00"), ("2026-03", "fee", "f", "245.00")]


def test_late_usage_after_the_close_becomes_a_delta_line_on_the_next_invoice():
    book = Book({"charges": [USAGE | {"minimum": "50"}]})
    first = book.close("2026-01-01", book.used("2026-01-01", "30.004")).invoices[0]
    assert ledger(first) == [("usage", "u", 3000), ("minimum", "u", 2000)]
    second = book.close("2026-02-01", book.used("2026-01-01", "30.004"), book.used("2026-02-01", "60")).invoices[0]
    assert ledger(second) == [("delta", "u", 3001), ("delta", "u", -2000), ("usage", "u", 6000)]  # 60.008 is 60.01, 30.00 of it billed
    assert [line.delta_of for line in second.lines] == [first.lines[0].line_id, first.lines[1].line_id, None]
    assert [line.usage_exact for line in second.lines] == [30_004 * 10**9, 0, 60 * 10**12]
    assert second.lines[0].period == "2026-01"


def test_late_usage_goes_to_an_exception_where_the_contract_says_so():
    book = Book({"charges": [USAGE], "billing": {"late_usage": "exception"}})
    book.close("2026-01-01", book.used("2026-01-01", "30"))
    late = book.used("2026-01-01", "5")
    done = book.close("2026-02-01", late, book.used("2026-02-01", "1"))
    assert (done.late, ledger(*done.invoices)) == ((late,), [("usage", "u", 100)])


def test_a_void_is_issued_again_once():
    book = Book({"charges": [USAGE, fee("10")], "credits": [{"grant_id": "g", "amount": "20"}]})
    first = book.close("2026-01-01", book.used("2026-01-01", "30")).invoices[0]
    version, all_ = book.timeline[0].version, grants(book.timeline)
    back = void(book.account, version, first, all_, first.period.end_us)
    note = back.document
    assert (note.kind, note.voids, ledger(note), note.total, note.amount_due) == ("credit_note", first.invoice_id, [("delta", "u", -3000), ("delta", "f", -1000)], -4000, -2000)
    assert (back.account.open_amount, back.account.burns) == (30 * 10**12, ())
    with pytest.raises(ReleaseRefused, match="taken back already"):
        void(back.account, version, first, all_, first.period.end_us)
    book.account = back.account
    again = book.close("2026-01-01").invoices[0]
    assert (ledger(again), again.amount_due) == ([("usage", "u", 3000), ("fee", "f", 1000)], 2000)
    assert again.invoice_id != first.invoice_id
    assert not {line.line_id for line in again.lines} & {line.line_id for line in first.lines}
    assert book.close("2026-01-01").invoices == ()


def test_a_credit_note_by_line_is_billable_again_and_an_amount_off_is_not():
    book = Book({"charges": [USAGE, fee("10")]}, taxes=Taxes({"p": "std"}, {"std": "20"}))
    first = book.close("2026-01-01", book.used("2026-01-01", "30")).invoices[0]
    version, end = book.timeline[0].version, first.period.end_us
    off = credit_amounts(book.account, version, first, {first.lines[0].line_id: 500}, end)
    assert (ledger(off.document), off.document.credits_invoice) == ([("delta", "u", -500), ("delta", "", -100)], first.invoice_id)
    with pytest.raises(ReleaseRefused, match="2500 minor units left"):
        credit_amounts(off.account, version, first, {first.lines[0].line_id: 2501}, end)
    back = credit_lines(off.account, version, first, [first.lines[1].line_id], (), end)
    assert ledger(back.document) == [("delta", "f", -1000), ("delta", "", -200)]
    rest = void(back.account, version, first, (), end)
    assert ledger(rest.document) == [("delta", "u", -2500), ("delta", "", -500)]
    assert first.total + off.document.total + back.document.total + rest.document.total == 0
    book.account = back.account
    assert ledger(*book.close("2026-02-01").invoices) == [("fee", "f", 1000), ("delta", "", 200), ("usage", "u", 0), ("fee", "f", 1000), ("tax", "", 200)]


class Taxes:
    """Tax facts that do not change, but for what a test changes."""

    def __init__(self, codes, rates, jurisdiction="NY", treatment="standard"):
        self.codes, self.rates, self.said = codes, rates, TaxPayer(jurisdiction, treatment)

    def payer(self, customer_id, instant):
        return self.said

    def code(self, product_id, instant):
        return self.codes.get(product_id)

    def percent(self, jurisdiction, tax_code, instant):
        rate = self.rates.get(tax_code)
        return None if rate is None else Fraction(rate)


def test_tax_is_on_discounted_lines_and_by_code():
    charges = [USAGE, fee("100") | {"product_id": "q"}]
    book = Book({"charges": charges, "coupons": [{"coupon_id": "x", "percent": "10"}]}, taxes=Taxes({"p": "saas", "q": "service"}, {"saas": "8.875", "service": "0"}))
    invoice = book.close("2026-01-01", book.used("2026-01-01", "49.99")).invoices[0]
    assert ledger(invoice) == [("usage", "u", 4999), ("fee", "f", 10000), ("coupon", "u", -500), ("coupon", "f", -1000), ("tax", "", 399), ("tax", "", 0)]  # 44.99 x 8.875 %
    assert (invoice.subtotal, invoice.tax, invoice.total) == (13499, 399, 13898)


def test_credits_do_not_lower_the_tax():
    book = Book({"charges": [USAGE], "credits": [{"grant_id": "g", "amount": "500"}]}, taxes=Taxes({"p": "std"}, {"std": "19"}))
    invoice = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    assert (invoice.tax, invoice.total, invoice.amount_due) == (1900, 11900, 1900)


@pytest.mark.parametrize(
    ("taxes", "reason"),
    [
        (Taxes({}, {"std": "19"}), "tax_code"),
        (Taxes({"p": "std"}, {}), "tax_rate"),
        (Taxes({"p": "std"}, {"std": "19"}, jurisdiction=None), "tax_jurisdiction"),
    ],
)
def test_a_missing_tax_fact_holds_the_invoice_and_nothing_is_lost(taxes, reason):
    book = Book({"charges": [USAGE]}, taxes=taxes)
    usage = book.used("2026-01-01", "100")
    assert book.close("2026-01-01", usage, expect_held=True).held.reason == reason
    assert book.account == Account("c")
    book.taxes = Taxes({"p": "std"}, {"std": "19"})
    assert book.close("2026-01-01", usage).invoices[0].total == 11900


@pytest.mark.parametrize("treatment", ["exempt", "reverse_charge"])
def test_exempt_and_reverse_charge_customers_have_no_tax_line(treatment):
    book = Book({"charges": [USAGE]}, taxes=Taxes({}, {}, None, treatment))
    invoice = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    assert (ledger(invoice), invoice.tax_treatment) == ([("usage", "u", 10000)], treatment)


def test_three_legal_entities_have_one_invoice_each():
    charges = [USAGE, fee("10") | {"legal_entity_id": "de-gmbh"}, fee("20") | {"charge_id": "f2", "legal_entity_id": "jp-kk"}]
    book = Book({"charges": charges, "legal_entity_id": "us-inc", "coupons": [{"coupon_id": "x", "amount": "6"}]})
    invoices = book.close("2026-01-01", book.used("2026-01-01", "30")).invoices
    assert [(one.legal_entity_id, one.total) for one in invoices] == [("us-inc", 2700), ("de-gmbh", 900), ("jp-kk", 1800)]
    assert len({one.invoice_id for one in invoices}) == 3
    (told,) = statements([*invoices, *book.close("2026-02-01", book.used("2026-02-01", "1")).invoices])
    assert (told.customer_id, told.currency, len(told.entries)) == ("k", "USD", 6)
    assert told.by_entity == (("de-gmbh", 1706, 1706), ("jp-kk", 3413, 3413), ("us-inc", 2781, 2781))  # February: 31.00 less 6.00
    assert told.total == 2700 + 900 + 1800 + 2500


@pytest.mark.parametrize(("currency", "shown"), [("JPY", ["101", "34"]), ("BHD", ["100.506", "33.750"]), ("USD", ["100.51", "33.75"])])
def test_every_currency_has_its_minor_unit(currency, shown):
    contract = {"contract_id": "c", "customer_id": "k", "currency": currency, "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE, fee("33.75")]}
    answer = ask(None, [{"quantity": "100.5055"}], contract=contract)
    assert [line["amount"] for line in answer["lines"]] == shown


def test_a_yearly_commitment_trues_up_at_its_end_and_rolls_over():
    book = Book({"charges": [USAGE], "commitments": [{"commitment_id": "min", "amount": "100", "interval": "month", "rollover": True}]})
    assert ledger(*book.close("2026-01-01", book.used("2026-01-01", "70")).invoices) == [("usage", "u", 7000), ("commitment", "", 3000)]
    assert ledger(*book.close("2026-02-01", book.used("2026-02-01", "120")).invoices) == [("usage", "u", 12000), ("commitment", "", -2000)]
    assert ledger(*book.close("2026-03-01", book.used("2026-03-01", "150")).invoices) == [("usage", "u", 15000), ("commitment", "", -1000)]


def test_late_usage_moves_the_true_up_of_the_commitment_too():
    book = Book({"charges": [USAGE], "commitments": [{"commitment_id": "min", "amount": "300", "interval": "quarter"}]})
    for month, amount in (("2026-01-01", "50"), ("2026-02-01", "50"), ("2026-03-01", "50")):
        last = book.close(month, book.used(month, amount)).invoices[0]
    assert ledger(last) == [("usage", "u", 5000), ("commitment", "", 15000)]
    assert ledger(*book.close("2026-04-01", book.used("2026-02-01", "40")).invoices) == [("delta", "u", 4000), ("delta", "", -4000), ("usage", "u", 0)]


def test_late_usage_moves_what_later_months_drew_from_a_prepaid_commitment():
    book = Book({"charges": [USAGE], "commitments": [{"commitment_id": "pre", "kind": "prepaid", "amount": "100", "interval": "year", "overage_factor": "1.5"}]})
    assert ledger(*book.close("2026-01-01", book.used("2026-01-01", "90")).invoices) == [("usage", "u", 9000), ("commitment", "", 10000), ("commitment", "", -9000)]
    assert ledger(*book.close("2026-02-01", book.used("2026-02-01", "50")).invoices) == [("usage", "u", 5000), ("commitment", "", -1000), ("overage", "", 2000)]
    assert ledger(*book.close("2026-03-01", book.used("2026-01-01", "5")).invoices) == [
        ("delta", "u", 500), ("delta", "", -500),  # January draws 95
        ("delta", "", 500), ("delta", "", 250),  # so February draws 5 only, and 45 are beyond
        ("usage", "u", 0),
    ]


def test_a_term_commitment_prorated_and_ended_by_a_termination():
    base = {"term": {"start_on": "2026-01-01", "end_on": "2026-01-11"}, "charges": [USAGE], "commitments": [{"commitment_id": "t", "scope": "term", "interval": "term", "amount": "100", "prorate": True}]}
    book = Book(base, base | {"version": 2, "effective_from": "2026-01-06T00:00:00Z", "status": "terminated"})
    assert ledger(*book.close("2026-01-01", book.used("2026-01-01", "20")).invoices) == [("usage", "u", 2000), ("commitment", "", 3000)]  # 5 of 10 days: 50


def test_a_correction_after_the_close_is_a_delta_of_tieout_invoice(tmp_path):
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE]}
    events = [
        {"id": "a", "quantity": "10", "time": "2026-01-10T00:00:00Z"},
        {"id": "b", "quantity": "4", "time": "2026-02-10T00:00:00Z", "corrects": {"source": "quote", "id": "a"}},
    ]
    facts = [
        {"kind": "customer", "key": "k", "customer": {"tax_jurisdiction": "DE", "tax_treatment": "standard"}},
        {"kind": "product", "key": "p", "product": {"name": "P", "tax_code": "std"}},
        {"kind": "tax_rate", "key": "de", "tax_rate": {"jurisdiction": "DE", "tax_code": "std", "rate_percent": "19"}},
    ]
    (tmp_path / "contract.json").write_text(json.dumps(contract))
    (tmp_path / "usage.jsonl").write_text("\n".join(json.dumps(event) for event in events))
    (tmp_path / "facts.jsonl").write_text("\n".join(json.dumps(fact | {"valid_from": "2020-01-01T00:00:00Z"}) for fact in facts))
    command = [sys.executable, "-m", "flows.cli", "invoice", "--contract", "contract.json", "--usage", "usage.jsonl", "--reference", "facts.jsonl", "--output", "json", "--html", "page.html", "--period"]
    told = [json.loads(subprocess.run([*command, period], cwd=tmp_path, capture_output=True, text=True, check=True).stdout)["invoices"] for period in ("2026-01", "2026-02")]
    assert [(one["kind"], one["total"]) for answer in told for one in answer] == [("invoice", "11.90"), ("credit_note", "-7.14")]
    assert [(line["kind"], line["period"], line["amount"]) for line in told[1][0]["lines"]] == [
        ("delta", "2026-01", "-6.00"), ("delta", "2026-01", "-1.14"), ("usage", "2026-02", "0.00"),
    ]
    page = (tmp_path / "page.html").read_text()
    assert "Credit note" in page
    assert "-7.14" in page
    assert "2026-01-01 – 2026-01-31" in page


def test_a_batch_of_invoices_answers_each_line(tmp_path):
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE]}
    cases = [
        {"id": 1, "contract": contract, "period": "2026-01", "events": [{"quantity": "3"}]},
        {"id": 2, "contract": contract, "period": "2025-12"},
        {"id": 3, "contract": contract | {"rate_card": {"rate_card_id": "list", "version": 1}}, "period": "2026-01"},
        {"id": 4, "contract": contract},
        {"id": 5, "contract": contract | {"billing": {"thresholds": ["10", "25"]}, "charges": [*contract["charges"], fee("1")]}, "period": "2026-01", "events": [{"quantity": "6"}] * 5},
    ]
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(json.dumps(case) for case in cases))
    answer = subprocess.run([sys.executable, "-m", "flows.cli", "invoice", "--batch", str(path)], capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [one["total"] for one in answers[0]["invoices"]] == ["3.00"]
    assert [(one["id"], one["error"]["path"]) for one in answers[1:4]] == [(2, "period"), (3, "rate_card"), (4, "period")]
    early = answers[4]["invoices"]  # 12 reaches 10, 30 reaches 25; the close has nothing left but the fee
    assert [[(line["kind"], line["amount"]) for line in one["lines"]] for one in early] == [[("usage", "12.00")], [("delta", "18.00")], [("fee", "1.00")]]
