"""The dead letters of a flow as a queue: which there are, which are settled, and settling them.

In: a folder or a broker, and the flow that rejected. Out: letters by position; and for those that are replayed or
discarded a note that stands together with what it tells, or not at all. So a letter is replayed once, however often
the command is killed and run again: on a broker the record and the note are one transaction, and the fence lets one
process at a time settle letters of a partition; in a folder the note is the name of the append (``sinks/ingress.py``).
A note names the letters by ranges of positions. Nothing is deleted. Source: docs/interfaces.md (dead letters).
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from flows import contract_outputs, dead_letters, route_records, topics, usage_records
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from schemas import segments
from sinks.errors import CommitUnknown
from sinks.ingress import TOKEN, Ingress
from sinks.kafka import Records, TransactionalWriter
from sources.kafka import TopicReader

FORMAT: Final = 1
REPLAYED: Final = "replayed"
DISCARDED: Final = "discarded"
AT_ONCE: Final = 500
"""Letters settled together."""
_APPEND: Final = "dlq "
"""How the name of an append begins that is a note."""
_ROWS: Final = 500
_OPEN_SECONDS: Final = 30.0
"""Longer than a transaction may stay open."""
_LOOK_SECONDS: Final = 0.05


class Source(NamedTuple):
    """Where a flow's dead letters lie, and where they came from; each letter in the partition of its original."""

    flow: str
    dead: str
    origin: str


SOURCES: Final = {
    "usage": Source(usage_records.FLOW, usage_records.DEAD, topics.USAGE),
    "route": Source(route_records.FLOW, route_records.DEAD, topics.RAW),
    "contract": Source(contract_outputs.FLOW, contract_outputs.DEAD, topics.COMMANDS),
}


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: where it lies, its record, and what its own headers say."""

    partition: int
    position: int
    record: dict[str, Any]
    said: dict[str, str]

    @property
    def name(self) -> str:
        """What commands call it."""
        return f"{self.partition}:{self.position}"


class Settled(NamedTuple):
    """How a letter was settled: ``act`` is replayed or discarded, ``at`` in UTC microseconds."""

    act: str
    author: str
    at: int
    reason: str | None


class Queue(Protocol):
    """The dead letters of one flow in one place."""

    def partitions(self) -> int:
        """How many partitions they lie in."""

    def letters(self, partition: int, position: int | None = None) -> Iterator[Letter]:
        """The letters of a partition that are there now; only the one at a position where that is given."""

    def settled(self, partition: int) -> dict[int, Settled]:
        """The settled letters of a partition by position."""

    def hold(self, partition: int) -> None:
        """Let nobody else settle letters of a partition until ``close``; call it before ``settled`` decides what is left."""

    def settle(self, partition: int, letters: Sequence[Letter], how: Settled) -> None:
        """Settle letters, at once or not at all; ``replayed`` puts them back where they came from."""

    def close(self) -> None:
        """Give up what is held."""


def of(place: FilePlace | KafkaPlace, flow: str) -> Queue:
    """The dead letters of a flow in a place."""
    source = SOURCES[flow]
    return FolderQueue(place, source) if isinstance(place, FilePlace) else BrokerQueue(place, source)


class FolderQueue:
    """Dead letters in a folder."""

    def __init__(self, place: FilePlace, source: Source) -> None:
        self._place, self._source = place, source
        self._ingress: Ingress | None = None

    def partitions(self) -> int:
        """The folder's number."""
        return self._place.partitions()

    def letters(self, partition: int, position: int | None = None) -> Iterator[Letter]:
        """As the protocol says."""
        return _letters(self._place, self._source.dead, partition, position)

    def settled(self, partition: int) -> dict[int, Settled]:
        """From the names of what was appended."""
        reader = self._place.reader(TOKEN, partition)
        end = reader.refresh()
        found: dict[int, Settled] = {}
        for record in reader.read(reader.start, end - reader.start).to_pylist():
            name = json.loads(record["value"])["source"]
            if name.startswith(_APPEND):
                found |= _of_note(json.loads(name.removeprefix(_APPEND)), self._source.dead, record["timestamp"])
        return found

    def hold(self, partition: int) -> None:  # noqa: ARG002 - a folder is held whole
        """Hold the folder's way in."""
        if self._ingress is None:
            self._ingress = Ingress.open(self._place.root, self.partitions())

    def settle(self, partition: int, letters: Sequence[Letter], how: Settled) -> None:
        """One append; its name is the note."""
        if self._ingress is None:
            msg = "hold the partition before settling its letters"
            raise AssertionError(msg)
        note = _note(self._source.dead, partition, letters, how)
        name = _APPEND + json.dumps(note, sort_keys=True)
        if how.act == REPLAYED:
            self._ingress.append(self._source.origin, {partition: _originals(letters, how.at)}, name)
        else:
            self._ingress.append(topics.DLQ_PROGRESS, {partition: _noted(note, how.at)}, name)

    def close(self) -> None:
        """Let the folder go."""
        if self._ingress is not None:
            self._ingress.close()


