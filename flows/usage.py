"""The usage flow: usage events in, rated usage, holds, dead letters and exceptions out, exactly once.

One ``UsageCell`` owns a partition: it fences it, restores it from its own topics, reads contract versions at the
start of each interval, folds the interval's batch and commits everything it changed at once, token last. A cell whose
commit failed is thrown away; the next start restores. Source: docs/architecture.md (recovery), docs/semantics.md.
"""

import gc
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from flows import codecs, contract_records, topics, usage_state
from flows import token as tokens
from flows.originals import RatedIndex
from flows.pipeline import Lot, Pipeline, Prepared
from flows.token import Token
from schemas import catalog, segments
from schemas.catalog import Avro
from schemas.codec import Decoder
from sinks.files import PartitionWriter
from sources.files import TopicReader
from tieout import ids, money
from tieout.contracts import ContractVersion
from tieout.ids import EventKey
from tieout.stage import FinancialException
from tieout.usage import NO_CLOCK, Rejected
from tieout.usage_stage import Limits, Result, UsageBatch, UsageState, step

FLOW: Final = "usage"
ROWS: Final = 25_000
VERSION: Final = "0.1.0"
STATE, SEEN, TOKEN = topics.state_topics(FLOW)
DEAD: Final = topics.dead_letters(topics.USAGE, FLOW)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FileSource:
    """Lots of one partition of the usage topic, from a position to the end that the topic had at the start."""

    def __init__(self, reader: TopicReader, position: int, rows: int) -> None:
        self._reader, self._position, self._rows = reader, position, rows
        self._end = reader.refresh()

    @property
    def left(self) -> int:
        """Records still to read."""
        return self._end - self._position

    def poll(self) -> Lot | None:
        """The next lot; None at the end."""
        if self._position >= self._end:
            return None
        lot = Lot(self._position, self._reader.read(self._position, min(self._rows, self._end - self._position)))
        self._position += lot.records.num_rows
        return lot


