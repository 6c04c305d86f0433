"""What a cell tells of itself: it calls once an interval, Prometheus and the health endpoint read.

In: tokens as they are committed or restored, what an interval came to beside its token, the input's end, pauses,
turns of the loop. Out: the exposition of ``flows.metrics.CATALOGUE`` and the state of each partition.

Children of a label are bound once for each partition. What a token holds is counted as the difference of two tokens,
so a counter stands where the committed state does, after a restore too, and is missing before it. One lock keeps a scrape and an interval's
counting apart, so no scrape sees half an interval.
"""

import importlib.metadata
import platform
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from flows import metrics, topics
from flows.backlog import Backlog
from flows.metrics import CATALOGUE, Metric
from flows.token import Token
from tieout.exception_queue import KINDS
from tieout.stage import FATES
from tieout.usage import NO_CLOCK
from tieout.usage_stage import Result, UsageState

Cause = Literal["registry", "broker", "dead_letters"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)
STEPS: Final = ("decode", "fold", "encode")
SIZES: Final = ("ids", "chains", "held")


@dataclass(frozen=True, slots=True)
class Interval:
    """What one interval came to, beside its token.

    ``seconds`` is wall time by step: "decode", "fold", "encode", "commit". ``sizes`` counts the state's entries:
    "ids", "chains", "held".
    """

    dead_letters: Mapping[str, int]
    exceptions: Mapping[str, int]
    sizes: Mapping[str, int]
    seconds: Mapping[str, float]
    jobs: int = 0
    """Re-pricing jobs that are not done."""
    latencies: Sequence[float] = ()
    """Of the invoicing flow: seconds from the end of each billing period to the clock at which it was closed."""

    @classmethod
    def of(cls, results: Sequence[Result], state: UsageState, seconds: Mapping[str, float]) -> "Interval":
        """An interval of the usage flow, from the results of its steps and the state after it."""
        dead = Tally(letter.reason for result in results for letter in result.dead_letters)
        opened = Tally(exception.kind for result in results for exception in result.exceptions)
        sizes = {"ids": len(state.seen), "chains": len(state.rater.chains.index), "held": state.waiting.count}
        return cls(dead, opened, sizes, seconds, len(state.jobs.queue))


@dataclass(frozen=True, slots=True)
class Status:
    """One partition as it stands: durations and ages in seconds, None where there is nothing to age."""

    partition: int
    sequence: int
    restored: bool
    restoring_seconds: float | None
    paused: Cause | None
    paused_seconds: float | None
    lag_records: int
    oldest_unprocessed_seconds: float
    waiting: int
    clock_seconds: float | None


class _Instruments:
    """The catalogue's metrics in one registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        own = [metric for metric in CATALOGUE if not metric.library]
        self.counters = {m: Counter(m.name, m.meaning, m.labels, registry=self.registry) for m in own if m.kind == "counter"}
        self.gauges = {m: Gauge(m.name, m.meaning, m.labels, registry=self.registry) for m in own if m.kind == "gauge"}
        self.histograms = {
            m: Histogram(m.name, m.meaning, m.labels, registry=self.registry, buckets=m.buckets) for m in own if m.kind == "histogram"
        }


class _Partition:
    """One partition's children, and what is known of it."""

    def __init__(self, instruments: _Instruments, flow: str, partition: int, fates: Sequence[str], now: Callable[[], float]) -> None:
        self._instruments, self._where, self._now = instruments, (flow, str(partition)), now
        self.fates = fates
        self.token = Token(flow, partition, 0)
        self.backlog = Backlog()
        self.restored = False
        self.restoring_since: float | None = None
        self.cause: Cause | None = None
        self.paused_since: float | None = None
        self.figures: _Figures | None = None
        self.dead_letters: dict[str, Counter] = {}
        self.exceptions = {kind: self.counter(metrics.EXCEPTIONS, kind) for kind in KINDS}
        self.restores = self.counter(metrics.RESTORES)
        self.jobs, self.slices = self.gauge(metrics.REPRICING_JOBS), self.counter(metrics.REPRICING_SLICES)
        self.steps = {step: self.counter(metrics.STEP_SECONDS, step) for step in STEPS}
        self.sizes = {kind: self.gauge(metrics.STATE_ENTRIES, kind) for kind in SIZES}
        self.causes = {cause: self.gauge(metrics.PAUSED, cause) for cause in CAUSES}
        self.lag, self.is_restored = self.gauge(metrics.LAG), self.gauge(metrics.RESTORED)
        self.restore_seconds = self.gauge(metrics.RESTORE_SECONDS)
        self.gauge(metrics.OLDEST_UNPROCESSED).set_function(self.oldest_unprocessed)
        self.commit_seconds = instruments.histograms[metrics.COMMIT_SECONDS].labels(*self._where)
        self.latency = instruments.histograms[metrics.INVOICE_LATENCY]
        self.rows = instruments.histograms[metrics.INTERVAL_ROWS].labels(*self._where)

    def counter(self, metric: Metric, *values: str) -> Counter:
        return self._instruments.counters[metric].labels(*self._where, *values)

    def gauge(self, metric: Metric, *values: str) -> Gauge:
        return self._instruments.gauges[metric].labels(*self._where, *values)

    def advance(self, token: Token) -> None:
        """Count what lies between the last token and this one."""
        if self.figures is None:
            self.figures = _Figures(self)
        before, self.token = self.token, token
        self.figures.advance(before, token)

    def clock_age(self) -> float:
        return self._now() - self.token.clock / 1_000_000

    def oldest_unprocessed(self) -> float:
        oldest_at = self.backlog.oldest_at()
        return 0.0 if oldest_at is None else max(0.0, self._now() - oldest_at)

    def status(self, now: float) -> Status:
        return Status(
            self.token.partition, self.token.sequence, self.restored,
            None if self.restoring_since is None else now - self.restoring_since,
            self.cause, None if self.paused_since is None else now - self.paused_since,
            self.backlog.records, self.oldest_unprocessed(), self.token.totals.get("waiting", 0),
            None if self.token.clock == NO_CLOCK else self.token.clock / 1_000_000,
        )


