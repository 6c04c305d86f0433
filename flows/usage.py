"""The usage flow: usage events in, rated usage, holds, dead letters and exceptions out, exactly once.

One ``UsageCell`` owns a partition: it fences it, restores it from its own topics, reads contract versions and ticks at the
start of each interval, folds the interval's batch and commits everything it changed at once, token last. A cell whose
commit failed is thrown away; the next start restores. Source: docs/architecture.md (recovery), docs/semantics.md.
"""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from flows import cells as sharing
from flows import codecs, command_records, pause, tick_topic, topics, usage_records, usage_state
from flows import token as tokens
from flows.authority import Authority
from flows.contract_records import KeptRecords
from flows.originals import neighbours
from flows.pause import Gate, PartitionPaused, Pause
from flows.pipeline import Log, Pipeline, Place, Prepared, Reader
from flows.rated_runs import RatedRuns
from flows.tick_topic import PartitionTicks, TickTopic
from flows.token import Token
from flows.usage_records import DEAD, FLOW
from schemas import segments
from schemas.codec import Decoder
from sinks.errors import Fenced
from sinks.seen_files import SeenFiles
from sinks.seen_stamps import Stamp
from sources.errors import SourceAway, SourceError
from sources.lot import Lot
from tieout import money
from tieout.contract_batch import ContractBatch
from tieout.dedup import Seen
from tieout.ids import EventKey
from tieout.rating.history import Known
from tieout.rejection import Rejects
from tieout.ticks import Tick
from tieout.usage import NO_CLOCK, Rejected
from tieout.usage_stage import Limits, Result, UsageBatch, UsageState, step

__all__ = ["DEAD", "FLOW", "SEEN", "STATE", "TOKEN", "UsageCell", "UsageFold", "UsageSource", "pipeline"]

ROWS: Final = 25_000
CONTRACT_ROWS: Final = 8_000
"""Contract versions that are columns at a time: one takes some fifty times an event's memory."""
IDLE_SECONDS: Final = 86_400.0
"""A partition without usage commits at least so often where only marks of transactions came: its position must not fall below retention."""
FEEDING: Final = "route"
"""The flow whose outputs are this one's input, where an installation has it."""
STATE, SEEN, TOKEN = topics.state_topics(FLOW)


