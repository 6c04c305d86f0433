"""Prepaid credits that become known within the period in which they begin: they pay for what was used since, and nothing before."""

import random

import pytest

from flows import invoicing, topics
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import exceptions
from tests.flow.invoicing_folders import contract, event

CALLS = folder.SIMPLE[:1]
JANUARY = [event("k1", f"{day}", f"2026-01-{day:02d}T00:00:00Z", "100") for day in range(1, 21, 2)]
"""Ten times 1.00: five until January 9, five from January 11 on."""
CLOCK = [event("k1", "clock", "2026-02-05T00:00:00Z", "1")]


def grant(begins="2026-01-10T00:00:00Z", amount="100.00", **more):
    return {"grant_id": "g", "amount": amount, "kind": "granted", "effective_from": begins} | more


def run(root):
    folder.price(root, [0])
    (token,) = folder.bill(root, partitions=[0])
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []
    return token


def made(root, second, rest=CLOCK, first=None):
    """Half of January is known before the version that brings the grant, and the rest after it."""
    folder.write(root, JANUARY, [contract("k1", charges=CALLS) | (first or {})], partitions=1)
    run(root)
    folder.import_contracts(root, [contract("k1", 2, charges=CALLS) | second])
    folder.append(root, list(rest), partitions=1)
    run(root)
    return folder.invoices(root, 1)


@pytest.mark.parametrize(
    ("effective", "begins"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z"),  # everything is priced again by the version that brings it
        ("2026-01-10T00:00:00Z", None),  # it begins with its version
        ("2026-01-15T00:00:00Z", "2026-01-10T00:00:00Z"),  # before it
        ("2026-01-05T00:00:00Z", "2026-01-10T00:00:00Z"),  # within it
        ("2026-02-01T00:00:00Z", "2026-01-10T00:00:00Z"),  # in the month before it
    ],
)
def test_a_grant_pays_for_what_was_used_since_it_begins_wherever_its_version_begins(tmp_path, effective, begins):
    (january,) = made(tmp_path / "data", {"effective_from": effective, "credits": [grant(begins)]})
    assert (january.total, [(use.grant_id, use.applied, use.balance) for use in january.credits], january.amount_due) == (1000, [("g", 500, 9500)], 500)


def test_an_expiry_that_becomes_known_within_the_period_ends_what_it_pays(tmp_path):
    (january,) = made(tmp_path / "data", {"effective_from": "2026-02-01T00:00:00Z", "credits": [grant("2026-01-01T00:00:00Z", expires_at="2026-01-06T00:00:00Z")]}, first={"credits": [grant("2026-01-01T00:00:00Z")]})
    assert ([use.applied for use in january.credits], january.amount_due) == ([300], 700)  # on January 1, 3 and 5


def learnt_after_the_close(root, late_usage, credit):
    billing = {"billing": {"late_usage": late_usage}}
    folder.write(root, [*JANUARY, *CLOCK], [contract("k1", charges=CALLS, **billing)], partitions=1)
    run(root)
    folder.import_contracts(root, [contract("k1", 2, charges=CALLS, credits=[credit], effective_from="2026-02-01T00:00:00Z", **billing)])
    folder.append(root, [event("k1", "march", "2026-03-05T00:00:00Z")], partitions=1)
    run(root)
    return folder.invoices(root, 1)


def test_a_grant_that_is_learnt_after_the_close_pays_its_part_of_the_closed_period(tmp_path):
    january, february = learnt_after_the_close(tmp_path / "data", "next_invoice", grant())
    assert (january.credits, january.amount_due, february.total) == ((), 1000, 1)
    assert ([(use.applied, use.balance) for use in february.credits], february.amount_due) == ([(501, 9499)], -500)  # 5.00 of January, 0.01 of its own
    assert not folders.output(tmp_path / "data", 1, topics.EXCEPTIONS)[0]


