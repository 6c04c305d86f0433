"""Billing done again as the tokens say, compared with what was committed; nothing is written.

In: a partition's tokens and the topics that the invoicing flow read. Out: for each interval whether its documents and
exceptions come out the same, byte for byte, and the figures of its token with them. The cell is the flow's own. It reads
each topic as far as the token of the interval says that it was read, so contracts, reference data, requests, holds and the
clock of the usage flow count where they counted then.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import cast

import pyarrow as pa

from flows import codecs, invoicing, local_engine, pause, topics, usage
from flows import token as tokens
from flows.invoicing import FLOW, TOKEN, InvoicingCell, InvoicingFold
from flows.pipeline import Log, Pipeline, Place, Prepared
from flows.replay import Replayed
from flows.token import Token
from schemas import segments
from sources.files import TopicReader
from sources.lot import Lot
from tieout.usage_stage import Limits

FIGURES = "token"
"""What differs where the figures of a token do: its clock, counts, totals and amounts."""
Ends = dict[tuple[str, int], int]
"""Where each partition of a topic ends for an interval."""


@dataclass(frozen=True, slots=True)
class _Reader:
    """A partition of a topic as far as it counts for an interval."""

    whole: TopicReader
    ends: Ends

    @property
    def start(self) -> int:
        """The first position kept."""
        return self.whole.start

    @property
    def end(self) -> int:
        """Where it ends for the interval."""
        return self.ends.get((self.whole.topic, self.whole.partition), 0)

    def refresh(self) -> int:
        """The end moves from interval to interval."""
        return self.end

    def lot(self, position: int, rows: int, until: int | None = None) -> Lot:
        """As the topic's own, up to the end."""
        return self.whole.lot(position, rows, self.end if until is None else until)


@dataclass(slots=True)
class _Log:
    """A folder at an interval, for one partition of the flow; what would be committed is kept to be compared."""

    root: Path
    partition: int
    ends: Ends = field(default_factory=dict)
    made: Mapping[str, pa.RecordBatch] = field(default_factory=dict)

    def reader(self, topic: str, partition: int | None = None) -> _Reader:
        """A reader of a partition of a topic, as a place gives it; of this one, as a log gives it, where none is named."""
        whole = TopicReader(self.root, topic, self.partition if partition is None else partition)
        whole.refresh()
        return _Reader(whole, self.ends)

    def commit(self, _sequence: int, outputs: Mapping[str, pa.RecordBatch], _positions: Mapping[str, int], _replaces: str | None) -> None:
        """Keep what an interval came to."""
        self.made = outputs


@dataclass(slots=True)
class _Again:
    """A cell that takes each interval as its token says."""

    cell: InvoicingCell
    log: _Log
    left: deque[tuple[Token, Token]]
    done: list[Replayed] = field(default_factory=list)

    def take(self, prepared: Prepared) -> None:
        """Do an interval again."""
        before, token = self.left.popleft()
        self.log.ends.update({topics.placed(name, token.partition): position for name, position in token.positions.items()})
        self.log.ends[topics.INVOICES, token.partition] = before.written.get(topics.INVOICES, 0)
        self.log.made = {}
        self.cell.take(prepared)
        self.done.append(_compared(token, self.cell.token, self.log.made))


@dataclass(slots=True)
class _Lots:
    """The rated records of each interval."""

    reader: TopicReader
    left: deque[tuple[Token, Token]]

    @property
    def ended(self) -> bool:
        """Whether all intervals were handed over."""
        return not self.left

    def poll(self) -> Lot:
        """Those of the next interval."""
        start, end = (token.positions.get(topics.RATED, 0) for token in self.left.popleft())
        return self.reader.lot(start, end - start, end) if end > start else pause.nothing_at(start)


def replay(
    root: Path, partition: int, limits: Limits, closes: int = invoicing.CLOSES, engine: Callable[[Pipeline], None] = local_engine.run,
) -> list[Replayed]:
    """Replay a partition from its first interval, with the flow's settings as they were; none where the flow has not been here."""
    written, rated = TopicReader(root, TOKEN, partition), TopicReader(root, topics.RATED, partition)
    rated.refresh()
    intervals = list(pairwise([Token(FLOW, partition, 0), *tokens.all_of(written)]))
    log = _Log(root, partition)
    place, whole = cast("Place", log), cast("Log", log)  # a cell that is not restored uses no more of them
    cell = InvoicingCell(partition, whole, InvoicingFold.of(place, whole, 1, limits), Token(FLOW, partition, 0), closes)
    again = _Again(cell, log, deque(intervals))
    decoder = codecs.decoder(topics.SCHEMAS[topics.RATED], {})
    engine(Pipeline(FLOW, {partition: _Lots(rated, deque(intervals))}, {partition: again}, lambda lot: usage.prepare(decoder, lot)))
    return again.done


def _compared(token: Token, again: Token, made: Mapping[str, pa.RecordBatch]) -> Replayed:
    outputs = {topic: batch for topic, batch in made.items() if not topics.is_own(topic) and batch.num_rows}
    digests = {topic: segments.digest(batch) for topic, batch in outputs.items()}
    committed = {topic: digest for topic, digest in token.digests.items() if not topics.is_own(topic)}
    different = sorted(topic for topic in digests.keys() | committed.keys() if digests.get(topic) != committed.get(topic))
    figures = [(one.clock, one.counts, one.totals, one.amounts) for one in (token, again)]
    return Replayed(token, sum(batch.num_rows for batch in outputs.values()), (*different, *([FIGURES] if figures[0] != figures[1] else [])))
