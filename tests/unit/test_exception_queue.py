"""The work queue of exceptions: what each stands at, whose it is, and what cannot be asked for."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tieout import holds
from tieout.exception_queue import KINDS, Act, HoldChange, Load, Opened, Repair, about, fold, loads, refusal

HOUR = 3_600_000_000
DOCS = Path(__file__).parents[2] / "docs" / "exceptions.md"


def opened(name="x", kind="usage_conflict", at=10 * HOUR, hold=None, **more):
    evidence = ("source s", *(() if hold is None else (f"hold {hold}",)))
    return Opened(name, kind, "usage_event", "e1", "acme", KINDS[kind].owner if kind in KINDS else "planners", at, f"{kind} came up", evidence, **more)


def waiting(name="x", hold="h1", at=10 * HOUR, kind="hold_no_price"):
    return opened(name, kind, at, hold)


def act(kind, name="x", at=20 * HOUR, author="ada", reason="seen to", to=None, subject="exception"):
    return Act(kind, subject, name, author, at, reason, to)


def waive_hold(hold="h1", name="x", **more):
    return Act("waive", "hold", hold, "ada", 20 * HOUR, "too small", None, name, **more)


def one(queue, name="x"):
    item = queue.items[name]
    return item.state, item.owner, item.resolution


def test_an_exception_is_open_and_its_kind_says_whose_it_is():
    assert one(fold([opened()], [], {})) == ("open", "metering", None)
    assert one(fold([waiting()], [], {})) == ("open", "pricing", None)


def test_the_same_exception_written_again_stays_one():
    queue = fold([opened(), opened("y"), opened()], [act("assign", to="bea")], {})
    assert sorted(queue.items) == ["x", "y"]
    assert one(queue) == ("assigned", "bea", None)


def test_its_age_runs_until_it_is_settled():
    item = fold([opened()], [], {}).items["x"]
    assert item.age(34 * HOUR) == 24 * HOUR
    assert item.age(9 * HOUR) == 0
    settled = fold([opened()], [act("resolve", at=20 * HOUR)], {}).items["x"]
    assert settled.age(34 * HOUR) == 10 * HOUR


def test_an_assigned_one_is_its_assignee_s_and_may_be_passed_on():
    queue = fold([opened()], [act("assign", to="bea"), act("assign", to="cyd")], {})
    assert one(queue) == ("assigned", "cyd", None)
    assert [made.to for made in queue.items["x"].acts] == ["bea", "cyd"]


def test_a_kind_of_a_later_release_is_of_whom_its_record_says_and_can_be_resolved():
    assert one(fold([opened(kind="of_a_later_release")], [act("resolve")], {})) == ("resolved", "planners", "ada: seen to")


@pytest.mark.parametrize(("kind", "state"), [("resolve", "resolved"), ("waive", "waived")])
def test_a_person_settles_it_with_a_reason(kind, state):
    queue = fold([opened()], [act("assign", to="bea"), act(kind)], {})
    assert one(queue) == (state, "bea", "ada: seen to")
    assert queue.items["x"].settled_at == 20 * HOUR


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (HoldChange("held", 10 * HOUR), ("open", "pricing", None)),
        (HoldChange("released", 30 * HOUR), ("resolved", "pricing", "the event was released")),
        (HoldChange("waived", 30 * HOUR), ("waived", "pricing", "the contract waives such usage")),
        (HoldChange("held", 30 * HOUR), ("resolved", "pricing", "the event was released")),  # it left, and began to wait anew
        (HoldChange("unknown", 30 * HOUR), ("open", "pricing", None)),
    ],
)
def test_an_exception_about_an_event_that_waits_follows_the_event(change, expected):
    queue = fold([waiting()], [], {"h1": change, "other": HoldChange("released", 1)})
    assert one(queue) == expected


def test_an_event_that_began_to_wait_before_its_exception_was_opened_still_waits():
    assert one(fold([waiting(at=80 * HOUR)], [], {"h1": HoldChange("held", 10 * HOUR)}))[0] == "open"


def test_an_event_that_waits_again_is_another_exception():
    queue = fold([waiting("x", at=10 * HOUR), waiting("y", at=30 * HOUR)], [waive_hold()], {"h1": HoldChange("held", 30 * HOUR)})
    assert (one(queue, "x")[0], one(queue, "y")[0]) == ("resolved", "open")
    assert queue.items["y"].asked is None


def test_a_waiver_of_an_event_is_asked_for_and_counts_when_the_event_has_left():
    waits = fold([waiting()], [waive_hold()], {"h1": HoldChange("held", 10 * HOUR)})
    assert one(waits) == ("open", "pricing", None)
    assert waits.items["x"].asked == waive_hold()
    left = fold([waiting()], [waive_hold()], {"h1": HoldChange("waived", 30 * HOUR)})
    assert one(left) == ("waived", "pricing", "ada: too small")
    assert (left.items["x"].asked, left.items["x"].settled_at) == (None, 30 * HOUR)
    assert one(fold([waiting()], [waive_hold()], {"h1": HoldChange("released", 30 * HOUR)})) == ("resolved", "pricing", "the event was released")


@pytest.mark.parametrize("name", [None, "no exception"])
def test_a_waiver_that_names_no_exception_of_its_event_is_about_the_last_one(name):
    queue = fold([waiting("y", at=30 * HOUR), waiting("x", at=10 * HOUR)], [waive_hold(name=name)], {"h1": HoldChange("held", 30 * HOUR)})
    assert queue.items["y"].asked is not None
    assert queue.items["x"].acts == ()


def test_a_waiver_of_an_event_without_an_exception_is_no_matter_of_the_queue():
    queue = fold([opened()], [waive_hold(name=None), act("release"), act("assign", "usage-0", to="x", subject="partition")], {})
    assert (queue.refused, one(queue)[0]) == ([], "open")


@pytest.mark.parametrize(
    ("exception", "acts", "words"),
    [
        (opened(), [act("resolve", "z")], "there is no exception z; 'tieout exception ls"),
        (opened(), [act("resolve"), act("resolve")], r"exception x is resolved \(ada: seen to\) and stays so; there is nothing left to do"),
        (opened(), [act("waive"), act("resolve")], "exception x is waived"),
        (opened(), [act("resolve"), act("assign", to="bea")], "exception x is resolved"),
        (opened(), [act("assign", to="bea"), act("assign", to="bea")], "assigned to bea already"),
        (opened(), [act("assign")], "nobody is named whom to assign it to; say whom"),
        (opened(kind="contract_refused"), [act("waive")], "cannot be waived.*mend what it tells of, then resolve it"),
        (opened(kind="of_a_later_release"), [act("waive")], "cannot be waived"),
        (waiting(), [act("resolve")], "still waits and is resolved by itself when the event is released: hold_no_price came up"),
        (waiting(), [act("waive")], "is not about exception x alone; waive hold h1"),
        (waiting(), [waive_hold("h2")], "is not about hold h2 alone; waive hold h1"),
        (opened(), [waive_hold()], "is not about hold h1 alone; waive the exception"),
        (opened(), [act("accept")], "cannot be accepted, because a usage_conflict is no late usage"),
        (opened(kind="late_usage_limit"), [act("accept")], "cannot be accepted"),
        (waiting(), [act("accept")], "cannot be accepted"),
        (opened(kind="late_usage"), [act("accept"), act("accept")], r"was accepted by ada \(seen to\); it is resolved when the next invoice of e1"),
        (opened(kind="late_usage"), [act("accept"), act("waive")], "was accepted by ada"),
        (opened(kind="late_usage"), [act("accept"), act("resolve")], "was accepted by ada"),
        (opened(kind="late_usage"), [act("waive"), act("accept")], r"is waived \(ada: seen to\) and stays so"),
        (waiting(), [waive_hold(), waive_hold()], r"was asked for by ada \(too small\); it counts when the flow has let the event go"),
    ],
)
def test_what_does_not_fit_has_no_effect_and_says_what_to_do(exception, acts, words):
    queue = fold([exception], acts, {})
    [refused] = queue.refused
    assert refused.act == acts[-1]
    assert re.search(words, refused.why)
    assert queue.items == fold([exception], acts[:-1], {}).items
    assert refusal(fold([exception], acts[:-1], {}), acts[-1], refused.exception_id) == refused.why


def test_an_exception_whose_event_has_left_cannot_be_given_to_anybody():
    queue = fold([waiting()], [], {"h1": HoldChange("released", 30 * HOUR)})
    assert "is resolved (the event was released)" in refusal(queue, act("assign", to="bea"), "x")


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_can_be_settled_as_its_table_says(kind):
    held = kind.startswith("hold_")
    exception = waiting(kind=kind) if held else opened(kind=kind)
    queue = fold([exception], [], {})
    asked = {what: refusal(queue, about(queue.items["x"], what, "ada", 0, "why"), "x") for what in ("accept", "resolve", "waive")}
    assert tuple(what for what, why in asked.items() if why is None) == KINDS[kind].settled_by


def test_late_usage_that_is_accepted_is_resolved_when_it_is_billed():
    late = opened(kind="late_usage")
    queue = fold([late], [act("accept"), act("assign", to="bea")], {})
    assert one(queue) == ("assigned", "bea", None)
    assert queue.items["x"].asked == act("accept")
    billed = fold([late, replace(late, repaired=Repair(30 * HOUR, "billed"))], [act("accept"), act("assign", to="bea")], {})
    assert one(billed) == ("resolved", "bea", "billed")
    assert billed.items["x"].asked is None


def test_every_reason_to_wait_has_a_kind():
    assert {kind.removeprefix("hold_") for kind in KINDS if kind.startswith("hold_")} == set(holds.REMEDIES)


def test_what_each_owner_has_to_settle_is_counted_the_most_first():
    queue = fold([opened("x"), opened("y", at=4 * HOUR), waiting("z")], [act("assign", "z", to="bea")], {})
    assert loads(list(queue.items.values())) == [Load("metering", 2, 4 * HOUR), Load("bea", 1, 10 * HOUR)]
    settled = fold([opened("x"), opened("y", at=4 * HOUR)], [act("resolve", "y")], {})
    assert loads(list(settled.items.values())) == [Load("metering", 1, 10 * HOUR)]
    assert loads([]) == []


def test_money_at_risk_is_what_the_record_says():
    item = fold([replace(opened(), currency="USD")], [], {}).items["x"]
    assert (item.opened.amount_at_risk, item.opened.currency) == (None, "USD")


def test_the_table_of_kinds_in_the_documents_is_that_of_the_code():
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    rows = [cells for cells in rows if len(cells) == 5]
    table = {cells[0].strip("`"): (cells[1], tuple(re.findall(r"`(\w+)`", cells[2]))) for cells in rows}
    assert table == {kind: (found.owner, found.settled_by) for kind, found in KINDS.items()}
    assert all(all(cells) for cells in rows)
