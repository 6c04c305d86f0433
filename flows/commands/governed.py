"""Commands that people give: by whom, and written one person at a time.

In: who acts, and a folder or a broker. Out: command records on ``governance.command.v1``. Whoever may write holds the
topic until it is done, so that what was looked at before a command was written still stood when it was.
"""

import argparse
import getpass
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import authority as authorities
from flows import command_records, signing, topics
from flows.cli import CommandError
from flows.command_records import Command
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from sinks.ingress import Ingress
from sinks.kafka import Records, TransactionalWriter


def author_of(options: argparse.Namespace) -> str:
    """Who acts: as the options say, else the user of this process."""
    if options.author:
        return str(options.author)
    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        msg = f"{options.command}: the user of this process has no name; say who you are with --author NAME"
        raise CommandError(msg, 2) from error


def signed(command: Command, options: argparse.Namespace, place: FilePlace | KafkaPlace) -> Command:
    """The command, signed where a key is given; CommandError where it would not count."""
    whole = command if options.key is None else signing.signed(command, signing.load(Path(options.key)))
    authority = authorities.of(place)
    try:
        why = authority.why_not(whole, time.time_ns() // 1000)
    finally:
        authority.close()
    if why is not None:
        msg = f"{options.command}: this would not count, nothing was written: {why}; --key FILE signs with a key, --author NAME says whose it is"
        raise CommandError(msg)
    return whole


@contextmanager
def writing(place: FilePlace | KafkaPlace) -> Iterator[Callable[[Command], None]]:
    """Within it, nobody else writes commands: on a broker the last who comes fences the others, in a folder the first holds it."""
    if isinstance(place, FilePlace):
        ingress = Ingress.open(place.root, place.partitions())
        try:
            yield lambda command: _append(ingress, command)
        finally:
            ingress.close()
        return
    writer = TransactionalWriter.open(place.settings, f"{place.installation}.commands")
    try:
        yield lambda command: writer.commit([Records(place.physical(topics.COMMANDS), command_records.record(command), 0, dated=True)], [], None)
    finally:
        writer.close()


def _append(ingress: Ingress, command: Command) -> None:
    ingress.append(topics.COMMANDS, {0: command_records.record(command)}, command.command_id)