@dataclass(slots=True)
class UsageCell:
    """The state of one partition and its only way out."""

    root: Path
    partition: int
    writer: PartitionWriter
    state: UsageState
    token: Token
    _contracts: TopicReader = field(init=False)
    _usage: TopicReader = field(init=False)
    _rated: RatedIndex = field(init=False)
    _delta_bytes: int = 0
    _full_bytes: int = 0
    on_commit: Callable[[Token], None] | None = None

    def __post_init__(self) -> None:
        self._contracts = TopicReader(self.root, topics.CONTRACTS, self.partition)
        self._usage = TopicReader(self.root, topics.USAGE, self.partition)
        self._rated = RatedIndex(TopicReader(self.root, topics.RATED, self.partition))

    @classmethod
    def start(cls, root: Path, partition: int, limits: Limits) -> "UsageCell":
        """Fence, then restore; the usage position to go on from is in the token."""
        writer = PartitionWriter.open(root, FLOW, partition)
        cell = cls(root, partition, writer, UsageState(limits), Token(FLOW, partition, 0))
        cell._restore()
        return cell

    @property
    def position(self) -> int:
        """The next usage record to read."""
        return self.token.positions.get(topics.USAGE, 0)

    def close(self) -> None:
        """Give the partition up."""
        self.writer.close()

    def _restore(self) -> None:
        last = _last_token(self.root, self.partition)
        if last is None:
            return
        self.token = last
        state = self.state
        state.clock = last.clock
        gc.disable()
        self._contracts.refresh()
        known = self._read_contracts(0, last.positions.get(topics.CONTRACTS, 0))
        for version in known:
            state.take_known(version)
        gc.freeze()
        gc.enable()
        blobs = _all_records(TopicReader(self.root, STATE, self.partition))
        usage_state.restore(state, ((key.decode(), value) for key, value in blobs), max(last.clock, 0))
        for _, value in _all_records(TopicReader(self.root, SEEN, self.partition)):
            state.seen.restore(usage_state.entries_of(value))
        for name, count in last.totals.items():
            if name != "waiting":
                setattr(state.totals, name, count)
        state.amounts = {currency: money.units(Decimal(text), money.RATED_SCALE) for currency, text in last.amounts.items()}
        if state.waiting.count != last.totals.get("waiting", 0):
            msg = f"{self.writer.directory}: restored {state.waiting.count} waiting events, the token counts {last.totals['waiting']}; the state is damaged, restore it from a backup"
            raise ValueError(msg)
        state.waiting.added, state.waiting.removed = [], []

    def _read_contracts(self, start: int, end: int) -> list[ContractVersion]:
        if end <= start:
            return []
        records = self._contracts.read(start, end - start)
        if records.num_rows != end - start:
            msg = f"{topics.CONTRACTS}, partition {self.partition}: records {start + records.num_rows} to {end - 1} are missing under {self.root}; restore the folder from a backup"
            raise ValueError(msg)
        return contract_records.decode(records["value"])

    def take(self, prepared: Prepared) -> None:
        """Fold one lot and commit the interval."""
        start = self.token.positions.get(topics.CONTRACTS, 0)
        end = self._contracts.refresh()
        gc.disable()  # compiling contracts makes many objects and no garbage: collecting meanwhile costs more than they do
        versions = self._read_contracts(start, end)
        batch = self._batch(prepared, versions)
        result = step(self.state, batch, versions)
        if versions:
            gc.freeze()
        gc.enable()
        self._commit(prepared.lot, result, end)

    def _batch(self, prepared: Prepared, versions: Sequence[ContractVersion]) -> UsageBatch:
        lot, decoded = prepared.lot, prepared.decoded
        undecodable = [Rejected(r.row, r.reason, r.message, r.path) for r in decoded.rejected]
        return UsageBatch(
            lot.position, lot.records.num_rows, decoded.batch, decoded.rows, lot.records["timestamp"].to_numpy(),
            lot.records["value"], undecodable, self._originals(decoded.batch), self._rated.backdated(versions),
        )

    def _originals(self, events: pa.RecordBatch) -> Mapping[Any, Any]:
        wanted: set[tuple[str, EventKey]] = set()
        for name in ("corrects", "voids"):
            column = events[name]
            if column.null_count < len(column):
                given = column.is_valid()
                pairs = zip(events["customer_id"].filter(given).to_pylist(), column.filter(given).to_pylist(), strict=True)
                wanted |= {(customer, EventKey(key["source"], key["id"])) for customer, key in pairs}
        return self._rated.find(wanted) if wanted else {}

    def _commit(self, lot: Lot, result: Result, contracts_end: int) -> None:
        sequence = self.token.sequence + 1
        batch_id = f"{FLOW}-{self.partition}-{sequence}"
        clock = result.clock
        outputs = {
            topics.RATED: _rated_records(result.rated, batch_id, clock),
            topics.HOLDS: _hold_records(result),
            topics.EXCEPTIONS: self._exception_records(lot, result),
            DEAD: self._dead_records(lot, result),
            SEEN: _blobs([("seen", usage_state.entries_blob(result.entries))] if len(result.entries.position) else [], clock),
        }
        changes = usage_state.changes(self.state, result)
        self._delta_bytes += sum(len(raw) for _, raw in changes)
        full = self._delta_bytes > 2 * self._full_bytes + (4 << 20)
        if full:
            changes = usage_state.whole(self.state)
            self._full_bytes, self._delta_bytes = sum(len(raw) for _, raw in changes), 0
        outputs[STATE] = _blobs(changes, clock)
        token = self._next_token(lot, result, contracts_end, sequence, outputs)
        outputs[TOKEN] = segments.records(pa.array([tokens.encode(token)], pa.large_binary()), None, np.array([clock]))
        self.writer.commit(sequence, outputs)
        self.token = token
        if full:
            self.writer.drop_before(STATE, sequence)
        if sequence % 64 == 0:
            self.writer.merge()
        if self.on_commit is not None:
            self.on_commit(token)

    def _next_token(
        self, lot: Lot, result: Result, contracts_end: int, sequence: int, outputs: Mapping[str, pa.RecordBatch]
    ) -> Token:
        written = dict(self.token.written)
        for topic, batch in outputs.items():
            if batch.num_rows:
                written[topic] = written.get(topic, 0) + batch.num_rows
        totals = self.state.totals
        token = Token(
            FLOW, self.partition, sequence, state_format=usage_state.FORMAT,
            positions={topics.USAGE: lot.position + lot.records.num_rows, topics.CONTRACTS: contracts_end},
            written=written, clock=result.clock, oldest_held_at=self.state.waiting.oldest(),
            counts=result.counts.as_dict(), totals=totals.as_dict() | {"waiting": totals.waiting},
            amounts={currency: format(money.decimal(units, money.RATED_SCALE), "f") for currency, units in sorted(self.state.amounts.items())},
            digests={topic: segments.digest(batch) for topic, batch in outputs.items() if batch.num_rows},
            previous_chain=self.token.chain,
        )
        return Token(**{name: getattr(token, name) for name in Token.__slots__ if name != "chain"}, chain=token.linked())

    def _payload(self, position: int, lot: Lot) -> str:
        """The original bytes at a position, as hexadecimal text."""
        if lot.position <= position < lot.position + lot.records.num_rows:
            value = lot.records["value"][position - lot.position].as_py()
        else:
            self._usage.refresh()
            value = self._usage.read(position, 1)["value"][0].as_py()
        return f"{topics.USAGE} partition {self.partition} position {position}: {(value or b'').hex()}"

    def _exception_records(self, lot: Lot, result: Result) -> pa.RecordBatch:
        rows = [self._exception_row(found, lot) for found in result.exceptions]
        return _few("exception", rows, [row["customer_id"] for row in rows], result.clock)

    def _exception_row(self, found: FinancialException, lot: Lot) -> dict[str, Any]:
        evidence = [*found.evidence, *(self._payload(position, lot) for position in found.evidence_positions)]
        name = ids.text(("exception", found.kind, found.customer_id, found.object_type, found.object_id, *found.evidence, *map(str, found.evidence_positions)))
        return {
            "exception_id": name, "kind": found.kind, "object": {"type": found.object_type, "id": found.object_id},
            "customer_id": found.customer_id, "legal_entity_id": None, "amount_at_risk": None, "currency": None,
            "owner": topics.OWNERS[found.kind], "opened_at": _moment(found.at), "state": "open", "correlation_id": None,
            "message": found.message, "evidence": evidence, "resolution": None,
        }

    def _dead_records(self, lot: Lot, result: Result) -> pa.RecordBatch:
        values, keys, stamps, headers = [], [], [], []
        for dead in result.dead_letters:
            at = dead.position - lot.position
            here = lot.records if 0 <= at < lot.records.num_rows else self._one(dead.position)
            at = at if here is lot.records else 0
            values.append(here["value"][at].as_py())
            keys.append(here["key"][at].as_py())
            stamps.append(here["timestamp"][at].as_py())
            own = {
                "reason": dead.reason, "message": dead.message, "path": dead.path, "topic": topics.USAGE,
                "partition": str(self.partition), "offset": str(dead.position), "stage": _STAGES.get(dead.reason, "range"),
                "flow": FLOW, "version": VERSION, "first_failed_at": _moment(stamps[-1]).isoformat(), "replay_count": "0",
            }
            added = [{"key": f"dlq.{name}", "value": text.encode()} for name, text in own.items() if text is not None]
            headers.append([*(here["headers"][at].as_py() or ()), *added])
        return segments.records(
            pa.array(values, pa.large_binary()), pa.array(keys, pa.large_binary()), np.array(stamps, np.int64),
            pa.array(headers, segments.HEADERS),
        )

    def _one(self, position: int) -> pa.RecordBatch:
        self._usage.refresh()
        return self._usage.read(position, 1)


