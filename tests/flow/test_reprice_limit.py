"""What lies further back than the re-pricing limit: priced again up to it, and told from there on; never silently left."""

from decimal import Decimal

import pyarrow as pa

from flows import codecs, local_engine, topics, usage
from flows.file_place import FilePlace
from flows.replay import replay
from flows.usage import DEAD
from tests.flow import folders
from tieout.usage_stage import DAY, Limits

SHORT = Limits(reprice_limit=10 * DAY)


def version(number, price, effective_from, **more):
    charge = {"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": price}}
    return {"contract_id": "c-acme", "version": number, "customer_id": "acme", "effective_from": effective_from, "charges": [charge]} | more


def event(name, day, quantity="10", **more):
    return {"id": name, "source": "gw", "customer_id": "acme", "meter": "calls", "time": f"2026-03-{day:02}T00:00:00Z", "quantity": quantity} | more


def corrected(name, day, original, quantity="7"):
    return event(name, day, quantity, corrects={"source": "gw", "id": original})


def run(root, limits=SHORT, rows=1000):
    pipeline = usage.pipeline(FilePlace(root), range(1), limits=limits, rows=rows)
    try:
        local_engine.run(pipeline)
        return pipeline.cells[0].token
    finally:
        for cell in pipeline.cells.values():
            cell.close()


def put(root, events=(), versions=()):
    folders.write(root, list(events), list(versions), partitions=1)


def exceptions(root):
    values = folders.output(root, 1, topics.EXCEPTIONS)[0]
    return codecs.own("exception").decode(pa.array(values, pa.large_binary())).batch.to_pylist()


def amounts(root):
    """What each event costs now, by version."""
    found = {}
    for row in folders.rated(root, 1):
        place = (row["usage"]["id"], row["contract_version"])
        found[place] = found.get(place, Decimal(0)) + row["amount"]
    return {place: amount for place, amount in found.items() if amount}


def same_on_replay(root, limits=SHORT):
    return all(not replayed.different for rows in (1, 2, 1000) for replayed in replay(root, 0, limits, rows))


def test_a_version_from_before_the_limit_prices_again_what_lies_within_it_and_tells_of_the_rest(tmp_path):
    put(tmp_path, [event(f"e{day}", day) for day in (2, 9, 10, 20)], [version(1, "0.1", "2026-01-01T00:00:00Z")])
    run(tmp_path)
    put(tmp_path, [event("e21", 21)], [version(2, "0.2", "2026-03-05T00:00:00Z")])
    run(tmp_path)
    # the clock is at the 20th when version 2 comes: e9 lies before the 10th and keeps its price, e10 lies on the limit
    assert amounts(tmp_path) == {("e2", 1): 1, ("e9", 1): 1, ("e10", 2): 2, ("e20", 2): 2, ("e21", 2): 2}
    [told] = exceptions(tmp_path)
    assert (told["kind"], told["owner"], told["customer_id"], told["object"]) == ("reprice_limit", "contracts", "acme", {"type": "contract_version", "id": "c-acme/2"})
    assert told["evidence"] == ["not priced again from 2026-03-05T00:00:00Z to 2026-03-10T00:00:00Z"]
    assert told["opened_at"].isoformat() == "2026-03-20T00:00:00+00:00" and told["amount_at_risk"] is None
    assert "10 days before the partition's clock" in told["message"]
    assert same_on_replay(tmp_path)


def test_a_version_that_ends_before_the_limit_changes_nothing_and_is_told_of(tmp_path):
    put(tmp_path, [event(f"e{day}", day) for day in (2, 20)], [version(1, "0.1", "2026-01-01T00:00:00Z")])
    run(tmp_path)
    put(tmp_path, versions=[version(2, "0.2", "2026-03-01T00:00:00Z", effective_to="2026-03-04T00:00:00Z")])
    token = run(tmp_path)
    assert amounts(tmp_path) == {("e2", 1): 1, ("e20", 1): 1}
    assert [told["evidence"] for told in exceptions(tmp_path)] == [["not priced again from 2026-03-01T00:00:00Z to 2026-03-04T00:00:00Z"]]
    assert token.counts["slices"] == 0
    assert same_on_replay(tmp_path)


