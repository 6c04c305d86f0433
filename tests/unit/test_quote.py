"""Quotes that a finance reader can check by hand."""

import json
import subprocess
import sys

import pytest

from flows.commands import quote as command

GRADUATED = {"model": "graduated", "tiers": [{"up_to": "10", "unit_price": "1"}, {"up_to": "20", "unit_price": "0.5"}, {"up_to": None, "unit_price": "0.1"}]}
VOLUME = {"model": "volume", "tiers": [{"up_to": "10", "unit_price": "1"}, {"up_to": None, "unit_price": "0.5"}]}


def ask(price=None, quantities=(), **case):
    charge = {"price": price} | case.pop("charge", {}) if price else None
    document = {"id": "q", "events": [q if isinstance(q, dict) else {"quantity": q} for q in quantities]} | ({"charge": charge} if charge else {}) | case
    parsed = command._parse(document, 1)
    if parsed.error:
        return {"error": parsed.error}
    return next(command._asked([parsed], parsed.events))


def usage(answer):
    return [line["amount_exact"] for line in answer["lines"] if line["kind"] == "usage"]


def amounts(answer):
    return [event["amount"] for event in answer["events"]]


@pytest.mark.parametrize(
    ("price", "quantity", "total"),
    [
        ({"model": "per_unit", "unit_price": "0.25"}, "0", "0"),
        ({"model": "per_unit", "unit_price": "0.25"}, "0.1", "0.025"),
        (GRADUATED, "0", "0"),
        (GRADUATED, "10", "10"),
        (GRADUATED, "9.999999999", "9.999999999"),
        (GRADUATED, "10.000000001", "10.0000000005"),
        (GRADUATED, "20", "15"),
        (GRADUATED, "120", "25"),
        (VOLUME, "10", "10"),
        (VOLUME, "10.000000001", "5.0000000005"),
        (VOLUME, "11", "5.5"),
        ({"model": "package", "size": "10", "price": "3"}, "0", "0"),
        ({"model": "package", "size": "10", "price": "3"}, "10", "3"),
        ({"model": "package", "size": "10", "price": "3"}, "10.000000001", "6"),
        ({"model": "package", "size": "10", "price": "3", "free_units": "5"}, "5", "0"),
        ({"model": "package", "size": "10", "price": "3", "free_units": "5"}, "15", "3"),
        ({"model": "package", "size": "10", "price": "3", "partial": "down"}, "19", "3"),
        ({"model": "graduated", "tiers": [{"up_to": "5", "unit_price": "1", "flat_fee": "2"}, {"up_to": None, "unit_price": "1", "flat_fee": "7"}]}, "5", "7"),
        ({"model": "graduated", "tiers": [{"up_to": "5", "unit_price": "1", "flat_fee": "2"}, {"up_to": None, "unit_price": "1", "flat_fee": "7"}]}, "6", "15"),
        ({"model": "graduated", "tiers": [{"up_to": None, "unit_price": "1", "flat_fee": "2"}]}, "0", "2"),
        ({"model": "graduated", "tiers": [{"up_to": None, "unit_price": "1", "flat_fee": "2"}], "flat_at_zero": False}, "0", "0"),
        ({"model": "graduated_percentage", "tiers": [{"up_to": "1000", "rate_percent": "2"}, {"up_to": None, "rate_percent": "1", "flat_fee": "5"}]}, "1500", "30"),
    ],
)
def test_a_model_at_zero_at_its_bounds_and_one_step_beside(price, quantity, total):
    assert usage(ask(price, [quantity])) == [total]


def test_crossing_a_volume_tier_lowers_the_bill_in_the_event_that_crosses():
    answer = ask(VOLUME, ["6", "4", "1"])
    assert amounts(answer) == ["6", "4", "-4.5"]
    assert answer["total"] == "5.50"


def test_a_percentage_allowance_used_up_in_the_middle_of_an_event():
    answer = ask({"model": "percentage", "rate_percent": "2", "free_amount": "100", "fixed_per_event": "0.3"}, ["80", "20", "40", "10"])
    assert amounts(answer) == ["0", "0", "1.1", "0.5"]


