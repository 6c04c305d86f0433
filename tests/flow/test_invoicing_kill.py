"""Kill -9 at random instants while invoices are made: the bytes of a run that never died.

``TIEOUT_KILLS`` sets the number of kills (6 here), ``TIEOUT_SEED`` what happens when.
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

from flows import invoicing, local_engine, topics
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import folders, invoicing_folders
from tests.flow.governed_folders import know, reference
from tests.flow.test_invoicing_flow import RATE, TAXED

KILLS = int(os.environ.get("TIEOUT_KILLS", "6"))
SEED = int(os.environ.get("TIEOUT_SEED", "1"))
PARTITIONS = 2
CODE = """
import sys
from pathlib import Path
from flows import {engine}, invoicing
from flows.file_place import FilePlace
invoicing.SLACK = 30_000
print("fence", flush=True)
cells = {{n: invoicing.InvoicingCell.start(FilePlace(Path(sys.argv[1])), n, closes=2) for n in range(2)}}
print("run", flush=True)
{engine}.run(invoicing.pipeline(cells, rows=40))
"""


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    """Rated usage of a quarter, late usage, held usage that times out, a customer whose tax is not known, prepaid credits."""
    root = tmp_path_factory.mktemp("priced") / "data"
    credit = {"credits": [{"grant_id": "g", "amount": "30.00", "priority": 1, "kind": "granted", "effective_from": "2026-01-10T00:00:00Z", "expires_at": "2026-02-10T00:00:00Z"}]}
    contracts = [folders.contract(f"k{i}") | {"charges": sold(folders.CHARGES)} | (credit if i % 3 == 0 else {}) for i in range(12)]
    contracts += [invoicing_folders.contract(f"m{i}", charges=sold(invoicing_folders.SIMPLE), billing={"thresholds": ["1"], "grace_hours": i}) for i in range(20)]
    rnd = random.Random(5)
    usage_ = folders.events(7, 1500, 12)
    for day in range(1, 80):
        stamp = f"2026-{1 + (day > 31) + (day > 59):02d}-{day - 31 * (day > 31) - 28 * (day > 59):02d}T00:00:00Z"
        usage_ += [invoicing_folders.event(f"m{n}", f"{day}", stamp, str(rnd.randrange(1, 90)), meter=rnd.choice(["calls"] * 30 + ["stored"])) for n in range(20)]
        usage_ += [invoicing_folders.event(f"m{n}", f"late {day}", f"2026-{1 + (day > 59):02d}-15T00:00:00Z") for n in range(0, 20, 5) if day > 31]
    folders.write(root, usage_, contracts)
    taxed = [reference("customer", name, {"tax_jurisdiction": "DE"}) for name in (*(f"k{i}" for i in range(11)), *(f"m{i}" for i in range(18)))]
    know(root, *taxed, *TAXED[1:], RATE)
    invoicing_folders.price(root)
    return root


def sold(charges):
    return [charge | {"product_id": "llm"} for charge in charges]


@pytest.mark.kill
@pytest.mark.parametrize("engine", ["local_engine", "bytewax_engine"])
def test_a_killed_run_started_again_equals_one_that_never_died(tmp_path, priced, engine, monkeypatch):
    monkeypatch.setattr(invoicing, "SLACK", 30_000)
    whole = tmp_path / "whole"
    shutil.copytree(priced, whole)
    cells = {n: invoicing.InvoicingCell.start(FilePlace(whole), n, closes=2) for n in range(PARTITIONS)}
    local_engine.run(invoicing.pipeline(cells, rows=40))
    tokens = [cell.token for cell in cells.values()]
    for cell in cells.values():
        cell.close()
    assert all(token.totals["invoices"] > 30 and token.totals["early"] > 5 and token.totals["line_delta"] > 5 for token in tokens), tokens
    rnd = random.Random(f"{engine} {SEED}")
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        root = tmp_path / f"killed-{runs}"
        shutil.copytree(priced, root)
        while kills < KILLS and _killed(root, engine, rnd):
            kills += 1
        _start(root, engine).communicate()
        for topic in (topics.INVOICES, topics.EXCEPTIONS, invoicing.TOKEN):
            assert folders.output(root, topic=topic) == folders.output(whole, topic=topic), f"{topic}, TIEOUT_SEED={SEED}"
        assert all(verify_invoicing(FilePlace(root), partition)["breaks"] == [] for partition in range(PARTITIONS))
    names = [one.invoice_id for one in invoicing_folders.invoices(whole)]
    assert len(names) == len(set(names)) == sum(token.totals["invoices"] + token.totals.get("credit_notes", 0) for token in tokens)
    print(f"{engine}: {kills} kills in {runs} runs, {len(names)} documents, {sum(token.sequence for token in tokens)} intervals, seed {SEED}")


def _start(root: Path, engine: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CODE.format(engine=engine), str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _killed(root: Path, engine: str, rnd: random.Random) -> bool:
    """Kill a run in its fence and restore, or among its commits; False where it ended first."""
    process = _start(root, engine)
    at = rnd.choice(["restore", "commit", "commit", "commit"])
    for line in process.stdout:
        if line.strip() == (b"fence" if at == "restore" else b"run"):
            break
    time.sleep(rnd.uniform(0, 0.1 if at == "restore" else 0.8))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True
