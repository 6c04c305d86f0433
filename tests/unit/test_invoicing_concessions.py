"""Amounts off lines, before and after their lines are corrected: ledgers to check by hand."""

import pytest

from tests.unit.test_invoicing import USAGE, Book, Taxes, fee, ledger
from tieout.invoicing.credits import grants
from tieout.invoicing.notes import ReleaseRefused, credit_amounts, void
from tieout.invoicing.pruning import pruned, remembering
from tieout.invoicing.thresholds import bill_early


def off(book, invoice, amount, place=0):
    """A credit note over an amount off a line."""
    done = credit_amounts(book.account, book.timeline[0].version, invoice, {invoice.lines[place].line_id: amount}, invoice.period.end_us)
    book.account = done.account
    return done.document


def total(*documents):
    return sum(one.total for one in documents)


@pytest.fixture
def book():
    return Book({"charges": [USAGE]})


def january(invoices):
    """The lines of a document about January, the first month."""
    return [(line.kind, line.amount) for one in invoices for line in one.lines if line.period == "2026-01"]


def test_a_line_that_is_corrected_to_nothing_gives_back_what_was_taken_off_it(book):
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    note = off(book, first, 3000)
    assert (ledger(note), note.total) == ([("delta", "u", -3000)], -3000)
    back = book.close("2026-02-01", book.used("2026-01-01", "-100")).invoices
    assert january(back) == [("delta", -10000), ("delta", 3000)]  # 70.00 were left of the line, and no more is credited
    assert [line.delta_of for line in back[0].lines[:2]] == [first.lines[0].line_id, note.lines[0].line_id]
    assert total(first, note, *back) == 0


@pytest.mark.parametrize(("corrected", "deltas", "left"), [("-50", [-5000], 2000), ("-80", [-8000, 1000], 0), ("25", [2500], 9500)])
def test_a_correction_credits_at_most_what_is_left_of_the_line(book, corrected, deltas, left):
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    note = off(book, first, 3000)
    back = book.close("2026-02-01", book.used("2026-01-01", corrected)).invoices
    assert (january(back), total(first, note, *back)) == ([("delta", one) for one in deltas], left)


def test_what_comes_back_has_its_concession_again(book):
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    documents = [first, off(book, first, 3000)]
    for month, change in (("2026-02-01", "-100"), ("2026-03-01", "60")):
        documents += book.close(month, book.used("2026-01-01", change)).invoices
    assert (january(documents[-1:]), total(*documents)) == ([("delta", 6000), ("delta", -3000)], 3000)


def test_no_more_can_be_taken_off_a_line_than_its_corrections_have_left(book):
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    book.close("2026-02-01", book.used("2026-01-01", "-80"))
    with pytest.raises(ReleaseRefused, match="has 2000 minor units left"):
        off(book, first, 2001)
    off(book, first, 1500)
    with pytest.raises(ReleaseRefused, match="has 500 minor units left"):
        off(book, first, 501)


def test_tax_follows_the_concession_down_and_back():
    book = Book({"charges": [USAGE, fee("10")]}, taxes=Taxes({"p": "std"}, {"std": "20"}))
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    assert ledger(first) == [("usage", "u", 10000), ("fee", "f", 1000), ("tax", "", 2200)]
    note = off(book, first, 3000)
    assert ledger(note) == [("delta", "u", -3000), ("delta", "", -600)]
    back = book.close("2026-02-01", book.used("2026-01-01", "-100")).invoices
    assert january(back) == [("delta", -10000), ("delta", 3000), ("delta", -1400)]  # what is taxed is the fee alone: 2.00
    assert sum(line.amount for one in (first, note, *back) for line in one.lines if line.period == "2026-01") == 1200


def test_a_line_that_a_coupon_has_lowered_has_only_the_rest_to_take_off():
    book = Book({"charges": [USAGE], "coupons": [{"coupon_id": "x", "percent": "10"}]})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    with pytest.raises(ReleaseRefused, match="has 9000 minor units left"):
        off(book, first, 9001)
    note = off(book, first, 9000)
    back = book.close("2026-02-01", book.used("2026-01-01", "-100")).invoices
    assert january(back) == [("delta", -10000), ("delta", 9000), ("delta", 1000)]
    assert total(first, note, *back) == 0
    coupon = next(line for line in back[0].lines if line.amount == 1000)
    with pytest.raises(ReleaseRefused, match="has 0 minor units left"):
        credit_amounts(book.account, book.timeline[0].version, back[0], {coupon.line_id: 1}, first.period.end_us)


