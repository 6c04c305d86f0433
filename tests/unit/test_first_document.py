"""Documents that come first in several threads at once, as where a cell restores its partitions."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW = """
import threading
import time

from pydantic._internal import _dataclasses, _generate_schema
from tieout import contracts

CHARGE = {"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}}
failures = []

def slowly(make, name, seconds):
    def made(*arguments, **named):
        if threading.current_thread().name == name:
            time.sleep(seconds)
        return make(*arguments, **named)
    return made

schema = _generate_schema.GenerateSchema
schema.generate_schema = slowly(schema.generate_schema, "0", 1.5)
_dataclasses.SchemaSerializer = slowly(_dataclasses.SchemaSerializer, "1", 0.5)
_dataclasses.create_schema_validator = slowly(_dataclasses.create_schema_validator, "2", 0.7)

def first(number):
    time.sleep(0.25 * number)  # while one describes the document, another builds, and a third begins to build before that ends
    try:
        contracts.parse_charges([CHARGE])
    except BaseException as failure:
        failures.append(repr(failure))

threads = [threading.Thread(target=first, args=(number,), name=str(number)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
raise SystemExit("; ".join(failures) or 0)
"""


def test_first_documents_in_several_threads_are_read_as_one_after_the_other():
    answer = subprocess.run([sys.executable, "-c", SLOW], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
