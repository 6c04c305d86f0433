"""The exceptions of a place as a queue: read from their topic, from that of the commands and from that of the holds.

In: a folder or a broker. Out: the queue as it stands now. Commands are read first, then exceptions, then holds, so that
what a record refers to has been read. Of the holds only those are looked at that an exception names. A queue is small:
its topics are read whole. Source: docs/exceptions.md.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from flows import authority as authorities
from flows import codecs, command_records, topics
from flows.cli import CommandError
from flows.command_records import Command
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.pipeline import Reader
from sources import kafka
from tieout import exception_queue
from tieout.exception_queue import EXCEPTION, HOLD, Act, HoldChange, Opened, Queue, Refused, Repair
from tieout.period import micros

_ROWS: Final = 5000
_RECORDED: Final = "recorded_at"


def queue(place: FilePlace | KafkaPlace) -> Queue:
    """All exceptions of a place; CommandError where they are written under ids that this process does not read."""
    acts, uncounted = _acts(place)
    opened = [_opened(row) for batch in _batches(place, topics.EXCEPTIONS, "exception") for row in batch.to_pylist()]
    holds = sorted({found.hold_id for found in opened if found.hold_id is not None})
    found = exception_queue.fold(opened, acts, _changes(place, holds) if holds else {})
    found.refused += [Refused(act, exception_queue.named(found, act), why) for act, why in uncounted]
    return found


def command(act: Act) -> Command:
    """What somebody asks for as a command."""
    details = {name: value for name, value in (("to", act.to), ("exception_id", act.exception_id)) if value is not None}
    payload = json.dumps(details, sort_keys=True) if details else None
    return Command(act.kind, act.subject_type, act.subject_id, act.author, act.at, act.reason, payload)


def _act(command_: Command) -> Act:
    details = _details(command_.payload)
    to, exception_id = (found if isinstance(found := details.get(name), str) else None for name in ("to", "exception_id"))
    return Act(command_.kind, command_.subject_type, command_.subject_id, command_.author, command_.at, command_.reason, to, exception_id)


def _details(payload: str | None) -> dict[str, Any]:
    """A payload's fields; none where it cannot be read."""
    try:
        found = json.loads(payload or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _acts(place: FilePlace | KafkaPlace) -> tuple[list[Act], list[tuple[Act, str]]]:
    """What people asked for, and apart from it what does not count, with why."""
    counted, uncounted, authority = list[Act](), list[tuple[Act, str]](), authorities.of(place)
    with _closing(place.written(topics.COMMANDS, 0)) as reader:
        end = reader.refresh()
        for found in command_records.between(reader, reader.start, end):
            if found.command.subject_type not in (EXCEPTION, HOLD):
                continue
            why = authority.why_not(*found)
            if why is None:
                counted.append(_act(found.command))
            else:
                uncounted.append((_act(found.command), why))
    authority.close()
    return counted, uncounted


def _opened(row: dict[str, Any]) -> Opened:
    opened_at: datetime = row["opened_at"]
    return Opened(
        row["exception_id"], row["kind"], row["object"]["type"], row["object"]["id"], row["customer_id"], row["owner"], micros(opened_at),
        row["message"], tuple(row["evidence"]), row["legal_entity_id"], row["amount_at_risk"], row["currency"], row["correlation_id"],
        Repair(row[_RECORDED], row["resolution"] or "") if row["state"] == exception_queue.RESOLVED else None,
    )


def _changes(place: FilePlace | KafkaPlace, holds: Sequence[str]) -> dict[str, HoldChange]:
    """The last that is known of some held events; one stays in its partition, so the last record of it counts."""
    found: dict[str, HoldChange] = {}
    wanted = pa.array(holds, pa.string())
    for batch in _batches(place, topics.HOLDS, "hold"):
        mine = batch.select(["hold_id", "state", "at"]).filter(pc.is_in(batch["hold_id"], wanted))
        names, states, instants = mine["hold_id"].to_pylist(), mine["state"].to_pylist(), mine["at"].cast(pa.int64()).to_pylist()
        found |= {name: HoldChange(state, at) for name, state, at in zip(names, states, instants, strict=True)}
    return found


def _batches(place: FilePlace | KafkaPlace, topic: str, schema: str) -> Iterator[pa.RecordBatch]:
    """The decoded records of all partitions of a topic that the flows write."""
    for partition in range(place.partitions()):
        with _closing(place.reader(topic, partition)) as reader:
            end = reader.refresh()
            at = reader.start
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                decoded = codecs.own(schema).decode(lot.records["value"])
                if decoded.rejected:
                    msg = (
                        f"{place.name}: {topic}, partition {partition}, position {lot.positions[decoded.rejected[0].row]} cannot be read "
                        f"({decoded.rejected[0].message}); where a registry's ids are in use, name it with --registry URL, and its lock file with --schema-lock FILE"
                    )
                    raise CommandError(msg)
                yield decoded.batch.append_column(_RECORDED, lot.records["timestamp"])
                at = lot.end


@contextmanager
def _closing(reader: Reader) -> Iterator[Reader]:
    """Let a broker's client go when the reading is done."""
    try:
        yield reader
    finally:
        if isinstance(reader, kafka.TopicReader):
            reader.close()
