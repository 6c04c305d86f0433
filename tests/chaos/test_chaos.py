"""The campaign, short: ten kills and a broker that dies, judged by its own oracle; and some seeded bugs that it catches.

``TIEOUT_SEED`` chooses another campaign. The whole of it is ``make chaos``.
"""

import os
from contextlib import ExitStack

import pytest

from tests.chaos import bugs
from tests.chaos.__main__ import account, campaign, stack_of
from tests.chaos.campaign import Plan, quiet

SEED = int(os.environ.get("TIEOUT_SEED", "1"))
SHORT = quiet(Plan(SEED, events=30_000, partitions=6, customers=150))._replace(kills=10, broker_faults=1, take_overs=1, tickers=1)


@pytest.mark.kill
def test_ten_kills_and_a_dead_broker_lose_double_and_misprice_nothing(tmp_path):
    report = campaign(SHORT, tmp_path)
    assert not report.breaks, account(report, tmp_path)
    assert report.kills >= 10
    assert report.hits["broker killed"] == report.hits["take-over"] == report.hits["ticker killed"] == 1
    assert report.figures["ticks"] > report.figures["intervals that a tick moved"] / SHORT.partitions > 1
    assert report.figures["received"] == SHORT.events
    assert min(report.figures[fate] for fate in ("priced", "duplicate", "conflict", "rejected", "held", "released", "waiting")) > 0


@pytest.mark.kill
@pytest.mark.parametrize("bug", ["commit_before_produce", "restore_before_fence", "dedup_by_day"])
def test_the_campaign_catches(bug, tmp_path):
    with ExitStack() as stack:
        broker, _ = stack_of(stack, tmp_path, 0, network=False)
        found = bugs.caught(bug, broker, (), tmp_path / "cells", SEED)
    assert found is not None
    print(found)
