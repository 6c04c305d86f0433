"""An account over years: what goes, what stays, and that nothing is billed twice for it."""

from datetime import date

import pytest

from tests.unit.test_invoicing import USAGE, Book, fee, ledger
from tieout.invoicing.credits import balances, grants
from tieout.invoicing.notes import ReleaseRefused, credit_amounts, void
from tieout.invoicing.pruning import dated, forgot, pruned, remembering
from tieout.invoicing.records import Account

DAY = 86_400_000_000
MONTHS = [date(2026 + n // 12, n % 12 + 1, 1).isoformat() for n in range(40)]


def years(book, *, limit=400):
    """Forty months of 10 each; the account is pruned at each close where there is a limit."""
    sizes, told = [], []
    for month in MONTHS:
        told += book.close(month, book.used(month, "10")).invoices
        if limit:
            book.account = pruned(book.account, book.timeline, book.month(month).end_us - limit * DAY)
        sizes.append(len(book.account.usage) + len(book.account.billed) + len(book.account.burns))
    return sizes, told


def test_the_size_of_an_account_is_bounded_and_its_documents_are_the_same():
    terms = {"charges": [USAGE, fee("365", interval="year", timing="advance")], "credits": [{"grant_id": "g", "amount": "333"}], "commitments": [{"commitment_id": "m", "amount": "200", "interval": "year", "kind": "prepaid"}]}
    book, whole = Book(terms), Book(terms)
    sizes, told = years(book)
    large, all_ = years(whole, limit=None)
    assert told == all_
    assert max(sizes[30:]) <= max(sizes[12:30]) < large[-1] * 2 / 3
    assert book.account.open_amount == whole.account.open_amount == 0
    left = [balances(grants(one.timeline), one.account.burns, one.account.broken) for one in (book, whole)]
    assert left[0] == left[1]


def test_usage_for_what_has_gone_is_an_exception_and_not_billed_as_if_it_were_new():
    book = Book({"charges": [USAGE, fee("5")]})
    years(book)
    late = book.used("2026-01-01", "3")
    done = book.close("2029-05-01", late, accepted=[late])
    assert (done.late, ledger(*done.invoices)) == ((late, late), [("usage", "u", 0), ("fee", "f", 500)])


def test_a_late_version_does_not_bill_again_what_has_gone():
    book = Book({"charges": [USAGE, fee("5")]})
    years(book)
    kept = {one.key.period_us for one in book.account.billed}
    first = book.documents[0]
    book.learn(first, first | {"version": 2, "effective_from": "2026-01-01T00:00:00Z", "charges": [USAGE, fee("6")]})
    invoice = book.close("2029-05-01").invoices[0]
    assert {line.key.period_us for line in invoice.lines} == kept | {book.month("2029-05-01").start_us}


def test_what_was_not_settled_stays_and_what_has_gone_cannot_be_voided():
    book = Book({"charges": [USAGE]})
    invoices = [book.close(month, book.used(month, "10")).invoices[0] for month in MONTHS[:3]]
    version, end = book.timeline[0].version, book.month(MONTHS[2]).end_us
    account = void(book.account, version, invoices[0], (), end).account
    account = pruned(account, book.timeline, end)
    assert [one.period_us for one in account.usage] == [book.month(MONTHS[0]).start_us, book.month(MONTHS[2]).start_us]
    assert account.open_amount == 10 * 10**12
    with pytest.raises(ReleaseRefused, match="too far back"):
        void(account, version, invoices[1], (), end)


def bought(**more):
    return {"grant_id": "g", "amount": "500", "kind": "purchased", "effective_from": "2026-02-10T00:00:00Z", **more}


def purchases(*invoices):
    return [(line.kind, line.period, line.amount) for one in invoices for line in one.lines if line.key.kind == "credit"]


def amend(book, number, start, *given):
    book.learn(*book.documents, book.documents[0] | {"version": number, "effective_from": start, "credits": list(given)})


def test_a_purchase_of_a_period_that_has_gone_is_billed_in_the_one_that_closes_and_once():
    book = Book({"charges": [USAGE]})
    years(book)
    amend(book, 2, "2029-05-01T00:00:00Z", bought())
    invoice = book.close("2029-05-01", book.used("2029-05-01", "70")).invoices[0]
    assert purchases(invoice) == [("credit", "2029-05", 50000)]
    assert [(use.applied, use.balance) for use in invoice.credits] == [(21000, 29000)]  # 70, and 14 months of 10 that are kept
    assert book.close("2029-05-01").invoices == ()
    book.account = pruned(book.account, book.timeline, book.month("2029-08-01").start_us)
    assert [purchases(*book.close(month).invoices) for month in ("2029-06-01", "2029-07-01")] == [[], []]


def test_a_purchase_that_has_gone_is_not_billed_again_whatever_version_brings_it_and_a_larger_one_bills_what_is_more():
    book = Book({"charges": [USAGE], "credits": [bought()]})
    _, told = years(book)
    assert purchases(*told) == [("credit", "2026-02", 50000)]
    assert not [one for one in book.account.billed if one.key.kind == "credit"]
    amend(book, 2, "2026-01-01T00:00:00Z", bought())  # another version in place of the first, from the very beginning
    assert purchases(*book.close("2029-05-01").invoices) == []
    amend(book, 2, "2029-06-01T00:00:00Z", bought(amount="600"))
    assert purchases(*book.close("2029-06-01").invoices) == [("credit", "2029-06", 10000)]
    book.learn(*book.documents, *(book.documents[0] | {"version": n, "effective_from": at, "credits": [bought(amount=amount)]} for n, at, amount in ((2, "2029-06-01T00:00:00Z", "600"), (3, "2029-07-01T00:00:00Z", "650"))))
    assert purchases(*book.close("2029-07-01").invoices) == [("delta", "2029-06", 5000)]
    book.account = pruned(book.account, book.timeline, book.month("2029-09-01").start_us)
    book.learn(*book.documents, *(book.documents[0] | {"version": n, "effective_from": at, "credits": [bought(amount=amount)]} for n, at, amount in ((2, "2029-06-01T00:00:00Z", "600"), (3, "2029-07-01T00:00:00Z", "650"), (4, "2029-08-01T00:00:00Z", "660"))))
    assert purchases(*book.close("2029-08-01").invoices) == [("credit", "2029-08", 1000)]


def test_what_was_taken_back_leaves_with_its_period_and_a_credit_of_an_old_invoice_still_never_exceeds_it():
    book = Book({"charges": [USAGE, fee("5")]})
    first = book.close(MONTHS[0], book.used(MONTHS[0], "10")).invoices[0]
    line = first.lines[0].line_id
    done = credit_amounts(book.account, book.timeline[0].version, first, {line: 600}, 0)
    book.account, notes = dated(done.account, first), [done.document]
    for month in MONTHS[1:20]:
        book.close(month, book.used(month, "10"))
        book.account = pruned(book.account, book.timeline, book.month(month).end_us - 400 * DAY)
    assert book.account.released == ()
    assert forgot(book.account, first)
    version = book.timeline[0].version
    with pytest.raises(ReleaseRefused, match="has 400 minor units left"):
        credit_amounts(remembering(book.account, first, notes), version, first, {line: 401}, 0)
    done = credit_amounts(remembering(book.account, first, notes), version, first, {line: 400}, 0)
    assert done.document.total == -400
    assert dated(done.account, first).released == ()
    with pytest.raises(ReleaseRefused, match="has 0 minor units left"):
        credit_amounts(remembering(book.account, first, [*notes, done.document]), version, first, {line: 1}, 0)


def test_a_commitment_that_rolls_over_keeps_everything():
    book = Book({"charges": [USAGE], "commitments": [{"commitment_id": "m", "amount": "20", "rollover": True}]})
    sizes, _ = years(book)
    assert sizes[-1] > sizes[20]
    assert pruned(Account("c"), book.timeline, 0) == Account("c")