class UsageSource:
    """Lots of one partition of the usage topic, from its cell's position to the end that the topic had at the start."""

    def __init__(self, reader: Reader, cell: "UsageCell", rows: int, all_: "Mapping[int, UsageSource]") -> None:
        """``all_`` are the sources of the run: where a partition stays paused the others still read to their end."""
        self._reader, self._cell, self._position, self._rows, self._all = reader, cell, cell.position, rows, all_
        self._end = reader.refresh()
        self._looked = False

    @property
    def left(self) -> int:
        """Records still to read."""
        return self._end - self._position

    @property
    def ended(self) -> bool:
        """Whether the end is reached; not before one lot, be it empty, so that contracts count."""
        return self._looked and self._cell.position >= self._end and self._cell.paused is None and not self._cell.unfinished

    @property
    def stuck(self) -> str | None:
        """Why the partition is paused, where nobody has released it."""
        paused = self._cell.paused
        return paused.why if paused is not None and paused.looked else None

    def poll(self) -> Lot | None:
        """The next lot; PartitionPaused where all that is left to read is in paused partitions."""
        self._looked = True
        if self.stuck is not None:
            if all(source.ended or source.stuck for source in self._all.values()):
                raise PartitionPaused("; ".join(source.stuck for source in self._all.values() if source.stuck))
            return None
        if self._cell.paused is not None:
            return pause.nothing_at(self._cell.position)
        if self._position >= self._end and self._cell.position >= self._end and self._cell.unfinished:
            return pause.nothing_at(self._cell.position)
        if self._position >= self._end > self._cell.position:
            return None  # all is read, the last lot is still to be folded
        lot = self._reader.lot(self._position, self._rows, self._end)
        self._position = lot.end
        return lot


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Compiling contracts makes many objects and no garbage: collecting meanwhile costs more than they do."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@dataclass(slots=True)
class UsageFold:
    """The fold of one partition with what it reads beside its usage: contracts, and what it rated before."""

    partition: int
    contracts: Reader
    usage: Reader
    rated: RatedRuns
    state: UsageState
    records: KeptRecords = field(default_factory=KeptRecords)

    @classmethod
    def of(cls, partition: int, log: Log, limits: Limits) -> "UsageFold":
        """A fold of nothing yet."""
        rated = RatedRuns(log.written(topics.RATED))
        return cls(partition, log.reader(topics.CONTRACTS), log.reader(topics.USAGE), rated, UsageState(limits))

    def versions(self, start: int, end: int) -> Iterable[ContractBatch]:
        """The contract versions between two positions of their topic, a batch at a time."""
        while start < end:
            lot = self.contracts.lot(start, CONTRACT_ROWS, end)
            if not lot.records.num_rows and lot.end <= start:
                msg = f"{topics.CONTRACTS}, partition {self.partition}: records {start} to {end - 1} are missing; restore the topic from a backup"
                raise ValueError(msg)
            yield self.records.take(lot.records["value"])
            start = lot.end

    def step(
        self, prepared: Prepared, versions: Iterable[ContractBatch], waived: frozenset[str] = frozenset(), tick: int = NO_CLOCK, *,
        ends_interval: bool = True, slices: bool = True,
    ) -> Result:
        """Fold one lot, after a tick, the versions, the waived holds and, where they are due, the slices of re-pricing."""
        found = self.rated.slices(self.state.jobs) if slices else []
        taken = self.state.take(versions)
        lot, decoded = prepared.lot, prepared.decoded
        undecodable = [Rejected(r.row, r.reason, r.message, r.path) for r in decoded.rejected]
        batch = UsageBatch(
            lot.positions, decoded.batch, decoded.rows, lot.records["timestamp"].to_numpy(), lot.records["value"],
            undecodable, self._originals(decoded.batch), waived, found, tick, ends_interval,
        )
        return step(self.state, batch, taken)

    def _originals(self, events: pa.RecordBatch) -> Mapping[tuple[str, EventKey], Known]:
        wanted: set[tuple[str, EventKey]] = set()
        for name in ("corrects", "voids"):
            column = events[name]
            if column.null_count < len(column):
                given = column.is_valid()
                pairs = zip(events["customer_id"].filter(given).to_pylist(), column.filter(given).to_pylist(), strict=True)
                wanted |= {(customer, EventKey(key["source"], key["id"])) for customer, key in pairs}
        return self.rated.find(wanted) if wanted else {}

    def original(self, lot: Lot, result: Result) -> Callable[[int], Lot]:
        """The way to the original records that a result tells of: in the lot at hand, or read again, neighbours together."""
        wanted = {position for found in result.exceptions for position in found.evidence_positions} | {dead.position for dead in result.dead_letters}
        away = sorted(position for position in wanted if lot.row_of(position) is None)
        if away:
            self.usage.refresh()
            away = [position for position in away if position >= self.usage.start]  # older ones are gone with their topic's retention
        lots = [lot, *neighbours(self.usage, away)]

        def find(position: int) -> Lot:
            return next((found for found in lots if found.row_of(position) is not None), lot)

        return find


class _Asked(NamedTuple):
    """What the commands say for an interval: holds that somebody has waived, the tick that moves the clock, and how far both were read."""

    waived: frozenset[str]
    tick: Tick | None
    positions: dict[str, int]


