"""Whatever order exceptions come in and however often, the queue is the same; and it is that of a dull reading of the rules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tieout.exception_queue import KINDS, Act, HoldChange, Opened, fold

NAMES = ("a", "b", "c", "d")
HOLDS = ("h1", "h2")
instants = st.integers(0, 6)


@st.composite
def exceptions(draw):
    found = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        kind = draw(st.sampled_from(["usage_conflict", "contract_refused", "late_usage", "hold_no_price"]))
        evidence = (f"hold {draw(st.sampled_from(HOLDS))}",) if kind.startswith("hold") else ("source s",)
        found.append(Opened(name, kind, "usage_event", "e", "acme", KINDS[kind].owner, draw(instants), "something", evidence))
    return found


acts = st.lists(st.builds(
    lambda kind, subject, author, to, name: Act(kind, *subject, author, 9, "why", to if kind == "assign" else None, name if subject[0] == "hold" else None),
    st.sampled_from(["accept", "assign", "resolve", "waive", "release"]),
    st.one_of(st.tuples(st.just("exception"), st.sampled_from(NAMES)), st.tuples(st.just("hold"), st.sampled_from(HOLDS))),
    st.sampled_from(["ada", "bea"]), st.sampled_from([None, "cyd", "dan"]), st.one_of(st.none(), st.sampled_from(NAMES)),
), max_size=12).map(lambda found: [act._replace(at=at) for at, act in enumerate(found)])
changes = st.dictionaries(st.sampled_from(HOLDS), st.builds(HoldChange, st.sampled_from(["held", "released", "waived"]), instants))


@settings(deadline=None)
@given(st.data(), exceptions(), acts, changes)
def test_any_order_and_repetition_of_the_same_exceptions_gives_the_same_queue(data, opened, asked, holds):
    written = data.draw(st.permutations([*opened, *(data.draw(st.lists(st.sampled_from(opened))) if opened else [])]))
    assert fold(written, asked, holds) == fold(opened, asked, holds)


def dull(each, opened, asked, holds):
    """State, owner and the act that ended it or waits, of one exception; ``waiver`` is what its flow was asked for."""
    state, owner, last, waiver = "open", each.owner, None, None
    hold = each.evidence[0].removeprefix("hold ") if each.kind == "hold_no_price" else None
    for act in asked:
        if act.subject_type == "exception" and act.subject_id == each.exception_id and state in ("open", "assigned"):
            if act.kind == "assign" and act.to is not None and (state, owner) != ("assigned", act.to):
                state, owner = "assigned", act.to
            elif act.kind == "accept" and each.kind == "late_usage" and waiver is None:
                waiver = act
            elif waiver is None and ((act.kind == "resolve" and hold is None) or (act.kind == "waive" and each.kind in ("usage_conflict", "late_usage"))):
                state, last = {"resolve": "resolved", "waive": "waived"}[act.kind], act
        elif act.subject_type == "hold" and act.kind == "waive" and act.subject_id == hold and waiver is None:
            known = act.exception_id in [o.exception_id for o in opened]
            about = act.exception_id if known else max((o.opened_at, o.exception_id) for o in opened if f"hold {hold}" in o.evidence)[1]
            if about == each.exception_id:
                waiver = act
    if hold in holds:
        what, at = holds[hold]
        if what == "waived":
            return "waived", owner, waiver
        if what == "released" or at > each.opened_at:
            return "resolved", owner, None
    return state, owner, last or waiver


@settings(deadline=None)
@given(exceptions(), acts, changes)
def test_the_queue_is_what_a_dull_reading_of_the_rules_gives(opened, asked, holds):
    for item in fold(opened, asked, holds).items.values():
        state, owner, last = dull(item.opened, opened, asked, holds)
        words = {"resolved": "the event was released", "waived": "the contract waives such usage"}.get(state)
        resolution = (f"{last.author}: {last.reason}" if last else words) if state in ("resolved", "waived") else None
        assert (item.state, item.owner, item.resolution) == (state, owner, resolution)
        assert item.asked == (last if state in ("open", "assigned") else None)


@settings(deadline=None)
@given(exceptions(), acts, changes)
def test_what_has_no_effect_changes_nothing_but_the_list_of_it(opened, asked, holds):
    queue = fold(opened, asked, holds)
    vain = [refused.act for refused in queue.refused]
    done = [act for item in queue.items.values() for act in item.acts]
    assert len(done) + len(vain) <= len(asked)
    again = fold(opened, [act for act in asked if act not in vain], holds)
    assert (again.items, again.refused) == (queue.items, [])
