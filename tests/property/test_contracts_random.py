"""Contracts by columns against contracts one by one: the same in force, the same prices, the same refusals."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import codecs, contract_records
from flows.contract_records import KeptRecords
from schemas import catalog
from tests.property.test_rating import contracts, linear, run, usage, walked
from tieout import contract_checks, payment_terms, usage_document
from tieout.contract_book import ContractBook
from tieout.contract_intake import bring_in
from tieout.contracts import parse_contract
from tieout.ids import of_strings
from tieout.problems import ContractRefused
from tieout.rating.tariff import Tariffs
from tieout.usage_stage import UsageBatch, UsageState, step

DAY = 86_400_000_000
BASE = 1_767_225_600_000_000
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck)}
METERS = ("m0", "m1", "m2")


def _day(number):
    return str(np.datetime64("2026-01-01T00:00:00") + np.timedelta64(number, "D")) + "+00:00"


@st.composite
def charges(draw, name):
    if draw(st.integers(0, 9)) == 0:
        return {"charge_id": name, "price": {"model": "flat", "amount": "12.5"}, "interval": draw(st.sampled_from([None, "month"]))}
    plain = draw(st.integers(0, 2)) > 0
    model = draw(linear()) if plain else draw(st.one_of(linear(), walked(), st.just({"model": "dynamic", "multiplier": "1.5"})))
    charge = {"charge_id": name, "meter": draw(st.sampled_from(METERS)), "price": model, "reset": draw(st.sampled_from(["billing_period", "contract_version", "never"]))}
    charge |= {"product_id": draw(st.sampled_from([None, "p"])), "legal_entity_id": draw(st.sampled_from([None, "de"])), "minimum": draw(st.sampled_from([None, "5"]))}
    if model["model"] in ("percentage", "matrix", "dynamic"):
        return charge
    kind = draw(st.sampled_from(["sum", "sum", "count", "max", "latest", "unique_count", "weighted_sum"]))
    charge["aggregation"] = {"kind": kind} | ({"property": "user"} if kind == "unique_count" else {}) | draw(st.sampled_from([{}, {"carry_over": True}] if kind in ("sum", "max", "latest") else [{}]))
    if not plain:
        charge |= {"filters": draw(st.sampled_from([{}, {"region": ["eu"]}])), "group_by": draw(st.sampled_from([[], ["region"]]))}
        charge |= {"included_quantity": draw(st.sampled_from(["0", "25.5"])), "discount_percent": draw(st.sampled_from(["0", "12.5"]))}
        charge |= {"maximum": draw(st.sampled_from([None, "150"])), "unit_conversion": draw(st.sampled_from([None, {"divide_by": "1000"}]))}
    return charge


@st.composite
def versions(draw):
    """Versions of a few contracts in any order: repeats, conflicts, gaps, drafts, changed customers among them."""
    made = []
    following = {}
    for _ in range(draw(st.integers(1, 12))):
        contract = draw(st.sampled_from(["k0", "k1", "k2"]))
        if made and draw(st.integers(0, 9)) == 0:
            made.append(dict(draw(st.sampled_from(made))))
            continue
        number = following.get(contract, 1)
        if draw(st.integers(0, 9)) == 0:
            number = draw(st.integers(1, number + 2))
        else:
            following[contract] = number + 1
        start = draw(st.integers(0, 60))
        customer = {"k0": "acme", "k1": "bolt", "k2": "bolt"}[contract] if draw(st.integers(0, 14)) else "other"
        made.append({
            "contract_id": contract, "version": number, "customer_id": customer, "effective_from": _day(start),
            "effective_to": draw(st.sampled_from([None, None, None, _day(start + 20)])), "recorded_at": _day(start),
            "status": draw(st.sampled_from(["active", "active", "active", "suspended", "draft", "approved"])),
            "currency": draw(st.sampled_from(["USD", "EUR"])), "legal_entity_id": draw(st.sampled_from(["default", "us"])),
            "billing": {"anchor_day": draw(st.sampled_from([1, 15])), "time_zone": draw(st.sampled_from(["UTC", "America/New_York"]))},
            "charges": [draw(charges(f"c{at}")) for at in range(draw(st.integers(0, 4)))],
            "obligations": draw(st.sampled_from([[], [{"obligation_id": "o", "ssp": "10"}]])),
        })
    return made


def both(documents, sizes):
    """The same versions one by one and as batches: each way's book, tariffs and what was told."""
    objects = [payment_terms.settled(parse_contract(document)) for document in documents]
    single, batched = (ContractBook(), Tariffs()), (ContractBook(), Tariffs())
    records = KeptRecords()
    values = contract_records.encode(objects)
    parts, at = [], 0
    while at < len(values):
        size = sizes[len(parts) % len(sizes)]
        parts.append(records.take(values[at : at + size]))
        at += size
    return (*single, bring_in(*single, objects)), (*batched, bring_in(*batched, parts))


