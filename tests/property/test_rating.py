"""The usage stage against the oracle: any order of arrival, any split, every model; the same totals to the last digit."""

import unittest.mock
from collections import defaultdict
from datetime import datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import oracle
from tests.rated_memory import RatedMemory
from tieout import repricing, usage_document
from tieout.contracts import parse_contract
from tieout.usage_stage import UsageBatch, UsageState, step

decimals = st.integers(0, 5_000_000).map(lambda n: f"{n // 10**4}.{n % 10**4:04d}")
prices = st.integers(0, 3_000_000).map(lambda n: f"{n // 10**6}.{n % 10**6:06d}")


@st.composite
def tiers(draw, rate="unit_price"):
    bounds = sorted(draw(st.sets(st.integers(1, 400), max_size=3)))
    return [{"up_to": None if up is None else str(up), rate: draw(prices), "flat_fee": draw(st.sampled_from(["0", "2.5"]))} for up in [*bounds, None]]


@st.composite
def linear(draw):
    kind = draw(st.sampled_from(["per_unit", "graduated", "volume", "package", "graduated_percentage"]))
    if kind == "per_unit":
        return {"model": kind, "unit_price": draw(prices)}
    if kind == "package":
        return {"model": kind, "size": draw(st.sampled_from(["1", "7.5", "100"])), "price": draw(prices), "free_units": draw(st.sampled_from(["0", "30"])), "partial": draw(st.sampled_from(["up", "down"]))}
    rate = "rate_percent" if kind == "graduated_percentage" else "unit_price"
    return {"model": kind, "tiers": draw(tiers(rate)), "flat_at_zero": draw(st.booleans())}


@st.composite
def walked(draw):
    if draw(st.booleans()):
        cells = [{"match": match} | draw(st.sampled_from([{"unit_price": "0.5"}, {"tiers": [{"up_to": "50", "unit_price": "1", "flat_fee": "3"}, {"up_to": None, "unit_price": "0.3"}]}])) for match in ({"region": "eu"}, {"region": "eu", "user": "a"})]
        return {"model": "matrix", "dimensions": ["region", "user"], "prices": cells, "default_unit_price": draw(prices)}
    model = {"model": "percentage", "rate_percent": draw(st.sampled_from(["1.5", "33.333333333"])), "fixed_per_event": draw(st.sampled_from([None, "0.1"]))}
    model |= {"free_events": draw(st.sampled_from([None, 0, 3])), "free_amount": draw(st.sampled_from([None, "100", "777.5"]))}
    return model | {"minimum_per_event": draw(st.sampled_from([None, "0.2"])), "maximum_per_event": draw(st.sampled_from([None, "4"]))}


@st.composite
def contracts(draw, levels=None):
    """One customer's contract of one to three versions; a charge keeps its kind over the versions."""
    kinds = {}
    for meter in ("m0", "m1", "m2"):
        kind = draw(st.sampled_from(["sum", "count", "max", "latest", "unique_count", "walked"] if levels is None else levels))
        aggregation = {"kind": "sum" if kind == "walked" else kind}
        if kind == "max" and levels is None:
            aggregation["bucket"] = draw(st.sampled_from([None, "hour", "day"]))
        if kind == "unique_count":
            aggregation["property"] = "user"
        if kind == "weighted_sum":
            aggregation["initial"] = draw(st.sampled_from([None, "12.5"]))
        elif levels is not None:
            aggregation |= {"carry_over": True, "prorate": draw(st.sampled_from([None, "day"]))}
        reset = draw(st.sampled_from(["billing_period", "contract_version"] + (["never"] if kind in ("sum", "count") else [])))
        kinds[meter] = (kind, {"aggregation": aggregation, "reset": reset, "group_by": draw(st.sampled_from([[], ["region"]]))})
    versions = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        charges = []
        for meter, (kind, fixed) in kinds.items():
            model = draw(walked() if kind == "walked" else linear())
            extra = {"discount_percent": draw(st.sampled_from(["0", "0", "12.5"])), "maximum": draw(st.sampled_from([None, None, "150"]))}
            extra["included_quantity"] = draw(st.sampled_from(["0", "0", "25.5"]))
            extra["unit_conversion"] = draw(st.sampled_from([None, None, {"divide_by": "3"}, {"multiply_by": "2.5", "round": "ceil"}]))
            charges.append({"charge_id": f"c-{meter}", "meter": meter, "price": model} | fixed | extra)
        start = 1 if number == 1 else draw(st.integers(2, 50) | st.integers(25, 38))
        end = draw(st.sampled_from([None, None, start + 10])) if number > 1 else None
        versions.append({"contract_id": "k", "version": number, "customer_id": "acme", "effective_from": _day(start), "charges": charges} | ({"effective_to": _day(end)} if end else {}))
    return versions


