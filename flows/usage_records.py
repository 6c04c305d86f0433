"""What an interval of the usage flow writes to its topics: rated usage, holds, exceptions, dead letters.

In: the results of the stage, the interval's name and clock, and a way to the original records. Out: records by topic,
in the order in which the stage came to them; and the original bytes that a line of an exception's evidence holds.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from flows import codecs, dead_letters, topics
from flows.dead_letters import Originals
from schemas import segments
from tieout import ids, money
from tieout.exception_queue import KINDS
from tieout.stage import FinancialException
from tieout.usage import NO_CLOCK
from tieout.usage_stage import Result

FLOW: Final = "usage"
DEAD: Final = topics.dead_letters(topics.USAGE, FLOW)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAYLOAD: Final = re.compile(r"(?P<topic>\S+) partition (?P<partition>\d+) position (?P<position>\d+): (?P<value>(?:[0-9a-f]{2})*)")


class Payload(NamedTuple):
    """Original bytes as evidence, and where they came from."""

    topic: str
    partition: int
    position: int
    value: bytes

    @property
    def line(self) -> str:
        """The line of evidence, the bytes as hexadecimal text."""
        return f"{self.topic} partition {self.partition} position {self.position}: {self.value.hex()}"

    @classmethod
    def of(cls, line: str) -> "Payload | None":
        """The bytes of a line of evidence; None where it holds none."""
        found = _PAYLOAD.fullmatch(line)
        return None if found is None else cls(found["topic"], int(found["partition"]), int(found["position"]), bytes.fromhex(found["value"]))


def outputs(results: Sequence[Result], partition: int, batch_id: str, clock: int, original: Originals) -> dict[str, pa.RecordBatch]:
    """The records of an interval that was folded in one or several steps; ``clock`` is the interval's end."""
    parts = [
        {
            topics.RATED: _rated(result.rated, batch_id, clock),
            topics.HOLDS: _holds(result, clock),
            DEAD: dead_letters.records(result.dead_letters, topics.USAGE, partition, FLOW, original),
        }
        for result in results
    ]
    found = [exception for result in results for exception in result.exceptions]
    joined = {topic: _joined([part[topic] for part in parts]) for topic in (topics.RATED, topics.HOLDS, DEAD)}
    return joined | {topics.EXCEPTIONS: _exceptions(found, partition, clock, original)}


def blobs(rows: list[tuple[str, bytes]], clock: int) -> pa.RecordBatch:
    """State as records, its kind as the key."""
    values = pa.array([raw for _, raw in rows], pa.large_binary())
    keys = pa.array([kind.encode() for kind, _ in rows], pa.large_binary())
    return segments.records(values, keys, np.full(len(rows), clock))


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    batches = pa.Table.from_batches(parts, schema=segments.RECORDS).combine_chunks().to_batches()
    return batches[0] if batches else parts[0]


def _moment(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=0 if instant == NO_CLOCK else instant)


def _rated(rated: pa.Table, batch_id: str, clock: int) -> pa.RecordBatch:
    n = rated.num_rows
    if not n:
        return segments.records(pa.array([], pa.large_binary()), None, np.empty(0, np.int64))
    batch = pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([batch_id]))
    values = codecs.encode("rated_usage", rated.append_column("batch_id", batch))
    keys = rated["customer_id"].combine_chunks()
    return segments.records(values, keys.cast(pa.string()), np.full(n, clock))


def _documents(schema: str, rows: list[dict[str, Any]], keys: list[str], clock: int) -> pa.RecordBatch:
    values = codecs.documents(schema, rows)
    return segments.records(values, pa.array(keys, pa.string()), np.full(len(rows), clock))


def _holds(result: Result, clock: int) -> pa.RecordBatch:
    rows = [
        {
            "hold_id": record.held.hold_id, "usage": {"source": record.held.event.key.source, "id": record.held.event.key.event_id},
            "customer_id": record.held.event.customer_id, "contract_id": record.held.event.contract_id,
            "meter": record.held.event.meter, "time": _moment(record.held.event.time), "reason": record.held.reason,
            "state": record.state, "at": _moment(record.at),
        }
        for record in result.holds
    ]
    return _documents("hold", rows, [record.held.event.customer_id for record in result.holds], clock)


def _exceptions(found: list[FinancialException], partition: int, clock: int, original: Originals) -> pa.RecordBatch:
    """In the order of the clock, then of what they are about: it does not depend on how the interval was folded."""
    found.sort(key=lambda exception: (exception.at, exception.evidence_positions[-1:]))
    rows = [_exception(exception, partition, original) for exception in found]
    return _documents("exception", rows, [row["customer_id"] for row in rows], clock)


def _exception(found: FinancialException, partition: int, original: Originals) -> dict[str, Any]:
    evidence = [*found.evidence, *(_payload(position, partition, original) for position in found.evidence_positions)]
    rests_on: tuple[str | int, ...] = (*(found.evidence or (found.message,)), *found.evidence_positions, found.at)  # with the clock: what comes again later is another one
    name = ids.text(("exception", found.kind, found.customer_id, found.object_type, found.object_id, *rests_on))
    return {
        "exception_id": name, "kind": found.kind, "object": {"type": found.object_type, "id": found.object_id},
        "customer_id": found.customer_id, "legal_entity_id": None,
        "amount_at_risk": None if found.at_risk is None else money.decimal(found.at_risk[0], money.RATED_SCALE),
        "currency": None if found.at_risk is None else found.at_risk[1],
        "owner": KINDS[found.kind].owner, "opened_at": _moment(found.at), "state": "open", "correlation_id": None,
        "message": found.message, "evidence": evidence, "resolution": None,
    }


def _payload(position: int, partition: int, original: Originals) -> str:
    """The original bytes at a position; an event priced long ago may be older than its topic keeps."""
    lot = original(position)
    row = lot.row_of(position)
    if row is None:
        return f"{topics.USAGE} partition {partition} position {position}: no longer kept"
    return Payload(topics.USAGE, partition, position, lot.record(row)["value"] or b"").line