def test_nothing_is_told_of_a_time_from_before_the_first_event(tmp_path):
    """The first event comes on March 20: with a horizon of 35 days none can have been priced before February 13."""
    put(tmp_path, [event("e20", 20)], [version(1, "0.1", "2020-01-01T00:00:00Z")])
    run(tmp_path)
    put(tmp_path, versions=[version(2, "0.2", "2020-06-01T00:00:00Z", effective_to="2026-02-13T00:00:00Z")])
    run(tmp_path)
    assert exceptions(tmp_path) == []
    put(tmp_path, versions=[version(3, "0.2", "2020-06-01T00:00:00Z")])
    run(tmp_path)
    assert [told["evidence"] for told in exceptions(tmp_path)] == [["not priced again from 2026-02-13T00:00:00Z to 2026-03-10T00:00:00Z"]]
    assert same_on_replay(tmp_path)


def test_nothing_is_told_where_no_contract_of_the_customer_was_in_force(tmp_path):
    other = version(1, "0.1", "2020-01-01T00:00:00Z", contract_id="c-other", customer_id="other")
    put(tmp_path, [event("e2", 2, customer_id="other"), event("e20", 20, customer_id="other")], [other])
    run(tmp_path)
    put(tmp_path, versions=[version(number, "0.1", "2020-01-01T00:00:00Z") for number in (1, 2)])
    run(tmp_path)
    assert exceptions(tmp_path) == []
    put(tmp_path, versions=[version(1, "0.1", "2020-01-01T00:00:00Z", contract_id="c-second")])
    run(tmp_path)
    assert [told["object"]["id"] for told in exceptions(tmp_path)] == ["c-second/1"]  # acme's usage of then would now be ambiguous
    assert same_on_replay(tmp_path)


def test_a_correction_finds_its_original_up_to_the_limit_and_waits_beyond_it(tmp_path):
    put(tmp_path, [event("e9", 9), event("e10", 10)], [version(1, "0.1", "2026-01-01T00:00:00Z")])
    run(tmp_path)
    put(tmp_path, [event("e20", 20), corrected("fix10", 20, "e10"), corrected("fix9", 20, "e9"), event("void9", 20, voids={"source": "gw", "id": "e9"})])
    token = run(tmp_path)
    assert amounts(tmp_path) == {("e9", 1): 1, ("e10", 1): Decimal("0.7"), ("e20", 1): 1}
    assert token.totals["waiting"] == 2 and exceptions(tmp_path) == []
    put(tmp_path, [event("e28", 28)])
    run(tmp_path)
    told = exceptions(tmp_path)
    assert [(row["kind"], row["object"]["id"]) for row in told] == [("hold_original_unknown", "fix9"), ("hold_original_unknown", "void9")]
    assert "lies further back than anything is corrected" in told[0]["message"]
    assert same_on_replay(tmp_path)


def test_a_kept_event_is_found_no_further_back_than_a_running_sum(tmp_path):
    """A charge whose events lie in the state has the same limit."""
    charge = {"charge_id": "peak", "meter": "calls", "aggregation": {"kind": "max"}, "price": {"model": "per_unit", "unit_price": "1"}}
    put(tmp_path, [event("e9", 9), event("e10", 10, "4")], [version(1, "0.1", "2026-01-01T00:00:00Z") | {"charges": [charge]}])
    put(tmp_path, [event("e20", 20, "1"), corrected("fix9", 20, "e9"), corrected("fix10", 20, "e10", "12")])
    run(tmp_path)
    assert sum(amounts(tmp_path).values()) == 12
    assert len(folders.output(tmp_path, 1, topics.HOLDS)[0]) == 1
    assert same_on_replay(tmp_path)


def test_a_correction_of_an_event_that_its_contract_waived_afterwards_is_waived_too(tmp_path):
    put(tmp_path, [event("a", 1), event("b", 5)], [version(1, "0.1", "2026-01-01T00:00:00Z")])
    run(tmp_path, Limits())
    suspended = version(2, "0.1", "2026-03-03T00:00:00Z", status="suspended", billing={"inactive_usage": "waive"})
    put(tmp_path, [event("c", 2), corrected("at-once", 6, "b")], [suspended])
    run(tmp_path, Limits())
    put(tmp_path, [corrected("later", 7, "b"), event("undo", 7, voids={"source": "gw", "id": "b"}), corrected("fix", 7, "a")])
    token = run(tmp_path, Limits())
    assert amounts(tmp_path) == {("a", 1): Decimal("0.7"), ("c", 1): 1}
    assert (token.totals["waiting"], token.totals["rejected"], len(folders.output(tmp_path, 1, DEAD)[0])) == (0, 3, 3)  # b, later, undo; at-once came before b was looked at again
    assert folders.output(tmp_path, 1, topics.HOLDS)[0] == []
    assert same_on_replay(tmp_path, Limits())
