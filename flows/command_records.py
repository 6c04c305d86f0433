"""Commands as records of their topic, and back: what people ask of the flows.

In: who asks for what, when and why. Out: a record of ``command.avsc``; and, between two positions of the topic, the
commands in their order, all or those about one kind of thing. A command's id is derived from what it says. What cannot be
read asks for nothing, and neither do ticks, of which the topic holds one a minute. Source: docs/interfaces.md (commands).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from flows.pipeline import Reader
from schemas import segments
from tieout import ticks
from tieout.governance import Command
from tieout.period import micros

__all__ = ["NAME", "PARTITION", "SCHEMA", "WAIVERS", "Command", "Recorded", "about", "are_ticks", "between", "commands", "record", "subject"]

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
    values = codecs.documents(SCHEMA, [row])
    return segments.records(values, pa.array([command.subject_id]), np.array([command.at]))


def commands(rows: pa.RecordBatch) -> list[Command]:
    """The commands of decoded rows."""
    return [_command(row) for row in rows.to_pylist()]


def _command(row: dict[str, Any]) -> Command:
    return Command(
        row["kind"], row["subject"]["type"], row["subject"]["id"], row["author"], micros(row["at"]), row["reason"], row["payload"], row["signature"]
    )


class Recorded(NamedTuple):
    """A command, and when its log took it, UTC microseconds."""

    command: Command
    at: int


def about(reader: Reader, start: int, end: int, kind: str, subject_type: str) -> list[Recorded]:
    """The commands of a kind about subjects of one type between two positions: waivers of held events, say."""
    return [found for found in between(reader, start, end) if found.command.kind == kind and found.command.subject_type == subject_type]


def are_ticks(rows: pa.RecordBatch) -> Mask:
    """Which of decoded rows are ticks."""
    return pc.equal(rows["kind"].cast(pa.string()), ticks.KIND).to_numpy(zero_copy_only=False)


def between(reader: Reader, start: int, end: int) -> Iterator[Recorded]:
    """The commands between two positions, in their order."""
    at = max(start, reader.start)
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        decoded = codecs.own(SCHEMA).decode(lot.records["value"])
        asked = ~are_ticks(decoded.batch)
        stamps = lot.records["timestamp"].to_numpy()[decoded.rows[asked]].tolist()
        yield from map(Recorded, commands(decoded.batch.filter(pa.array(asked))), stamps)
        at = lot.end
