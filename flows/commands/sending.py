"""Signed commands about contract versions, as ``contract propose``, ``approve`` and ``reject`` send them."""

import argparse
import json
import time
from pathlib import Path

from flows import command_records, governed_ingress, output, signing, topics
from flows.cli import CommandError
from flows.commands import places
from flows.commands.governed import author_of
from flows.contract_view import ContractView
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from schemas.registry import Registry
from tieout.governance import Command
from tieout.proposal import SUBJECT, VersionKey


def send(place: FilePlace | KafkaPlace, command: Command) -> None:
    """Append a signed command to its topic."""
    governed_ingress.append(place, topics.COMMANDS, command_records.record(command), command.command_id)


def signed(options: argparse.Namespace, kind: str, key: VersionKey, payload: str) -> Command:
    """A command about a version, signed with the key file that the options name."""
    command = Command(kind, SUBJECT, key.text, author_of(options), time.time_ns() // 1000, options.reason, payload)
    return signing.signed(command, signing.load(Path(options.key)))


def key_of(text: str, command: str) -> VersionKey:
    """A version as people name it; CommandError where it is none."""
    key = VersionKey.of(text)
    if key is None:
        msg = f"{command}: {text!r} is no contract version; write the contract, '/' and the version, as in c-acme/2"
        raise CommandError(msg, 2)
    return key


def decide(options: argparse.Namespace) -> int:
    """Approve or reject the open proposal of a version."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        place, key = places.place(options), key_of(options.subject, options.command)
        given = ContractView(place).proposal(key)
        if given is None:
            msg = f"{place.name}: no proposal of {key.text} waits for a decision; 'tieout contract show {key.contract_id}' tells what there is"
            raise CommandError(msg)
        command = signed(options, options.command, key, json.dumps({"proposal": given.digest}))
        if options.command == "approve" and command.author == given.requester:
            msg = f"approve: {command.author!r} has proposed {key.text} and cannot approve it; let somebody else approve it"
            raise CommandError(msg)
        send(place, command)
    row = {"command": options.command, "subject": key.text, "author": command.author, "requested_by": given.requester, "command_id": command.command_id}
    output.show([row], options.output)
    output.say("it counts when the contract flow has read it: at once where one runs, else at the next 'tieout run contract'")
    return 0
