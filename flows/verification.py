"""The proof of what a flow has committed, from its topics alone.

For every interval of a partition: the fate equations, the digests of its records read back, and the chain of tokens.
Records are counted from the front of each topic, so the proof holds on a folder and on a broker alike. On topics that
several flows write to, only those of the flow count: the contract flow's say so in a header. Of the document flow also
what it is for is proved: ``flows.document_proof``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from flows import contract, contract_outputs, document, document_outputs, document_proof, invoicing, invoicing_proof, topics, usage
from flows import token as tokens
from flows.pipeline import Place, Reader
from flows.token import Token
from schemas import segments
from sources.lot import Lot
from tieout import lifecycle
from tieout.stage import NAMES, Counts

_ROWS = 20_000


@dataclass(slots=True)
class _Records:
    """The records of one partition of a topic in order, counted."""

    reader: Reader
    flow: str | None
    """Whose records count, where several flows write to the topic."""
    number: int
    """How many records stand before the next one."""
    _position: int = field(init=False)
    _left: pa.Table = field(init=False)

    @classmethod
    def of(cls, reader: Reader, flow: str | None, written: int) -> "_Records":
        """All that is kept of the ``written`` records of a flow on a topic."""
        end = reader.refresh()
        records = cls(reader, flow, 0)
        records._position, records._left = reader.start, segments.RECORDS.empty_table()
        if reader.start:  # the front is gone: what is kept are the last ones
            at, kept = reader.start, 0
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                at, kept = lot.end, kept + lot.records.num_rows
            records.number = written - kept
        return records

    def until(self, number: int) -> pa.RecordBatch:
        """The records up to a count; fewer where the topic ends before."""
        wanted = number - self.number
        while self._left.num_rows < wanted and self._position < self.reader.end:
            lot = self.reader.lot(self._position, _ROWS)
            self._position = lot.end
            self._left = pa.concat_tables([self._left, pa.Table.from_batches([_own(_whole(lot), self.flow)])])
        taken, self._left = self._left.slice(0, wanted).combine_chunks(), self._left.slice(wanted)
        self.number += taken.num_rows
        batches = taken.to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=segments.RECORDS)


def _whole(lot: Lot) -> pa.RecordBatch:
    """A lot with keys and headers, as they were handed over to be written."""
    if lot.beside is None:
        return lot.records.replace_schema_metadata(None)
    beside = [lot.beside(row) for row in range(lot.records.num_rows)]
    headers = [[header for header in found or () if header["key"] != "n"] or None for _, found in beside]
    stamps = lot.records["timestamp"].to_numpy()
    keys = pa.array([key for key, _ in beside], pa.large_binary())
    return segments.records(lot.records["value"], keys, stamps, pa.array(headers, segments.HEADERS))


def _own(records: pa.RecordBatch, flow: str | None) -> pa.RecordBatch:
    """The records that a flow wrote: all but the usage flow say so in a header."""
    headers = records["headers"]
    if flow is None:
        return records
    writers = [next((header["value"] for header in found or () if header["key"] == topics.FLOW_HEADER), None) for found in headers.to_pylist()]
    mine = None if flow == usage.FLOW else flow.encode()
    return records.filter(pa.array([writer == mine for writer in writers], pa.bool_()))


def verify(place: Place, partition: int) -> dict[str, Any] | None:
    """The proof of one partition of the usage flow; None where the flow has not been here."""
    found = list(tokens.all_of(place.written(usage.TOKEN, partition)))
    return _proof(place, found, usage.FLOW, _Fates()) if found else None


def verify_contract(place: Place) -> dict[str, Any] | None:
    """The proof of the contract flow; None where it has not been here."""
    found = list(tokens.all_of(place.written(contract.TOKEN, 0)))
    return _proof(place, found, contract_outputs.FLOW, _PlainFates(lifecycle.FATES)) if found else None


def verify_document(place: Place) -> dict[str, Any] | None:
    """The proof of the document flow, and of the numbers that it gave; None where it has not been here."""
    found = list(tokens.all_of(place.written(document.TOKEN, 0)))
    if not found:
        return None
    proof = _proof(place, found, document_outputs.FLOW, _PlainFates(document_outputs.FATES))
    return proof | {"breaks": proof["breaks"] + document_proof.broken(place, found[-1])}


def verify_invoicing(place: Place, partition: int) -> dict[str, Any] | None:
    """The proof of one partition of the invoicing flow, and that its money ties out; None where the flow has not been here."""
    found = list(tokens.all_of(place.written(invoicing.TOKEN, partition)))
    if not found:
        return None
    proof = _proof(place, found, invoicing.FLOW, _RatedFates())
    return proof | {"breaks": proof["breaks"] + invoicing_proof.broken(place, found[-1])}


def fates_broken(found: Iterable[Token]) -> list[tuple[str, str]]:
    """The intervals of the usage flow that do not add up, with what is wrong."""
    fates = _Fates()
    told = [(token.batch_id, "; ".join(fates.broken(token))) for token in found]
    return [(interval, broken) for interval, broken in told if broken]


class Altered(NamedTuple):
    """The records of an interval on a topic, ``start`` to ``end`` by their number, that are not those that were committed."""

    topic: str
    interval: str
    start: int
    end: int

    def holds(self, topic: str, number: int) -> bool:
        """Whether a record of a number is one of them."""
        return topic == self.topic and self.start <= number < self.end

    @property
    def line(self) -> str:
        """In words."""
        return f"{self.interval}: {self.topic} records {self.start} to {self.end - 1} are not those that were committed"


def altered(place: Place, found: Sequence[Token], topic: str) -> list[Altered]:
    """Where a topic that a flow alone writes does not hold what it committed; what is no longer kept is left aside."""
    told: list[Altered] = []
    if not found:
        return told
    records = _Records.of(place.written(topic, found[0].partition), None, found[-1].written.get(topic, 0))
    start = 0
    for token in found:
        end = token.written.get(topic, 0)
        if start >= records.number and topic in token.digests and segments.digest(records.until(end)) != token.digests[topic]:
            told.append(Altered(topic, token.batch_id, start, end))
        start = end
    return told


class _Sums(Protocol):
    """The figures of a flow's tokens."""

    def broken(self, token: Token) -> Iterator[str]:
        """What is wrong with an interval's figures, taken after those before it."""


