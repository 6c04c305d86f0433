"""What a check of control totals writes: exceptions with their amount and the records concerned, and the word that one is over.

In: breaks, and what of them is news. Out: records of ``finance.exception.v1`` by partition. The records concerned are looked for
only where something does not tie out: the one that is missing or too many by its id, those of intervals whose digest is not
the committed one, documents that no interval counts; else all of the contract's billing period. Source: docs/exceptions.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, control_sums, invoice_records, invoicing, topics, usage
from flows import token as tokens
from flows.control_sums import Cut
from flows.pipeline import Place
from flows.verification import Altered, altered
from schemas import segments
from tieout import ids, money
from tieout.control_totals import KIND, PERIOD, Break, Key, News, Told, Total
from tieout.exception_queue import KINDS, Opened
from tieout.period import EPOCH

FLOW: Final = "control"
CONTRACT, INTERVAL = "contract", "interval"
_OURS: Final = [{"key": topics.FLOW_HEADER, "value": FLOW.encode()}]
_TOLD: Final = 20
"""Records that an exception names at most."""


class Finding(NamedTuple):
    """A break as an exception tells it; ``at`` by the partition's clock."""

    told: Told
    partition: int
    customer_id: str
    at: int
    message: str
    evidence: tuple[str, ...]


class _Record(NamedTuple):
    """A record of a broken key: where it stands, the how manieth it is, its id, and what it counts."""

    topic: str
    position: int
    number: int
    name: str
    amount: int

    @property
    def line(self) -> str:
        kind = "rated record" if self.topic == topics.RATED else "document"
        return f"{self.topic} position {self.position}: {kind} {self.name}, {_text(self.amount)}"


@dataclass(slots=True)
class _Records:
    """What stands in the topics of broken keys."""

    rated: dict[Key, list[_Record]] = field(default_factory=dict)
    documents: dict[Key, list[_Record]] = field(default_factory=dict)
    customers: dict[str, str] = field(default_factory=dict)


def of_fates(partition: int, interval: str, what: str, at: int) -> Finding:
    """A break of the fate equations: an interval whose events have no fate, or two."""
    message = f"interval {interval} of the usage flow does not add up: {what}; this is a bug or a topic that was changed, let engineers look at it"
    return Finding(Told(interval), partition, "", at, message, (f"{usage.TOKEN} partition {partition}", what))


def of_money(place: Place, at: Cut, broken: Sequence[Break]) -> Iterator[Finding]:
    """Breaks of control total 2 in a partition, each with the records concerned."""
    partition = at.invoicing.partition
    found = _found(place, partition, {one.key for one in broken})
    changed = [
        *altered(place, list(tokens.all_of(place.written(usage.TOKEN, partition))), topics.RATED),
        *altered(place, list(tokens.all_of(place.written(invoicing.TOKEN, partition))), topics.INVOICES),
    ]
    terms = control_sums.versions(place, partition, frozenset(one.key.contract_id for one in broken))
    customers = {contract: one.customer_id for (contract, _), one in terms.items()} | found.customers
    for one in broken:
        key = one.key
        figures = ", ".join(f"{name} {_text(total.amount)} in {total.records} records" for name, total in (("rated", one.rated), ("billed", one.billed), ("open", one.open)))
        lines = list(_concerned(one, found, changed, at.invoicing.written.get(topics.INVOICES, 0)))
        more = [f"and {len(lines) - _TOLD} more"] if len(lines) > _TOLD else []
        message = f"contract {key.contract_id}, billing period {key.period}: {_text(one.missing.amount)} {key.currency} {_verdict(one.missing)}; restore the records that the evidence names, or settle the difference with the customer"
        told = Told(key.contract_id, key.currency, key.period, one.missing.amount)
        yield Finding(told, partition, customers.get(key.contract_id, ""), at.invoicing.clock, message, (f"{PERIOD} {key.period}", figures, *lines[:_TOLD], *more))


def _verdict(missing: Total) -> str:
    return "is rated, and neither billed nor open" if missing.amount > 0 else "is billed or open beyond what is rated"