@dataclass(slots=True)
class UsageCell:
    """The state of one partition and its only way out."""

    partition: int
    log: Log
    fold: UsageFold
    files: SeenFiles
    gate: Gate
    ticks: PartitionTicks
    token: Token
    generation: int = 1
    cells: int = 1
    on_commit: Callable[[Token, Result, Mapping[str, float]], None] | None = None
    """Hears of each interval: its token, what it came to, and the seconds of its steps."""
    _delta_bytes: int = field(default=0, init=False)
    _full_bytes: int = field(default=0, init=False)
    _waivers_read: int = field(default=0, init=False)
    _committed_at: float = field(default_factory=time.monotonic, init=False)

    @classmethod
    def start(cls, place: Place, partition: int, limits: Limits, ticks: TickTopic, cache: Path | None = None) -> "UsageCell":
        """Fence, then restore; the usage position to go on from is in the token. ``ticks`` are shared with others; ``cache`` spares reading, it is never the truth."""
        log = place.fence(FLOW, partition)
        files = SeenFiles.open(None if cache is None else cache / FLOW / f"{partition:04d}")
        try:
            gate = Gate(FLOW, partition, place.reader(topics.COMMANDS, 0), Authority(place))
            mine = PartitionTicks(ticks, lambda: log.end(topics.USAGE))
            cell = cls(partition, log, UsageFold.of(partition, log, limits), files, gate, mine, Token(FLOW, partition, 0))
            cell.fold.state.rejects = Rejects()
            cell.fold.state.seen = Seen(limits.horizon, files)
            cell._restore()
        except BaseException:
            files.close()
            log.close()
            raise
        return cell

    @property
    def position(self) -> int:
        """The next usage record to read."""
        return self.token.positions.get(topics.USAGE, 0)

    @property
    def unfinished(self) -> bool:
        """Whether there is work without input: events priced before are to be looked at because of versions that came late, or a tick counts now."""
        return bool(self.fold.state.jobs.queue) or self.ticks.due

    @property
    def paused(self) -> Pause | None:
        """Why the partition takes no input; None while it does."""
        rejects = self.fold.state.rejects
        return Pause(pause.words(FLOW, self.partition, rejects), self.gate.looked) if rejects is not None and rejects.paused else None

    def close(self) -> None:
        """Give the partition up."""
        self.files.close()
        self.gate.authority.close()
        self.log.close()
        self.ticks.close()

    def _restore(self) -> None:
        found = self.log.last(TOKEN)
        if not found.num_rows:
            return
        try:
            self._restore_to(tokens.decode(found["value"])[0])
        except SourceAway:
            raise
        except (SourceError, ValueError) as error:
            if self.log.last(TOKEN).equals(found):
                raise
            msg = f"{FLOW}, partition {self.partition}: another process has taken this partition while it was restored; this one ends, let only one cell own a partition"
            raise Fenced(msg) from error

    def _restore_to(self, last: Token) -> None:
        self.token = last
        state = self.fold.state
        state.clock = last.clock
        self.fold.contracts.refresh()
        with _without_collecting():
            state.take(self.fold.versions(self.fold.contracts.start, last.positions.get(topics.CONTRACTS, 0)))
        usage_state.restore(state, self._blobs(), max(last.clock, 0))
        self._restore_seen(last.written.get(SEEN, 0))
        for name, count in last.totals.items():
            if name != "waiting":
                setattr(state.totals, name, count)
        state.amounts = {currency: money.units(Decimal(text), money.RATED_SCALE) for currency, text in last.amounts.items()}
        if state.waiting.count != last.totals.get("waiting", 0):
            msg = f"{FLOW}, partition {self.partition}: restored {state.waiting.count} waiting events, the token counts {last.totals['waiting']}; the state is damaged, restore it from a backup"
            raise ValueError(msg)
        state.waiting.added, state.waiting.removed = [], []

    def _restore_seen(self, written: int) -> None:
        """Identities: what the local files do not cover, or all of them where the files are those of another log."""
        state, stamp = self.fold.state, self.files.stamp
        values = self._seen_from(0, written) if stamp is None else self._seen_from(stamp.position, written)
        if stamp is not None:
            number, value = next(values, (-1, b""))
            if Stamp.of(number, value) != stamp:
                self.files.clear()
                state.seen = Seen(state.limits.horizon, self.files)
                values = self._seen_from(0, written)
        for _, value in values:
            state.seen.restore(usage_state.entries_of(value))

    def _seen_from(self, start: int, written: int) -> Iterator[tuple[int, bytes]]:
        """The records of the identities with their numbers; none where there are not so many."""
        for first, part in self.log.own(SEEN, written, start) if start < written or not start else ():
            yield from enumerate((value.as_py() for value in part["value"]), first)  # each may hold an interval's identities

    def _blobs(self) -> Iterator[tuple[str, bytes]]:
        """The state's records; ValueError where what came before the last full state is gone and no full state is there."""
        written = self.token.written.get(STATE, 0)
        found, whole = 0, False
        for _, part in self.log.own(STATE, written):
            for key, value in zip(part["key"].to_pylist(), part["value"].to_pylist(), strict=True):
                found, whole = found + 1, whole or key == usage_state.FULL.encode()
                yield key.decode(), value
        if found < written and not whole:
            msg = f"{STATE}, partition {self.partition}: {written - found} of {written} records are gone and no full state has replaced them; restore the topic from a backup"
            raise ValueError(msg)

    def take(self, prepared: Prepared) -> None:
        """Fold one lot and commit the interval; nothing where neither usage nor contracts came. While paused, lots wait."""
        if self.paused is None:
            self._interval(prepared)
        elif len(prepared.lot.positions):
            self.gate.lots.append(prepared)
        else:
            self._look_for_release(prepared)

    def _look_for_release(self, empty: Prepared) -> None:
        """Where the partition is released, commit that, and fold what waits."""
        commands_end = self.gate.released(self.token.positions[command_records.NAME])
        if commands_end is None or self.fold.state.rejects is None:
            return
        self.fold.state.rejects.release()
        self._interval(replace(empty, lot=pause.nothing_at(self.position)), commands_end)
        while self.gate.lots and self.paused is None:
            self._interval(self.gate.lots.popleft())

    def _interval(self, prepared: Prepared, commands_end: int | None = None) -> None:
        end = self.fold.contracts.refresh()
        start = self.token.positions.get(topics.CONTRACTS, self.fold.contracts.start)
        moved = prepared.lot.end > self.position and time.monotonic() - self._committed_at >= IDLE_SECONDS
        asked = self._asked(prepared.lot)
        due = bool(self.fold.state.jobs.queue) or asked.tick is not None or bool(asked.waived)
        if end <= start and not len(prepared.lot.positions) and commands_end is None and not moved and not due:
            self.ticks.read(prepared.lot.end)
            return
        before = time.perf_counter()
        tick = NO_CLOCK if asked.tick is None else asked.tick.instant
        if end > start:
            with _without_collecting():
                result = self.fold.step(prepared, self.fold.versions(start, end), asked.waived, tick)
        else:
            result = self.fold.step(prepared, (), asked.waived, tick)
        positions = self._positions(prepared.lot, result.counts.received, max(start, end), commands_end) | asked.positions
        self._commit(prepared.lot, result, positions, {"decode": prepared.seconds, "fold": time.perf_counter() - before})
        if result.counts.received < len(prepared.lot.positions):
            self.gate.lots.appendleft(pause.rest_of(prepared, result.counts.received))
        else:
            self.ticks.read(prepared.lot.end)

    def _asked(self, lot: Lot) -> "_Asked":
        """What the commands say that has not counted yet. Where no event waits, none can have been waived before a tick that counts."""
        tick = self.ticks.before(lot, self.token.positions.get(tick_topic.NAME, 0), self.fold.state.clock)
        positions = {} if tick is None else {tick_topic.NAME: tick.position}
        start = max(self.token.positions.get(command_records.WAIVERS, 0), self._waivers_read)
        if not self.fold.state.waiting.count:
            return _Asked(frozenset(), tick, positions if tick is None else positions | {command_records.WAIVERS: max(start, tick.position)})
        end = self.gate.commands.refresh()
        if end <= start:
            return _Asked(frozenset(), tick, positions)
        self._waivers_read = end
        holds, read = self.gate.waived(start, end)
        return _Asked(holds, tick, positions | {command_records.WAIVERS: end} | read)

    def _positions(self, lot: Lot, taken: int, contracts_end: int, commands_end: int | None) -> dict[str, int]:
        """Where the next interval goes on, after so many rows of a lot."""
        end = lot.end if taken == len(lot.positions) else int(lot.positions[taken - 1]) + 1
        positions = self.token.positions | {topics.CONTRACTS: contracts_end, topics.USAGE: end}
        if self.paused is not None:
            commands_end = self.gate.shut()
        return positions if commands_end is None else positions | {command_records.NAME: commands_end}

    def _commit(self, lot: Lot, result: Result, positions: dict[str, int], seconds: dict[str, float]) -> None:
        before = time.perf_counter()
        sequence, clock = self.token.sequence + 1, result.clock
        batch_id = f"{FLOW}-{self.partition}-{sequence}"
        outputs = usage_records.outputs([result], self.partition, batch_id, clock, self.fold.original(lot, result))
        outputs[SEEN] = usage_records.blobs([("seen", raw) for raw in usage_state.entries_blobs(result.entries)], clock)
        changes = usage_state.changes(self.fold.state, result)
        self._delta_bytes += sum(len(raw) for _, raw in changes)
        full = self._delta_bytes > 2 * self._full_bytes + (4 << 20)
        if full:
            changes = usage_state.whole(self.fold.state)
            self._full_bytes, self._delta_bytes = sum(len(raw) for _, raw in changes), 0
        outputs[STATE] = usage_records.blobs(changes, clock)
        token = self._next_token(positions, result, sequence, outputs)
        outputs[TOKEN] = tokens.record(token)
        encoded = time.perf_counter()
        own = {name: position for name, position in token.read().items() if not name.startswith((topics.COMMANDS, topics.REFERENCE))}  # read now and then only: no lag
        self.log.commit(sequence, outputs, own, STATE if full else None)
        self.token, self._committed_at = token, time.monotonic()
        if outputs[SEEN].num_rows:
            self.files.save(Stamp.of(token.written[SEEN] - 1, outputs[SEEN]["value"][-1].as_py()))
        if full and clock != NO_CLOCK:  # now and then; an identity is remembered by an instant that is at most so far ahead of the clock
            limits = self.fold.state.limits
            self.log.trim(SEEN, clock - limits.horizon - limits.future_limit)
        if self.on_commit is not None:
            self.on_commit(token, result, seconds | {"encode": encoded - before, "commit": time.perf_counter() - encoded})

    def _next_token(self, positions: dict[str, int], result: Result, sequence: int, outputs: Mapping[str, pa.RecordBatch]) -> Token:
        written = dict(self.token.written)
        for topic, batch in outputs.items():
            if batch.num_rows:
                written[topic] = written.get(topic, 0) + batch.num_rows
        state = self.fold.state
        token = Token(
            FLOW, self.partition, sequence, self.generation, self.cells, usage_state.FORMAT, positions=positions,
            written=written, clock=result.clock, oldest_held_at=state.waiting.oldest(),
            counts=result.counts.as_dict() | {"slices": result.slices}, totals=state.totals.as_dict() | {"waiting": state.totals.waiting},
            amounts={currency: format(money.decimal(units, money.RATED_SCALE), "f") for currency, units in sorted(state.amounts.items())},
            digests={topic: segments.digest(batch) for topic, batch in outputs.items() if batch.num_rows},
            previous_chain=self.token.chain,
        )
        return replace(token, chain=token.linked())