def _day(number):
    return str(np.datetime64("2026-01-01T00:00:00") + np.timedelta64(number - 1, "D")) + "+00:00"


@st.composite
def usage(draw):
    made = []
    for number in range(draw(st.integers(1, 40))):
        moment = np.datetime64("2026-01-25T00:00:00") + np.timedelta64(draw(st.integers(0, 14 * 24 * 60)), "m")
        event = {"id": f"e{number}", "source": "s", "customer_id": "acme", "meter": draw(st.sampled_from(["m0", "m1", "m2"])), "time": f"{moment}+00:00"}
        event |= {"quantity": draw(decimals), "attributes": {"region": draw(st.sampled_from(["eu", "us"])), "user": draw(st.sampled_from("abc"))}}
        kind = draw(st.integers(0, 19))
        if kind == 0 and made:
            made.append(dict(draw(st.sampled_from(made))))
        elif kind == 1 and made:
            made.append(draw(st.sampled_from(made)) | {"quantity": "1.5"})
        elif kind in (2, 3, 4):
            target = {"source": "s", "id": f"e{draw(st.integers(0, 45))}"}
            what = {"voids": target} if kind == 2 else {"corrects": target}
            made.append({name: value for name, value in (event | what).items() if not (kind == 2 and name == "quantity")})
        else:
            made.append(event)
    return made


def run(versions, events, sizes, arrivals=None, slice_rows=50):
    """Drive the stage batch by batch; totals by (contract, charge, group, period) and the state.

    ``arrivals`` are the rows before which each version comes, at the latest when all are read; without, all come first.
    """
    state, rated = UsageState(), RatedMemory()
    documents = [usage_document.parse(event) for event in events]
    came = sorted(zip(arrivals or [0] * len(versions), range(len(versions)), strict=True))
    first, turn = 0, 0
    while first < len(documents) or came or state.jobs.queue:
        part = documents[first : first + sizes[turn % len(sizes)]]
        arrived = [parse_contract(versions[number]) for at, number in came if at <= first or first >= len(documents)]
        came = [(at, number) for at, number in came if at > first and first < len(documents)]
        columns = usage_document.columns(part)
        stamps = np.maximum(np.full(len(part), 0), columns["time"].cast(pa.int64()).to_numpy(zero_copy_only=False))
        batch = UsageBatch(
            np.arange(first, first + len(part)), columns, np.arange(len(part)), stamps, pa.array([b"x"] * len(part), pa.large_binary()),
            originals=rated.originals(part), slices=rated.slices(state.jobs, slice_rows),
        )
        rated.add(step(state, batch, arrived).rated)
        first, turn = first + len(part), turn + 1
    totals = defaultdict(Fraction)
    for row in rated.rows:
        group = None if row["group"] is None else tuple(row["group"])
        totals[row["contract_id"], row["charge_id"], group, row["billing_period"]] += Fraction(row["amount"])
    ids = [row["rated_id"] for row in rated.rows]
    assert len(ids) == len(set(ids)), "a rated id stands twice"
    return {place: amount for place, amount in totals.items() if amount}, state


def expected(versions, events):
    through = max(datetime.fromisoformat(event["time"]) for event in events)
    return {place: amount for place, amount in oracle.charges(versions, events, through).items() if amount}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(contracts(["weighted_sum", "sum", "count", "max", "latest"]), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5))
