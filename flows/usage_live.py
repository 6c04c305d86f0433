"""A flow on a broker: one cell that reads its partitions as records come, until it is told to stop.

``attempt`` is one life of the cell: fence and restore all partitions at once, seek, run the engine. What a life ends
with decides what follows (``flows.cells``): a failure that passes is followed by another life, a fence is not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from flows import cells as sharing
from flows import codecs, pause, topics, usage
from flows.cells import Share
from flows.flow_metrics import FlowMetrics, Interval
from flows.kafka_place import KafkaPlace
from flows.pause import PartitionPaused, Pause
from flows.pipeline import Cell, Pipeline
from flows.token import Token
from flows.usage import UsageCell
from flows.usage_records import FLOW
from schemas.catalog import Avro
from schemas.codec import Decoder
from schemas.errors import RegistryError
from sinks.errors import SinkError
from sources.kafka import Stream
from sources.lot import Lot
from tieout.stage import FATES
from tieout.usage_stage import Limits, Result

ROWS: Final = 25_000
SECONDS: Final = 0.5
REGISTRY_SECONDS: Final = 1.0
"""Between two attempts to fetch a schema."""


@dataclass(frozen=True, slots=True)
class Live:
    """How a cell runs: which one it is, how large an interval is, and whether it ends where its input ends now."""

    share: Share = field(default_factory=Share)
    generation: int | None = None
    limits: Limits = field(default_factory=Limits)
    rows: int = ROWS
    seconds: float = SECONDS
    drain: bool = False
    cache: Path | None = None
    """Where files lie that spare a restart some reading."""


@dataclass(slots=True)
class LiveSource:
    """Lots of one partition as they come; an empty one now and then where nothing comes, so that contracts count."""

    stream: Stream
    seconds: float
    stopped: Callable[[], bool]
    metrics: FlowMetrics
    told: Callable[[str], None]
    learn: Callable[[Lot], None]
    """Fetches the writers' schemas that a lot needs; RegistryError where one cannot be had now."""
    paused: Callable[[], Pause | None]
    """Why the partition takes no input; None while it does."""
    waits_at: Callable[[], tuple[int, int]]
    """While it takes none: the next position to read, and the end of the topic."""
    unfinished: Callable[[], bool]
    """Whether the partition has work that needs no input."""
    end: int | None = None
    """Where to end; None runs on."""
    _looked_at: float = 0.0
    _held: Lot | None = None
    """A lot that waits for the registry."""
    _again_at: float = 0.0
    _is_paused: bool = False

    @property
    def ended(self) -> bool:
        """Whether it was told to stop, or has handed over all up to its end, or is paused before it."""
        paused = self.paused()
        if paused is not None:
            return self.stopped() or (self.end is not None and paused.looked)
        read = self.end is not None and self.stream.position >= self.end and not self.stream.gathered
        return self.stopped() or (read and self._looked_at > 0 and self._held is None and not self.unfinished())

    def poll(self) -> Lot | None:
        """The lot that is due; None where none is."""
        self.metrics.turned()
        now = time.monotonic()
        lot = self._next(now) if self._held is None else self._held if now >= self._again_at else None
        if lot is None:
            return None
        try:
            self.learn(lot)
        except RegistryError as error:
            if self._held is None:
                self.told(f"{self.stream.topic}, partition {self.stream.partition}: waits for the registry, the other partitions go on: {error}")
            self._held, self._again_at = lot, now + REGISTRY_SECONDS
            self.metrics.paused(self.stream.partition, "registry")
            return None
        if self._held is not None:
            self._held = None
            self.metrics.paused(self.stream.partition, None)
        return lot

    def _next(self, now: float) -> Lot | None:
        paused = self.paused()
        if (paused is not None) != self._is_paused:
            self._is_paused = paused is not None
            self.metrics.paused(self.stream.partition, None if paused is None else "dead_letters")
            self.told(f"{self.stream.topic}, partition {self.stream.partition}: {'released, goes on' if paused is None else paused.why}")
        if paused is not None:
            return self._look(now)
        lot = self.stream.poll(now, self.end)
        if lot is None and self.stream.at_end and not self.stream.gathered and (now - self._looked_at >= self.seconds or self.unfinished()):
            lot = self.stream.take()
        if lot is not None:
            self._looked_at = now
            self._lag(lot)
        return lot

    def _look(self, now: float) -> Lot | None:
        """Now and then a lot without records, with which the cell looks for its release."""
        if now - self._looked_at < self.seconds:
            return None
        self._looked_at = now
        position, end = self.waits_at()
        self.metrics.lag(self.stream.partition, position, end)
        return pause.nothing_at(position)

    def _lag(self, lot: Lot) -> None:
        start = int(lot.positions[0]) if len(lot.positions) else lot.end
        self.metrics.lag(self.stream.partition, start, lot.end if self.stream.at_end else self.stream.known_end())


