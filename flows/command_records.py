"""Commands as records of their topic, and back: what people ask of the flows.

In: who asks for what, when and why. Out: a record of ``command.avsc``; and, between two positions of the topic, the
commands in their order, or the subjects of those of a kind. A command's id is derived from what it says. What cannot be
read asks for nothing, and neither do ticks, of which the topic holds one a minute. Source: docs/interfaces.md (commands).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from flows.pipeline import Reader
from schemas import catalog, segments
from tieout import ticks
from tieout.governance import Command
from tieout.period import micros

__all__ = ["NAME", "PARTITION", "SCHEMA", "WAIVERS", "Command", "are_ticks", "between", "commands", "record", "released", "subject", "subjects"]

Mask = npt.NDArray[np.bool_]
NAME: Final = topics.in_partition(topics.COMMANDS, 0)
"""The topic's one partition, as a token's positions name it."""
WAIVERS: Final = f"{NAME}#waive"
"""The same topic, as a token names how far waivers of held events have been read."""
PARTITION: Final = "partition"
"""The type of a subject that is a flow's partition."""
SCHEMA: Final = "command"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS: Final = 10_000


def subject(flow: str, partition: int) -> str:
    """The id of a flow's partition as a subject."""
    return f"{flow}-{partition}"


def record(command: Command) -> pa.RecordBatch:
    """One command as a topic record."""
    row = {
        "command_id": command.command_id, "kind": command.kind, "subject": {"type": command.subject_type, "id": command.subject_id},
        "author": command.author, "at": _EPOCH + timedelta(microseconds=command.at), "reason": command.reason,
        "payload": command.payload, "signature": command.signature,
    }
    values = codecs.encode(SCHEMA, pa.RecordBatch.from_pylist([row], schema=catalog.arrow_schema(SCHEMA)))
    return segments.records(values, pa.array([command.subject_id]), np.array([command.at]))


def commands(rows: pa.RecordBatch) -> list[Command]:
    """The commands of decoded rows."""
    return [_command(row) for row in rows.to_pylist()]


def _command(row: dict[str, Any]) -> Command:
    return Command(
        row["kind"], row["subject"]["type"], row["subject"]["id"], row["author"], micros(row["at"]), row["reason"], row["payload"], row["signature"]
    )


def released(commands: Reader, start: int, end: int, subject_id: str) -> bool:
    """Whether a partition is released between two positions."""
    return subject_id in subjects(commands, start, end, "release", PARTITION)


def subjects(commands: Reader, start: int, end: int, kind: str, subject_type: str) -> frozenset[str]:
    """The ids of the subjects of one type that commands of a kind name between two positions: held events that are waived, say."""
    found = set[str]()
    for batch in _batches(commands, start, end):
        rows = batch.select(["kind", "subject"]).to_pylist()
        found.update(row["subject"]["id"] for row in rows if row["kind"] == kind and row["subject"]["type"] == subject_type)
    return frozenset(found)


def between(reader: Reader, start: int, end: int) -> Iterator[Command]:
    """The commands between two positions, in their order."""
    for batch in _batches(reader, start, end):
        yield from commands(batch)


def are_ticks(rows: pa.RecordBatch) -> Mask:
    """Which of decoded rows are ticks."""
    return pc.equal(rows["kind"].cast(pa.string()), ticks.KIND).to_numpy(zero_copy_only=False)


def _batches(commands: Reader, start: int, end: int) -> Iterator[pa.RecordBatch]:
    at = max(start, commands.start)
    while at < end:
        lot = commands.lot(at, _ROWS, end)
        found = codecs.own(SCHEMA).decode(lot.records["value"]).batch
        yield found.filter(pa.array(~are_ticks(found)))
        at = lot.end
