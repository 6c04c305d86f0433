"""What the invoicing flow would say to a request, by the state of its last interval: asked before the request is written.

In: a place, and what somebody wants. Out: why it would not count, in the flow's own words, because the flow's own rules are asked:
the contract of the request is put back from state and topics as the flow itself would after a restart. Requests about the same
document that the flow has not read yet are taken first. Nothing is written, and the flow judges each request again when it comes:
what changes meanwhile counts. Source: docs/semantics.md section 5.
"""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import authority as authorities
from flows import codecs, command_records, contract_records, control_sums, invoice_view, invoicing_requests, invoicing_state, topics
from flows.contract_records import KeptRecords
from flows.file_place import FilePlace
from flows.invoicing_inputs import CORRECT, INVOICE
from flows.invoicing_state import PackedAccounts
from flows.kafka_place import KafkaPlace
from flows.pipeline import let_go
from flows.token import Token
from sources.errors import SourceAway
from tieout.closing import Closing
from tieout.governance import Command
from tieout.held_usage import HeldUsage
from tieout.invoicing.notes import ReleaseRefused
from tieout.invoicing.records import Invoice

_LOOKS: Final = 5
"""Full states that may replace the state in turn while it is read."""
_NEVER: Final = "the invoicing flow has not been here; it closes periods by itself when they are complete"


def taking_back(place: FilePlace | KafkaPlace, partition: int, invoice: Invoice, request: Command) -> str | None:
    """Why a request about a document would not count; None where it would."""
    found = _contract(place, partition, invoice.contract_id)
    if found is None:
        return None
    state, last = found
    for earlier in _unread(place, last, invoice.invoice_id):
        _take_back(place, partition, state, invoice, earlier, last)
    return _take_back(place, partition, state, invoice, request, last)


def _take_back(place: FilePlace | KafkaPlace, partition: int, state: Closing, invoice: Invoice, request: Command, last: Token) -> str | None:
    before = invoice_view.followers(place.reader(topics.INVOICES, partition), invoice) if state.forgot(invoice) else []
    try:
        state.take_back(invoice, invoicing_requests.taking_back(request, invoice.currency), last.clock, before)
    except ReleaseRefused as refused:
        return str(refused)
    return None


def closing(place: FilePlace | KafkaPlace, contract: str, label: str) -> tuple[str | None, str | None]:
    """Why a request to bill a contract's closed period again would not count; else what there is to say of it, if anything."""
    partition = next((number for number in range(place.partitions()) if control_sums.versions(place, number, frozenset([contract]))), None)
    if partition is None:
        return f"there is no contract {contract}; 'tieout contract show' lists them", None
    found = _contract(place, partition, contract)
    if found is None:
        return _NEVER, None
    state, _ = found
    wait = state.waits.get(contract)
    if wait is not None:
        return f"contract {contract} is due and waits: {wait.message}; what came late is billed with that close", None
    if contract not in state.closed or state.labelled(contract, label) is None:
        return f"contract {contract} has closed no billing period {label}; it closes by itself when it is complete, and no request makes it close before", None
    if not state.billable(contract, label):
        return None, "as of the flow's last interval nothing has come for it since it closed; where nothing comes until the request is read, it makes no invoice"
    return None, None


def _contract(place: FilePlace | KafkaPlace, partition: int, contract: str) -> tuple[Closing, Token] | None:
    """The flow's state with one contract's versions, as of its last interval; looked at again where a full state replaces it meanwhile."""
    for left in reversed(range(_LOOKS)):
        try:
            return _looked(place, partition, contract)
        except SourceAway:
            if not left:
                raise
    return None


def _looked(place: FilePlace | KafkaPlace, partition: int, contract: str) -> tuple[Closing, Token] | None:
    at = control_sums.cut(place, partition)
    if at is None:
        return None
    accounts = PackedAccounts()
    state = Closing(HeldUsage(0), accounts)
    invoicing_state.restore(state, accounts, control_sums.state_records(place, at.invoicing))
    kept, until = KeptRecords(), at.invoicing.positions.get(topics.CONTRACTS, 0)
    for lot in control_sums.lots(place.reader(topics.CONTRACTS, partition), None):
        decoded = codecs.own(contract_records.SCHEMA).decode(lot.records["value"])
        mine = np.asarray(pc.equal(decoded.batch["contract_id"].cast(pa.string()), contract)) & (lot.positions[decoded.rows] < until)
        if mine.any():
            state.learn(kept.take(lot.records["value"].take(pa.array(decoded.rows[mine]))))
    return state, at.invoicing


def _unread(place: FilePlace | KafkaPlace, last: Token, invoice_id: str) -> list[Command]:
    """The requests about a document that stand in the log, count, and have not been read."""
    authority = authorities.of(place)
    reader = place.written(topics.COMMANDS, 0)
    try:
        end = reader.refresh()
        found = command_records.between(reader, max(last.positions.get(command_records.NAME, 0), reader.start), end)
        mine = [one for one in found if (one.command.kind, one.command.subject_type, one.command.subject_id) == (CORRECT, INVOICE, invoice_id)]
        return [one.command for one in mine if authority.why_not(*one) is None]
    finally:
        authority.close()
        let_go(reader)