_STAGES: Final = {"undecodable": "decode", "schema_unknown": "decode", "too_late": "time", "too_early": "time", "waived": "contract"}


def _moment(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=0 if instant == NO_CLOCK else instant)


def _rated_records(rated: pa.Table, batch_id: str, clock: int) -> pa.RecordBatch:
    n = rated.num_rows
    if not n:
        return segments.records(pa.array([], pa.large_binary()), None, np.empty(0, np.int64))
    batch = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([batch_id]))
    values = codecs.encode("rated_usage", rated.append_column("batch_id", batch))
    keys = rated["customer_id"].combine_chunks()
    return segments.records(values, keys.cast(pa.string()), np.full(n, clock))


def _few(schema: str, rows: list[dict[str, Any]], keys: list[str], clock: int) -> pa.RecordBatch:
    """Documents (holds, exceptions) as records."""
    values = codecs.encode(schema, pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema(schema)))
    return segments.records(values, pa.array(keys, pa.string()), np.full(len(rows), clock))


def _hold_records(result: Result) -> pa.RecordBatch:
    rows = [
        {
            "hold_id": record.held.hold_id, "usage": {"source": record.held.event.key.source, "id": record.held.event.key.event_id},
            "customer_id": record.held.event.customer_id, "contract_id": record.held.event.contract_id,
            "meter": record.held.event.meter, "time": _moment(record.held.event.time), "reason": record.held.reason,
            "state": record.state, "at": _moment(record.at),
        }
        for record in result.holds
    ]
    return _few("hold", rows, [record.held.event.customer_id for record in result.holds], result.clock)