class _Figures:
    """Children for what a token holds, bound at the first one: a 0 before it would make a jump of the partition's whole past."""

    def __init__(self, partition: _Partition) -> None:
        self._partition = partition
        self.counts = {
            "received": partition.counter(metrics.RECEIVED), "released": partition.counter(metrics.RELEASED),
            "withdrawn": partition.counter(metrics.WITHDRAWN),
            **{fate: partition.counter(metrics.EVENTS, fate) for fate in partition.fates},
        }
        self.commits = partition.counter(metrics.COMMITS)
        self.written: dict[str, Counter] = {}
        self.waiting, self.waiting_age = partition.gauge(metrics.WAITING), partition.gauge(metrics.WAITING_AGE)
        self.clock: Gauge | None = None
        self.documents: dict[str, Counter] = {}
        self.lines: dict[str, Counter] = {}
        self.held: dict[str, Gauge] = {}

    def advance(self, before: Token, token: Token) -> None:
        for name, child in self.counts.items():
            child.inc(token.totals.get(name, 0) - before.totals.get(name, 0))
        self.commits.inc(token.sequence - before.sequence)
        for name, count in token.written.items():
            topic, _ = topics.placed(name, 0)
            if topic not in self.written:
                self.written[topic] = self._partition.counter(metrics.WRITTEN, topic)
            self.written[topic].inc(count - before.written.get(name, 0))
        self._billing(before, token)
        self.waiting.set(token.totals.get("waiting", 0))
        self.waiting_age.set(0 if token.oldest_held_at is None else (token.clock - token.oldest_held_at) / 1_000_000)
        if token.clock != NO_CLOCK:
            if self.clock is None:
                self.clock = self._partition.gauge(metrics.CLOCK)
                self._partition.gauge(metrics.CLOCK_AGE).set_function(self._partition.clock_age)
            self.clock.set(token.clock / 1_000_000)


    def _billing(self, before: Token, token: Token) -> None:
        """What the invoicing flow's tokens say of documents, lines, and billing periods that wait; nothing for others."""
        grown = {name: count - before.totals.get(name, 0) for name, count in token.totals.items()}
        documents = {kind: grown[name] for name, kind in (("invoices", "invoice"), ("credit_notes", "credit_note")) if name in grown}
        _count(self.documents, documents, lambda kind: self._partition.counter(metrics.DOCUMENTS, kind))
        lines = {name.removeprefix("line_"): count for name, count in grown.items() if name.startswith("line_")}
        _count(self.lines, lines, lambda kind: self._partition.counter(metrics.LINES, kind))
        waits = {name.removeprefix("waits_"): count for name, count in token.counts.items() if name.startswith("waits_")}
        for reason in {*self.held, *waits}:
            if reason not in self.held:
                self.held[reason] = self._partition.gauge(metrics.PERIODS_HELD, reason)
            self.held[reason].set(waits.get(reason, 0))


