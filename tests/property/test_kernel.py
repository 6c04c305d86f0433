"""The columnar kernel against the price of one quantity, and running quantities that no machine integer holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_rating import linear
from tests.unit.test_quote import ask
from tieout import money, wide
from tieout.contracts import parse_charge
from tieout.rating.adjustments import LinearPrice, compile_price
from tieout.rating.chains import Chains
from tieout.rating.kernel import PriceTable

quantities = st.one_of(st.integers(0, 10**12), st.integers(0, 2**61), st.sampled_from([0, 1, 10**9, 25_500_000_000, 400 * 10**9, 400 * 10**9 + 1]))


@st.composite
def linear_prices(draw):
    """Charges in straight pieces, with conversion, included quantity, discount and maximum."""
    extra = {
        "discount_percent": draw(st.sampled_from(["0", "12.5", "100"])), "maximum": draw(st.sampled_from([None, "150"])),
        "included_quantity": draw(st.sampled_from(["0", "25.5"])), "unit_conversion": draw(st.sampled_from([None, {"divide_by": "1000"}, {"multiply_by": "2.5"}])),
    }
    price = compile_price(parse_charge({"price": draw(linear())} | extra, "USD").charges[0])
    return price if isinstance(price, LinearPrice) else compile_price(parse_charge({"price": {"model": "per_unit", "unit_price": "0.1"}} | extra, "USD").charges[0])


@settings(deadline=None, max_examples=200)
@given(st.lists(linear_prices(), min_size=1, max_size=4), st.lists(quantities, min_size=1, max_size=30))
def test_the_kernel_prices_what_one_by_one_prices(prices, asked):
    table = PriceTable()
    numbers = [table.number(price) for price in prices]
    rows = [(number, price, q) for number, price in zip(numbers, prices, strict=True) if number >= 0 for q in asked]
    if not rows:
        return
    high, low = table.at(np.array([n for n, _, _ in rows]), np.array([q for *_, q in rows]))
    assert [(int(h) << 64) + int(x) for h, x in zip(high, low, strict=True)] == [price.at(q) for _, price, q in rows]


@settings(deadline=None, max_examples=100)
@given(linear_prices(), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), quantities), min_size=1, max_size=60), st.integers(1, 60))
def test_batches_give_what_single_changes_give(price, rows, size):
    table, fast, slow = PriceTable(), Chains(), Chains()
    number = table.number(price)
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        keys = np.array([[chain + 1, chain + 7] for chain, _, _ in part], np.uint64)
        chain, rank = fast.rows(keys), np.array([r for _, r, _ in part])
        priced = fast.price(table, chain, rank, np.full(len(part), number), np.array([q for *_, q in part]))
        for i, (_, place, q) in enumerate(part):
            moved = slow.change(int(slow.rows(keys[i : i + 1])[0]), place, q, 1, lambda _: price)
            if priced.done[i]:
                amount = (int(priced.high[i]) << 64) + int(priced.low[i])
                assert [amount - (1 << 128) * (amount >> 127)] == [m.amount for m in moved]
            else:
                again = fast.change(int(chain[i]), place, q, 1, lambda _: price)
                assert again == moved
    for chain in range(len(slow.index)):
        key = slow.index.keys[chain : chain + 1]
        assert fast.terms(int(fast.rows(key)[0])) == slow.terms(chain)


def test_quantities_of_28_digits_add_up_without_wrapping():
    most = "9999999999999999999.999999999"
    answer = ask({"model": "per_unit", "unit_price": "0.000000000001"}, [most, most])
    assert answer["events"][0]["amount"] == "10000000"
    assert answer["lines"][0]["quantity"] == "19999999999999999999.999999998"


def test_an_amount_beyond_38_digits_is_an_error_and_never_a_smaller_number():
    assert wide.decimals_of([10**38 - 1, 1 - 10**38], 38, 12).to_pylist()[0] == money.decimal(10**38 - 1, 12)
    for units in (10**38, -(10**38), 10**60):
        with pytest.raises(OverflowError, match="needs more than 38 digits"):
            wide.decimals_of([units], 38, 12)
