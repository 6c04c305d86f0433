"""Random histories of contracts: what is published does not depend on the order of arrival, nor on where a run was cut.

The oracle paints the days of a contract one by one and looks at them; it shares no code with the rules.
"""

from dataclasses import replace
from datetime import date, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from flows import contract_outputs, signing
from tests import governed
from tests.governed import book, decide, document, propose, received
from tieout.lifecycle import Lifecycle, Result

DAYS = 12
KINDS = ("new", "amendment", "renewal", "credit", "suspension", "resumption", "termination")
FIRST = date(2026, 2, 1)


def day(number):
    return f"{FIRST + timedelta(days=number)}T00:00:00Z"


spans = st.tuples(st.integers(0, DAYS - 1), st.one_of(st.none(), st.integers(1, DAYS)))
later = st.tuples(st.sampled_from(KINDS[1:]), spans)
first = st.tuples(st.just("new"), st.tuples(st.integers(0, 3), st.none() | st.integers(6, DAYS)))
anything = st.tuples(st.sampled_from(KINDS), spans)
histories = st.lists(st.tuples(first | anything, st.lists(later | anything, max_size=6)).map(lambda parts: [parts[0], *parts[1]]), min_size=1, max_size=4)


def documents(histories_):
    """The versions of all contracts, in their orderly order."""
    found = []
    for contract, history in enumerate(histories_):
        for number, (kind, (start, end)) in enumerate(history, 1):
            stop = {} if end is None else {"effective_to": day(end)}
            found.append(document(number, kind, contract_id=f"c-{contract}", customer_id=f"k{contract % 2}", effective_from=day(start), **stop))
    return found


def oracle(history):
    """The states of the versions that are published: until one does not fit."""
    painted = [None] * (DAYS + 1)
    states = []
    for number, (kind, (start, end)) in enumerate(history, 1):
        stop = DAYS + 1 if end is None else end
        covered = range(start, stop)
        if not covered:
            return states
        seen = {painted[at] for at in covered} - {None}
        if (number == 1) != (kind == "new"):
            return states
        if kind == "new":
            state = "active"
        elif kind in ("amendment", "renewal", "credit"):
            if len(seen) > 1 or (seen == {"terminated"} and kind != "credit"):
                return states
            state = seen.pop() if seen else "active"
        elif kind == "suspension":
            if painted[start] != "active" or seen != {"active"}:
                return states
            state = "suspended"
        elif kind == "resumption":
            if painted[start] != "suspended" or "terminated" in seen:
                return states
            state = "active"
        else:
            if end is not None or painted[start] not in ("active", "suspended"):
                return states
            state = "terminated"
        states.append(state)
        for at in covered:
            painted[at] = state
    return states


def orderly(histories_):
    """Each proposal and then its approval, version by version."""
    proposals = [propose(given_) for given_ in documents(histories_)]
    return [command for proposal in proposals for command in (proposal, decide(proposal))]


def run(commands):
    fold = Lifecycle(signing.verify)
    return fold.step(received(commands), book())


def contents(result):
    """What was published, by contract and number, apart from when it was recorded."""
    return sorted((version.contract_id, version.version, replace(version, recorded_at=None)) for version in result.published)


def texts(result):
    """Who would have to see which problem of which proposal."""
    return {(one.received.command.subject_id, problem.code) for one in result.refused if one.kind == "proposal_refused" for problem in one.problems}


@settings(max_examples=200, deadline=None)
@given(histories)
def test_the_orderly_history_publishes_what_the_oracle_says(history):
    result = run(orderly(history))
    found = {}
    for version in result.published:
        found.setdefault(version.contract_id, []).append((version.version, version.status))
    for contract, one in enumerate(history):
        assert found.get(f"c-{contract}", []) == list(enumerate(oracle(one), 1))


@settings(max_examples=200, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_any_order_of_arrival_publishes_the_same_versions_and_tells_the_same_refusals(history, rnd):
    commands = orderly(history)
    expected = run(commands)
    rnd.shuffle(commands)
    result = run(commands)
    assert contents(result) == contents(expected)
    assert texts(result) == texts(expected)


def bytes_of(results, reference_partitions=3):
    """What is written to each partition over all intervals."""
    found = {}
    for result in results:
        for name, batch in contract_outputs.outputs(result, reference_partitions).items():
            found.setdefault(name, []).extend(batch.to_pylist())
    return found


@settings(max_examples=100, deadline=None)
@given(histories, st.randoms(use_true_random=False), st.lists(st.integers(0, 60), max_size=4))
def test_a_run_that_is_cut_and_folded_again_writes_the_same_bytes(history, rnd, cuts):
    commands = orderly(history)
    rnd.shuffle(commands)
    log = received(commands)
    whole = bytes_of([Lifecycle(signing.verify).step(log, book())])
    written, bounds = [], [0, *sorted({min(cut, len(log)) for cut in cuts}), len(log)]
    for start, end in zip(bounds, bounds[1:], strict=False):
        fold = Lifecycle(signing.verify)
        fold.step(log[:start], book())  # what a restart does
        written.append(fold.step(log[start:end], book()))
    assert bytes_of(written) == whole


@settings(max_examples=50, deadline=None)
@given(histories, st.randoms(use_true_random=False))
def test_commands_that_are_sent_again_change_nothing(history, rnd):
    """Each good command twice, anywhere: nothing more is published, and nothing that was good is refused."""
    good = [one[: len(oracle(one))] for one in history]
    commands = orderly([one for one in good if one])
    twice = [*commands, *commands]
    rnd.shuffle(twice)
    result = run(twice)
    assert contents(result) == contents(run(commands))
    assert (result.counts["accepted"], result.counts["repeated"], result.told) == (len(commands), len(commands), [])


def test_the_oracle_refuses_and_takes():
    assert oracle([("new", (0, None)), ("suspension", (3, 5)), ("resumption", (4, None)), ("termination", (6, None)), ("amendment", (8, 9))]) == ["active", "suspended", "active", "terminated"]
    assert Result().counts["received"] == 0 and governed.START