def told(book, taken):
    columns = book.columns
    names = [(columns.contracts.text(int(columns.contract[row])), int(columns.number[row])) for row in taken.rows.tolist()]
    return names, taken.order.tolist(), taken.refused


@settings(max_examples=60, **QUIET)
@given(versions(), st.lists(st.integers(1, 12), min_size=1, max_size=3), st.lists(st.integers(0, 90), min_size=1, max_size=8))
def test_a_batch_by_columns_comes_to_what_its_versions_come_to_one_by_one(documents, sizes, days):
    (book, tariffs, taken), (columnar, by_columns, together) = both(documents, sizes)
    assert told(columnar, together) == told(book, taken)
    assert sorted((v.contract_id, v.version) for v in columnar.waiting()) == sorted((v.contract_id, v.version) for v in book.waiting())
    for customer in ("acme", "bolt", "other"):
        assert sorted(columnar.contracts_of(customer)) == sorted(book.contracts_of(customer))
        assert [by_columns.signed(customer, meter) for meter in METERS] == [tariffs.signed(customer, meter) for meter in METERS]
        time = np.array([BASE + day * DAY for day in days])
        tags, others = (found.tag(of_strings(pa.array([customer])), time * 0, time) for found in (by_columns, tariffs))
        assert (np.minimum(tags, 0) == np.minimum(others, 0)).all()
        for tag, other in zip(tags.tolist(), others.tolist(), strict=True):
            if tag >= 0:
                assert columnar.version(tag) == book.version(other)
    for contract in {document["contract_id"] for document in documents}:
        assert columnar.intervals(contract) == book.intervals(contract)
        assert [columnar.governing(contract, BASE + day * DAY) for day in days] == [book.governing(contract, BASE + day * DAY) for day in days]


@settings(max_examples=60, **QUIET)
@given(versions(), st.lists(st.integers(1, 12), min_size=1, max_size=3), st.lists(st.integers(0, 10**12), min_size=1, max_size=6))
def test_tariffs_by_columns_are_the_same_as_one_by_one(documents, sizes, asked):
    (book, tariffs, taken), (columnar, by_columns, _) = both(documents, sizes)
    for row in taken.rows.tolist():
        version = book.version(row)
        other = columnar.row(version.contract_id, version.version)
        for meter in METERS:
            mine, yours = tariffs.of_meter(row, meter), by_columns.of_meter(other, meter)
            assert [(t.charge, t.kind, t.safe, t.calendar) for t in yours] == [(t.charge, t.kind, t.safe, t.calendar) for t in mine]
            solo, same = (int(found.solo(np.array([at]), np.array([0]), [meter])[0]) for found, at in ((tariffs, row), (by_columns, other)))
            assert (solo < 0) == (same < 0)
            for one, two in zip(mine, yours, strict=True):
                a, b = np.array([one.number]), np.array([two.number])
                for name in ("customer_id", "contract_id", "charge_id", "product_id", "legal_entity_id", "meter", "currency"):
                    assert by_columns.charges.words(name, b).to_pylist() == tariffs.charges.words(name, a).to_pylist()
                for name in ("version", "rank", "by_version", "count"):
                    assert by_columns.charges.numbers(name, b) == tariffs.charges.numbers(name, a)
                for name in ("chain", "correlation", "identity"):
                    assert (by_columns.charges.lanes(name, b) == tariffs.charges.lanes(name, a)).all()
                assert by_columns.charges.calendars[int(by_columns.charges.numbers("calendar", b)[0])] == one.calendar
            if solo >= 0:
                price = mine[0].price
                number = np.repeat(by_columns.charges.numbers("price", np.array([same])), len(asked))
                assert (number[0] < 0) == (tariffs.charges.numbers("price", np.array([solo]))[0] < 0)
                if number[0] >= 0:
                    high, low = by_columns.table.at(number, np.array(asked))
                    assert [(int(h) << 64) + int(x) for h, x in zip(high, low, strict=True)] == [price.at(q) for q in asked]
                    assert int(by_columns.charges.numbers("safe", np.array([same]))[0]) <= mine[0].safe


