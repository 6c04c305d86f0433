"""``tieout exception``: what finance has to settle, listed by age, shown whole, assigned, accepted, resolved or waived.

What people do is a command record. Whoever writes one holds the topic of commands while the queue is read, so two
people do not settle the same exception twice. An exception about a held event is settled by the flow: waiving it asks
the usage flow to reject the event, and it stays as it is until the hold's own record says that this has happened. One about
late usage that is accepted stays until the invoicing flow has billed the usage.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from flows import exception_records, output
from flows.cli import CommandError
from flows.commands import governed, moments, payloads, places
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.usage_records import Payload
from schemas.catalog import Avro
from schemas.registry import Registry
from tieout import exception_queue
from tieout.exception_queue import ACCEPT, ASSIGN, HOLD, UNSETTLED, Act, Item, Queue

_WHOLE = "all"


def run(options: argparse.Namespace) -> int:
    """Answer ``ls``, ``show``, ``assign``, ``accept``, ``resolve`` or ``waive``."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        place = places.place(options)
        match options.what:
            case "ls" if options.exceptions:
                msg = "exception ls: lists by what they are, not by name; show exceptions by name with 'tieout exception show ID'"
                raise CommandError(msg, 2)
            case "ls":
                _list(exception_records.queue(place), options)
            case "show":
                _show(place, None if registry is None else registry.writer, options)
            case _:
                _act(place, options)
    return 0


def _list(queue: Queue, options: argparse.Namespace) -> None:
    now = time.time_ns() // 1000
    least = None if options.older_than is None else moments.stretch(options.older_than, "exception ls: --older-than")
    chosen = sorted(
        (item for item in queue.items.values() if _taken(item, options) and (least is None or item.age(now) > least)),
        key=lambda item: (-item.age(now), item.opened.exception_id),
    )
    if options.output != "table":
        output.show([_record(item, now) for item in chosen], options.output)
    else:
        output.show([_row(item, now) for item in chosen], "table")
        rows = [{"owner": load.owner, "to settle": load.exceptions, "oldest": moments.words(now - load.oldest_at)} for load in exception_queue.loads(chosen)]
        if rows:
            output.show(rows, "table", "by owner")
    if queue.refused:
        output.say(f"{len(queue.refused)} commands about exceptions had no effect; the last one: {queue.refused[-1].why}")


def _taken(item: Item, options: argparse.Namespace) -> bool:
    states = UNSETTLED if options.state is None else exception_queue.STATES if options.state == _WHOLE else (options.state,)
    wanted = ((options.kind, item.opened.kind), (options.owner, item.owner), (options.customer, item.opened.customer_id))
    return item.state in states and all(asked is None or asked == found for asked, found in wanted)


def _row(item: Item, now: int) -> dict[str, Any]:
    """An exception in a line of a table."""
    opened, asked = item.opened, item.asked
    risk = None if opened.amount_at_risk is None else f"{opened.amount_at_risk:f} {opened.currency}"
    return {
        "exception": opened.exception_id, "age": moments.words(item.age(now)), "owner": item.owner,
        "state": item.state if asked is None else f"{item.state}, {'billing' if asked.kind == ACCEPT else 'waiver'} asked for", "kind": opened.kind, "customer": opened.customer_id,
        "at risk": risk, "what": opened.message,
    }


def _record(item: Item, now: int) -> dict[str, Any]:
    """An exception as its record has it (docs/interfaces.md) and as it stands, without its evidence."""
    opened, asked = item.opened, item.asked
    return {
        "exception_id": opened.exception_id, "kind": opened.kind, "object": {"type": opened.object_type, "id": opened.object_id},
        "customer_id": opened.customer_id, "legal_entity_id": opened.legal_entity_id,
        "amount_at_risk": None if opened.amount_at_risk is None else f"{opened.amount_at_risk:f}", "currency": opened.currency,
        "owner": item.owner, "opened_at": moments.written(opened.opened_at), "age_seconds": item.age(now) // 1_000_000, "state": item.state,
        "correlation_id": opened.correlation_id, "message": opened.message, "hold_id": opened.hold_id,
        "waiver_asked": None if asked is None or asked.kind == ACCEPT else _said(asked),
        "accepted": None if asked is None or asked.kind != ACCEPT else _said(asked),
        "settled_at": None if item.settled_at is None else moments.written(item.settled_at), "resolution": item.resolution,
    }


