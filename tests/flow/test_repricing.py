"""Versions that come late, on folders: the past changes by signed pairs, exact to the last digit, whatever comes between."""

from decimal import Decimal

import pyarrow as pa
import pytest

from flows import bytewax_engine, codecs, local_engine, rated_runs, topics, usage
from flows.file_place import FilePlace
from flows.replay import replay
from flows.usage import DEAD
from tests.flow import folders
from tieout.usage_stage import Limits

TIERS = [{"up_to": "1000", "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.008"}]
STEP_UP = [{"up_to": "500", "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.0055"}]


def version(number, tiers, effective_from, **more):
    charge = {"charge_id": "tokens", "meter": "tokens_out", "price": {"model": "graduated", "tiers": tiers}}
    return {"contract_id": "c-acme", "version": number, "customer_id": "acme", "effective_from": effective_from, "charges": [charge]} | more


def event(name, time, quantity, **more):
    return {"id": name, "source": "gw", "customer_id": "acme", "meter": "tokens_out", "time": time, "quantity": quantity} | more


def run(root, rows=1000, engine=local_engine):
    pipeline = usage.pipeline(FilePlace(root), range(1), rows=rows)
    try:
        engine.run(pipeline)
    finally:
        for cell in pipeline.cells.values():
            cell.close()


def sums(root):
    found = {}
    for row in folders.rated(root, 1):
        place = (row["billing_period"], row["contract_version"])
        found[place] = found.get(place, Decimal(0)) + row["amount"]
    return found


def lines(root, kind="reprice"):
    return [
        (row["usage"]["id"], row["contract_version"], str(row["quantity"].normalize()), str(row["amount"].normalize()), row["cause"]["ref"], row["cause"]["from_version"], row["cause"]["to_version"])
        for row in folders.rated(root, 1) if row["cause"]["kind"] == kind
    ]


@pytest.mark.parametrize("engine", [local_engine, bytewax_engine])
def test_an_amendment_of_the_first_recorded_on_the_fourth(tmp_path, engine):
    """Usage flows all the time; the amendment reaches it on the 4th, with events before, on and after the 1st priced or still to come."""
    folders.write(tmp_path, [event("feb", "2026-02-28T12:00:00Z", "100"), event("a", "2026-03-01T00:00:00Z", "600"), event("b", "2026-03-02T00:00:00Z", "500")], [version(1, TIERS, "2026-01-01T00:00:00Z")], partitions=1)
    run(tmp_path, engine=engine)
    assert sums(tmp_path) == {("2026-02", 1): Decimal("1"), ("2026-03", 1): Decimal("10.8")}
    folders.write(tmp_path, [event("late", "2026-03-03T23:59:59Z", "50"), event("c", "2026-03-04T10:00:00Z", "400")], [version(2, STEP_UP, "2026-03-01T00:00:00Z", recorded_at="2026-03-04T09:00:00Z")], partitions=1)
    run(tmp_path, engine=engine)
    # March anew by version 2: 500 x 0.01 + (1550 - 500) x 0.0055 = 10.775; of version 1 nothing is left, February stays
    assert sums(tmp_path) == {("2026-02", 1): Decimal("1"), ("2026-03", 1): Decimal("0"), ("2026-03", 2): Decimal("10.775")}
    assert sorted(lines(tmp_path)) == [
        ("a", 1, "-6E+2", "-5.8", "c-acme/2", 1, 2), ("a", 2, "6E+2", "3.3", "c-acme/2", 1, 2),
        ("b", 1, "-5E+2", "-5", "c-acme/2", 1, 2), ("b", 2, "5E+2", "5", "c-acme/2", 1, 2),
    ]
    assert all(not replayed.different for replayed in replay(tmp_path, 0, Limits(), 2))


@pytest.mark.parametrize("slice_rows", [1, 7, 25_000])
def test_usage_goes_on_while_a_long_past_is_looked_at_and_every_cut_gives_the_same(tmp_path, monkeypatch, slice_rows):
    monkeypatch.setattr(rated_runs, "SLICE_ROWS", slice_rows)
    monkeypatch.setattr(rated_runs, "MEMORY_ROWS", 20)
    past = [event(f"e{i}", f"2026-03-{1 + i // 4:02}T{i % 4 * 6:02}:00:00Z", str(10 + i)) for i in range(60)]
    other = [event(f"o{i}", f"2026-03-{16 + i // 4:02}T{i % 4 * 6:02}:00:00Z", "5", customer_id="other") for i in range(40)]
    folders.write(tmp_path, past, [version(1, TIERS, "2026-01-01T00:00:00Z"), version(1, TIERS, "2026-01-01T00:00:00Z", contract_id="c-other", customer_id="other")], partitions=1)
    run(tmp_path, rows=10)
    corrected = [event("fix", "2026-03-20T00:00:00Z", "1000", corrects={"source": "gw", "id": "e3"}), event("gone", "2026-03-20T00:00:00Z", "0", voids={"source": "gw", "id": "e59"})]
    folders.write(tmp_path, other[:20] + corrected + other[20:], [version(2, STEP_UP, "2026-03-05T00:00:00Z"), version(3, TIERS, "2026-03-09T00:00:00Z", effective_to="2026-03-11T00:00:00Z")], partitions=1)
    run(tmp_path, rows=5)
    first, second, third = 0, 0, 0
    for i in range(59):
        day, quantity = 1 + i // 4, 1000 if i == 3 else 10 + i
        if day < 5:
            first += quantity
        elif 9 <= day < 11:
            third += quantity
        else:
            second += quantity
    graduated = lambda tiers, q: min(q, int(tiers[0]["up_to"])) * Decimal(tiers[0]["unit_price"]) + max(q - int(tiers[0]["up_to"]), 0) * Decimal(tiers[1]["unit_price"])  # noqa: E731
    expected = {
        ("2026-03", 1): graduated(TIERS, first) + 200 * Decimal("0.01"),
        ("2026-03", 2): graduated(STEP_UP, first + second) - graduated(STEP_UP, first),
        ("2026-03", 3): graduated(TIERS, first + second + third) - graduated(TIERS, first + second),
    }
    assert sums(tmp_path) == expected
    names = [row["rated_id"] for row in folders.rated(tmp_path, 1)]
    assert len(names) == len(set(names))
    assert all(not replayed.different for replayed in replay(tmp_path, 0, Limits(), 3))


