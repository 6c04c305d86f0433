"""The usage flow over a folder: CPU-seconds per million events and peak memory, each run in a process of its own.

``python -m benchmarks.usage_flow`` makes seeded folders of growing size; with ``--dump FILE --schemas DIR`` it takes
the reference workload's dump instead. The contracts' compilation is told apart from the events, because it is paid
once a start and not once an event.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import workload
from flows.commands.generate import write_contracts, write_usage
from flows.generate import Shares

RUN = """
import json, sys, time
from pathlib import Path
from flows import {engine}, usage
from flows.file_place import FilePlace
from tieout.rating.tariff import Tariffs
from tieout.contracts import parse_contract
contracts = [0.0]
def timed(function):
    def inner(*arguments):
        before = time.process_time()
        try:
            return function(*arguments)
        finally:
            contracts[0] += time.process_time() - before
    return inner
Tariffs.take = timed(Tariffs.take)
usage.UsageFold.versions = timed(usage.UsageFold.versions)
before = time.process_time()
pipeline = usage.pipeline(FilePlace(Path(sys.argv[1])), range(int(sys.argv[2])))
{engine}.run(pipeline)
cpu = time.process_time() - before
print(json.dumps({{"cpu": cpu, "contracts": contracts[0], "peak_mb": int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1]) / 1024,
    "events": sum(cell.token.totals["received"] for cell in pipeline.cells.values())}}))
"""
PARTITIONS = 4


def main() -> None:
    """Print a row for each folder and engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dump", type=Path, help="the reference workload's dump")
    parser.add_argument("--schemas", type=Path, help="the folder of its writer schemas")
    parser.add_argument("--sizes", default="100000,1000000", help="sizes of the seeded folders")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    print(f"{'input':>22} {'engine':>8} {'events':>10} {'CPU-s/M':>8} {'of it contracts':>16} {'events only/M':>14} {'peak MB':>8}")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "topics"
        if options.dump:
            workload.convert(options.dump, options.schemas, root, PARTITIONS)
            _measure("reference workload", root)
        for size in () if options.dump else map(int, options.sizes.split(",")):
            write_contracts(root, 1, 200, PARTITIONS)
            write_usage(root, 1, size, 200, PARTITIONS, Shares())
            _measure(f"seeded {size}", root)
            shutil.rmtree(root)


def _measure(label: str, root: Path) -> None:
    for engine in ("local_engine", "bytewax_engine"):
        shutil.rmtree(root / "usage", ignore_errors=True)
        code = RUN.format(engine=engine)
        out = subprocess.run([sys.executable, "-c", code, str(root), str(PARTITIONS)], capture_output=True, text=True, check=True).stdout
        figures = json.loads(out.splitlines()[-1])
        millions = figures["events"] / 1_000_000
        print(
            f"{label:>22} {engine.partition('_')[0]:>8} {figures['events']:>10,} {figures['cpu'] / millions:>8.2f} "
            f"{figures['contracts']:>14.2f} s {(figures['cpu'] - figures['contracts']) / millions:>14.2f} {figures['peak_mb']:>8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