class _Fates:
    """Usage events by fate, and those that wait."""

    def __init__(self) -> None:
        self._sums = Counts()

    def broken(self, token: Token) -> Iterator[str]:
        """The fate equation, and the totals."""
        counts = Counts(**{name: token.counts[name] for name in NAMES})
        self._sums.add(counts)
        broken = counts.broken()
        if broken:
            yield broken
        if self._sums.as_dict() | {"waiting": self._sums.waiting} != token.totals:
            yield "the totals are not the sum of the intervals"


class _PlainFates:
    """Records of an input by fate, where none waits."""

    def __init__(self, fates: Sequence[str]) -> None:
        self._fates = fates
        self._sums: dict[str, int] = {}

    def broken(self, token: Token) -> Iterator[str]:
        """The fate equation, and the totals."""
        fates = sum(token.counts.get(fate, 0) for fate in self._fates)
        if token.counts.get("received", 0) != fates:
            yield f"received {token.counts.get('received', 0)} records, but their fates come to {fates}: {token.counts}"
        self._sums = self._sums | {name: self._sums.get(name, 0) + count for name, count in token.counts.items()}
        if self._sums != token.totals:
            yield "the totals are not the sum of the intervals"


class _RatedFates(_PlainFates):
    """Rated records, which are all taken; what waits at the end of an interval is no sum of intervals."""

    def __init__(self) -> None:
        super().__init__(invoicing.FATES)

    def broken(self, token: Token) -> Iterator[str]:
        """The fate equation, and the totals."""
        counts = {name: count for name, count in token.counts.items() if count and not name.startswith(invoicing.WAITS)}
        yield from super().broken(replace(token, counts=counts, totals={name: count for name, count in token.totals.items() if count}))


def _proof(place: Place, found: Sequence[Token], flow: str, sums: _Sums) -> dict[str, Any]:
    partition = found[0].partition
    records: dict[str, _Records] = {}
    breaks: list[str] = []
    checked = 0
    before = Token(flow, partition, 0)
    for token in found:
        breaks += [f"{token.batch_id}: {broken}" for broken in sums.broken(token)]
        if token.sequence != before.sequence + 1 or token.previous_chain != before.chain or token.chain != token.linked():
            breaks.append(f"{token.batch_id}: the chain is broken here")
        for name, digest in token.digests.items():
            topic, at = topics.placed(name, partition)
            if name not in records:
                writer = flow if topic in segments.SHARED else None  # elsewhere headers are those of whoever sent the record
                records[name] = _Records.of(place.written(topic, at), writer, found[-1].written[name])
            start, end = before.written.get(name, 0), token.written[name]
            if start < records[name].number and topics.is_own(topic):
                continue  # a full state has replaced it
            checked += 1
            if segments.digest(records[name].until(end)) != digest:
                breaks.append(f"{token.batch_id}: {name} records {start} to {end - 1} are not those that were committed")
        before = token
    return {
        "partition": partition, "intervals": len(found), "digests": checked, "breaks": breaks, "head": found[-1].chain,
    }
