"""The document flow: invoices without numbers in, numbered documents out, exactly once and without a gap.

In: ``billing.invoice.v1``, all partitions. Out: ``billing.document.v1`` in the partitions of the legal entities. Numbers
follow the flow's own log: an interval takes a lot of each partition in turn, and one commit over all partitions writes
the documents and the token, which holds every position and the last number of each legal entity. So a restart reads one
token and nothing else, however many documents there are; a number is skipped or given twice only if a commit is, and
none is. An invoice that cannot be read ends the flow instead of being left aside: what follows it would take its number.
Source: docs/semantics.md section 5, docs/architecture.md (document flow).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from flows import codecs, document_outputs, invoice_records, topics
from flows import token as tokens
from flows.document_outputs import FLOW, SERIES, Documents
from flows.pipeline import Log, Pipeline, Place, Prepared, Reader
from flows.token import Token
from schemas import segments
from sources.errors import SourceError
from sources.lot import Lot
from sources.merged import MergedLot, merge

ROWS: Final = 25_000
"""Invoices of an interval at most."""
IDLE_SECONDS: Final = 86_400.0
"""After so long without an invoice an empty interval is committed: a broker forgets a transactional id that is not used."""
TOKEN: Final = topics.state_topics(FLOW)[2]


@dataclass(slots=True)
class DocumentCell:
    """The document flow's one partition, fenced; it gives the numbers of all legal entities."""

    partition: int
    log: Log
    partitions: int
    """Of the numbered documents."""
    token: Token
    last: dict[str, int]
    """The last number of each legal entity."""
    generation: int = 1
    cells: int = 1
    on_commit: Callable[[Token, Documents, Mapping[str, float]], None] | None = None
    """Hears of each interval: its token, what it came to, and the seconds of its steps."""
    _committed_at: float = field(default_factory=time.monotonic, init=False)

    @classmethod
    def start(cls, place: Place, partitions: int) -> "DocumentCell":
        """Fence, then go on from the last token."""
        log = place.fence(FLOW, 0)
        try:
            found = log.last(TOKEN)
            token = tokens.decode(found["value"])[0] if found.num_rows else Token(FLOW, 0, 0)
        except BaseException:
            log.close()
            raise
        last = {name.removeprefix(SERIES): count for name, count in token.totals.items() if name.startswith(SERIES)}
        return cls(0, log, partitions, token, last)

    @property
    def position(self) -> int:
        """The sum of the positions in all partitions of the invoices."""
        return sum(self.token.positions.values())

    def position_in(self, partition: int) -> int:
        """The next invoice of a partition to read."""
        return self.token.positions.get(topics.in_partition(topics.INVOICES, partition), 0)

    def close(self) -> None:
        """Give the flow up."""
        self.log.close()

    def take(self, prepared: Prepared) -> None:
        """Number one lot and commit the interval; where no invoice came, only once a day."""
        lot = cast("MergedLot", prepared.lot)
        if not len(lot.positions) and time.monotonic() - self._committed_at < IDLE_SECONDS:
            return
        before = time.perf_counter()
        _check(prepared, lot)
        documents = document_outputs.outputs(prepared.decoded.batch, lot.records["timestamp"].to_numpy(), self.last, self.partitions)
        positions = {topics.in_partition(topics.INVOICES, partition): part.end for partition, part in lot.parts}
        token = self._next_token(documents, positions)
        encoded = time.perf_counter()
        self.log.commit(token.sequence, {**documents.records, TOKEN: tokens.record(token)}, positions, None)
        self.token, self.last, self._committed_at = token, documents.last, time.monotonic()
        if self.on_commit is not None:
            seconds = {"decode": prepared.seconds, "encode": encoded - before, "commit": time.perf_counter() - encoded}
            self.on_commit(token, documents, seconds)

    def _next_token(self, documents: Documents, positions: Mapping[str, int]) -> Token:
        made = documents.records
        names = [*self.token.totals, *(name for name in documents.counts if name not in self.token.totals)]
        token = Token(
            FLOW, self.partition, self.token.sequence + 1, self.generation, self.cells,
            positions=self.token.positions | dict(positions),
            written=self.token.written | {name: self.token.written.get(name, 0) + batch.num_rows for name, batch in made.items()},
            counts=documents.counts,
            totals={name: self.token.totals.get(name, 0) + documents.counts.get(name, 0) for name in names},
            digests={name: segments.digest(batch) for name, batch in made.items()},
            previous_chain=self.token.chain,
        )
        return replace(token, chain=token.linked())


def _check(prepared: Prepared, lot: MergedLot) -> None:
    """SourceError where an invoice cannot be read, or is of a kind or state that has no number here."""
    if prepared.decoded.rejected:
        first = prepared.decoded.rejected[0]
        row, message = first.row, first.message
    else:
        found = document_outputs.strange(prepared.decoded.batch)
        if found is None:
            return
        kind, status = (prepared.decoded.batch[name][found].as_py() for name in ("kind", "status"))
        row, message = found, f"a document of kind {kind} and status {status} is none that this release numbers"
    partition, position = lot.origin(row)
    msg = (
        f"{topics.INVOICES}, partition {partition}: record at position {position}: {message}; nothing after it is numbered until it can be: "
        "run the release that wrote it, and with --registry where its schema ids are in use"
    )
    raise SourceError(msg)


class InvoiceSource:
    """Lots of all partitions of the invoices, from the cell's positions to the ends that they had at the start."""

    def __init__(self, readers: Sequence[Reader], cell: DocumentCell, rows: int) -> None:
        self._readers, self._rows = readers, rows
        self._positions = [cell.position_in(partition) for partition in range(len(readers))]
        self._ends = [reader.refresh() for reader in readers]

    @property
    def left(self) -> int:
        """How many invoices are still to come."""
        return sum(self._ends) - sum(self._positions)

    @property
    def ended(self) -> bool:
        """Whether all of it was handed over."""
        return all(at >= end for at, end in zip(self._positions, self._ends, strict=True))

    def poll(self) -> Lot | None:
        """The next lot."""
        parts: list[tuple[int, Lot]] = []
        room = self._rows
        for partition, (reader, at, end) in enumerate(zip(self._readers, self._positions, self._ends, strict=True)):
            if at < end and room:
                lot = reader.lot(at, room, end)
                parts.append((partition, lot))
                room -= len(lot.positions)
        for partition, lot in parts:
            self._positions[partition] = lot.end
        return merge(parts, sum(self._positions))


def prepare(lot: Lot) -> Prepared:
    """Decode a lot of invoices."""
    before = time.perf_counter()
    decoded = codecs.own(invoice_records.SCHEMA).decode(lot.records["value"])
    return Prepared(lot, decoded, time.perf_counter() - before)


def pipeline(place: Place, cell: DocumentCell, partitions: int, *, rows: int = ROWS) -> Pipeline:
    """A cell wired up to read what invoices there are now, in so many partitions."""
    readers = [place.reader(topics.INVOICES, partition) for partition in range(partitions)]
    return Pipeline(FLOW, {0: InvoiceSource(readers, cell, rows)}, {0: cell}, prepare)
