"""Requests that take a document back: whole (``tieout void``), by line, or an amount off a line (``tieout credit``).

What a void or a credit by line takes back is billable again, once: with the next close, or at once with ``tieout close`` of
its period. An amount off a line is a concession and stays billed. A request that would not count is not written: the flow's own rules
say so before, by its last state (``flows.invoicing_preview``), and the flow looks again when it comes.
"""

import argparse
import json
import time

from flows import invoice_view, invoicing_preview, output, topics
from flows.cli import CommandError
from flows.commands import governed, places
from flows.file_place import FilePlace
from flows.invoicing_inputs import CORRECT, INVOICE
from flows.kafka_place import KafkaPlace
from schemas.registry import Registry
from tieout.governance import Command
from tieout.invoicing.records import Invoice


def ask(options: argparse.Namespace) -> int:
    """Write the request, once the document is found."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        place = places.place(options)
        partition, invoice = _found(place, options.invoice)
        payload = _payload(options)
        command = Command(CORRECT, INVOICE, options.invoice, governed.author_of(options), time.time_ns() // 1000, options.reason, payload)
        with governed.writing(place) as write:
            command = governed.signed(command, options, place)
            why = invoicing_preview.taking_back(place, partition, invoice, command)
            if why is not None:
                msg = f"{options.command}: this would not count, nothing was written: {why}"
                raise CommandError(msg)
            write(command)
    row = {options.command: options.invoice, "contract": invoice.contract_id, "period": invoice.period.label, "author": command.author, "command_id": command.command_id}
    output.show([row], options.output)
    output.say("it counts when the invoicing flow has read it: at once where one runs, else at the next 'tieout run invoicing'")
    return 0


def _found(place: FilePlace | KafkaPlace, invoice_id: str) -> tuple[int, Invoice]:
    for partition in range(place.partitions()):
        found = invoice_view.find(place.reader(topics.INVOICES, partition), invoice_id)
        if found is not None:
            return partition, found
    msg = f"{place.name}: has no invoice {invoice_id!r}; 'tieout topic peek {topics.INVOICES}' shows what there is"
    raise CommandError(msg)


def _payload(options: argparse.Namespace) -> str | None:
    if options.command == "void":
        return None
    amounts = dict(_amount(given) for given in options.amount)
    if bool(amounts) == bool(options.line):
        msg = "credit: name either lines with --line ID, or amounts off lines with --amount LINE=AMOUNT; 'tieout void' takes all back"
        raise CommandError(msg, 2)
    return json.dumps({"amounts": amounts} if amounts else {"lines": options.line})


def _amount(given: str) -> tuple[str, str]:
    line, equals, amount = given.partition("=")
    if not equals:
        msg = f"credit: {given!r} is no amount off a line; write LINE=AMOUNT, as in 5f0c...=12.50"
        raise CommandError(msg, 2)
    return line, amount
