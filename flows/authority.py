"""Whether a command of a person counts: signed with the key of its author, once the reference data knows any users.

In: a place with reference data, commands with the record times of their log. Out: why one does not count, and how far
the reference data was read for it. A command that was recorded before the first user was counts unsigned: an installation
begins without keys, and what was done then stands. Source: docs/contracts.md (signed commands).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Final

from flows import reference_records, topics
from flows.kafka_place import KafkaPlace
from flows.pipeline import Place
from flows.side_input import SideInput
from sources import kafka
from sources.lot import Lot
from tieout import governance
from tieout.governance import Command
from tieout.reference import ReferenceBook

if TYPE_CHECKING:
    from flows.file_place import FilePlace

_USER: Final = "user"


def why_not(book: ReferenceBook, command: Command, recorded_at: int) -> str | None:
    """Why a command does not count by some reference data, and what to do; None where it counts."""
    since = book.known_since(_USER)
    if since is None or recorded_at < since:
        return None
    problem = governance.fault(command, book, _verify, recorded_at)
    return None if problem is None else problem.message


def _verify(public_key: bytes, signature: bytes, statement: bytes) -> bool:
    """As ``signing.verify`` does, which is loaded with the first signature: a cell that nobody commands starts without cryptography."""
    return bool(import_module("flows.signing").verify(public_key, signature, statement))


@dataclass(slots=True)
class Authority:
    """What a place's reference data says of who may sign; nothing is read before somebody asks."""

    place: Place
    _book: ReferenceBook = field(default_factory=ReferenceBook)
    _read: SideInput | None = None

    def advance(self, until: dict[str, int] | None = None) -> dict[str, int]:
        """Read the reference data on, to its end or to some positions; how far it is read."""
        if self._read is None:
            readers = [self.place.reader(topics.REFERENCE, partition) for partition in range(_partitions(self.place))]
            if not readers:
                return {}
            self._read = SideInput(topics.REFERENCE, readers, self._learn)
        self._read.advance(until)
        return dict(self._read.positions)

    def _learn(self, lot: Lot, partition: int) -> None:
        self._book.learn(reference_records.read(lot, partition))

    def why_not(self, command: Command, recorded_at: int) -> str | None:
        """Why a command does not count by what was read so far, and what to do; None where it counts."""
        return why_not(self._book, command, recorded_at)

    def close(self) -> None:
        """Let a broker's clients go."""
        for reader in () if self._read is None else self._read.readers:
            if isinstance(reader, kafka.TopicReader):
                reader.close()


def _partitions(place: Place) -> int:
    """Of the reference data; 0 on a broker of an installation that has none."""
    if isinstance(place, KafkaPlace):
        return place.topics().get(topics.REFERENCE, 0)
    return 1


def of(place: FilePlace | KafkaPlace) -> Authority:
    """The authority of a place, with all that its reference data says now."""
    found = Authority(place)
    found.advance()
    return found
