"""``tieout demo``: seeded telemetry through the usage flow on the Bytewax engine, proved, with a report.

What exists of the chain: usage events and contracts to exact rated usage. Run again, it finds everything done.
"""

import argparse
from pathlib import Path

from flows import output
from flows.cli import DIFFERENCES, DONE, CommandError
from flows.commands.generate import write_contracts, write_usage
from flows.commands.run import run_usage
from flows.commands.summary import report_of, totals
from flows.file_place import FilePlace
from flows.generate import Shares
from flows.report import render
from flows.verification import verify

CUSTOMERS = 60
PARTITIONS = 4


def run(options: argparse.Namespace) -> int:
    """Generate, run, prove, report."""
    root = Path(options.dir) / f"seed-{options.seed}-{options.events}"
    output.say(f"telemetry: {options.events:,} usage events of {CUSTOMERS} customers, seed {options.seed}, in {root}")
    write_contracts(root, options.seed, CUSTOMERS, PARTITIONS)
    expected = write_usage(root, options.seed, options.events, CUSTOMERS, PARTITIONS, Shares())
    cells, seconds = run_usage(root, PARTITIONS, "bytewax")
    tokens = [cell.token for cell in cells]
    output.show(totals(tokens), options.output, "usage flow on Bytewax")
    proofs = [row for partition in range(PARTITIONS) if (row := verify(FilePlace(root), partition)) is not None]
    output.show(proofs, options.output, "proof")
    page = root / "report.html"
    try:
        page.write_text(render(report_of(root, tokens, seconds)))
    except OSError as error:
        msg = f"{page}: cannot be written ({error.strerror}); make the folder writable"
        raise CommandError(msg) from error
    output.say(f"report with pictures: {page}")
    for cell in cells:
        cell.close()
    counted = {name: sum(token.totals[name] for token in tokens) for name in expected}
    if counted != expected or any(row["breaks"] for row in proofs):
        output.say(f"differences: the generator expects {expected}, the flow counted {counted}")
        return DIFFERENCES
    output.say("every fate is what the generator expects, every digest and the chain tie out")
    return DONE
