"""Months in which nothing happened: closed, and no document that would say nothing; what comes for them later has its first line."""

from tests.unit.test_invoicing import USAGE, Book, Taxes, fee, ledger
from tests.unit.test_quote import ask
from tieout.invoicing.credits import grants
from tieout.invoicing.notes import void


def test_a_month_without_usage_and_without_an_amount_is_closed_and_makes_no_document():
    book = Book({"charges": [USAGE, fee("0")]}, taxes=Taxes({"p": "std"}, {"std": "19"}))
    done = book.close("2026-01-01")
    assert (done.invoices, done.account.closed_us, done.account.issued) == ((), book.month("2026-02-01").start_us, 0)
    assert ledger(*book.close("2026-02-01", book.used("2026-02-01", "5")).invoices) == [("usage", "u", 500), ("fee", "f", 0), ("tax", "", 95)]
    assert book.account.issued == 1


def test_a_total_of_zero_with_something_behind_it_is_a_document():
    free = USAGE | {"price": {"model": "per_unit", "unit_price": "0"}}
    assert ledger(*Book({"charges": [free]}).close("2026-01-01", Book({"charges": [free]}).used("2026-01-01", "0", quantity=7)).invoices) == [("usage", "u", 0)]
    given_away = Book({"charges": [fee("10")], "coupons": [{"coupon_id": "x", "percent": "100"}]})
    assert ledger(*given_away.close("2026-01-01").invoices) == [("fee", "f", 1000), ("coupon", "f", -1000)]
    first_tier = USAGE | {"price": {"model": "graduated", "tiers": [{"up_to": None, "unit_price": "1", "flat_fee": "3"}]}}
    assert ledger(*Book({"charges": [first_tier]}).close("2026-01-01").invoices) == [("usage", "u", 300)]  # what nothing costs


def test_late_usage_of_a_quiet_month_is_a_line_of_its_own_and_no_delta_of_what_nobody_was_told():
    book = Book({"charges": [USAGE]})
    book.close("2026-01-01")
    (invoice,) = book.close("2026-02-01", book.used("2026-01-01", "5"), book.used("2026-02-01", "7")).invoices
    assert [(line.kind, line.period, line.amount, line.delta_of) for line in invoice.lines] == [("usage", "2026-01", 500, None), ("usage", "2026-02", 700, None)]
    (late,) = book.close("2026-03-01", book.used("2026-01-01", "1")).invoices
    assert [(line.kind, line.amount, line.delta_of) for line in late.lines][0] == ("delta", 100, invoice.lines[0].line_id)
    assert book.account.open_amount == 0


def test_a_version_that_comes_late_charges_the_quiet_months_that_it_covers():
    book = Book({"charges": [USAGE]})
    for month in ("2026-01-01", "2026-02-01"):
        assert book.close(month).invoices == ()
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "charges": [USAGE, fee("10")]})
    (invoice,) = book.close("2026-03-01").invoices
    assert [(line.kind, line.period, line.amount) for line in invoice.lines if line.amount] == [("fee", f"2026-0{month}", 1000) for month in (1, 2, 3)]


def test_only_the_legal_entity_that_has_something_to_say_says_it():
    other = USAGE | {"charge_id": "v", "meter": "n", "legal_entity_id": "de-gmbh"}
    book = Book({"charges": [USAGE, other], "legal_entity_id": "us-inc"})
    assert [(one.legal_entity_id, one.total) for one in book.close("2026-01-01", book.used("2026-01-01", "5", charge="v")).invoices] == [("de-gmbh", 500)]


def test_credits_that_pay_late_for_what_is_billed_are_a_document():
    """Nothing was used in February, but a grant learnt then pays for January."""
    book = Book({"charges": [USAGE]})
    book.close("2026-01-01", book.used("2026-01-01", "100"))
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "credits": [{"grant_id": "g", "amount": "70", "effective_from": "2026-01-01T00:00:00Z"}]})
    (invoice,) = book.close("2026-02-01").invoices
    assert (ledger(invoice), [use.applied for use in invoice.credits], invoice.amount_due) == ([("usage", "u", 0)], [7000], -7000)


def test_a_void_of_everything_is_a_document_and_so_is_the_bill_after_it():
    book = Book({"charges": [USAGE | {"price": {"model": "per_unit", "unit_price": "0"}}]})
    (invoice,) = book.close("2026-01-01", book.used("2026-01-01", "0", quantity=7)).invoices
    done = void(book.account, book.timeline[0].version, invoice, grants(book.timeline), invoice.period.end_us)
    book.account = done.account
    (again,) = book.close("2026-01-01").invoices
    assert ([line.usage_count for line in done.document.lines], [(line.kind, line.usage_count) for line in again.lines]) == ([-1], [("usage", 1)])


def test_a_quote_still_shows_what_nothing_costs():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE]}
    answer = ask(None, [], contract=contract, as_of="2026-02-02T00:00:00Z")
    assert ([(line["period"], line["amount"]) for line in answer["lines"]], answer["total"]) == ([("2026-01", "0.00")], "0.00")


def test_a_month_that_closed_without_any_line_is_looked_at_again_when_a_version_comes_late_for_it():
    book = Book({"charges": [fee("31")]})
    stop = book.documents[0] | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "status": "suspended"}
    book.learn(book.documents[0], stop)
    assert ledger(*book.close("2026-01-01").invoices) == [("fee", "f", 3100)]
    assert book.close("2026-02-01").invoices == ()
    book.learn(book.documents[0], stop, stop | {"version": 3, "status": "active"})
    (march,) = book.close("2026-03-01").invoices
    assert [(line.kind, line.period, line.amount) for line in march.lines] == [("fee", "2026-02", 3100), ("fee", "2026-03", 3100)]


def test_credits_that_pay_late_where_no_line_changes_are_a_document_without_lines():
    book = Book({"charges": [USAGE]})
    stop = book.documents[0] | {"version": 2, "effective_from": "2026-02-01T00:00:00Z", "status": "suspended"}
    book.learn(book.documents[0], stop)
    (january,) = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices
    book.learn(book.documents[0], stop, stop | {"version": 3, "credits": [{"grant_id": "g", "amount": "70", "effective_from": "2026-01-01T00:00:00Z"}]})
    (told,) = book.close("2026-02-01").invoices
    assert (told.lines, told.total, [(one.grant_id, one.applied, one.balance) for one in told.credits], told.amount_due) == ((), 0, [("g", 7000, 0)], -7000)
    assert january.amount_due + told.amount_due == 3000
    assert book.close("2026-03-01").invoices == ()