@st.composite
def tiered(draw):
    """Tiers from the usual to the largest that a contract can write."""
    count = draw(st.integers(1, 5))
    wide = draw(st.booleans())
    bounds = sorted(draw(st.sets(st.integers(1, 10**19 - 1 if wide else 10**6), min_size=count - 1, max_size=count - 1)))
    part = draw(st.sampled_from(["", "", ".5"])) if not wide else ""
    prices = st.integers(0, 10**24 - 1 if draw(st.booleans()) else 10**13).map(lambda n: f"{n // 10**12}.{n % 10**12:012d}")
    fees = st.sampled_from(["0", "0", "2.5", "99999999999999999999999999.999999999999"])
    return [{"up_to": None if up is None else f"{up}{part}", "unit_price": draw(prices), "flat_fee": draw(fees)} for up in [*bounds, None]]


@settings(max_examples=150, **QUIET)
@given(tiered(), st.sampled_from(["graduated", "volume", "per_unit"]), st.booleans(), st.lists(st.integers(0, 2**62) | st.integers(0, 10**16), min_size=1, max_size=8))
def test_neat_prices_are_what_the_rule_gives_at_any_size(tiers, model, flat_at_zero, asked):
    price = {"model": model, "unit_price": tiers[0]["unit_price"]} if model == "per_unit" else {"model": model, "tiers": tiers, "flat_at_zero": flat_at_zero}
    document = {"contract_id": "k0", "customer_id": "acme", "effective_from": _day(0), "charges": [{"charge_id": "c", "meter": "m0", "price": price}]}
    (_, tariffs, _), (_, by_columns, _) = both([document], [1])
    rule = tariffs.of_meter(0, "m0")[0].price
    number = by_columns.charges.numbers("price", by_columns.solo(np.array([0]), np.array([0]), ["m0"]))
    if number[0] >= 0:
        asked = [q for tier in tiers[:-1] for q in _around(tier["up_to"]) if q < 2**63] + asked
        high, low = by_columns.table.at(np.repeat(number, len(asked)), np.array(asked))
        assert [(int(h) << 64) + int(x) for h, x in zip(high, low, strict=True)] == [rule.at(q) for q in asked]


def _around(bound):
    units = int(float(bound) * 2) * 10**9 // 2
    return [units - 1, units, units + 1]