def test_a_grant_that_would_divide_a_period_whose_late_usage_waits_for_finance_holds_the_contract_and_says_what_to_do(tmp_path):
    root = tmp_path / "data"
    assert [one.period.label for one in learnt_after_the_close(root, "exception", grant())] == ["2026-01"]
    (held,) = exceptions(root, 1)
    assert (held["kind"], held["object"]["id"]) == ("invoice_held", "c-k1")
    assert "credits.0.effective_from: version 2 brings it and comes into force later, and late usage of 2026-01 waits for finance" in held["message"]
    folder.import_contracts(root, [contract("k1", 3, charges=CALLS, credits=[grant("2026-01-01T00:00:00Z")], effective_from="2026-02-01T00:00:00Z", billing={"late_usage": "exception"})])
    run(root)
    february = folder.invoices(root, 1)[-1]
    assert ([use.applied for use in february.credits], february.amount_due) == ([1001], -1000)  # all of January, 0.01 of its own


def test_nothing_is_read_again_where_versions_tell_the_sides_apart(tmp_path, monkeypatch):
    """A top-up that begins with its version, as most do, costs no second look at the records."""
    asked = []
    again = invoicing.invoicing_division.sums_again
    monkeypatch.setattr(invoicing.invoicing_division, "sums_again", lambda *given: asked.append(given) or again(*given))
    made(tmp_path / "one", {"effective_from": "2026-01-10T00:00:00Z", "credits": [grant(None)]})
    made(tmp_path / "two", {"effective_from": "2026-02-01T00:00:00Z", "credits": [grant("2026-02-01T00:00:00Z")]})
    assert asked == []
    made(tmp_path / "three", {"effective_from": "2026-02-01T00:00:00Z", "credits": [grant()]})
    assert len(asked) == 1


@pytest.mark.parametrize("seed", range(6))
def test_documents_equal_those_of_the_same_facts_known_from_the_start(tmp_path, seed):
    """Several versions with grants at any instants, learnt one after the other while usage comes; the cell starts anew each time."""
    rnd, root = random.Random(seed), tmp_path / "data"
    usage_ = [event(f"k{n}", f"{day}", f"2026-01-{day:02d}T{rnd.randrange(24):02d}:00:00Z", str(rnd.randrange(1, 5000))) for day in range(1, 29) for n in range(3)]
    versions = [[contract(f"k{n}", charges=CALLS)] for n in range(3)]
    for mine in versions:
        for number in range(2, 5):
            more = {"effective_to": at(rnd, 20, 31)} if rnd.random() < 0.3 else {}
            granted = [grant(rnd.choice([None, at(rnd, 1, 19)]), f"{rnd.randrange(1, 900)}.00", grant_id=f"g{number}", priority=rnd.randrange(1, 3), expires_at=rnd.choice([None, at(rnd, 20, 31)]))]
            mine.append(contract(mine[0]["customer_id"], number, charges=CALLS, credits=[*mine[-1].get("credits", []), *granted]) | {"effective_from": at(rnd, 1, 19)} | more)
    folder.write(root, usage_[: len(usage_) // 4], [mine[0] for mine in versions], partitions=1)
    for number in range(1, 4):
        folder.price(root, [0], rows=rnd.randrange(5, 60))
        folder.bill(root, partitions=[0], rows=rnd.randrange(5, 60))
        folder.import_contracts(root, [mine[number] for mine in versions])
        folder.append(root, usage_[number * len(usage_) // 4 : (number + 1) * len(usage_) // 4], partitions=1)
    end = [event(f"k{n}", "end", "2026-02-05T00:00:00Z", "1") for n in range(3)]
    folder.append(root, end, partitions=1)
    run(root)
    for n, mine in enumerate(versions):
        (january,) = folder.by_period(root, f"c-k{n}")["2026-01"]
        (wanted,) = folder.expected(f"k{n}", usage_ + end, mine, "2026-01")
        assert (january.credits, january.amount_due, january.total) == (wanted.credits, wanted.amount_due, wanted.total)
    assert any(one.credits for one in folder.invoices(root, 1))


def at(rnd, first, last):
    return f"2026-01-{rnd.randrange(first, last):02d}T{rnd.randrange(24):02d}:30:00Z"


