"""The route flow: usage from any partition and under any key to the partition of its contracting customer, exactly once.

In: one partition of ``usage.raw.v1``, and ``reference.data.v1`` whole. Out: ``usage.event.v1`` in many partitions, and
dead letters. Nothing is kept from row to row: a ``RouteCell`` fences its partition, takes up its last token, and then
routes and commits lot by lot, each commit one transaction over all the partitions that it writes to, token last. The
token says how many records went to each of them, so that a reader there can tell when it has read all of an interval.
Which customer an alias means is decided by the event's time and by the reference data known when the interval began;
what has been routed is not moved by what becomes known later. A partition to which nothing comes is moved by ticks: its
token's clock tells the usage flow how far ticks may count there. Source: docs/architecture.md (route).
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from flows import cells as sharing
from flows import dead_letters, route_records, tick_topic, topics
from flows import token as tokens
from flows.pipeline import Log, Place, Prepared
from flows.route_records import DEAD, FLOW, Routed
from flows.route_reference import Reference
from flows.tick_topic import PartitionTicks, TickTopic
from flows.token import Token
from schemas import segments
from tieout.ticks import Tick

TOKEN: Final = topics.state_topics(FLOW)[2]
FATES: Final = ("routed", "rejected")


@dataclass(slots=True)
class RouteCell:
    """The route of one partition of raw usage to ``partitions`` of usage; the reference data is shared with others."""

    partition: int
    log: Log
    reference: Reference
    ticks: PartitionTicks
    partitions: int
    token: Token
    generation: int = 1
    cells: int = 1
    on_commit: Callable[[Token, Routed, Mapping[str, float]], None] | None = None
    """Hears of each interval: its token, what it came to, and the seconds of its steps."""

    @classmethod
    def start(cls, place: Place, partition: int, reference: Reference, ticks: TickTopic, partitions: int) -> "RouteCell":
        """Fence, then take up the last token."""
        log = place.fence(FLOW, partition)
        try:
            found = log.last(TOKEN)
            token = tokens.decode(found["value"])[0] if found.num_rows else Token(FLOW, partition, 0)
        except BaseException:
            log.close()
            raise
        return cls(partition, log, reference, PartitionTicks(ticks, lambda: log.end(topics.RAW)), partitions, token)

    @property
    def position(self) -> int:
        """The next raw record to read."""
        return self.token.positions.get(topics.RAW, 0)

    @property
    def unfinished(self) -> bool:
        """Whether a tick counts now."""
        return self.ticks.due

    def close(self) -> None:
        """Give the partition up."""
        self.log.close()
        self.reference.close()
        self.ticks.close()

    def take(self, prepared: Prepared) -> None:
        """Route one lot and commit the interval; nothing where no usage came and no tick moves the clock."""
        lot = prepared.lot
        tick = self.ticks.before(lot, self.token.positions.get(tick_topic.NAME, 0), self.token.clock)
        self.ticks.read(lot.end)
        if not len(lot.positions) and tick is None:
            return
        before = time.perf_counter()
        self.reference.advance()
        clock = self.token.clock if tick is None else tick.instant
        routed = route_records.route(prepared, self.reference.aliases, clock, self.partitions)
        folded = time.perf_counter()
        letters = dead_letters.records(routed.dead_letters, topics.RAW, self.partition, FLOW, lambda _: lot)
        outputs = routed.outputs() | {DEAD: letters}
        token = self._next_token(routed, letters, lot.end, tick)
        outputs[TOKEN] = tokens.record(token)
        encoded = time.perf_counter()
        self.log.commit(token.sequence, outputs, token.read(), None)
        self.token = token
        if self.on_commit is not None:
            seconds = {"decode": prepared.seconds, "fold": folded - before, "encode": encoded - folded, "commit": time.perf_counter() - encoded}
            self.on_commit(token, routed, seconds)

    def _next_token(self, routed: Routed, letters: pa.RecordBatch, end: int, tick: Tick | None) -> Token:
        rejected = len(routed.dead_letters)
        counts = {"received": routed.received, "routed": routed.records.num_rows, "rejected": rejected}
        written = dict(self.token.written)
        made = {topics.in_partition(topics.USAGE, partition): count for partition, count in enumerate(routed.counts.tolist())}
        for name, count in (made | {DEAD: rejected}).items():
            if count:
                written[name] = written.get(name, 0) + count
        token = Token(
            FLOW, self.partition, self.token.sequence + 1, self.generation, self.cells,
            positions=self._positions(end, tick), written=written, clock=routed.clock, counts=counts,
            totals={name: self.token.totals.get(name, 0) + count for name, count in counts.items()},
            digests=_digests(routed.records, letters),
            previous_chain=self.token.chain,
        )
        return replace(token, chain=token.linked())

    def _positions(self, end: int, tick: Tick | None) -> dict[str, int]:
        """What has been read: raw usage, reference data, and ticks as far as they have counted."""
        counted = self.token.positions.get(tick_topic.NAME) if tick is None else tick.position
        return self.reference.positions | {topics.RAW: end} | ({} if counted is None else {tick_topic.NAME: counted})


def _digests(routed: pa.RecordBatch, letters: pa.RecordBatch) -> dict[str, str]:
    """By topic; of what is routed without the headers, which are the senders' own and pass as they are."""
    without = segments.records(routed["value"], routed["key"], routed["timestamp"].to_numpy())
    return {name: segments.digest(batch) for name, batch in ((topics.USAGE, without), (DEAD, letters)) if batch.num_rows}


def start_cells(place: Place, partitions: Sequence[int], reference: Reference, targets: int) -> dict[int, RouteCell]:
    """Fence partitions, all at once, and read the reference data; where one fails, all are given up."""
    ticks = TickTopic.of(place)
    started = sharing.start_all(partitions, lambda partition: RouteCell.start(place, partition, reference, ticks, targets))
    try:
        reference.advance()
        for cell in started.values():
            reference.covers(cell.token.positions)
    except BaseException:
        for cell in started.values():
            cell.close()
        raise
    return started