class LivePartition(Cell, Protocol):
    """One partition of a flow, fenced and restored."""

    partition: int
    token: Token
    generation: int
    cells: int
    on_commit: Callable[[Token, Any, Mapping[str, float]], None] | None

    @property
    def position(self) -> int:
        """The next record of its input to read."""

    def close(self) -> None:
        """Give the partition up."""


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """A flow: its name, its input, the fates it gives them, how it starts, and what an interval came to."""

    name: str
    topic: str
    fates: Sequence[str]
    start: Callable[[KafkaPlace, Sequence[int], Live], Mapping[int, LivePartition]]
    interval: Callable[[Any, Any, Mapping[str, float]], Interval]
    """From a partition, the result of the interval, and the seconds of its steps."""
    paused: Callable[[Any], Pause | None] = lambda _: None
    """Why a partition takes no input."""
    unfinished: Callable[[Any], bool] = lambda _: False
    """Whether a partition has work that needs no input."""
    headers: bool = False
    """Whether it looks at the headers of all its input."""
    schema: str = "usage_event"
    """The schema of its input."""


def _interval(cell: UsageCell, result: Result, seconds: Mapping[str, float]) -> Interval:
    return Interval.of([result], cell.fold.state, seconds)


def _paused(cell: UsageCell) -> Pause | None:
    return cell.paused


def _unfinished(cell: UsageCell) -> bool:
    return cell.unfinished


def _start(place: KafkaPlace, partitions: Sequence[int], live: Live) -> dict[int, UsageCell]:
    return usage.start_cells(place, partitions, live.limits, live.cache)


USAGE: Final = LiveFlow(FLOW, topics.USAGE, FATES, _start, _interval, _paused, _unfinished)


def _close(streams: Sequence[Stream], started: Mapping[int, LivePartition]) -> None:
    """Let all clients go, and give the partitions up; the first failure is raised when all is done."""
    with ExitStack() as stack:
        for stream in streams:
            stack.callback(stream.close)
        for cell in started.values():
            stack.callback(cell.close)


@dataclass(slots=True)
class LiveCell:
    """One cell of a flow on a broker."""

    place: KafkaPlace
    partitions: Sequence[int]
    live: Live
    metrics: FlowMetrics
    engine: Callable[[Pipeline], None]
    stopped: Callable[[], bool]
    told: Callable[[str], None]
    """Hears what a person should know."""
    writer: Callable[[int], Avro] | None = None
    """The registry's schema of an id; None without a registry."""
    tokens: dict[int, Token] = field(default_factory=dict)
    """The last token of each partition."""
    flow: LiveFlow = USAGE

    def attempt(self) -> None:
        """Fence, restore, seek, run."""
        for partition in self.partitions:
            self.metrics.restoring(partition)
        began = time.monotonic()
        started = self.flow.start(self.place, self.partitions, self.live)
        streams: list[Stream] = []
        try:
            tokens = [cell.token for cell in started.values()]
            known = [(token.generation, token.cells) for token in tokens if token.sequence]
            generation = sharing.generation_of(known, self.live.share, self.live.generation)
            self.metrics.joined(generation)
            for cell in started.values():
                cell.generation, cell.cells = generation, self.live.share.cells
                self.tokens[cell.partition] = cell.token
                self._observe(cell)
                self.metrics.restored(cell.token, time.monotonic() - began)
                self.metrics.paused(cell.partition, None)
                streams.append(self.place.stream(self.flow.topic, cell.partition, cell.position, self.live.rows, self.live.seconds, headers=self.flow.headers))
            self.engine(self._pipeline(started, streams))
            self._not_drained(started)
        except BaseException:
            with suppress(SinkError):  # what ended the run is told, not what became of its files meanwhile
                _close(streams, started)
            raise
        _close(streams, started)

    def _pipeline(self, started: Mapping[int, LivePartition], streams: Sequence[Stream]) -> Pipeline:
        decoder = codecs.decoder(self.flow.schema, self.place.writers())
        sources = {}
        for stream in streams:
            sources[stream.partition] = self._source(started[stream.partition], stream, lambda lot: self._learn(decoder, lot))
        return Pipeline(self.flow.name, sources, started, lambda lot: usage.prepare(decoder, lot))

    def _source(self, cell: LivePartition, stream: Stream, learn: Callable[[Lot], None]) -> LiveSource:
        reader = self.place.reader(self.flow.topic, stream.partition)
        # records whose transaction is being committed count as there
        end = self.place.ends(self.flow.topic, stream.partition) if self.live.drain else None
        return LiveSource(
            stream, self.live.seconds, self.stopped, self.metrics, self.told, learn, lambda: self.flow.paused(cell),
            lambda: (cell.position, reader.refresh()), lambda: self.flow.unfinished(cell), end,
        )

    def _not_drained(self, started: Mapping[int, LivePartition]) -> None:
        """PartitionPaused where a run that should read to the end has left partitions paused before it."""
        paused = [found.why for cell in started.values() if (found := self.flow.paused(cell)) is not None]
        if paused and self.live.drain and not self.stopped():
            raise PartitionPaused("; ".join(paused))

    def _learn(self, decoder: Decoder, lot: Lot) -> None:
        if self.writer is not None:
            codecs.learn(decoder, lot.records["value"], self.writer)

    def _observe(self, cell: LivePartition) -> None:
        def committed(token: Token, result: Any, seconds: Mapping[str, float]) -> None:
            self.tokens[cell.partition] = token
            self.metrics.committed(token, self.flow.interval(cell, result, seconds))

        cell.on_commit = committed

    def away(self) -> None:
        """Say that the cell waits for the broker."""
        for partition in self.partitions:
            self.metrics.paused(partition, "broker")
