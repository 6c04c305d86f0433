"""The proof of what a flow has committed, from its topics alone.

For every interval of a partition: the fate equations, the digests of its records read back, and the chain of tokens.
Records are counted from the front of each topic, so the proof holds on a folder and on a broker alike.
"""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from flows import token as tokens
from flows import topics, usage
from flows.pipeline import Place, Reader
from flows.token import Token
from schemas import segments
from sources.lot import Lot
from tieout.stage import NAMES, Counts

_ROWS = 20_000


@dataclass(slots=True)
class _Records:
    """The records of one partition of a topic in order, counted."""

    reader: Reader
    number: int
    """How many records stand before the next one."""
    _position: int = field(init=False)
    _left: pa.Table = field(init=False)

    @classmethod
    def of(cls, reader: Reader, written: int) -> "_Records":
        """All that is kept of the ``written`` records of a topic."""
        end = reader.refresh()
        records = cls(reader, 0)
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
            self._left = pa.concat_tables([self._left, pa.Table.from_batches([_own(_whole(lot))])])
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


def _own(records: pa.RecordBatch) -> pa.RecordBatch:
    """Without what other flows wrote to the same topic: they say so in a header."""
    headers = records["headers"]
    if headers.null_count == len(headers):
        return records
    others = [any(header["key"] == topics.FLOW_HEADER for header in found or ()) for found in headers.to_pylist()]
    return records.filter(pa.array([not other for other in others], pa.bool_()))


def verify(place: Place, partition: int) -> dict[str, Any] | None:
    """One partition's proof; None where the flow has not been here."""
    found = list(tokens.all_of(place.reader(usage.TOKEN, partition)))
    if not found:
        return None
    records: dict[str, _Records] = {}
    breaks: list[str] = []
    checked = 0
    before = Token(usage.FLOW, partition, 0)
    sums = Counts()
    for token in found:
        breaks += _figures(token, before, sums)
        for topic, digest in token.digests.items():
            if topic not in records:
                records[topic] = _Records.of(place.reader(topic, partition), found[-1].written[topic])
            start, end = before.written.get(topic, 0), token.written[topic]
            if start < records[topic].number and topics.is_own(topic):
                continue  # a full state has replaced it
            checked += 1
            if segments.digest(records[topic].until(end)) != digest:
                breaks.append(f"{token.batch_id}: {topic} records {start} to {end - 1} are not those that were committed")
        before = token
    return {
        "partition": partition, "intervals": len(found), "digests": checked, "breaks": breaks, "head": found[-1].chain,
    }


def _figures(token: Token, before: Token, sums: Counts) -> list[str]:
    counts = Counts(**{name: token.counts[name] for name in NAMES})
    sums.add(counts)
    breaks = []
    broken = counts.broken()
    if broken:
        breaks.append(f"{token.batch_id}: {broken}")
    if sums.as_dict() | {"waiting": sums.waiting} != token.totals:
        breaks.append(f"{token.batch_id}: the totals are not the sum of the intervals")
    if token.sequence != before.sequence + 1 or token.previous_chain != before.chain or token.chain != token.linked():
        breaks.append(f"{token.batch_id}: the chain is broken here")
    return breaks