def test_a_concession_counts_for_no_commitment_and_gives_no_grant_back():
    terms = {"commitments": [{"commitment_id": "m", "amount": "150"}], "credits": [{"grant_id": "g", "amount": "100"}]}
    book = Book({"charges": [USAGE], **terms})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    assert (ledger(first), first.amount_due) == ([("usage", "u", 10000), ("commitment", "", 5000)], 5000)
    note = off(book, first, 3000)
    assert (note.credits, note.amount_due) == ((), -3000)
    back = book.close("2026-02-01", book.used("2026-01-01", "-100")).invoices[0]
    assert january([back]) == [("delta", -10000), ("delta", 10000), ("delta", 3000)]  # the true-up takes the usage's place
    assert [use.applied for use in back.credits] == [-10000]


def test_a_void_takes_back_what_the_concession_has_left_and_the_bill_after_it_is_whole():
    book = Book({"charges": [USAGE]})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    note = off(book, first, 3000)
    done = void(book.account, book.timeline[0].version, first, grants(book.timeline), first.period.end_us)
    book.account = done.account
    again = book.close("2026-01-01").invoices[0]
    assert (ledger(done.document), ledger(again)) == ([("delta", "u", -7000)], [("usage", "u", 10000)])
    assert total(first, note, done.document, again) == 10000
    assert book.close("2026-01-01").invoices == ()


def test_a_concession_on_an_early_invoice_stands_through_the_close():
    book = Book({"charges": [USAGE], "billing": {"thresholds": ["50", "90"]}})
    period = book.month("2026-01-01")
    documents = []
    for amount in ("60", "40"):
        done = bill_early(book.account, book.timeline, period, [book.used("2026-01-01", amount)], taxes=None, as_of=period.end_us - 1)
        book.account, documents = done.account, [*documents, *done.invoices]
        if len(documents) == 1:
            documents.append(off(book, documents[0], 2000))
    documents += book.close("2026-01-01", book.used("2026-01-01", "5")).invoices
    assert [ledger(one) for one in documents] == [[("usage", "u", 6000)], [("delta", "u", -2000)], [("delta", "u", 4000)], [("delta", "u", 500)]]


def test_of_a_line_that_has_left_the_account_its_document_says_what_is_left():
    book = Book({"charges": [USAGE], "coupons": [{"coupon_id": "x", "percent": "10"}]})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    book.account = book.account._replace(usage=(), billed=())
    with pytest.raises(ReleaseRefused, match="has 9000 minor units left"):
        off(book, first, 9001)
    assert ledger(off(book, first, 9000)) == [("delta", "u", -9000)]
    with pytest.raises(ReleaseRefused, match="has 0 minor units left"):
        off(book, first, 1)


def test_of_a_line_that_has_left_the_account_its_corrections_say_what_is_left():
    book = Book({"charges": [USAGE]})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    later = list(book.close("2026-02-01", book.used("2026-01-01", "-80")).invoices)
    for month in ("2026-03-01", "2026-04-01"):
        book.close(month, book.used(month, "1"))
    with pytest.raises(ReleaseRefused, match="has 2000 minor units left"):
        off(book, first, 2001)
    book.account = pruned(book.account, book.timeline, book.month("2026-03-01").start_us)
    assert "2026-01" not in {one.period for one in book.account.billed}
    book.account = remembering(book.account, first, later)
    with pytest.raises(ReleaseRefused, match="has 2000 minor units left"):
        off(book, first, 2001)
    assert off(book, first, 2000).total == -2000


@pytest.mark.parametrize(("later", "left"), [("-100", 0), ("25", 10000)])
def test_a_correction_upwards_lets_no_more_be_taken_off_an_old_line_than_its_document_told(later, left):
    book = Book({"charges": [USAGE]})
    first = book.close("2026-01-01", book.used("2026-01-01", "100")).invoices[0]
    documents = book.close("2026-02-01", book.used("2026-01-01", later)).invoices
    for month in ("2026-03-01", "2026-04-01"):
        book.close(month, book.used(month, "1"))
    book.account = remembering(pruned(book.account, book.timeline, book.month("2026-03-01").start_us), first, documents)
    with pytest.raises(ReleaseRefused, match=f"has {left} minor units left"):
        off(book, first, left + 1)
