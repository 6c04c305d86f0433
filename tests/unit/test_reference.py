"""Which record of the reference data holds at an instant."""

from itertools import permutations

import pytest

from tests.governed import record
from tieout.reference import ReferenceBook


def of(*records):
    found = ReferenceBook()
    found.learn(records)
    return found


def meter(unit, valid_from, valid_to=None, recorded_at=0, number=0):
    return record("meter", "calls", {"unit": unit}, valid_from, valid_to, recorded_at, number)


def unit(book, instant):
    found = book.at("meter", "calls", instant)
    return None if found is None else found.value["unit"]


def test_a_record_holds_from_its_beginning_to_just_before_its_end():
    book = of(meter("a", 10, 20))
    assert [unit(book, instant) for instant in (9, 10, 19, 20)] == [None, "a", "a", None]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_record_that_was_recorded_last_holds_in_whatever_order_they_are_learnt(order):
    records = [meter("first", 0, recorded_at=1, number=2), meter("for a while", 10, 20, recorded_at=2, number=0), meter("early", 0, 5, recorded_at=3, number=1)]
    book = of(*(records[at] for at in order))
    assert [unit(book, instant) for instant in (4, 5, 10, 20)] == ["early", "first", "for a while", "first"]
    assert [one.value["unit"] for one in book.history("meter", "calls")] == ["first", "for a while", "early"]


def test_of_two_recorded_at_once_the_later_one_in_the_log_holds():
    assert unit(of(meter("b", 0, number=2), meter("a", 0, number=1)), 0) == "b"


def test_versions_of_a_rate_card_stand_beside_each_other():
    def card(version, charges, recorded_at=0):
        return record("rate_card", "list", {"version": version, "charges": charges}, 0, None, recorded_at)

    book = of(card(1, "one"), card(2, "two", 1), card(1, "one, corrected", 2))
    assert [book.rate_card("list", version, 5).value["charges"] for version in (1, 2)] == ["one, corrected", "two"]
    assert book.rate_card("list", 3, 5) is book.rate_card("list", 1, -1) is book.rate_card("other", 1, 5) is None


def test_what_is_known_by_kind():
    book = of(meter("a", 10, 20), record("meter", "tokens", {"unit": "t"}, 15))
    assert book.has("meter") and not book.has("customer")
    assert [one.key for one in book.holding("meter", 17)] == ["calls", "tokens"]
    assert [one.key for one in book.holding("meter", 12)] == ["calls"]
    assert book.keys("meter") == ["calls", "tokens"]


def test_a_kind_of_a_later_release_is_left_alone():
    assert of(record("colour", "red", {})).keys("meter") == []