class FlowMetrics:
    """The metrics and the state of one cell of a flow.

    ``fates`` are those that the flow gives its events, ``now`` is the wall clock in unix seconds, against which data
    ages, and ``steady`` one that never jumps, for the loop. Calls may come from any thread.
    """

    def __init__(
        self, flow: str, partitions: Sequence[int], *, cell: int = 0, cells: int = 1, generation: int = 1, fates: Sequence[str] = FATES,
        now: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic,
    ) -> None:
        # a second series for every counter, which Prometheus does not need
        disable_created_metrics()  # type: ignore[no-untyped-call] # the library has left its types out
        self.flow, self.cell, self.cells = flow, cell, cells
        self.version = importlib.metadata.version("tieout")
        self._now, self._steady, self._lock = now, steady, Lock()
        self._turned_at: float | None = None
        self._started_at = steady()
        self._instruments = _Instruments()
        self._partitions = {partition: _Partition(self._instruments, flow, partition, fates, now) for partition in partitions}
        gauges = self._instruments.gauges
        gauges[metrics.CELL].labels(flow).set(cell)
        gauges[metrics.CELLS].labels(flow).set(cells)
        gauges[metrics.BUILD].labels(self.version, platform.python_version()).set(1)
        gauges[metrics.LOOP_AGE].labels(flow).set_function(self._loop_age)
        self.joined(generation)

    def joined(self, generation: int) -> None:
        """The generation that the cell runs as, once it is known."""
        self.generation = generation
        self._instruments.gauges[metrics.GENERATION].labels(self.flow).set(generation)

    def restoring(self, partition: int) -> None:
        """Fence and restore of a partition begin; it is not ready until ``restored``."""
        with self._lock:
            known = self._partitions[partition]
            known.restored, known.restoring_since = False, self._steady()
            known.is_restored.set(0)

    def restored(self, token: Token, seconds: float) -> None:
        """A partition is fenced and restored to a token (sequence 0 where it has none yet), which took so long."""
        with self._lock:
            known = self._partitions[token.partition]
            known.restored, known.restoring_since = True, None
            known.advance(token)
            known.is_restored.set(1)
            known.restores.inc()
            known.restore_seconds.set(seconds)

    def committed(self, token: Token, interval: Interval) -> None:
        """An interval is committed: its token, and what it came to beside it."""
        with self._lock:
            known = self._partitions[token.partition]
            known.advance(token)
            known.rows.observe(token.counts["received"])
            known.jobs.set(interval.jobs)
            known.slices.inc(token.counts.get("slices", 0))
            _count(known.dead_letters, interval.dead_letters, lambda reason: known.counter(metrics.DEAD_LETTERS, reason))
            _count(known.exceptions, interval.exceptions, lambda kind: known.counter(metrics.EXCEPTIONS, kind))
            for latency in interval.latencies:
                known.latency.labels(token.flow, str(token.partition)).observe(latency)
            for kind, size in interval.sizes.items():
                known.sizes[kind].set(size)
            for step, seconds in interval.seconds.items():
                if step == "commit":
                    known.commit_seconds.observe(seconds)
                else:
                    known.steps[step].inc(seconds)

    def lag(self, partition: int, position: int, end: int, appended_at: float | None = None) -> None:
        """The next position to commit and the input's end; ``appended_at``: unix seconds of the record there, where the broker stamps it."""
        with self._lock:
            known = self._partitions[partition]
            known.backlog.look(position, end, self._now(), appended_at)
            known.lag.set(known.backlog.records)

    def paused(self, partition: int, cause: Cause | None) -> None:
        """A partition pauses for a cause, or (None) goes on."""
        with self._lock:
            known = self._partitions[partition]
            if known.cause != cause:
                known.cause, known.paused_since = cause, None if cause is None else self._steady()
            for name, gauge in known.causes.items():
                gauge.set(name == cause)

    def checked(self, breaks: Mapping[int, int], at: float) -> None:
        """Control totals were checked: how many breaks each partition has, and when in unix seconds."""
        with self._lock:
            for partition, count in breaks.items():
                self._instruments.gauges[metrics.CONTROL_BREAKS].labels(self.flow, str(partition)).set(count)
            self._instruments.gauges[metrics.CONTROL_CHECKED].labels(self.flow).set(at)

    def turned(self) -> None:
        """The cell's loop has turned once more, whether or not there was anything to do."""
        self._turned_at = self._steady()

    @property
    def started(self) -> bool:
        """Whether the loop has turned at all."""
        return self._turned_at is not None

    def loop_seconds(self) -> float:
        """How long ago the loop turned; before its first turn, how long ago the cell was made."""
        return self._loop_age()

    def statuses(self) -> list[Status]:
        """Every partition as it stands."""
        with self._lock:
            return [known.status(self._steady()) for known in self._partitions.values()]

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the text format that an Accept header asks for, and its content type."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            return encoder(self._instruments.registry), content_type

    def _loop_age(self) -> float:
        return self._steady() - (self._started_at if self._turned_at is None else self._turned_at)


def _count(children: dict[str, Counter], counts: Mapping[str, int], bind: Callable[[str], Counter]) -> None:
    """Add counts by label, binding a child where its label is new."""
    for name, count in counts.items():
        if name not in children:
            children[name] = bind(name)
        children[name].inc(count)
