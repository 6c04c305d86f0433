"""``tieout run``: one flow over a folder, on the engine asked for, until its input is read; or a cell of one on a broker."""

import argparse
import time
from pathlib import Path
from typing import Final

from flows import bytewax_engine, contract, document, document_outputs, invoicing, local_engine, output, usage
from flows.cli import CommandError
from flows.commands import files, run_control, run_kafka, run_ticker
from flows.commands.summary import balances, counts, report_of, totals
from flows.contract import ContractCell
from flows.contract_outputs import FLOW as CONTRACT
from flows.control import NAME as CONTROL
from flows.document import DocumentCell
from flows.document_outputs import FLOW as DOCUMENT
from flows.file_place import FilePlace
from flows.report import render
from flows.ticker import NAME as TICKER
from flows.token import Token
from flows.usage import FLOW, UsageCell, UsageSource
from tieout.lifecycle import FATES


def run(options: argparse.Namespace) -> int:
    """Run and print what it came to."""
    if options.flow in _PROCESSES:
        return _PROCESSES[options.flow](options)
    if options.bootstrap is not None:
        return run_kafka.run(options)
    if options.flow != FLOW and options.flow not in _OTHERS:
        msg = f"run {options.flow}: runs on a broker only, say where with --bootstrap HOST:PORT; in a folder the import puts each customer in its partition"
        raise CommandError(msg, 2)
    if options.dir is None:
        msg = "run: say where the topics are, with --dir FOLDER or --bootstrap HOST:PORT"
        raise CommandError(msg, 2)
    root, partitions = files.folder(options.dir)
    if options.flow in _OTHERS:
        return _OTHERS[options.flow](root, partitions, options)
    cells, seconds = run_usage(root, partitions, options.engine)
    output.show(totals([cell.token for cell in cells]), options.output, "usage flow, since the start")
    if options.report:
        Path(options.report).write_text(render(report_of(root, [cell.token for cell in cells], seconds)))
        output.say(f"report: {options.report}")
    for cell in cells:
        cell.close()
    return 0


def _run_contract(root: Path, partitions: int, options: argparse.Namespace) -> int:
    if options.report:
        msg = "run contract: has no report, 'tieout contract show' and 'tieout contract timeline' tell what came of it; take --report out"
        raise CommandError(msg, 2)
    cell = ContractCell.start(FilePlace(root), partitions)
    try:
        (bytewax_engine if options.engine == "bytewax" else local_engine).run(contract.pipeline(cell))
        output.show(counts([cell.token], ("received", *FATES, "published", "refusals", "settled")), options.output, "contract flow, since the start")
    finally:
        cell.close()
    return 0


def _run_invoicing(root: Path, partitions: int, options: argparse.Namespace) -> int:
    if options.report:
        msg = "run invoicing: has no report, the documents are on billing.invoice.v1; take --report out"
        raise CommandError(msg, 2)
    output.show(balances(run_invoicing(root, partitions, options.engine)), options.output, "invoicing flow, since the start")
    return 0


def _run_document(root: Path, partitions: int, options: argparse.Namespace) -> int:
    if options.report:
        msg = "run document: has no report, 'tieout document ls' and 'tieout document show' tell what came of it; take --report out"
        raise CommandError(msg, 2)
    token = run_document(root, partitions, options.engine)
    output.show(counts([token], ("received", *document_outputs.FATES)), options.output, "document flow, since the start")
    return 0


def run_invoicing(root: Path, partitions: int, engine: str) -> list[Token]:
    """Run the invoicing flow to the end of its input; its last tokens."""
    cells = invoicing.start_cells(FilePlace(root), range(partitions))
    try:
        (bytewax_engine if engine == "bytewax" else local_engine).run(invoicing.pipeline(cells))
        return [cell.token for cell in cells.values()]
    finally:
        for cell in cells.values():
            cell.close()


def run_document(root: Path, partitions: int, engine: str) -> Token:
    """Run the document flow to the end of its input; its last token."""
    place = FilePlace(root)
    cell = DocumentCell.start(place, partitions)
    try:
        (bytewax_engine if engine == "bytewax" else local_engine).run(document.pipeline(place, cell, partitions))
        return cell.token
    finally:
        cell.close()


def run_usage(root: Path, partitions: int, engine: str) -> tuple[list[UsageCell], float]:
    """Run the usage flow to the end of its input; its cells (still holding their partitions) and the CPU seconds."""
    before = time.process_time()
    pipeline = usage.pipeline(FilePlace(root), range(partitions))
    cells: list[UsageCell] = [cell for cell in pipeline.cells.values() if isinstance(cell, UsageCell)]
    left = sum(source.left for source in pipeline.sources.values() if isinstance(source, UsageSource))
    with output.Bar("usage", left) as bar:
        for cell in cells:
            cell.on_commit = lambda token, *_: bar.advance(token.counts["received"])
        (bytewax_engine if engine == "bytewax" else local_engine).run(pipeline)
    return cells, time.process_time() - before


_OTHERS: Final = {CONTRACT: _run_contract, invoicing.FLOW: _run_invoicing, DOCUMENT: _run_document}
"""Flows beside the usage flow that run over a folder."""

_PROCESSES: Final = {TICKER: run_ticker.run, CONTROL: run_control.run}
"""What runs beside the flows and is none."""
