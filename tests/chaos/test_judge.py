"""The judge and the campaign where no fault strikes: topics by hand, each with one thing that is right or wrong."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from flows import command_records, rescale, topics
from flows import token as tokens
from flows.token import Token
from tests.chaos import cells, judge, oracle
from tests.chaos.campaign import Campaign, Plan, Report, Stalled
from tests.chaos.observed import Record
from tieout import ticks
from tieout.usage_stage import Counts

MINUTE = oracle.micros("2025-03-01T00:00:00+00:00")
NOW = MINUTE // 1000 + 3_600_000
NONE = Counts().as_dict()


class Topics:
    """An installation of one partition, as a reader finds it."""

    partitions = 1

    def __init__(self, log=(), minutes=(), state=(), seen=()):
        commands = [command_records.record(ticks.command(minute))["value"][0].as_py() for minute in minutes]
        self._records = {
            judge.TOKEN: [Record(at, None, tokens.encode(token), [], 0) for at, token in enumerate(log)],
            topics.COMMANDS: [Record(at, None, value, [], NOW) for at, value in enumerate(commands)],
            judge.STATE: [Record(at, key, b"", [("n", str(at).encode())], 0) for at, key in state],
            judge.SEEN: [Record(at, b"seen", b"", [("n", str(at).encode())], 0) for at in seen],
        }

    def topic(self, topic, last=None, partitions=None):
        return [self._records.get(topic, [])]

    def ends(self, topic, partitions=None, *, committed=True):
        return {(topic, 0): len(self._records.get(topic, []))}

    def positions(self, group, topic):
        return [-1001]


def linked(log):
    """Tokens as one chain."""
    found = [Token("usage", 0, 0)]
    for token in log:
        made = replace(token, sequence=found[-1].sequence + 1, previous_chain=found[-1].chain)
        found.append(replace(made, chain=made.linked()))
    return found[1:]


def interval(clock=MINUTE, *, ticked=1, **figures):
    """The token of an interval in which no usage came."""
    positions = {topics.CONTRACTS: 0, topics.USAGE: 0} | ({judge.TICKS: ticked} if ticked else {})
    return Token("usage", 0, 0, positions=positions, clock=clock, counts=NONE | {"slices": 0}, totals=NONE | {"waiting": 0}, **figures)


def breaks(found):
    return [one.check for one in judge.judge(found, "group", [], []).breaks]


def test_a_partition_to_which_nothing_ever_came_is_exact():
    assert not breaks(Topics())


def test_a_partition_that_was_told_a_new_generation_and_to_which_nothing_ever_came_is_exact():
    assert not breaks(Topics([rescale._following(Token("usage", 0, 0), 2, 3)]))


def test_a_partition_that_only_ticked_is_exact_and_its_clock_is_held_against_the_tick():
    assert not breaks(Topics(linked([interval()]), [MINUTE]))
    assert breaks(Topics(linked([interval(MINUTE + 1)]), [MINUTE])) == ["clock"]
    assert breaks(Topics(linked([interval(ticked=0)]), [MINUTE])) == ["clock"]


def test_a_token_that_names_a_tick_that_is_not_there_is_told():
    assert breaks(Topics(linked([interval(ticked=2)]), [MINUTE])) == ["ticks"]


def test_a_commit_of_a_generation_that_is_over_is_told():
    assert not breaks(Topics(linked([interval(generation=2), interval(generation=3)]), [MINUTE]))
    assert breaks(Topics(linked([interval(generation=3), interval(generation=2)]), [MINUTE])) == ["generation"]


def test_a_minute_that_stands_twice_is_told():
    assert breaks(Topics(linked([interval()]), [MINUTE, MINUTE])) == ["ticks"]


@pytest.mark.parametrize(("kept", "told"), [([], True), ([(2, b"levels")], True), ([(2, b"full")], False), ([(0, b"levels"), (1, b"held"), (2, b"full")], False), ([(1, b"held"), (2, b"full")], False), ([(1, b"full"), (2, b"held")], False)])
def test_state_that_is_gone_without_a_full_one_in_its_place_is_told(kept, told):
    found = breaks(Topics(linked([interval(written={judge.STATE: 3})]), [MINUTE], state=kept))
    assert ("deleted" in found) is told


@pytest.mark.parametrize(("days", "told"), [(35, True), (37, False)])
def test_identities_are_gone_only_where_nobody_can_ask_for_them_any_more(days, told):
    older = interval(MINUTE - days * oracle.DAY, written={judge.SEEN: 1})
    log = linked([older, replace(interval(written={judge.SEEN: 2}), positions=older.positions | {judge.TICKS: 2})])
    found = breaks(Topics(log, [MINUTE - days * oracle.DAY, MINUTE], seen=[1]))
    assert ("deleted" in found) is told
    assert "deleted" in breaks(Topics(log, [MINUTE - days * oracle.DAY, MINUTE]))


class Ended:
    """A ticker that ended by itself."""

    ended_by_itself = True

    def __init__(self, words, *, troubled):
        self.words, self.troubled, self.fenced = words, troubled, cells.FENCED in words


def campaign_with(life):
    run = object.__new__(Campaign)
    run.report, run.feeder, run.plan, run._in_trouble = Report(Plan(1)), SimpleNamespace(sent=0), Plan(1), False
    started = []
    run.ticker = SimpleNamespace(life=life, tell=lambda _: None, start=lambda **how: started.append(how))
    return run, started


def test_a_ticker_that_the_broker_has_fenced_is_started_again():
    run, started = campaign_with(Ended(cells.FENCED, troubled=True))
    run._tend_the_ticker()
    assert started == [{"troubled": False}]
    assert not run.report.breaks
    assert run.report.hits == {"ticker fenced by a timeout": 1}


def test_a_ticker_that_only_kills_have_struck_has_no_reason_to_end_fenced():
    run, started = campaign_with(Ended(cells.FENCED, troubled=False))
    run._tend_the_ticker()
    assert started
    assert [found.check for found in run.report.breaks] == ["fence"]


def test_a_ticker_that_ends_otherwise_ends_the_campaign():
    run, _ = campaign_with(Ended("Traceback", troubled=True))
    with pytest.raises(Stalled, match="Traceback"):
        run._tend_the_ticker()


def test_a_cell_that_does_not_say_what_it_knows_is_not_taken_to_be_behind():
    run, log = object.__new__(Campaign), linked([interval()])
    run.reader = Topics(log)
    partition = {"partition": 0, "sequence": 0, "restored": True}
    told = lambda found: SimpleNamespace(health=lambda: found)
    assert not run.ahead_of(told(None))
    assert run.ahead_of(told({"partitions": [partition]}))
    assert not run.ahead_of(told({"partitions": [partition | {"sequence": 1}]}))
    assert not run.ahead_of(told({"partitions": [partition | {"restored": False}]}))


class Hanging:
    """A cell that does not end when it is told to, and whose loop does not turn."""

    ordinal, number, was_live, fenced, words = 0, 1, True, False, "Fatal Python error: Aborted"
    process = SimpleNamespace(returncode=-6)

    def __init__(self, *, troubled):
        self.troubled, self.ended = troubled, False

    def health(self):
        return {"live": False, "live_reasons": ["the loop has not turned"]}

    def abort(self):
        self.ended = True


@pytest.mark.parametrize("troubled", [True, False])
def test_a_cell_that_hangs_when_it_is_told_to_stop_is_killed_and_a_break_only_where_nothing_but_kills_struck(troubled):
    run, cell = object.__new__(Campaign), Hanging(troubled=troubled)
    run.report, run.plan, run.running, run.expected = Report(Plan(1)), Plan(1), {0: cell}, {1: "stopped"}
    run._wait_for_the_end([cell])
    assert cell.ended
    assert run.report.hits == {"restarted by its liveness": 1}
    assert [found.check for found in run.report.breaks] == ([] if troubled else ["hang"])