DAMAGE = [
    ("version", 0), ("version", 2**20), ("customer_id", ""), ("contract_id", "x" * 256), ("currency", "ABC"), ("status", "unknown"), ("legal_entity_id", ""),
    ("effective_to", "before"), ("change.kind", "unknown"), ("change.treatment", "unknown"), ("billing.period", "unknown"), ("billing.anchor_day", 32),
    ("billing.anchor_day", 0), ("billing.anchor_month", 13), ("billing.anchor_weekday", 0), ("billing.time_zone", "Mars/Olympus"), ("billing.grace_hours", -1),
    ("billing.payment_terms_days", -1), ("billing.late_usage", "unknown"), ("billing.inactive_usage", "unknown"), ("billing.thresholds", [-1]),
    ("rate_card", {"rate_card_id": "", "version": 1}), ("rate_card", {"rate_card_id": "r", "version": 0}),
    ("coupons", [{"coupon_id": "c", "percent": 101}]), ("coupons", [{"coupon_id": "", "percent": 1}]), ("coupons", [{"coupon_id": "c", "amount": -1}]),
    ("commitments", [{"commitment_id": "c", "kind": "postpaid", "scope": "", "amount": -1, "interval": "month", "includes_base_fee": False, "prorate": False, "rollover": False}]),
    ("commitments", [{"commitment_id": "c", "kind": "unknown", "scope": "", "amount": 1, "interval": "term", "includes_base_fee": False, "prorate": False, "rollover": False}]),
    ("credits", [{"grant_id": "g", "amount": 1, "priority": -1, "kind": "granted"}]), ("credits", [{"grant_id": "g", "amount": 1, "priority": 1, "kind": "unknown"}]),
    ("obligations", [{"obligation_id": "o", "recognition": "unknown"}]), ("obligations", [{"obligation_id": "o", "ssp": -1, "recognition": "units"}]),
    ("charges.charge_id", ""), ("charges.charge_id", "twin"), ("charges.product_id", ""), ("charges.legal_entity_id", "x" * 256), ("charges.meter", None), ("charges.meter", ""),
    ("charges.obligation_id", ""), ("charges.group_by", [""]), ("charges.included_quantity", -1), ("charges.discount_percent", 101), ("charges.discount_percent", -1),
    ("charges.maximum", -1), ("charges.minimum", -1), ("charges.reset", "unknown"), ("charges.interval", "term"), ("charges.interval", "unknown"), ("charges.timing", "unknown"),
    ("charges.proration", "unknown"), ("charges.unit_conversion", {"round": "none"}), ("charges.unit_conversion", {"multiply_by": 1, "divide_by": 1, "round": "none"}),
    ("charges.unit_conversion", {"divide_by": 0, "round": "none"}), ("charges.unit_conversion", {"divide_by": 1, "round": "unknown"}),
    ("charges.aggregation.kind", "unknown"), ("charges.aggregation.bucket", "hour"), ("charges.aggregation.bucket", "unknown"), ("charges.aggregation.property", "user"),
    ("charges.aggregation.initial", 1), ("charges.aggregation.carry_over", True), ("charges.aggregation.prorate", "day"), ("charges.aggregation.kind", "unique_count"),
    ("charges.aggregation.kind", "max"), ("charges.price.model", "unknown"), ("charges.price.model", "flat"), ("charges.price.model", "volume"), ("charges.price.model", "per_unit"),
    ("charges.price.model", "package"), ("charges.price.model", "percentage"), ("charges.price.model", "graduated_percentage"), ("charges.price.model", "matrix"),
    ("charges.price.model", "dynamic"), ("charges.price.unit_price", -1), ("charges.price.unit_price", 1), ("charges.price.unit_price", None), ("charges.price.amount", 1),
    ("charges.price.tiers", []), ("charges.price.tiers", None), ("charges.price.tiers", "falling"), ("charges.price.tiers", "shut"), ("charges.price.tiers", "open twice"),
    ("charges.price.tiers", "zero"), ("charges.price.tiers", "below"), ("charges.price.rate_tiers", "falling"), ("charges.price.flat_at_zero", False), ("charges.price.size", 0),
    ("charges.price.size", 1), ("charges.price.price", 1), ("charges.price.free_events", -1), ("charges.price.partial", "unknown"), ("charges.price.rate_percent", 3),
    ("charges.price.dimensions", ["region"]), ("charges.price.multiplier", 2),
]
TIERS = {"falling": [5, 5, None], "shut": [5, 6], "open twice": [5, None, None], "zero": [0, None], "below": [-1, None]}


