"""An account over years: what goes, what stays, and that nothing is billed twice for it."""

from datetime import date

import pytest

from tests.unit.test_invoicing import USAGE, Book, fee, ledger
from tieout.invoicing.credits import balances, grants
from tieout.invoicing.notes import ReleaseRefused, void
from tieout.invoicing.pruning import pruned
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


def test_a_commitment_that_rolls_over_keeps_everything():
    book = Book({"charges": [USAGE], "commitments": [{"commitment_id": "m", "amount": "20", "rollover": True}]})
    sizes, _ = years(book)
    assert sizes[-1] > sizes[20]
    assert pruned(Account("c"), book.timeline, 0) == Account("c")
