"""What an interval of the invoicing flow writes: documents, and exceptions about what cannot be billed.

In: what looking at billing periods came to. Out: records by topic in that order, and counts. A period that waits for facts
opens an exception, which is resolved when the period closes or waits for something else; one that waits for held usage opens
none, because the held event has its own. Source: docs/exceptions.md.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from flows import codecs, invoice_records, topics
from schemas import catalog, segments
from tieout import ids, late_usage, money
from tieout.closing import HELD, Closed, Wait
from tieout.exception_queue import KINDS
from tieout.governance import Command
from tieout.late_usage import Late
from tieout.period import EPOCH

FLOW: Final = "invoicing"
HELD_KIND: Final = "invoice_held"
REFUSED_KIND: Final = "command_refused"
_OURS: Final = [{"key": topics.FLOW_HEADER, "value": FLOW.encode()}]


class Refused(NamedTuple):
    """A request about a document that does not count, and why."""

    command: Command
    customer_id: str
    message: str


def outputs(closed: Sequence[Closed], refused: Sequence[Refused], clock: int) -> dict[str, pa.RecordBatch]:
    """Records by topic; none for a topic that has none."""
    made = [(invoice, one.as_of) for one in closed for invoice in one.billed.invoices]
    found = {topics.INVOICES: invoice_records.records([invoice for invoice, _ in made], [at for _, at in made])} if made else {}
    rows = [_refusal(one, clock) for one in refused] + [row for one in closed for row in _told(one)]
    return found | ({topics.EXCEPTIONS: _exceptions(rows, clock)} if rows else {})


def _refusal(one: Refused, clock: int) -> dict[str, Any]:
    command = one.command
    return {
        "exception_id": ids.text(("exception", REFUSED_KIND, command.command_id)), "kind": REFUSED_KIND,
        "object": {"type": command.subject_type, "id": command.subject_id}, "customer_id": one.customer_id, "legal_entity_id": None,
        "amount_at_risk": None, "currency": None, "owner": KINDS[REFUSED_KIND].owner, "opened_at": _moment(clock), "state": "open",
        "correlation_id": None, "message": one.message, "evidence": [f"command {command.command_id}, {command.kind} by {command.author}"], "resolution": None,
    }  # fmt: skip


def counts(closed: Sequence[Closed]) -> dict[str, int]:
    """What an interval came to: documents, lines by kind, periods that closed without one, and periods that began to wait, by reason."""
    found: Counter[str] = Counter()
    for one in closed:
        found["early" if one.early else "closed"] += one.wait is None and not _taken_back(one)
        found["quiet"] += one.wait is None and not one.early and not one.billed.invoices
        if one.wait is not None and _differs(one.wait, one.ended):
            found[f"held_{one.wait.reason}"] += 1
        found["late"] += sum(late.records for late in one.late)
        found["accepted"] += sum(late.records for late in one.accepted)
        for invoice in one.billed.invoices:
            found["credit_notes" if invoice.kind == "credit_note" else "invoices"] += 1
            found.update(f"line_{line.kind}" for line in invoice.lines)
    return {name: count for name, count in sorted(found.items()) if count}


def opened(closed: Sequence[Closed]) -> Iterator[str]:
    """The kinds of the exceptions that an interval opened."""
    for one in closed:
        if one.wait is not None and one.wait.reason != HELD and _differs(one.wait, one.ended):
            yield HELD_KIND
        yield from (late.kind for late in one.late)


def _taken_back(one: Closed) -> bool:
    return any(invoice.voids or invoice.credits_invoice for invoice in one.billed.invoices)


def _differs(wait: Wait | None, other: Wait | None) -> bool:
    return wait is None or other is None or (wait.reason, wait.subject) != (other.reason, other.subject)


def _told(one: Closed) -> Iterator[dict[str, Any]]:
    if one.ended is not None and one.ended.reason != HELD and _differs(one.wait, one.ended):
        told = "the billing period is closed" if one.wait is None else f"it waits for something else now: {one.wait.message}"
        yield _row(HELD_KIND, one, one.ended, one.ended.since) | {"state": "resolved", "resolution": told}
    if one.wait is not None and one.wait.reason != HELD and _differs(one.wait, one.ended):
        yield _row(HELD_KIND, one, one.wait, one.wait.since)
    for late in one.accepted:
        yield _late(late) | {"state": "resolved", "resolution": f"accepted by {late.author}, {_became(late, one)}"}
    for late in one.late:
        yield _late(late)


def _became(late: Late, one: Closed) -> str:
    """What became of accepted late usage."""
    beyond = next((new.exception_id for new in one.late if (new.period_us, new.kind) == (late.period_us, late_usage.LIMIT)), None)
    if beyond is not None:
        return f"and lies further back than anything is billed again by now: exception {beyond}"
    return f"billed with {', '.join(invoice.invoice_id for invoice in one.billed.invoices)}"


def _late(late: Late) -> dict[str, Any]:
    """The exception about a lot of late usage."""
    if late.kind == late_usage.LATE:
        told = f"billing period {late.period} of contract {late.contract_id} is closed, and the contract sends what comes for it to finance: accept it, and the next invoice bills it, or waive it"
    else:
        told = f"billing period {late.period} of contract {late.contract_id} lies further back than anything is billed again; agree with the customer, then credit or bill by hand"
    return {
        "exception_id": late.exception_id, "kind": late.kind, "object": {"type": "contract", "id": late.contract_id}, "customer_id": late.customer_id,
        "legal_entity_id": None, "amount_at_risk": money.decimal(late.amount, money.RATED_SCALE), "currency": late.currency, "owner": KINDS[late.kind].owner,
        "opened_at": _moment(late.opened_at), "state": "open", "correlation_id": None, "message": f"{late.records} usage records came late: {told}",
        "evidence": [f"period {late.period}", *(f"charge {one.charge_id}, records {one.records}, digest {one.digest:032x}" for one in late.sums)], "resolution": None,
    }  # fmt: skip


def _row(kind: str, one: Closed, wait: Wait, at: int) -> dict[str, Any]:
    return {
        "exception_id": ids.text(("exception", kind, one.contract_id, one.period.start_us, wait.reason, wait.subject, at)),
        "kind": kind, "object": {"type": "contract", "id": one.contract_id}, "customer_id": one.customer_id, "legal_entity_id": None,
        "amount_at_risk": money.decimal(one.at_risk, money.RATED_SCALE) if one.currency else None, "currency": one.currency, "owner": KINDS[kind].owner, "opened_at": _moment(at), "state": "open",
        "correlation_id": None, "message": f"billing period {one.period.label}: {wait.message}",
        "evidence": [f"{wait.reason} {wait.subject}", f"period {one.period.label}"], "resolution": None,
    }  # fmt: skip


def _exceptions(rows: list[dict[str, Any]], clock: int) -> pa.RecordBatch:
    values = codecs.encode("exception", pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema("exception")))
    headers = pa.array([_OURS] * len(rows), segments.HEADERS)
    return segments.records(values, pa.array([row["customer_id"] for row in rows]), np.full(len(rows), clock), headers)


def _moment(instant: int) -> datetime:
    return EPOCH + timedelta(microseconds=instant)
