"""``tieout release``: let a partition go on that is paused because too much of it was rejected.

It writes a command record; the partition's cell, or the next run over a folder, reads it and starts a new window.
"""

import argparse
import time
from typing import Final

import pyarrow as pa

from flows import codecs, command_records, output, pause, topics
from flows.cli import CommandError
from flows.command_records import Command
from flows.commands import governed, places
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.usage_records import FLOW
from schemas.registry import Registry

_FLOWS: Final = (FLOW,)
"""Flows whose partitions pause."""


def run(options: argparse.Namespace) -> int:
    """Release one partition; what it was paused for."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        return _release(options)


def _release(options: argparse.Namespace) -> int:
    place = places.place(options)
    flow, partition = _named(options.subject, place.partitions())
    rejects = pause.found(place, flow, partition)
    if rejects is None:
        msg = f"{place.name}: {options.subject} is not paused, there is nothing to release"
        raise CommandError(msg)
    _same_ids(place, flow, partition)
    asked = Command(pause.RELEASE, command_records.PARTITION, options.subject, governed.author_of(options), time.time_ns() // 1000, options.reason)
    command = governed.signed(asked, options, place)
    with governed.writing(place) as write:
        write(command)
    row = {"released": options.subject, "author": command.author, "reason": command.reason, "command_id": command.command_id, "rejected": rejects.by_reason()}
    output.show([row], options.output)
    output.say(f"{options.subject} goes on when its cell reads this, within a second where one runs, else at the next 'tieout run {flow}'")
    return 0


def _named(subject: str, partitions: int) -> tuple[str, int]:
    flow, _, number = subject.rpartition("-")
    if flow not in _FLOWS or not number.isdecimal() or int(number) >= partitions:
        msg = f"release: {subject!r} is no partition that can pause; it is {' or '.join(_FLOWS)}, '-' and a number from 0 to {partitions - 1}, as in usage-0"
        raise CommandError(msg, 2)
    return flow, int(number)


def _same_ids(place: FilePlace | KafkaPlace, flow: str, partition: int) -> None:
    """CommandError where the partition's cell writes under other schema ids: it could not read what is asked of it."""
    token = pause.last(place, topics.state_topics(flow)[2], partition)
    if token is not None and codecs.own("state_token").decode(pa.array([token["value"]], pa.large_binary())).rejected:
        msg = f"release: {flow}-{partition} writes under the schema ids of a registry; name it with --registry URL, and its lock file with --schema-lock FILE"
        raise CommandError(msg)
