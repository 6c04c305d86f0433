"""Documents that come first in several threads at once, as where a cell restores its partitions."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOGETHER = """
import sys
import threading

from tieout import whole_contracts

CHARGE = {"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}}
together, read, failures = threading.Barrier(8), [], []
sys.setswitchinterval(1e-5)

def first():
    together.wait()
    try:
        read.extend(whole_contracts.charges([CHARGE]))
    except BaseException as failure:
        failures.append(repr(failure))

threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert read == read[:1] * 8, failures
"""


def test_first_documents_in_several_threads_are_all_read():
    answer = subprocess.run([sys.executable, "-c", TOGETHER], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