def test_the_first_percentage_allowance_used_up_ends_both():
    answer = ask({"model": "percentage", "rate_percent": "1", "free_events": 2, "free_amount": "1000"}, ["100", "100", "100"])
    assert amounts(answer) == ["0", "0", "1"]


def test_percentage_bounds_per_event():
    answer = ask({"model": "percentage", "rate_percent": "1", "minimum_per_event": "0.5", "maximum_per_event": "2"}, ["10", "100", "1000"])
    assert amounts(answer) == ["0.5", "1", "2"]


def test_discount_then_maximum_then_minimum():
    capped = ask({"model": "per_unit", "unit_price": "1"}, ["100", "100"], charge={"discount_percent": "10", "maximum": "150", "minimum": "160"})
    assert amounts(capped) == ["90", "60"]
    assert [(line["kind"], line["amount"]) for line in capped["lines"]] == [("usage", "150.00"), ("minimum", "10.00")]
    assert capped["total"] == "160.00"


def test_included_quantity_and_conversion_come_before_the_price():
    charge = {"unit_conversion": {"divide_by": "1000", "round": "ceil"}, "included_quantity": "2"}
    assert amounts(ask({"model": "per_unit", "unit_price": "5"}, ["1500", "600", "1"], charge=charge)) == ["0", "5", "0"]


def test_a_flat_at_zero_in_a_period_without_events():
    answer = ask({"model": "graduated", "tiers": [{"up_to": None, "unit_price": "1", "flat_fee": "2.5"}]}, [])
    line = answer["lines"][0]
    assert (line["kind"], line["group"], line["usage_amount_exact"], line["amount"]) == ("usage", None, "0", "2.50")


def test_a_correction_downwards_gives_the_same_as_the_smaller_quantity():
    events = [{"id": "a", "quantity": "8"}, {"id": "b", "quantity": "30"}, {"id": "x", "quantity": "1", "corrects": {"source": "quote", "id": "b"}}]
    answer = ask(GRADUATED, events)
    assert (answer["total"], amounts(answer)) == ("9.00", ["8", "1", "0"])


def test_usage_on_both_sides_of_a_contract_change_in_either_order():
    def version(number, start, price):
        return {"contract_id": "c", "version": number, "customer_id": "k", "effective_from": start, "charges": [{"charge_id": "u", "meter": "m", "price": price}]}

    contracts = [version(1, "2026-01-01T00:00:00Z", GRADUATED), version(2, "2026-01-15T00:00:00Z", {"model": "per_unit", "unit_price": "2"})]
    early, late = {"id": "e", "quantity": "8", "time": "2026-01-10T00:00:00Z"}, {"id": "l", "quantity": "4", "time": "2026-01-20T00:00:00Z"}
    totals = [ask(None, order, contracts=contracts)["total"] for order in ([early, late], [late, early])]
    assert totals == ["16.00", "16.00"]


def test_max_latest_unique_and_count():
    unit = {"model": "per_unit", "unit_price": "1"}
    assert ask(unit, ["3", "7", "5"], charge={"aggregation": {"kind": "max"}})["total"] == "7.00"
    assert ask(unit, ["3", "7", "5"], charge={"aggregation": {"kind": "latest"}})["total"] == "5.00"
    assert ask(unit, ["3", "7", "5"], charge={"aggregation": {"kind": "count"}})["total"] == "3.00"
    users = [{"quantity": "1", "attributes": {"user": name}} for name in "aba"]
    assert ask(unit, users, charge={"aggregation": {"kind": "unique_count", "property": "user"}})["total"] == "2.00"


def test_a_weighted_sum_counts_what_is_left_of_the_period():
    events = [{"quantity": "10", "time": "2026-04-01T00:00:00Z"}, {"quantity": "-10", "time": "2026-04-16T00:00:00Z"}]
    assert ask({"model": "per_unit", "unit_price": "2"}, events, charge={"aggregation": {"kind": "weighted_sum"}}, period="2026-04")["total"] == "10.00"


