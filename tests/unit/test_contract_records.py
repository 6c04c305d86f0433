"""A contract version survives its record: every field, every price model, every digit."""

import pytest

from flows import contract_records
from tieout import payment_terms
from tieout.contracts import parse_contract

TIERS = [{"up_to": "1000", "unit_price": "0.010000000001", "flat_fee": "5"}, {"up_to": None, "unit_price": "0.008"}]
PRICES = [
    {"model": "per_unit", "unit_price": "999999999999.999999999999"},
    {"model": "graduated", "tiers": TIERS, "flat_at_zero": False},
    {"model": "volume", "tiers": TIERS},
    {"model": "package", "size": "1000.5", "price": "12345678901234567890123456.123456789012", "free_units": "1", "partial": "down"},
    {"model": "percentage", "rate_percent": "2.9", "fixed_per_event": "0.30", "free_events": 3, "free_amount": "100", "minimum_per_event": "0.05", "maximum_per_event": "7"},
    {"model": "graduated_percentage", "tiers": [{"up_to": "10", "rate_percent": "3", "flat_fee": "1"}, {"up_to": None, "rate_percent": "2"}]},
    {
        "model": "matrix", "dimensions": ["region", "size"], "default_unit_price": "0",
        "prices": [{"match": {"region": "eu"}, "unit_price": "0.1"}, {"match": {"region": "us", "size": "l"}, "tiers": TIERS}],
    },
    {"model": "dynamic", "multiplier": "1.5"},
]
AGGREGATIONS = [
    {"kind": "sum"}, {"kind": "max", "bucket": "hour"}, {"kind": "latest", "carry_over": True, "prorate": "day"},
    {"kind": "unique_count", "property": "user"}, {"kind": "weighted_sum", "initial": "3"},
]
WHOLE = {
    "contract_id": "c-acme", "version": 2, "customer_id": "acme", "legal_entity_id": "us-inc", "currency": "BHD", "status": "suspended",
    "change": {"kind": "amendment", "treatment": "prospective", "reason": "step-up", "requested_by": "u1", "approved_by": "u2"},
    "effective_from": "2026-03-01T00:00:00.000001Z", "effective_to": "2027-03-01T00:00:00+02:00", "recorded_at": "2026-03-04T09:00:00Z",
    "term": {"start_on": "2026-01-01", "end_on": "2027-01-01"}, "rate_card": {"rate_card_id": "list", "version": 3},
    "billing": {
        "period": "quarter", "anchor_day": 31, "anchor_month": 2, "anchor_weekday": 7, "time_zone": "America/New_York", "grace_hours": 0,
        "payment_terms_days": 45, "late_usage": "exception", "inactive_usage": "waive", "thresholds": ["100.50", "200"],
    },
    "charges": [
        {
            "charge_id": "platform", "product_id": "platform", "legal_entity_id": "de-gmbh", "price": {"model": "flat", "amount": "12000.00"},
            "interval": "year", "timing": "advance", "proration": "second", "obligation_id": "subscription", "minimum": "1", "maximum": "2",
        }
    ],
    "overrides": [{"charge_id": "tokens", "meter": "tokens", "price": {"model": "per_unit", "unit_price": "1"}, "reset": "never"}],
    "coupons": [{"coupon_id": "launch", "percent": "10", "until": "2026-12-31T00:00:00Z"}],
    "commitments": [{"commitment_id": "min", "kind": "prepaid", "scope": "platform", "amount": "1000.00", "interval": "term", "includes_base_fee": True, "prorate": True, "rollover": True, "overage_factor": "1.2", "obligation_id": "usage"}],
    "credits": [{"grant_id": "g1", "amount": "500.00", "priority": 2, "kind": "purchased", "effective_from": "2026-01-01T00:00:00Z", "expires_at": "2026-06-01T00:00:00Z"}],
    "obligations": [{"obligation_id": "subscription", "ssp": "12000.00", "recognition": "ratable", "start_on": "2026-01-01", "end_on": "2027-01-01"}],
}


def _charges(parts, name):
    return [{"charge_id": f"c{at}", "meter": "m", **({} if name == "price" else {"price": PRICES[0]}), name: part} for at, part in enumerate(parts)]


@pytest.mark.parametrize(
    "document",
    [
        WHOLE,
        {"contract_id": "least", "customer_id": "acme", "effective_from": "2026-01-01T00:00:00Z"},
        {"contract_id": "prices", "customer_id": "acme", "effective_from": "2026-01-01T00:00:00Z", "charges": _charges(PRICES, "price")},
        {"contract_id": "kinds", "customer_id": "acme", "effective_from": "2026-01-01T00:00:00Z", "charges": _charges(AGGREGATIONS, "aggregation")},
        {
            "contract_id": "parts", "customer_id": "acme", "effective_from": "2026-01-01T00:00:00Z",
            "charges": [{
                "charge_id": "c", "meter": "m", "price": PRICES[0], "filters": {"model": ["large", "huge"], "none": []}, "group_by": ["region", "zone"],
                "unit_conversion": {"divide_by": "1000", "round": "half_up"}, "included_quantity": "0.000000001", "discount_percent": "12.5",
            }],
        },
    ],
    ids=lambda document: document["contract_id"],
)
def test_a_version_comes_back_as_it_was(document):
    version = parse_contract(document)
    assert contract_records.decode(contract_records.encode([version, version])) == [payment_terms.settled(version)] * 2


@pytest.mark.parametrize("price", ["0.01", "0", "10", "0.0000000001", "0.000000000001", "100000000000"])
def test_a_price_comes_back_as_it_was_written_without_zeros_of_its_column(price):
    version = parse_contract(WHOLE | {"charges": _charges([{"model": "per_unit", "unit_price": price}], "price")})
    back = contract_records.decode(contract_records.encode([version]))[0].charges[0].price.unit_price
    assert format(back, "f") == price


def test_a_damaged_record_is_named_by_its_row():
    good = contract_records.encode([parse_contract(WHOLE)])[0].as_py()
    with pytest.raises(contract_records.ContractRecordError, match="record 0"):
        contract_records.decode(contract_records.pa.array([good[:-3]], contract_records.pa.large_binary()))