def start_cells(place: Place, partitions: Sequence[int], limits: Limits, cache: Path | None = None) -> dict[int, UsageCell]:
    """Fence and restore partitions; where the route flow has topics, it feeds them."""
    ticks = TickTopic.of(place, FEEDING)
    try:
        return sharing.start_all(partitions, lambda partition: UsageCell.start(place, partition, limits, ticks, cache))
    except BaseException:
        ticks.close()
        raise


def pipeline(place: Place, partitions: Sequence[int], *, limits: Limits | None = None, rows: int = ROWS) -> Pipeline:
    """Fence and restore the partitions, and wire them up to read what there is now."""
    usage = codecs.decoder("usage_event", place.writers())
    cells = start_cells(place, partitions, limits or Limits())
    sources: dict[int, UsageSource] = {}
    for partition, cell in cells.items():
        sources[partition] = UsageSource(cell.log.reader(topics.USAGE), cell, rows, sources)
    return Pipeline(FLOW, sources, cells, lambda lot: prepare(usage, lot))


def prepare(usage: Decoder, lot: Lot) -> Prepared:
    """Decode a lot."""
    before = time.perf_counter()
    decoded = usage.decode(lot.records["value"])
    return Prepared(lot, decoded, time.perf_counter() - before)


def amounts_of(tokens_: Sequence[Token]) -> dict[str, Decimal]:
    """Rated amounts by currency over partitions."""
    sums: dict[str, Decimal] = {}
    for token in tokens_:
        for currency, text in token.amounts.items():
            sums[currency] = sums.get(currency, Decimal(0)) + Decimal(text)
    return sums