def test_seats_carry_into_a_month_without_events():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [
        {"charge_id": "seats", "meter": "seats", "aggregation": {"kind": "sum", "carry_over": True}, "price": {"model": "per_unit", "unit_price": "10"}}]}
    events = [{"quantity": "5", "time": "2026-01-03T00:00:00Z"}, {"quantity": "-2", "time": "2026-03-03T00:00:00Z"}]
    answer = ask(None, events, contract=contract)
    assert [(line["period"], line["amount"]) for line in answer["lines"]] == [("2026-01", "50.00"), ("2026-02", "50.00"), ("2026-03", "30.00")]


def test_a_matrix_takes_the_most_specific_price():
    price = {"model": "matrix", "dimensions": ["region", "tier"], "default_unit_price": "9", "prices": [
        {"match": {"region": "eu"}, "unit_price": "1"}, {"match": {"region": "eu", "tier": "gold"}, "unit_price": "0.5"}]}
    events = [{"quantity": "2", "attributes": a} for a in ({"region": "eu"}, {"region": "eu", "tier": "gold"}, {})]
    assert amounts(ask(price, events)) == ["2", "1", "18"]


def test_a_dynamic_price_multiplies_the_given_amount_and_holds_without_one():
    answer = ask({"model": "dynamic", "multiplier": "1.2"}, [{"quantity": "1", "amount": "5"}, {"quantity": "1"}])
    assert [(e["fate"], e["reason"], e["amount"]) for e in answer["events"]] == [("priced", None, "6"), ("held", "no_price", "0")]


def test_a_fee_is_prorated_by_day_in_the_contracts_zone():
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-15T05:00:00Z", "billing": {"time_zone": "America/New_York"}, "charges": [
        {"charge_id": "fee", "price": {"model": "flat", "amount": "28"}, "timing": "advance"}]}
    answer = ask(None, [], contract=contract)
    assert [(line["kind"], line["amount"]) for line in answer["lines"]] == [("fee", "14.00")]


@pytest.mark.parametrize(
    ("case", "path", "word"),
    [
        ({"charge": {"price": {"model": "per_unit", "unit_price": 0.1}}}, "charge.price.unit_price", "string"),
        ({"charge": {"price": {"model": "graduated", "tiers": [{"up_to": "5", "unit_price": "1"}]}}}, "charge.price.tiers", "open"),
        ({"charge": {"price": {"model": "graduated", "tiers": [{"up_to": "5"}, {"up_to": "3"}, {"up_to": None}]}}}, "charge.price.tiers", "rise"),
        ({"charge": {"price": {"model": "per_unit", "unit_price": "1"}}, "currency": "XXQ"}, "currency", "ISO 4217"),
        ({"charge": {"price": {"model": "per_unit", "unit_price": "1"}, "colour": "red"}}, "charge.colour", "unknown field"),
        ({"charge": {"price": {"model": "per_unit", "unit_price": "1"}}, "events": [{"quantity": "1", "size": "2"}]}, "events.0.size", "unknown field"),
        ({"contract": {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-01T00:00:00Z", "effective_to": "2026-02-01T00:00:00Z"}}, "", "empty"),
        ({"contract": {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-01T00:00:00Z", "billing": {"time_zone": "Mars/Base"}}}, "billing.time_zone", "IANA"),
        ({"contract": {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-01T00:00:00Z", "commitments": [{"commitment_id": "x", "amount": "5", "interval": "week"}]}}, "commitments.0.interval", "shorter than the billing period"),
    ],
)
def test_an_impossible_case_is_refused_with_its_path(case, path, word):
    error = ask(**case)["error"]
    assert error["path"] == path
    assert word in error["message"]


def test_a_batch_answers_every_line_in_order(tmp_path):
    cases = [{"id": n, "charge": {"price": {"model": "per_unit", "unit_price": "0.5"}}, "events": [{"quantity": str(n)}]} for n in range(1200)]
    cases[600]["charge"] = {"price": {}}
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(json.dumps(case) for case in cases))
    answer = subprocess.run([sys.executable, "-m", "flows.cli", "quote", "--batch", str(path)], capture_output=True, text=True, check=True)
    answers = [json.loads(line) for line in answer.stdout.splitlines()]
    assert [a["id"] for a in answers] == list(range(1200))
    assert answers[601]["total"] == "300.50"
    assert "error" in answers[600]
