"""``tieout run``: one flow over a folder, on the engine asked for, until its input is read."""

import argparse
import time
from pathlib import Path
from typing import Any

from flows import bytewax_engine, local_engine, output, usage
from flows.commands import files
from flows.commands.summary import report_of
from flows.file_place import FilePlace
from flows.report import render
from flows.token import Token
from flows.usage import UsageCell, UsageSource


def run(options: argparse.Namespace) -> int:
    """Run and print what it came to."""
    root, partitions = files.folder(options.dir)
    cells, seconds = run_usage(root, partitions, options.engine)
    output.show(totals([cell.token for cell in cells]), options.output, "usage flow, since the start")
    if options.report:
        Path(options.report).write_text(render(report_of(root, [cell.token for cell in cells], seconds)))
        output.say(f"report: {options.report}")
    for cell in cells:
        cell.close()
    return 0


def run_usage(root: Path, partitions: int, engine: str) -> tuple[list[UsageCell], float]:
    """Run the usage flow to the end of its input; its cells (still holding their partitions) and the CPU seconds."""
    before = time.process_time()
    pipeline = usage.pipeline(FilePlace(root), range(partitions))
    cells: list[UsageCell] = [cell for cell in pipeline.cells.values() if isinstance(cell, UsageCell)]
    left = sum(source.left for source in pipeline.sources.values() if isinstance(source, UsageSource))
    with output.Bar("usage", left) as bar:
        for cell in cells:
            cell.on_commit = lambda token: bar.advance(token.counts["received"])
        (bytewax_engine if engine == "bytewax" else local_engine).run(pipeline)
    return cells, time.process_time() - before


def totals(tokens: list[Token]) -> list[dict[str, Any]]:
    """Fates over all partitions, and rated money by currency."""
    names = ("received", "priced", "duplicate", "conflict", "rejected", "waiting")
    rows: list[dict[str, Any]] = [{"figure": name, "value": sum(t.totals.get(name, 0) for t in tokens)} for name in names]
    rows += [{"figure": f"rated {currency}", "value": format(amount, "f")} for currency, amount in sorted(usage.amounts_of(tokens).items())]
    return rows