def test_a_contract_that_ended_before_its_usage_holds_it_and_a_resumption_prices_it_again(tmp_path):
    folders.write(tmp_path, [event("a", "2026-03-01T00:00:00Z", "600"), event("b", "2026-03-05T00:00:00Z", "500")], [version(1, TIERS, "2026-01-01T00:00:00Z")], partitions=1)
    run(tmp_path)
    folders.write(tmp_path, [event("c", "2026-03-06T00:00:00Z", "1")], [version(2, TIERS, "2026-03-03T00:00:00Z", status="terminated")], partitions=1)
    run(tmp_path)
    assert sums(tmp_path) == {("2026-03", 1): Decimal("6")}
    token = usage.pipeline(FilePlace(tmp_path), range(1))
    cell = token.cells[0]
    assert cell.token.totals["waiting"] == 2 and cell.token.totals["withdrawn"] == 1
    cell.close()
    told = codecs.own("exception").decode(pa.array(folders.output(tmp_path, 1, topics.EXCEPTIONS)[0], pa.large_binary())).batch.to_pylist()
    # b took 400 x 0.01 + 100 x 0.008 with it; c never had a price
    assert sorted((row["object"]["id"], row["kind"], row["amount_at_risk"], row["currency"]) for row in told) == [
        ("b", "hold_contract_inactive", Decimal("4.8"), "USD"), ("c", "hold_contract_inactive", None, None),
    ]
    folders.write(tmp_path, [event("d", "2026-03-07T00:00:00Z", "1")], [version(3, TIERS, "2026-03-03T00:00:00Z")], partitions=1)
    run(tmp_path)
    assert sums(tmp_path) == {("2026-03", 1): Decimal("6"), ("2026-03", 3): Decimal("4.816")}  # 400 x 0.01 + 102 x 0.008
    assert lines(tmp_path) == [("b", 1, "-5E+2", "-4.8", "c-acme/2", 1, None), ("b", 3, "5E+2", lines(tmp_path)[1][3], "c-acme/3", None, 3)]
    names = [row["rated_id"] for row in folders.rated(tmp_path, 1)]
    assert len(names) == len(set(names))
    assert all(not replayed.different for replayed in replay(tmp_path, 0, Limits(), 1))


def test_what_an_event_took_with_it_is_told_with_what_moved_and_is_known_after_a_restart(tmp_path):
    """Of two events the first loses its charge by a version of a few days; the next version suspends the contract then instead."""
    folders.write(tmp_path, [event("a", "2026-03-01T00:00:00Z", "600"), event("b", "2026-03-05T00:00:00Z", "500")], [version(1, TIERS, "2026-01-01T00:00:00Z")], partitions=1)
    run(tmp_path)
    other = {"charge_id": "other", "meter": "another", "price": {"model": "per_unit", "unit_price": "1"}}
    days = {"effective_to": "2026-03-04T00:00:00Z"}
    folders.write(tmp_path, [event("c", "2026-03-06T00:00:00Z", "1")], [version(2, TIERS, "2026-02-01T00:00:00Z", **days) | {"charges": [other]}], partitions=1)
    run(tmp_path)
    folders.write(tmp_path, [], [version(3, TIERS, "2026-02-01T00:00:00Z", status="suspended", **days)], partitions=1)
    run(tmp_path)
    told = codecs.own("exception").decode(pa.array(folders.output(tmp_path, 1, topics.EXCEPTIONS)[0], pa.large_binary())).batch.to_pylist()
    # March was 600 and 500 and 1: 10 + 101 x 0.008 = 10.808, without a 501 x 0.01 = 5.01
    assert [(row["object"]["id"], row["kind"], row["amount_at_risk"]) for row in told] == [
        ("a", "hold_no_charge", Decimal("5.798")), ("a", "hold_contract_inactive", Decimal("5.798")),
    ]
    assert all(not replayed.different for replayed in replay(tmp_path, 0, Limits(), 1))


def test_a_contract_that_waives_such_usage_rejects_what_was_priced(tmp_path):
    folders.write(tmp_path, [event("a", "2026-03-01T00:00:00Z", "600"), event("b", "2026-03-05T00:00:00Z", "500")], [version(1, TIERS, "2026-01-01T00:00:00Z")], partitions=1)
    run(tmp_path)
    folders.write(tmp_path, [event("c", "2026-03-02T00:00:00Z", "1")], [version(2, TIERS, "2026-03-03T00:00:00Z", status="suspended", billing={"inactive_usage": "waive"})], partitions=1)
    run(tmp_path)
    assert sums(tmp_path) == {("2026-03", 1): Decimal("6.01")}
    assert len(folders.output(tmp_path, 1, DEAD)[0]) == 1
    assert not folders.output(tmp_path, 1, topics.HOLDS)[0]
