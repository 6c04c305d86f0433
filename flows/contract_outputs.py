"""What an interval of the contract flow writes: published versions, refusals as exceptions, and dead letters.

In: the result of the fold and the lot that it came from. Out: records by the names of their partitions, each in that of its
customer; a refusal that names none is in partition 0. Versions and exceptions say in their header ``flow`` who wrote them,
because others write to the same topics. Source: docs/contracts.md (refusals).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from flows import codecs, command_records, contract_records, dead_letters, topics
from schemas import segments
from schemas.codec import Refused
from sources.lot import Lot
from tieout import ids, proposal
from tieout.contracts import ContractVersion
from tieout.exception_queue import KINDS
from tieout.lifecycle import Refusal, Result, Settled
from tieout.period import micros
from tieout.stage import DeadLetter

FLOW: Final = "contract"
DEAD: Final = topics.dead_letters(topics.COMMANDS, FLOW)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OURS: Final = [{"key": topics.FLOW_HEADER, "value": FLOW.encode()}]


def outputs(result: Result, partitions: int) -> dict[str, pa.RecordBatch]:
    """Versions and exceptions for so many partitions."""
    found: dict[str, pa.RecordBatch] = {}
    for partition, versions in _by_partition([(version.customer_id, version) for version in result.published], partitions).items():
        found[topics.in_partition(topics.CONTRACTS, partition)] = _versions(versions)
    rows = [
        (one.at, _exception(one.refusal) | {"state": "resolved", "resolution": one.resolution}) if isinstance(one, Settled) else (one.at, _exception(one))
        for one in result.told
    ]
    for partition, exceptions in _by_partition([(row["customer_id"], (at, row)) for at, row in rows], partitions).items():
        found[topics.in_partition(topics.EXCEPTIONS, partition)] = _exceptions(exceptions)
    return found


def letters(rejected: Sequence[Refused], lot: Lot) -> pa.RecordBatch:
    """The commands of a lot that cannot be decoded, untouched."""
    dead = [DeadLetter(int(lot.positions[one.row]), one.reason, one.message, one.path, one.schema_id) for one in rejected]
    return dead_letters.records(dead, topics.COMMANDS, 0, FLOW, lambda _: lot)


def _by_partition(named: Sequence[tuple[str, Any]], partitions: int) -> Mapping[int, list[Any]]:
    """Things by the partition of their customer, in their order."""
    found: dict[int, list[Any]] = {}
    for customer_id, thing in named:
        found.setdefault(ids.partition_of(customer_id, partitions) if customer_id else 0, []).append(thing)
    return dict(sorted(found.items()))


def _versions(versions: list[ContractVersion]) -> pa.RecordBatch:
    stamps = np.array([micros(version.recorded_at) for version in versions if version.recorded_at is not None], np.int64)
    return segments.records(contract_records.encode(versions), pa.array([version.customer_id for version in versions]), stamps, _ours(len(versions)))


def _exceptions(told: list[tuple[int, dict[str, Any]]]) -> pa.RecordBatch:
    rows = [row for _, row in told]
    values = codecs.documents("exception", rows)
    stamps = np.array([at for at, _ in told], np.int64)
    return segments.records(values, pa.array([row["customer_id"] for row in rows]), stamps, _ours(len(rows)))


def _ours(count: int) -> pa.Array:
    """Headers that say who wrote so many records."""
    return pa.array([_OURS] * count, segments.HEADERS)


def _exception(refusal: Refusal) -> dict[str, Any]:
    command, position = refusal.received.command, refusal.received.position
    evidence = [json.dumps(problem._asdict(), ensure_ascii=False) for problem in refusal.problems]
    place = f"{command_records.NAME.replace('/', ' partition ')} position {position}: command {command.command_id}, {command.kind} by {command.author}"
    return {
        "exception_id": ids.text(("exception", refusal.kind, command.subject_type, command.subject_id, command.command_id, position)),
        "kind": refusal.kind, "object": {"type": proposal.SUBJECT, "id": command.subject_id},
        "customer_id": refusal.customer_id, "legal_entity_id": None, "amount_at_risk": None, "currency": None,
        "owner": KINDS[refusal.kind].owner, "opened_at": _moment(refusal.at), "state": "open", "correlation_id": None,
        "message": refusal.message, "evidence": [*evidence, place], "resolution": None,
    }


def _moment(instant: int) -> datetime:
    return _EPOCH + timedelta(microseconds=instant)
