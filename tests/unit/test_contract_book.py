"""Which version governs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieout.contract_batch import FOREVER
from tieout.contract_book import ContractBook
from tieout.contract_columns import ContractColumns
from tieout.contracts import parse_contract
from tieout.problems import ContractRefused

DAY = 86_400_000_000
BASE = 1_767_225_600_000_000


def version(number, start=1, end=None, customer="k", **more):
    document = {"contract_id": "c", "version": number, "customer_id": customer, "effective_from": _day(start)} | more
    return parse_contract(document | ({"effective_to": _day(end)} if end else {}))


def _day(number):
    return f"2026-{1 + (number - 1) // 28:02d}-{1 + (number - 1) % 28:02d}T00:00:00Z"


def governs(book, text):
    found = book.governing("c", version(1, 1, None, effective_from=text).effective_from_us)
    return found and found.version


def test_a_gap_in_the_numbers_waits_until_it_is_filled():
    book = ContractBook()
    assert book.apply(version(2, 5)).kind == "waiting"
    assert book.apply(version(3, 9)).kind == "waiting"
    assert [v.version for v in book.apply(version(1)).versions] == [1, 2, 3]
    assert book.apply(version(5, 9)).kind == "waiting"


def test_a_quote_may_start_at_any_number():
    book = ContractBook(first_number=None)
    assert book.apply(version(4)).kind == "in_force"
    assert book.apply(version(6)).kind == "waiting"


def test_an_earlier_version_is_in_force_again_after_a_later_ones_end():
    book = ContractBook()
    book.apply(version(1))
    book.apply(version(2, 10, 20))
    assert [governs(book, _day(day)) for day in (9, 10, 19, 20)] == [1, 2, 2, 1]
    assert governs(book, "2025-12-31T23:59:59Z") is None


def test_the_same_version_again_is_no_news_but_other_content_is_refused():
    book = ContractBook()
    book.apply(version(1))
    assert book.apply(version(1)).kind == "repeated"
    with pytest.raises(ContractRefused, match="exists with other content; publish the next number"):
        book.apply(version(1, currency="EUR"))


def test_a_contract_keeps_its_customer():
    book = ContractBook()
    book.apply(version(1))
    with pytest.raises(ContractRefused, match="belongs to customer k; open a new contract"):
        book.apply(version(2, customer="other"))


def test_a_draft_governs_nothing():
    book = ContractBook()
    assert book.apply(version(1, status="draft")).kind == "draft"
    assert book.contracts_of("k") == ()


@given(st.lists(st.tuples(st.integers(1, 60), st.one_of(st.none(), st.integers(1, 30))), min_size=1, max_size=8), st.integers(0, 95))
def test_the_highest_number_whose_interval_holds_the_instant_wins(spans, day):
    versions = [version(n, start, start + length if length else None) for n, (start, length) in enumerate(spans, 1)]
    book = ContractBook()
    for one in versions:
        book.apply(one)
    instant = BASE + day * DAY
    holding = [v.version for v in versions if v.effective_from_us <= instant and (v.effective_to_us is None or instant < v.effective_to_us)]
    found = book.governing("c", instant)
    assert (found and found.version) == (max(holding) if holding else None)


def test_versions_that_follow_each_other_in_batches_govern_as_if_they_came_one_by_one():
    """Forty contracts, six rounds: a version takes over from the last, at times at its very start or with an end of its own."""
    random = np.random.default_rng(7)
    batched, single = ContractColumns(), ContractColumns()
    for columns in (batched, single):
        for name in range(40):
            columns.contract_of(f"k{name}")
        columns.customer[:] = [columns.customer_of(f"c{name}") for name in range(40)]
    starts = np.zeros(40, np.int64)
    for number in range(1, 7):
        chosen = np.repeat(np.nonzero(random.integers(0, 4, 40))[0], 1 + (number == 3))  # in one round two at once
        starts[chosen] += random.integers(0, 4, len(chosen)) * 10
        ends = np.where(random.integers(0, 5, len(chosen)) == 0, starts[chosen] + 15, FOREVER)
        numbers = np.full(len(chosen), number)
        batched.add_all(chosen, numbers, starts[chosen], ends, numbers, np.zeros((len(chosen), 2), np.uint64))
        for contract, start, end in zip(chosen.tolist(), starts[chosen].tolist(), ends.tolist(), strict=True):
            single.add(contract, number, start, end, number, (0, 0))
        assert [batched.stretches(contract) for contract in range(40)] == [single.stretches(contract) for contract in range(40)]
    assert max(len(single.stretches(contract)) for contract in range(40)) > 3
