"""``tieout demo``: seeded telemetry through the chain on the Bytewax engine, proved, with a report and a page of invoices.

What exists of the chain: usage events and contracts to exact rated usage, to invoices of the billing periods that the
telemetry closes, to numbered documents. Run again, it finds everything done.
"""

import argparse
from pathlib import Path

from flows import document_outputs, document_view, invoice_page, output
from flows.cli import DIFFERENCES, DONE, CommandError
from flows.commands.generate import write_contracts, write_usage
from flows.commands.run import run_document, run_invoicing, run_usage
from flows.commands.summary import balances, counts, report_of, totals
from flows.commands.verify import proofs
from flows.file_place import FilePlace
from flows.generate import Shares
from flows.report import render

CUSTOMERS = 60
PARTITIONS = 4
ENGINE = "bytewax"


def run(options: argparse.Namespace) -> int:
    """Generate, run, prove, report."""
    root = Path(options.dir) / f"seed-{options.seed}-{options.events}"
    output.say(f"telemetry: {options.events:,} usage events of {CUSTOMERS} customers, seed {options.seed}, in {root}")
    write_contracts(root, options.seed, CUSTOMERS, PARTITIONS)
    expected = write_usage(root, options.seed, options.events, CUSTOMERS, PARTITIONS, Shares())
    cells, seconds = run_usage(root, PARTITIONS, ENGINE)
    tokens = [cell.token for cell in cells]
    for cell in cells:
        cell.close()
    output.show(totals(tokens), options.output, "usage flow on Bytewax")
    output.show(balances(run_invoicing(root, PARTITIONS, ENGINE)), options.output, "invoicing flow")
    numbered = run_document(root, PARTITIONS, ENGINE)
    output.show(counts([numbered], ("received", *document_outputs.FATES)), options.output, "document flow")
    found = proofs(FilePlace(root))
    output.show(found, options.output, "proof")
    _write(root / "report.html", render(report_of(root, tokens, seconds)), "report with pictures")
    documents = [one.document() for one in document_view.all_of(FilePlace(root))]
    _write(root / "invoices.html", invoice_page.page(documents), f"{len(documents)} numbered documents to print")
    counted = {name: sum(token.totals[name] for token in tokens) for name in expected}
    if counted != expected or any(row["breaks"] for row in found):
        output.say(f"differences: the generator expects {expected}, the flow counted {counted}")
        return DIFFERENCES
    output.say("every fate is what the generator expects, rated money is billed or open, every number is given once, every digest and the chain tie out")
    return DONE


def _write(page: Path, text: str, what: str) -> None:
    try:
        page.write_text(text)
    except OSError as error:
        msg = f"{page}: cannot be written ({error.strerror}); make the folder writable"
        raise CommandError(msg) from error
    output.say(f"{what}: {page}")
