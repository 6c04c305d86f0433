"""A pipeline: what an engine runs, whichever engine it is, and wherever its topics live.

A partition's input is read in lots, prepared without state (decode), and folded and committed by the partition's
cell. Fence and restore have happened when a pipeline exists: its sources begin where the cells' tokens say.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import pyarrow as pa

from schemas.catalog import Avro
from schemas.decode import Decoded
from sources.lot import Lot

IDLE_SECONDS: Final = 0.01
"""How long an engine leaves a source alone that had no lot to give."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lot with its decoded values."""

    lot: Lot
    decoded: Decoded
    seconds: float = 0.0
    """What decoding took, for the metrics."""


class Reader(Protocol):
    """One partition of one topic, as committed."""

    @property
    def start(self) -> int:
        """The first position kept."""

    @property
    def end(self) -> int:
        """The position after the last record, as of the last ``refresh``."""

    def refresh(self) -> int:
        """Look for the end again."""

    def lot(self, position: int, rows: int, until: int | None = None) -> Lot:
        """Up to ``rows`` records from ``position`` on, none at ``until`` (``end``) or beyond; RetentionGap below ``start``."""


def let_go(reader: Reader) -> None:
    """Close a broker's reader; files have nothing to close."""
    closing = getattr(reader, "close", None)
    if closing is not None:
        closing()


class Log(Protocol):
    """One partition of one flow, fenced: what it reads, and its only way to write."""

    def reader(self, topic: str) -> Reader:
        """A reader of this partition of a topic."""

    def written(self, topic: str) -> Reader:
        """A reader of this partition of a topic that only this flow writes: its end is that of the last commit."""

    def end(self, topic: str) -> int:
        """The end of this partition of a topic now, records whose transaction is still open included."""

    def own(self, topic: str, written: int, start: int = 0) -> Iterator[tuple[int, pa.RecordBatch]]:
        """What is kept of the ``written`` records of a topic that only this flow writes, from number ``start`` on.

        In parts, each with the number of its first record; one that is missing between is an error.
        """

    def trim(self, topic: str, before: int) -> None:
        """Delete records of such a topic whose time lies before an instant: nobody needs them any more."""

    def last(self, topic: str) -> pa.RecordBatch:
        """The last record of such a topic, or none."""

    def commit(
        self, sequence: int, outputs: Mapping[str, pa.RecordBatch], positions: Mapping[str, int], replaces: str | None
    ) -> None:
        """Write all outputs at once or nothing; those of topic ``replaces`` make its earlier records needless."""

    def close(self) -> None:
        """Give the partition up."""


class Heads(Protocol):
    """All partitions of a topic, by their last records."""

    def values(self) -> Sequence[bytes | None]:
        """The value of each partition's last committed record; None where none has been seen."""

    def close(self) -> None:
        """Let the clients go."""


class TopicSize(NamedTuple):
    """What one partition of a topic holds: its first position, the one after its last record, its bytes where known."""

    topic: str
    partition: int
    start: int
    end: int
    bytes: int | None


class Place(Protocol):
    """Where topics live: a folder, or a broker."""

    @property
    def name(self) -> str:
        """The place in words, for messages."""

    def fence(self, flow: str, partition: int) -> Log:
        """Become the only writer of a flow's partition."""

    def reader(self, topic: str, partition: int) -> Reader:
        """A reader of one partition of a topic."""

    def written(self, topic: str, partition: int) -> Reader:
        """The same of a partition in which no transaction stays open for long: its end is that of the last commit."""

    def heads(self, topic: str) -> Heads | None:
        """The last records of a topic; None where there is no such topic."""

    def partitions(self) -> int:
        """How many partitions the topics about a customer have."""

    def sizes(self) -> list[TopicSize]:
        """All topics by partition."""

    def writers(self) -> Mapping[int, Avro]:
        """Writer schemas of usage by id, beside this build's own."""


class Source(Protocol):
    """Reads one partition."""

    @property
    def ended(self) -> bool:
        """Whether no lot will come any more."""

    def poll(self) -> Lot | None:
        """The next lot; None where none is due now."""


class Cell(Protocol):
    """Folds and commits one partition."""

    def take(self, prepared: Prepared) -> None:
        """Fold one prepared lot and commit what it came to, as one interval."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Sources and cells by partition, and the stateless step between."""

    name: str
    sources: Mapping[int, Source]
    cells: Mapping[int, Cell]
    prepare: Callable[[Lot], Prepared]