def _damaged(row, path, value):
    """One field of a record changed; of its first usage charge where it is a charge's."""
    names = path.split(".")
    part = row
    if names[0] == "charges":
        if not row["charges"]:
            return
        part, names = row["charges"][-1], names[1:]
        if value == "twin":
            row["charges"].append(dict(part))
            return
    for name in names[:-1]:
        part = part[name]
    if value == "before":
        value = row["effective_from"]
    if isinstance(value, str) and value in TIERS:
        rate = "rate_percent" if names[-1] == "rate_tiers" else "unit_price"
        value = [{"up_to": up, rate: 1, "flat_fee": 0} for up in TIERS[value]]
    part[names[-1]] = value


@pytest.mark.parametrize("path", sorted({path for path, _ in DAMAGE}))
@settings(max_examples=4, **QUIET)
@given(st.lists(versions().map(lambda made: made[0]), min_size=1, max_size=3), st.data())
def test_what_the_document_refuses_is_refused_in_the_same_words(path, documents, data):
    for value in [value for where, value in DAMAGE if where == path]:
        rows = [contract_records._row(parse_contract(document)) for document in documents]
        _damaged(rows[data.draw(st.integers(0, len(rows) - 1))], path, value)
        values = codecs.encode("contract_version", pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema("contract_version")))
        assert problems(lambda: KeptRecords().take(values)) == problems(lambda: contract_records.decode(values))


def problems(read):
    try:
        read()
    except ContractRefused as refused:
        return refused.problems
    return None


@settings(max_examples=100, **QUIET)
@given(versions())
def test_what_is_no_matrix_is_taken_by_columns(documents):
    values = contract_records.encode([parse_contract(document) for document in documents])
    matrix = [any(charge["price"]["model"] == "matrix" for charge in document["charges"]) for document in documents]
    assert contract_checks.sound(codecs.own("contract_version").decode(values).batch).tolist() == [not found for found in matrix]


@settings(max_examples=60, **QUIET)
@given(contracts(), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5))
def test_usage_is_rated_to_the_same_records_whichever_way_its_contracts_came(documents, events, sizes):
    totals, state = run(documents, events, sizes)
    again = UsageState()
    known = again.take([KeptRecords().take(contract_records.encode([parse_contract(document) for document in documents]))])
    rated, first = [], 0
    plain = [usage_document.parse(event) for event in events if not event.get("corrects") and "voids" not in event]
    one_by_one = UsageState()
    objects = [payment_terms.settled(parse_contract(document)) for document in documents]
    while first < len(plain):
        part = plain[first : first + sizes[first % len(sizes)]]
        columns = usage_document.columns(part)
        time = columns["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
        batch = UsageBatch(np.arange(first, first + len(part)), columns, np.arange(len(part)), np.maximum.accumulate(time), pa.array([b"x"] * len(part), pa.large_binary()))
        rated.append(step(again, batch, known).rated.to_pylist())
        assert rated[-1] == step(one_by_one, batch, objects).rated.to_pylist()
        known, objects, first = (), [], first + len(part)
    assert state.totals.received == len(events)


def test_a_million_versions_of_one_rate_card_have_one_layout_and_one_price_list():
    card = [{"charge_id": meter, "meter": meter, "price": {"model": "per_unit", "unit_price": "0.5"}} for meter in METERS]
    documents = [{"contract_id": f"k{at}", "customer_id": f"c{at}", "effective_from": _day(0), "charges": card} for at in range(50)]
    own = [{"charge_id": "m0", "meter": "m0", "price": {"model": "per_unit", "unit_price": "0.25"}}, *card[1:]]
    _, (_, tariffs, _) = both([*documents, {"contract_id": "own", "customer_id": "own", "effective_from": _day(0), "charges": own}], [20])
    charges = tariffs.charges.charges
    assert len(tariffs.table) == 2
    assert len(charges._layout_first) == 1
    assert len(charges._prices) == 2 * 3
    assert len(charges._shapes["flags"]) == 3
    assert (tariffs.tag(of_strings(pa.array(["c1", "own"])), np.arange(2), np.array([BASE + DAY, BASE + DAY])) >= 0).all()
