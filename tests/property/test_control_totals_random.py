"""Control totals by columns against a loop over rows, and what a break says of the record that is missing."""

from collections import defaultdict

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tieout import wide
from tieout.control_totals import KIND, Break, Key, Told, Total, breaks, columns, news
from tieout.exception_queue import RESOLVE, Act, Opened, Repair, fold

KEYS = [Key(contract, currency, period) for contract in ("c1", "c2") for currency in ("USD", "EUR") for period in ("2026-01", "2026-02")]
ROWS = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(-(10**37), 10**37), st.integers(0, 9), st.integers(0, 2**128 - 1)), max_size=30)


def made(rows, *, counted=True):
    text = lambda number: pa.array([row[0][number] for row in rows], pa.string())
    counts = pa.array([row[2] for row in rows], pa.int64()) if counted else None
    digests = pa.array([f"{row[3]:032x}" for row in rows], pa.string())
    return columns(text(0), text(1), text(2), wide.decimals_of([row[1] for row in rows], 38, 12), counts, digests)


def dull(rows, *, counted=True):
    found = defaultdict(lambda: [0, 0, 0])
    for key, amount, count, digest in rows:
        sums = found[key]
        sums[0] += amount
        sums[1] += count if counted else 1
        sums[2] = (sums[2] + digest) % 2**128
    return {key: Total(*sums) for key, sums in found.items()}


@settings(max_examples=200, deadline=None)
@given(ROWS, st.booleans())
def test_totals_by_columns_are_those_of_a_loop(rows, counted):
    assert made(rows, counted=counted) == dull(rows, counted=counted)


@settings(max_examples=200, deadline=None)
@given(ROWS.filter(bool), st.data())
def test_the_one_record_that_is_missing_or_too_many_is_named_and_nothing_else_is_broken(rows, data):
    at = data.draw(st.integers(0, len(rows) - 1))
    split = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    billed, open_ = (dull([row for row, first in zip(rows, split, strict=True) if first is side], counted=False) for side in (True, False))
    assert breaks(dull(rows, counted=False), billed, open_) == []
    fewer, (key, amount, _, digest) = dull(rows[:at] + rows[at + 1 :], counted=False), rows[at]
    told = breaks(fewer, billed, open_)
    assert [(one.key, one.missing.amount, one.one_less, one.one_more) for one in told] == ([(key, -amount, f"{digest:032x}", None)] if amount else [])
    if amount:
        assert Break(key, dull(rows, counted=False)[key], fewer.get(key, Total()), Total()).one_more == f"{digest:032x}"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 1), st.booleans(), st.booleans()), max_size=12))
def test_at_any_time_one_exception_stands_for_a_break_that_nobody_has_settled_and_none_where_all_ties_out(history):
    """Each step: by how much it is broken (0: it ties out), whether it is looked at twice, whether a person resolves what stands."""
    opened, acts, at = [], [], 0
    for amount, twice, person in history:
        found = [Told("c1", "USD", "2026-01", amount)] if amount else []
        for _ in range(1 + twice):
            at += 1
            items = fold(opened, acts, {}).items.values()
            what = news(found, items, lambda _: True)
            opened += [Opened(name, KIND, "contract", told.subject, "k", "billing", at, "m", (f"period {told.period}",), amount_at_risk=wide_decimal(told.amount), currency=told.currency) for told, name in what.opened]
            opened += [replaced(item.opened, Repair(at, why)) for item, why in what.over]
        items = list(fold(opened, acts, {}).items.values())
        standing = [item for item in items if item.state == "open"]
        assert len(standing) == bool(amount and not decided(items, amount))
        assert all(Told.of(item).amount == amount for item in standing)
        if person:
            at += 1
            acts += [Act(RESOLVE, "exception", item.opened.exception_id, "ada", at, "agreed") for item in standing]


def decided(items, amount):
    """Whether the last exception of this amount was settled by a person."""
    same = [item for item in items if Told.of(item).amount == amount]
    return bool(same) and any(act.kind == RESOLVE for act in same[-1].acts)


def wide_decimal(units):
    return wide.decimals_of([units], 38, 12)[0].as_py()


def replaced(opened, repair):
    return Opened(*(getattr(opened, name) for name in opened.__slots__[:-1]), repair)
