"""The usage flow on a broker: one cell that reads its partitions as records come, until it is told to stop.

``attempt`` is one life of the cell: fence and restore all partitions at once, seek, run the engine. What a life ends
with decides what follows (``flows.cells``): a failure that passes is followed by another life, a fence is not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flows import cells as sharing
from flows import codecs, topics, usage
from flows.cells import Share
from flows.flow_metrics import FlowMetrics, Interval
from flows.kafka_place import KafkaPlace
from flows.pipeline import Pipeline, Prepared
from flows.token import Token
from flows.usage import UsageCell
from flows.usage_records import FLOW
from schemas.codec import Decoder
from sources.kafka import Stream
from sources.lot import Lot
from tieout.usage_stage import Limits, Result

ROWS: Final = 25_000
SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Live:
    """How a cell runs: which one it is, how large an interval is, and whether it ends where its input ends now."""

    share: Share = field(default_factory=Share)
    generation: int | None = None
    limits: Limits = field(default_factory=Limits)
    rows: int = ROWS
    seconds: float = SECONDS
    drain: bool = False


@dataclass(slots=True)
class LiveSource:
    """Lots of one partition as they come; an empty one now and then where nothing comes, so that contracts count."""

    stream: Stream
    seconds: float
    stopped: Callable[[], bool]
    metrics: FlowMetrics
    end: int | None = None
    """Where to end; None runs on."""
    _looked_at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it was told to stop, or has handed over all up to its end."""
        drained = self.end is not None and self.stream.position >= self.end and not self.stream.gathered and self._looked_at > 0
        return drained or self.stopped()

    def poll(self) -> Lot | None:
        """The lot that is due; None where none is."""
        self.metrics.turned()
        now = time.monotonic()
        lot = self.stream.poll(now, self.end)
        if lot is None and self.stream.at_end and not self.stream.gathered and now - self._looked_at >= self.seconds:
            lot = self.stream.take()
        if lot is not None:
            self._looked_at = now
            self._lag(lot)
        return lot

    def _lag(self, lot: Lot) -> None:
        start = int(lot.positions[0]) if len(lot.positions) else lot.end
        self.metrics.lag(self.stream.partition, start, lot.end if self.stream.at_end else self.stream.known_end())


@dataclass(slots=True)
class LiveCell:
    """One cell of the usage flow on a broker."""

    place: KafkaPlace
    partitions: Sequence[int]
    live: Live
    metrics: FlowMetrics
    engine: Callable[[Pipeline], None]
    stopped: Callable[[], bool]
    tokens: dict[int, Token] = field(default_factory=dict)
    """The last token of each partition."""

    def attempt(self) -> None:
        """Fence, restore, seek, run."""
        for partition in self.partitions:
            self.metrics.restoring(partition)
        began = time.monotonic()
        started = usage.start_cells(self.place, self.partitions, self.live.limits)
        streams: list[Stream] = []
        try:
            tokens = [cell.token for cell in started.values()]
            known = [(token.generation, token.cells) for token in tokens if token.sequence]
            generation = sharing.generation_of(known, self.live.share, self.live.generation)
            for cell in started.values():
                cell.generation, cell.cells = generation, self.live.share.cells
                self.tokens[cell.partition] = cell.token
                self._observe(cell)
                self.metrics.restored(cell.token, time.monotonic() - began)
                streams.append(self.place.stream(topics.USAGE, cell.partition, cell.position, self.live.rows, self.live.seconds))
            self.engine(self._pipeline(started, streams))
        finally:
            for stream in streams:
                stream.close()
            for cell in started.values():
                cell.close()

    def _pipeline(self, started: dict[int, UsageCell], streams: Sequence[Stream]) -> Pipeline:
        decoder = codecs.decoder("usage_event", self.place.writers())
        sources = {}
        for stream in streams:
            end = self.place.reader(topics.USAGE, stream.partition).refresh() if self.live.drain else None
            sources[stream.partition] = LiveSource(stream, self.live.seconds, self.stopped, self.metrics, end)
        return Pipeline(FLOW, sources, started, lambda lot: self._prepare(decoder, lot))

    def _prepare(self, decoder: Decoder, lot: Lot) -> Prepared:
        return usage.prepare(decoder, lot)

    def _observe(self, cell: UsageCell) -> None:
        def committed(token: Token, result: Result, seconds: Mapping[str, float]) -> None:
            self.tokens[cell.partition] = token
            self.metrics.committed(token, Interval.of([result], cell.fold.state, seconds))

        cell.on_commit = committed

    def away(self) -> None:
        """Say that the cell waits for the broker."""
        for partition in self.partitions:
            self.metrics.paused(partition, "broker")