def test_levels_equal_the_oracle_in_any_split(versions, events, sizes):
    assert run(versions, events, sizes)[0] == expected(versions, events)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(contracts(), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5))
def test_totals_and_fates_equal_the_oracle_in_any_split(versions, events, sizes):
    totals, state = run(versions, events, sizes)
    assert totals == expected(versions, events)
    fates = oracle.facts(versions, events)[0]
    assert state.totals.duplicate == fates.count("duplicate")
    assert state.totals.conflict == fates.count("conflict")
    assert state.waiting.count == oracle.waiting(versions, events)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(contracts(), usage(), st.randoms(use_true_random=False))
def test_totals_do_not_depend_on_the_order_of_arrival(versions, events, random):
    plain = list({event["id"]: event for event in events if not event.get("corrects") and "voids" not in event}.values())
    plain = [event for event in plain if sum(e["id"] == event["id"] for e in events) == 1]
    shuffled = random.sample(plain, len(plain))
    latest = {c["charge_id"] for v in versions for c in v["charges"] if c["aggregation"]["kind"] == "latest"}
    first, second = run(versions, plain, [7])[0], run(versions, shuffled, [3, 11])[0]
    assert {k: v for k, v in first.items() if k[1] not in latest} == {k: v for k, v in second.items() if k[1] not in latest}


def test_a_period_that_a_voided_event_opened_stays_open_for_the_level():
    versions = [{"contract_id": "k", "version": 1, "customer_id": "acme", "effective_from": _day(1), "charges": [
        {"charge_id": "gb", "meter": "m0", "price": {"model": "per_unit", "unit_price": "0.000001"}, "aggregation": {"kind": "weighted_sum"}}]}]
    base = {"source": "s", "customer_id": "acme", "meter": "m0"}
    events = [
        base | {"id": "e1", "time": _day(25), "quantity": "0.0001"},
        base | {"id": "void", "time": _day(25), "voids": {"source": "s", "id": "e2"}},
        base | {"id": "e2", "time": _day(32), "quantity": "0"},
    ]
    for size in (1, 3):
        assert run(versions, events, [size])[0] == {
            ("k", "gb", None, "2026-01"): Fraction(23, 10**12), ("k", "gb", None, "2026-02"): Fraction(1, 10**10),
        }


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(contracts(), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5), st.lists(st.integers(0, 45), min_size=3, max_size=3), st.integers(1, 30))
def test_versions_that_come_late_give_the_totals_of_those_that_came_first(versions, events, sizes, arrivals, slice_rows):
    totals, state = run(versions, events, sizes, arrivals[: len(versions)], slice_rows)
    assert totals == expected(versions, events)
    assert state.waiting.count == oracle.waiting(versions, events)
    assert not state.totals.broken()


@st.composite
def histories(draw):
    """Two contracts of one customer over up to five versions each: charges come and go, are filtered, suspended, ended."""
    first = draw(contracts())
    versions = []
    for name, meters in (("k", ("m0", "m1", "m2")), ("k2", draw(st.sampled_from([(), ("m2",), ("m1", "m2")])))):
        fixed = {charge["meter"]: charge for charge in first[0]["charges"]}
        for number in range(1, draw(st.integers(1, 4)) + 1) if meters else ():
            charges = []
            for meter in meters:
                if draw(st.integers(0, 9)):
                    walks = fixed[meter]["price"]["model"] in ("percentage", "matrix")
                    charges.append(fixed[meter] | {"price": draw(walked() if walks else linear()), "filters": draw(st.sampled_from([{}, {}, {"region": ["eu"]}]))})
            if not charges:
                charges = [fixed[meters[0]]]
            start = 1 if number == 1 else draw(st.integers(2, 50) | st.integers(25, 38))
            version = {"contract_id": name, "version": number, "customer_id": "acme", "effective_from": _day(start), "charges": charges}
            if number > 1:
                version |= {"status": draw(st.sampled_from(["active", "active", "suspended", "terminated"])), "billing": {"inactive_usage": draw(st.sampled_from(["exception", "price"]))}}
                end = draw(st.sampled_from([None, None, start + 10]))
                version |= {"effective_to": _day(end)} if end else {}
            versions.append(version)
    return versions


