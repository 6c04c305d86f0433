"""Identities, the index, dedup and wide arithmetic."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tieout import ids, wide
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Seen
from tieout.key_index import KeyIndex
from tieout.usage import EVENTS, clocks, content_digests, identities, key_lanes


@pytest.mark.parametrize(
    ("key", "hashed"),
    [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536), ("a-little-bit-longer-string", -1486304829), ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971), ("abc", 479470107)],
)
def test_a_customers_partition_is_kafkas_own(key, hashed):
    assert ids.partition_of(key, 64) == (hashed & 0x7FFFFFFF) % 64


def test_a_key_is_hashed_field_by_field():
    assert ids.lanes(("a", "bc")) != ids.lanes(("ab", "c"))
    assert ids.lanes(("1",)) != ids.lanes((1,))
    assert ids.lanes(("a", None)) != ids.lanes(("a",))


def test_hashes_are_part_of_the_stored_format_and_do_not_change():
    assert ids.text(("line", "c", 1, None)) == ids.text(("line", "c", 1, None))
    pair = identities(pa.array(["gateway"]), pa.array(["evt-1"]))
    assert ids.hexadecimal(pair).to_pylist() == [PINNED_IDENTITY]
    assert ids.text(("contract", 7, None)) == PINNED_KEY


PINNED_IDENTITY = "7da2f6a6647083171466985435d0519c"
PINNED_KEY = "76e6df9b6bed340f7a50205f94d180aa"


def test_one_identity_hashes_like_a_column_of_them():
    column = identities(pa.array(["s", "s", "t"]), pa.array(["1", "2", "1"]))
    assert [tuple(pair) for pair in column.tolist()] == [key_lanes(ids.EventKey(*key)) for key in (("s", "1"), ("s", "2"), ("t", "1"))]


@given(st.lists(st.lists(st.integers(0, 50), max_size=30), max_size=8))
def test_the_index_numbers_keys_as_they_first_come(batches):
    index, known = KeyIndex(), {}
    for batch in batches:
        keys = np.array([[n * 7, n] for n in batch], np.uint64).reshape(-1, 2)
        rows, fresh = index.upsert(keys)
        seen_now = set()
        for n, row, new in zip(batch, rows.tolist(), fresh.tolist(), strict=True):
            assert new == (n not in known)
            assert known.setdefault(n, row) == row
            seen_now.add(n)
        assert index.find(keys).tolist() == rows.tolist()
    assert sorted(known.values()) == list(range(len(index)))


def test_amounts_that_differ_in_the_last_of_38_digits_are_different_content():
    amounts = ["12345678901234567890123456.123456789012", "12345678901234567890123456.123456789013"]
    event = {"id": "1", "source": "s", "customer_id": "c", "meter": "m", "time": 0, "quantity": Decimal(1), "attributes": {}}
    rows = [event | {"amount": Decimal(text)} for text in amounts]
    digests = content_digests(pa.RecordBatch.from_pylist(rows, schema=EVENTS))
    assert digests[0] != digests[1]


def test_no_quantity_is_other_content_than_any_quantity():
    event = {"id": "1", "source": "s", "customer_id": "c", "meter": "m", "time": 0, "attributes": {}, "voids": {"source": "s", "id": "0"}}
    rows = [event | {"quantity": quantity} for quantity in (None, Decimal(0), Decimal(2**63).scaleb(-9), Decimal(-(2**63)).scaleb(-9))]
    assert len(set(content_digests(pa.RecordBatch.from_pylist(rows, schema=EVENTS)).tolist())) == 4


HORIZON = 100
deliveries = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(0, 500), st.integers(0, 120)), max_size=60)


@settings(deadline=None)
@given(deliveries, st.lists(st.integers(1, 20), min_size=1, max_size=4))
def test_duplicates_and_conflicts_equal_a_dull_memory(rows, sizes):
    """The dull memory: a dict, forgetting by the rule, one row at a time."""
    seen, memory, clock, first = Seen(HORIZON), {}, 0, 0
    while first < len(rows):
        part = rows[first : first + sizes[first % len(sizes)]]
        clock_column = []
        for *_, step in part:
            clock += step
            clock_column.append(clock)
        expected = []
        for place, ((name, content, time, _), now) in enumerate(zip(part, clock_column, strict=True)):
            entry = memory.get(name)
            if entry is None or entry[1] < now - HORIZON:
                memory[name] = (content, max(time, now), first + place)
                expected.append((NEW, first + place))
            else:
                expected.append((DUPLICATE if entry[0] == content else CONFLICT, entry[2]))
        columns = [np.array([[n + 1, n] for n, *_ in part], np.uint64), np.array([c for _, c, *_ in part], np.uint64), np.array([t for _, _, t, _ in part]), np.array(clock_column), np.arange(first, first + len(part))]
        found = seen.judge(*columns)
        assert list(zip(found.kind.tolist(), found.first_position.tolist(), strict=True)) == expected
        first += len(part)


def test_the_clock_is_taken_by_row_and_rejected_rows_do_not_move_it():
    time, record = np.array([5, 50, 7, 9]), np.array([6, 10, 8, 99])
    assert clocks(-1, time, record, np.array([True, False, True, True])).tolist() == [5, 5, 7, 9]
    assert clocks(8, time, record, np.array([True, True, True, True])).tolist() == [8, 10, 10, 10]


big = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(big, big, st.integers(1, 2**32 - 1)), min_size=1, max_size=20))
def test_wide_products_and_quotients_equal_pythons_integers(rows):
    a, b, d = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    high, low = wide.multiply(a, b)
    assert [(int(h) << 64) + int(x) for h, x in zip(high, low, strict=True)] == [x * y for x, y, _ in rows]
    high, low = wide.divide(high, low, d)
    assert [(int(h) << 64) + int(x) for h, x in zip(high, low, strict=True)] == [x * y // z for x, y, z in rows]


@given(st.lists(st.integers(-(10**37), 10**37), min_size=1, max_size=20))
def test_decimal_columns_hold_the_integers_they_were_given(units):
    column = wide.decimals_of(units, 38, 9)
    assert wide.integers(column) == units
    assert wide.total(*wide.lanes_of(column)) == sum(units)
    values, fits = wide.narrow(column)
    assert [value for value, ok in zip(values.tolist(), fits.tolist(), strict=True) if ok] == [u for u in units if -(2**63) <= u < 2**63]


@given(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1))
def test_one_hash_is_what_a_column_gives(left, right, number):
    column = ids.combine(ids.of_strings(pa.array([left])), ids.of_strings(pa.array([right])))
    assert ids.pair_of(ids.of_text(left), ids.of_text(right)) == tuple(column[0].tolist())
    numbers = ids.of_integers(np.array([number], np.int64))
    assert ids.of_integer(number) == tuple(numbers[0].tolist())
    assert ids.pair_of(ids.of_text(left), ids.of_integer(number)) == tuple(ids.combine(ids.of_strings(pa.array([left])), numbers)[0].tolist())