def _concerned(one: Break, found: _Records, changed: Sequence[Altered], counted: int) -> Iterator[str]:
    """The records that a break is about, as lines of evidence."""
    rated, documents = found.rated.get(one.key, []), found.documents.get(one.key, [])
    chosen = [record for record in documents if record.number >= counted]
    yield from (f"no interval of the invoicing flow counts {record.line}" for record in chosen)
    name = one.one_more or one.one_less
    if name is not None and not chosen:
        chosen = [record for record in rated if record.name == name]
        what = "no sum that was made of the topic has" if one.one_more else "the usage flow did not write" if chosen else f"{topics.RATED} no longer has"
        yield f"{what} {chosen[0].line if chosen else f'rated record {name}'}"
    within = [record for record in (*rated, *documents) if any(part.holds(record.topic, record.number) for part in changed)]
    yield from (part.line for part in changed)
    yield from (record.line for record in within)
    if name is None and not (chosen or within):
        yield from (record.line for record in (*documents, *rated))


def _found(place: Place, partition: int, wanted: set[Key]) -> _Records:
    """The records of broken keys."""
    found = _Records()
    contracts = pa.array(sorted({key.contract_id for key in wanted}), pa.string())
    for row, (position, number) in _rows(place, topics.RATED, partition, contracts):
        for one, key in ((one, Key(one["contract_id"], one["currency"], one["billing_period"])) for one in row.to_pylist()):
            found.customers[key.contract_id] = one["customer_id"]
            if key in wanted:
                found.rated.setdefault(key, []).append(_Record(topics.RATED, position, number, one["rated_id"], money.units(one["amount"], money.RATED_SCALE)))
    for row, (position, number) in _rows(place, topics.INVOICES, partition, contracts):
        for invoice in invoice_records.invoices(row):
            for key in wanted & {Key(invoice.contract_id, line.key.currency, line.period) for line in invoice.lines}:
                amount = sum(line.usage_exact for line in invoice.lines if (line.key.currency, line.period) == key[1:])
                found.documents.setdefault(key, []).append(_Record(topics.INVOICES, position, number, invoice.invoice_id, amount))
    return found


def _rows(place: Place, topic: str, partition: int, contracts: pa.Array) -> Iterator[tuple[pa.RecordBatch, tuple[int, int]]]:
    """The records of some contracts, each with its position and its number."""
    number = 0
    for lot in control_sums.lots(place.written(topic, partition), None):
        rows, places = control_sums.readable(topic, lot)
        for at in np.nonzero(np.asarray(pc.is_in(rows["contract_id"].cast(pa.string()), contracts)))[0].tolist():
            yield rows.slice(at, 1), (int(lot.positions[places[at]]), number + int(places[at]))
        number += lot.records.num_rows


def outputs(news: News, findings: Mapping[Told, Finding], partitions: int, clock: int) -> dict[str, pa.RecordBatch]:
    """Exceptions that open, and those that are over, by partition."""
    rows: dict[int, list[tuple[int, dict[str, Any]]]] = {}
    for told, name in news.opened:
        one = findings[told]
        amount = None if told.amount is None else money.decimal(told.amount, money.RATED_SCALE)
        what = (INTERVAL if told.period is None else CONTRACT, told.subject)
        opened = Opened(name, KIND, *what, one.customer_id, "", one.at, one.message, one.evidence, amount_at_risk=amount, currency=told.currency)
        rows.setdefault(_partition(one.customer_id, partitions), []).append((one.at, _row(opened)))
    for item, why in news.over:
        row = _row(item.opened) | {"state": "resolved", "resolution": why}
        rows.setdefault(_partition(item.opened.customer_id, partitions), []).append((max(clock, item.opened.opened_at), row))
    return {topics.in_partition(topics.EXCEPTIONS, partition): _records(mine) for partition, mine in sorted(rows.items())}


def _partition(customer_id: str, partitions: int) -> int:
    return ids.partition_of(customer_id, partitions) if customer_id else 0


def _row(one: Opened) -> dict[str, Any]:
    return {
        "exception_id": one.exception_id, "kind": one.kind, "object": {"type": one.object_type, "id": one.object_id}, "customer_id": one.customer_id,
        "legal_entity_id": None, "amount_at_risk": one.amount_at_risk, "currency": one.currency, "owner": KINDS[one.kind].owner,
        "opened_at": EPOCH + timedelta(microseconds=one.opened_at), "state": "open", "correlation_id": None, "message": one.message,
        "evidence": list(one.evidence), "resolution": None,
    }  # fmt: skip


def _records(rows: list[tuple[int, dict[str, Any]]]) -> pa.RecordBatch:
    values = codecs.documents("exception", [row for _, row in rows])
    keys = pa.array([row["customer_id"] for _, row in rows])
    return segments.records(values, keys, np.array([at for at, _ in rows], np.int64), pa.array([_OURS] * len(rows), segments.HEADERS))


def _text(units: int) -> str:
    return format(money.decimal(units, money.RATED_SCALE), "f")

