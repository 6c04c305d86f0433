"""Rounding and splitting, as an accountant would check them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieout import money


@pytest.mark.parametrize(("numerator", "denominator", "rounded"), [(5, 2, 3), (-5, 2, -3), (4, 3, 1), (5, 3, 2), (-4, 3, -1), (1, 2, 1), (0, 7, 0), (249, 100, 2), (250, 100, 3)])
def test_halves_round_away_from_zero(numerator, denominator, rounded):
    assert money.round_ratio(numerator, denominator) == rounded


@pytest.mark.parametrize(("currency", "decimals"), [("JPY", 0), ("USD", 2), ("EUR", 2), ("BHD", 3), ("IQD", 3), ("CLF", 4)])
def test_minor_units_are_those_of_iso_4217(currency, decimals):
    assert money.minor_unit(currency) == decimals


def test_an_unknown_currency_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match="'DOLLARS' is not a currency of ISO 4217; use its three capital letters"):
        money.minor_unit("DOLLARS")


def test_a_remainder_goes_to_the_largest_fraction_and_ties_to_the_first():
    assert money.allocate(100, [1, 1, 1]) == [34, 33, 33]
    assert money.allocate(-100, [1, 1, 1]) == [-34, -33, -33]
    assert money.allocate(10, [1, 2, 3]) == [2, 3, 5]
    assert money.allocate(0, [3, 4]) == [0, 0]


@given(st.integers(-(10**20), 10**20), st.lists(st.integers(0, 10**9), min_size=1, max_size=20).filter(any))
def test_parts_always_sum_to_the_whole_and_none_is_off_by_more_than_one(total, weights):
    parts = money.allocate(total, weights)
    assert sum(parts) == total
    assert all(abs(part * sum(weights) - total * weight) < sum(weights) for part, weight in zip(parts, weights, strict=True))


def test_weights_that_split_nothing_are_refused():
    for weights in ([0, 0], [1, -1]):
        with pytest.raises(ValueError, match="cannot split"):
            money.allocate(5, weights)


@given(st.integers(-(10**40), 10**40))
def test_units_and_decimals_lose_no_digit_beyond_the_default_context(units):
    assert money.units(money.decimal(units, 12), 12) == units


def test_more_decimals_than_the_scale_are_refused():
    with pytest.raises(ValueError, match="more than 9 decimals"):
        money.units(Decimal("0.0000000001"), 9)
