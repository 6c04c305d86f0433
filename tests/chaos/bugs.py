"""``python -m tests.chaos.bugs``: seeded bugs, each run through a small campaign that must catch it.

Each campaign strikes with the faults that its bug needs, and the same campaign without the bug must be exact: what is
caught is the bug. Out: a table of bugs with the checks that caught them; exit code 1 where one was not caught.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tests.chaos import faults
from tests.chaos.__main__ import stack_of
from tests.chaos.bugged import BUGS
from tests.chaos.campaign import Campaign, Plan, quiet
from tests.chaos.input import Shares

SMALL = quiet(Plan(seed=1, events=5000, partitions=4, cells=2, customers=60, rows=60, stall_seconds=60, full_states=0, aims=(faults.uniform,)))
KILLED = SMALL._replace(kills=4)
IN_COMMIT = SMALL._replace(kills=6, aims=(faults.in_commit,))
REPLACED = SMALL._replace(take_overs=3)
UNANSWERED = SMALL._replace(unanswered=2, stall_seconds=200)
VOIDED = KILLED._replace(shares=Shares(correction=0.08, void=0.08))

class Seeded(NamedTuple):
    """A campaign for a bug, and the checks of which one at least must catch it; ``exit``: the product refuses to go on."""

    plan: Plan
    checks: set


SEEDED = {
    "commit_before_produce": Seeded(IN_COMMIT, {"exit", "written", "lost"}),
    "produce_before_commit": Seeded(IN_COMMIT, {"doubled"}),
    "token_not_read": Seeded(KILLED, {"doubled"}),
    "restore_before_fence": Seeded(REPLACED, {"exit", "doubled", "chain"}),
    "fence_per_process": Seeded(REPLACED, {"exit", "doubled", "chain", "fence"}),
    "producer_reused": Seeded(UNANSWERED, {"exit", "doubled", "chain"}),
    "dedup_by_day": Seeded(SMALL, {"doubled", "fates"}),
    "seen_not_restored": Seeded(KILLED, {"exit", "doubled", "fates"}),
    "float_price": Seeded(SMALL, {"mispriced"}),
    "lost_held": Seeded(SMALL, {"lost", "holds"}),
    "row_shifted_after_poison": Seeded(SMALL, {"mispriced", "quantity"}),
    "full_state_of_another_instant": Seeded(KILLED, {"exit", "mispriced"}),
    "too_late_dropped": Seeded(SMALL, {"dead letters", "fates"}),
    "clock_not_restored": Seeded(KILLED._replace(kills=12, shares=Shares(late=0.05)), {"clock", "fates"}),
    "void_not_restored": Seeded(VOIDED, {"mispriced", "fates"}),
}
TRIES = 3
"""A fault may miss its instant; each try has another seed."""


class Caught(NamedTuple):
    bug: str
    tries: int
    checks: Counter
    example: str


def caught(bug, broker, ways, folder, seed=1):
    """How a bug was caught, None where it was not."""
    for number in range(1, TRIES + 1):
        plan, checks = SEEDED[bug].plan._replace(seed=seed + number - 1), SEEDED[bug].checks
        report = run(plan, broker, ways, folder / f"{bug}-{number}", ("-m", "tests.chaos.bugged", bug))
        breaks = sorted(report.breaks, key=lambda found: found.check not in checks)
        if breaks and breaks[0].check in checks:
            return Caught(bug, number, Counter(found.check for found in breaks), breaks[0].detail)
    return None


def run(plan, broker, ways, folder, command=None):
    """A small campaign on a broker that is there."""
    folder.mkdir(parents=True)
    options = {} if command is None else {"command": command}
    return Campaign(plan, folder, broker, ways=ways[: plan.cells] if plan.network else (), told=lambda _: None, **options).run()


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.bugs", description="Seeded bugs that the campaign must catch.")
    parser.add_argument("bugs", nargs="*", default=list(BUGS), help="which (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-control", action="store_true", help="leave out the same campaigns without the bug")
    options = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="tieout-bugs-"))
    missed = []
    with ExitStack() as stack:
        broker, ways = stack_of(stack, folder, 2, network=True)
        for plan in () if options.no_control else dict.fromkeys(SEEDED[bug].plan for bug in options.bugs):
            report = run(plan._replace(seed=options.seed), broker, ways, folder / f"control-{len(list(folder.iterdir()))}")
            print(f"without a bug: {'exact' if not report.breaks else f'NOT EXACT: {report.breaks}'} ({dict(report.hits)}, {report.seconds:.0f} s)", flush=True)
            missed += ["control"] if report.breaks else []
        for bug in options.bugs:
            found = caught(bug, broker, ways, folder, options.seed)
            missed += [] if found else [bug]
            how = f"caught at try {found.tries} by {', '.join(found.checks)}: {found.example[:160]}" if found else "NOT CAUGHT"
            print(f"{bug}: {how}", flush=True)
    if not missed:
        shutil.rmtree(folder)
    print(f"{len(options.bugs) - len(set(missed) - {'control'})} of {len(options.bugs)} seeded bugs caught; seed {options.seed}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
