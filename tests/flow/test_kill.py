"""Kill -9 at random instants: what is committed is exact, nothing twice, nothing missing.

``TIEOUT_KILLS`` sets the number of kills (6 here; ``make chaos`` uses 50 for each engine).
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows import local_engine, rated_runs, usage
from flows.file_place import FilePlace
from flows.verification import verify
from tests.flow import folders

KILLS = int(os.environ.get("TIEOUT_KILLS", "6"))
SEED = int(os.environ.get("TIEOUT_SEED", "1"))
CODE = """
import sys
from pathlib import Path
from flows import {engine}, rated_runs, usage
from flows.file_place import FilePlace
rated_runs.SLICE_ROWS = 250
print("fence", flush=True)
pipeline = usage.pipeline(FilePlace(Path(sys.argv[1])), range(2), rows=200)
print("run", flush=True)
{engine}.run(pipeline)
"""


@pytest.fixture(scope="module")
def work():
    contracts = [folders.contract(f"k{i}") for i in range(12)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in range(0, 12, 2)]
    return folders.events(11, 20_000, 12), contracts


@pytest.mark.kill
@pytest.mark.parametrize("engine", ["local_engine", "bytewax_engine"])
def test_a_killed_run_started_again_equals_one_that_never_died(tmp_path, work, engine):
    folders.write(tmp_path / "whole", *work, poison_every=501)
    local_engine.run(usage.pipeline(FilePlace(tmp_path / "whole"), range(2), rows=200))
    rnd = random.Random(f"{engine} {SEED}")
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        root = tmp_path / f"killed-{runs}"
        folders.write(root, *work, poison_every=501)
        while kills < KILLS and _killed(root, engine, rnd):
            kills += 1
        _start(root, engine).communicate()
        _same(root, tmp_path / "whole")
    print(f"{engine}: {kills} kills in {runs} runs, seed {SEED}")


@pytest.mark.kill
def test_a_run_killed_while_it_prices_the_past_again_equals_one_that_never_died(tmp_path, work, monkeypatch):
    """Every kind of charge, priced under versions 1 and 2 before versions from long ago come: dearer ones, and an end of the contract."""
    monkeypatch.setattr(rated_runs, "SLICE_ROWS", 250)
    usage_, contracts = work
    base = tmp_path / "base"
    folders.write(base, usage_[:12_000], contracts, poison_every=501)
    _run_whole(base)
    dearer = [charge | {"discount_percent": "12.5", "included_quantity": "3"} for charge in folders.CHARGES]
    late = [folders.contract(f"k{i}", 2 + (i + 1) % 2, "2026-01-05T00:00:00Z") | {"charges": dearer} for i in range(6)]
    late.append(folders.contract("k7", 2, "2026-01-04T00:00:00Z") | {"status": "terminated"})
    rest = [event | {"time": "2026-02-01T00:00:00Z"} for event in usage_[12_000:13_000]]
    shutil.copytree(base, tmp_path / "whole")
    folders.write(tmp_path / "whole", rest, late)
    _run_whole(tmp_path / "whole")
    moved = [row for row in folders.rated(tmp_path / "whole") if row["cause"]["kind"] == "reprice"]
    assert len({row["charge_id"] for row in moved}) == len(folders.CHARGES)
    rnd = random.Random(f"again {SEED}")
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        root = tmp_path / f"killed-{runs}"
        shutil.copytree(base, root)
        folders.write(root, rest, late)
        while kills < KILLS and _killed(root, "local_engine", rnd):
            kills += 1
        _start(root, "local_engine").communicate()
        _same(root, tmp_path / "whole")
    print(f"{kills} kills in {runs} runs of {len(moved)} moves, seed {SEED}")


def _run_whole(root: Path) -> None:
    pipeline = usage.pipeline(FilePlace(root), range(2), rows=200)
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()


def _same(killed: Path, whole: Path) -> None:
    for topic in ("usage.rated.v1", "usage.hold.v1", usage.DEAD, "finance.exception.v1", usage.TOKEN):
        assert folders.output(killed, topic=topic) == folders.output(whole, topic=topic), f"{topic}, seed {SEED}: TIEOUT_SEED={SEED} make chaos"
    ids = [row["rated_id"] for row in folders.rated(killed)]
    assert len(ids) == len(set(ids)) > 0
    assert all(verify(FilePlace(killed), partition)["breaks"] == [] for partition in range(2))


def _start(root: Path, engine: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CODE.format(engine=engine), str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _killed(root: Path, engine: str, rnd: random.Random) -> bool:
    """Kill a run: at any time at all, in the fence and restore, or among the commits; False where it ended first."""
    process = _start(root, engine)
    aim = rnd.choice(["any", "restore", "commit", "commit"])
    if aim == "any":
        time.sleep(rnd.uniform(0, 1.2))
    else:
        for line in process.stdout:
            if line.strip() == (b"fence" if aim == "restore" else b"run"):
                break
        time.sleep(rnd.uniform(0, 0.1 if aim == "restore" else 0.4))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True
