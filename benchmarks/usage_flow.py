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
from benchmarks.memory import resident
from flows import {engine}, usage, usage_records
from flows.file_place import FileLog, FilePlace
from tieout.dedup import Seen
from tieout.usage_stage import UsageState
stages = dict.fromkeys(("contracts", "read", "decode", "fold", "dedup", "encode", "commit"), 0.0)
inside = []
def timed(name, owner, attribute):
    function = getattr(owner, attribute)
    def inner(*arguments, **named):
        before, nested = time.process_time(), len(inside)
        inside.append(0.0)
        try:
            return function(*arguments, **named)
        finally:
            spent = time.process_time() - before
            stages[name] += spent - inside.pop()
            if inside:
                inside[-1] += spent
    setattr(owner, attribute, inner)
timed("contracts", UsageState, "take")
timed("read", usage.UsageSource, "poll")
timed("decode", usage, "prepare")
timed("fold", usage.UsageFold, "step")
timed("dedup", Seen, "judge")
timed("encode", usage_records, "outputs")
timed("commit", FileLog, "commit")
before = time.process_time()
pipeline = usage.pipeline(FilePlace(Path(sys.argv[1])), range(int(sys.argv[2])))
{engine}.run(pipeline)
cpu = time.process_time() - before
print(json.dumps({{"cpu": cpu, "stages": stages, "peak_mb": resident("VmHWM"),
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
    print(f"{'input':>22} {'engine':>8} {'events':>10} {'CPU-s/M':>8} {'contracts s':>12} {'events only/M':>14} {'peak MB':>8}   stages, CPU-s/M (dedup is part of the whole, not of fold)")
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
        millions, stages = figures["events"] / 1_000_000, figures["stages"]
        contracts = stages.pop("contracts")
        told = " ".join(f"{name} {seconds / millions:.2f}" for name, seconds in stages.items())
        print(
            f"{label:>22} {engine.partition('_')[0]:>8} {figures['events']:>10,} {figures['cpu'] / millions:>8.2f} "
            f"{contracts:>12.2f} {(figures['cpu'] - contracts) / millions:>14.2f} {figures['peak_mb']:>8.0f}   {told}",
            flush=True,
        )
    out = subprocess.run([sys.executable, "-m", "benchmarks.row_by_row", str(root)], capture_output=True, text=True, check=True).stdout
    beside = json.loads(out)
    print(f"{label:>22} beside it, of {beside['events']:,} events: row by row {beside['row by row']:.1f}, the tests' oracle {beside['oracle']:.1f} CPU-s/M", flush=True)


if __name__ == "__main__":
    main()