def _said(act: Act) -> str:
    to = f" to {act.to}" if act.kind == ASSIGN else ""
    return f"{act.kind}{to} by {act.author} at {moments.written(act.at)}{f': {act.reason}' if act.reason else ''}"


def _show(place: FilePlace | KafkaPlace, writer: Callable[[int], Avro] | None, options: argparse.Namespace) -> None:
    queue, now = exception_records.queue(place), time.time_ns() // 1000
    show = payloads.shower(place, writer)
    rows = []
    for name in _named(options):
        item = _found(queue, name)
        evidence = [Payload.of(line) or line for line in item.opened.evidence]
        rows.append(_record(item, now) | {
            "history": [_said(act) for act in item.acts],
            "without_effect": [f"{_said(refused.act)} ({refused.why})" for refused in queue.refused if refused.exception_id == name],
            "evidence": [line for line in evidence if isinstance(line, str)],
            "payloads": [_payload(payload, show) for payload in evidence if isinstance(payload, Payload)],
        })
    if options.output != "table":
        output.show(rows, options.output)
        return
    for row in rows:
        told = row | {f"payload {number}": payload["event"] or payload for number, payload in enumerate(row.pop("payloads"), 1)}
        fields = [{"field": name, "what": what} for name, what in told.items() if what not in (None, [])]
        output.show(fields, "table", f"exception {row['exception_id']}")


def _payload(payload: Payload, show: payloads.Show) -> dict[str, Any]:
    return {
        "topic": payload.topic, "partition": payload.partition, "position": payload.position,
        **show(payload.value)._asdict(), "value": payload.value.hex(),
    }


def _act(place: FilePlace | KafkaPlace, options: argparse.Namespace) -> None:
    names, author = _named(options), governed.author_of(options)
    _complete(options)
    with governed.writing(place) as write:
        queue = exception_records.queue(place)
        acts = [_asked(queue, name, author, options) for name in names]
        rows = []
        for name, act in zip(names, acts, strict=True):
            command = governed.signed(exception_records.command(act), options, place)
            write(command)
            rows.append({"exception": name, "asked": act.kind, "subject": f"{act.subject_type} {act.subject_id}", "by": author, "reason": act.reason, "command_id": command.command_id})
    output.show(rows, options.output)
    if any(act.subject_type == HOLD for act in acts):
        output.say("recorded; the exceptions about held events stay as they are until the usage flow has let the events go")
    if options.what == ACCEPT:
        output.say("recorded; the next invoice of the contract bills the usage, and the exception is resolved then; 'tieout close' of its billing period makes that invoice at once")


def _complete(options: argparse.Namespace) -> None:
    needed, text = ("to", "--to NAME") if options.what == ASSIGN else ("reason", "--reason TEXT")
    if not getattr(options, needed):
        msg = f"exception {options.what}: {'say whom it is assigned to' if needed == 'to' else 'say why'} with {text}"
        raise CommandError(msg, 2)


def _asked(queue: Queue, name: str, author: str, options: argparse.Namespace) -> Act:
    """What is asked for about an exception; CommandError where it does not fit."""
    act = exception_queue.about(_found(queue, name), options.what, author, time.time_ns() // 1000, options.reason or "", options.to)
    why = exception_queue.refusal(queue, act, name)
    if why is not None:
        msg = f"exception {options.what}: {why}"
        raise CommandError(msg)
    return act


def _named(options: argparse.Namespace) -> Sequence[str]:
    if not options.exceptions:
        msg = f"exception {options.what}: name the exceptions; 'tieout exception ls' lists them"
        raise CommandError(msg, 2)
    return tuple(dict.fromkeys(options.exceptions))


def _found(queue: Queue, name: str) -> Item:
    if name not in queue.items:
        raise CommandError(exception_queue.unknown(name))
    return queue.items[name]