class BrokerQueue:
    """Dead letters on a broker."""

    def __init__(self, place: KafkaPlace, source: Source) -> None:
        self._place, self._source = place, source
        self._writers: dict[int, TransactionalWriter] = {}

    def partitions(self) -> int:
        """The number of the topic's."""
        return self._place.partitions(self._source.dead)

    def letters(self, partition: int, position: int | None = None) -> Iterator[Letter]:
        """As the protocol says."""
        return _letters(self._place, self._source.dead, partition, position)

    def settled(self, partition: int) -> dict[int, Settled]:
        """From the notes; where the partition is held, from all that were ever begun, CommitUnknown where one stays open."""
        reader = self._place.reader(topics.DLQ_PROGRESS, self._home(partition))
        end = reader.refresh()
        if partition in self._writers:
            end = self._closed_end(reader)
        found: dict[int, Settled] = {}
        at = reader.start
        while at < end:
            lot = reader.lot(at, _ROWS, end)
            for value, stamp in zip(lot.records["value"].to_pylist(), lot.records["timestamp"].to_pylist(), strict=True):
                note = json.loads(value)
                if note["partition"] == partition:
                    found |= _of_note(note, self._source.dead, stamp)
            at = lot.end
        reader.close()
        return found

    def hold(self, partition: int) -> None:
        """Fence whoever settled letters of this partition before."""
        if partition not in self._writers:
            name = f"{self._place.installation}.dlq.{self._source.flow}-{partition}"
            self._writers[partition] = TransactionalWriter.open(self._place.settings, name)

    def settle(self, partition: int, letters: Sequence[Letter], how: Settled) -> None:
        """One transaction: what is put back, and the note."""
        note = _noted(_note(self._source.dead, partition, letters, how), how.at)
        made = [Records(self._place.physical(topics.DLQ_PROGRESS), note, self._home(partition), dated=True)]
        if how.act == REPLAYED:
            made.append(Records(self._place.physical(self._source.origin), _originals(letters, how.at), partition, dated=True))
        self._writers[partition].commit(made, [], None)

    def _closed_end(self, reader: TopicReader) -> int:
        """The end of the notes, when no transaction hides any before it: a broker ends one a moment after it has told so."""
        end = self._place.ends(topics.DLQ_PROGRESS, reader.partition)
        until = time.monotonic() + _OPEN_SECONDS
        while reader.refresh() < end:
            if time.monotonic() > until:
                msg = f"{reader.place}: a transaction stays open at {reader.end} of {end}; see what writes there, then run the command again"
                raise CommitUnknown(msg)
            time.sleep(_LOOK_SECONDS)
        return end

    def _home(self, partition: int) -> int:
        """The partition of the notes about a partition: a flow may have more of them."""
        return partition % self._homes

    @cached_property
    def _homes(self) -> int:
        return self._place.partitions(topics.DLQ_PROGRESS)

    def close(self) -> None:
        """Let the writers go."""
        for writer in self._writers.values():
            writer.close()


def _letters(place: FilePlace | KafkaPlace, dead: str, partition: int, position: int | None) -> Iterator[Letter]:
    reader = place.reader(dead, partition)
    end = reader.refresh()
    at = reader.start if position is None else position
    if position is not None:
        end = min(end, position + 1)
    while reader.start <= at < end:
        lot = reader.lot(at, _ROWS, end)
        for row, found in enumerate(lot.positions.tolist()):
            record = lot.record(row)
            yield Letter(partition, found, record, dead_letters.said_of(record["headers"]))
        at = lot.end


def _originals(letters: Sequence[Letter], at: int) -> pa.RecordBatch:
    """The records that are put back: everything of the original but the time, which is that of the replay."""
    headers = [dead_letters.replayed(letter.record["headers"] or ()) for letter in letters]
    return segments.records(
        pa.array([letter.record["value"] for letter in letters], pa.large_binary()),
        pa.array([letter.record["key"] for letter in letters], pa.large_binary()),
        np.full(len(letters), at), pa.array(headers, segments.HEADERS),
    )


def _note(dead: str, partition: int, letters: Sequence[Letter], how: Settled) -> dict[str, Any]:
    return {
        "format": FORMAT, "topic": dead, "partition": partition, "act": how.act, "author": how.author, "reason": how.reason,
        "positions": _ranges([letter.position for letter in letters]),
    }


def _noted(note: dict[str, Any], at: int) -> pa.RecordBatch:
    return segments.records(pa.array([json.dumps(note, sort_keys=True).encode()], pa.large_binary()), None, np.array([at]))


def _of_note(note: dict[str, Any], dead: str, at: int) -> dict[int, Settled]:
    if note.get("topic") != dead:
        return {}
    how = Settled(note["act"], note["author"], at, note["reason"])
    return {position: how for first, last in note["positions"] for position in range(first, last + 1)}


def _ranges(positions: Sequence[int]) -> list[list[int]]:
    """Rising positions as [first, last] of each unbroken run."""
    ranges: list[list[int]] = []
    for position in positions:
        if ranges and position == ranges[-1][1] + 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    return ranges