def _blobs(blobs: list[tuple[str, bytes]], clock: int) -> pa.RecordBatch:
    values = pa.array([raw for _, raw in blobs], pa.large_binary())
    keys = pa.array([kind.encode() for kind, _ in blobs], pa.large_binary())
    return segments.records(values, keys, np.full(len(blobs), clock))


def _all_records(reader: TopicReader) -> list[tuple[bytes, bytes]]:
    reader.refresh()
    batch = reader.read(reader.start, reader.end - reader.start)
    return list(zip(batch["key"].to_pylist(), batch["value"].to_pylist(), strict=True))


def _last_token(root: Path, partition: int) -> Token | None:
    reader = TopicReader(root, TOKEN, partition)
    if not reader.refresh():
        return None
    return tokens.decode(reader.read(reader.end - 1, 1)["value"])[0]


def writers(root: Path) -> dict[int, Avro]:
    """Writer schemas of a folder's producers: ``<root>/schemas/<id>.avsc``, beside those of this build."""
    return {int(path.stem): json.loads(path.read_text()) for path in (root / "schemas").glob("*.avsc")}


def pipeline(root: Path, partitions: Sequence[int], *, limits: Limits | None = None, rows: int = ROWS) -> Pipeline:
    """Fence and restore the partitions, and wire them up."""
    usage = codecs.decoder("usage_event", writers(root))
    cells = {partition: UsageCell.start(root, partition, limits or Limits()) for partition in partitions}
    sources = {
        partition: FileSource(TopicReader(root, topics.USAGE, partition), cell.position, rows)
        for partition, cell in cells.items()
    }
    return Pipeline(FLOW, sources, cells, lambda lot: _prepare(usage, lot))


def _prepare(usage: Decoder, lot: Lot) -> Prepared:
    return Prepared(lot, usage.decode(lot.records["value"]))


def amounts_of(tokens_: Sequence[Token]) -> dict[str, Decimal]:
    """Rated amounts by currency over partitions."""
    sums: dict[str, Decimal] = {}
    for token in tokens_:
        for currency, text in token.amounts.items():
            sums[currency] = sums.get(currency, Decimal(0)) + Decimal(text)
    return sums