@st.composite
def named(draw):
    return [event | ({"contract_id": draw(st.sampled_from(["k", "k2"]))} if not draw(st.integers(0, 7)) and not event.get("corrects") and "voids" not in event else {}) for event in draw(usage())]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories(), named(), st.lists(st.integers(1, 15), min_size=1, max_size=5), st.lists(st.integers(0, 45), min_size=8, max_size=8), st.integers(1, 30))
def test_any_history_in_any_order_gives_the_totals_of_the_final_facts(versions, events, sizes, arrivals, slice_rows):
    totals, state = run(versions, events, sizes, arrivals[: len(versions)], slice_rows)
    assert totals == expected(versions, events)
    assert state.waiting.count == oracle.waiting(versions, events)
    assert not state.totals.broken()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(contracts(["weighted_sum", "sum", "count", "max", "latest"]), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5), st.lists(st.integers(0, 45), min_size=3, max_size=3))
def test_levels_under_versions_that_come_late_equal_the_oracle(versions, events, sizes, arrivals):
    assert run(versions, events, sizes, arrivals[: len(versions)])[0] == expected(versions, events)


@st.composite
def plain_contracts(draw):
    """Versions whose charges the kernel takes."""
    versions = []
    for number in range(1, draw(st.integers(2, 4)) + 1):
        charges = [
            {"charge_id": f"c-{meter}", "meter": meter, "price": draw(linear()), "aggregation": {"kind": kind}, "reset": draw(st.sampled_from(["billing_period"] * 3 + ["contract_version"])), "included_quantity": draw(st.sampled_from(["0", "25.5"]))}
            for meter, kind in (("m0", "sum"), ("m1", "count"), ("m2", "sum"))
        ]
        start = 1 if number == 1 else draw(st.integers(2, 50) | st.integers(25, 38))
        end = draw(st.sampled_from([None, None, start + 10])) if number > 1 else None
        versions.append({"contract_id": "k", "version": number, "customer_id": "acme", "effective_from": _day(start), "charges": charges} | ({"effective_to": _day(end)} if end else {}))
    fixed = versions[0]["charges"]
    for version in versions:
        for charge, first in zip(version["charges"], fixed, strict=True):
            charge["reset"] = first["reset"]
    return versions


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(plain_contracts(), usage(), st.lists(st.integers(1, 15), min_size=1, max_size=5), st.lists(st.integers(0, 45), min_size=4, max_size=4), st.integers(1, 60))
def test_moves_by_columns_equal_those_event_by_event(versions, events, sizes, arrivals, slice_rows):
    totals, state = run(versions, events, sizes, arrivals[: len(versions)], slice_rows)
    assert totals == expected(versions, events)
    with unittest.mock.patch.object(repricing, "by_columns", lambda work, part: ([], part.rows)):
        single, other = run(versions, events, sizes, arrivals[: len(versions)], slice_rows)
    assert single == totals
    assert state.totals == other.totals
    for one, two in zip(state.rater.chains.all_terms(), other.rater.chains.all_terms(), strict=True):
        assert one.tolist() == two.tolist() if hasattr(one, "tolist") else one.equals(two)


def test_an_event_that_a_version_brought_back_is_moved_on_by_it_under_another_id():
    def version(number, price, **more):
        charge = {"charge_id": "c", "meter": "m0", "price": {"model": "per_unit", "unit_price": price}}
        return {"contract_id": "k", "version": number, "customer_id": "acme", "effective_from": _day(1), "charges": [charge]} | more

    versions = [version(1, "1"), version(2, "2", status="suspended"), version(3, "3"), version(4, "4")]
    events = [
        {"id": f"e{number}", "source": "s", "customer_id": "acme", "meter": "m0", "time": f"2026-01-{number + 2:02}T00:00:00Z", "quantity": "1", "attributes": {}}
        for number in range(12)
    ]
    assert run(versions, events, [1], [0, 2, 8, 9])[0] == expected(versions, events)
