"""Commands as records of their topic, and back: what people ask of the flows.

In: who asks for what, when and why. Out: a record of ``command.avsc``; and whether a subject is released between two
positions of the topic. A command's id is derived from what it says. Source: docs/interfaces.md (commands).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from flows import codecs, topics
from flows.pipeline import Reader
from schemas import catalog, segments
from tieout import ids

NAME: Final = topics.in_partition(topics.COMMANDS, 0)
"""The topic's one partition, as a token's positions name it."""
PARTITION: Final = "partition"
"""The type of a subject that is a flow's partition."""
SCHEMA: Final = "command"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ROWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks for; ``at`` in UTC microseconds."""

    kind: str
    subject_type: str
    subject_id: str
    author: str
    at: int
    reason: str

    @property
    def command_id(self) -> str:
        """Its identity."""
        return ids.text(("command", self.kind, self.subject_type, self.subject_id, self.author, self.at, self.reason))


def subject(flow: str, partition: int) -> str:
    """The id of a flow's partition as a subject."""
    return f"{flow}-{partition}"


def record(command: Command) -> pa.RecordBatch:
    """One command as a topic record."""
    row = {
        "command_id": command.command_id, "kind": command.kind, "subject": {"type": command.subject_type, "id": command.subject_id},
        "author": command.author, "at": _EPOCH + timedelta(microseconds=command.at), "reason": command.reason, "payload": None, "signature": None,
    }
    values = codecs.encode(SCHEMA, pa.RecordBatch.from_pylist([row], schema=catalog.arrow_schema(SCHEMA)))
    return segments.records(values, pa.array([command.subject_id]), np.array([command.at]))


def released(commands: Reader, start: int, end: int, subject_id: str) -> bool:
    """Whether a partition is released between two positions; what cannot be read asks for nothing."""
    at, found = max(start, commands.start), False
    while at < end and not found:
        lot = commands.lot(at, _ROWS, end)
        rows = codecs.own(SCHEMA).decode(lot.records["value"]).batch.select(["kind", "subject"]).to_pylist()
        found = {"kind": "release", "subject": {"type": PARTITION, "id": subject_id}} in rows
        at = lot.end
    return found
