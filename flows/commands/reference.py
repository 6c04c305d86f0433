"""``tieout reference``: reference data put in, listed, and shown with its history.

``put`` reads JSON lines, validates all of them before it writes any, and fills in who recorded them and when. Nothing is
ever changed: what is recorded later governs the instants for which it is valid.
"""

import argparse
import base64
import hashlib
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flows import governed_ingress, output, reference_records, topics
from flows.cli import CommandError
from flows.commands import files, places
from flows.commands.governed import author_of
from flows.contract_fold import ContractFold
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from schemas.registry import Registry
from sinks.ingress import Ingress, partitions_of
from tieout.contract_diff import text_of
from tieout.period import micros
from tieout.reference import KINDS, ReferenceBook, ReferenceRecord
from tieout.reference_document import ReferenceDocument, ReferenceRefused, parse

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def run(options: argparse.Namespace) -> int:
    """Answer ``put``, ``ls`` or ``show``."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        return {"put": _put, "ls": _ls, "show": _show}[options.what](options)


def _put(options: argparse.Namespace) -> int:
    if len(options.names) != 1:
        msg = "reference put: name one file of JSON lines, or - for standard input"
        raise CommandError(msg, 2)
    moment = _EPOCH + timedelta(microseconds=time.time_ns() // 1000)
    filled = [
        replace(one, recorded_at=one.recorded_at or moment, author=one.author or author_of(options), reason=one.reason or options.reason)
        for one in _documents(options.names[0])
    ]
    late = next((one for one in filled if one.recorded_at is not None and one.recorded_at > moment), None)
    if late is not None:
        msg = f"{options.names[0]}: refused, nothing was recorded\n  {late.kind} {late.key}, recorded_at: lies ahead of now, and would hide whatever is recorded until then; leave it out"
        raise CommandError(msg)
    place = places.place(options)
    if isinstance(place, FilePlace) and partitions_of(place.root) is None:
        Ingress.open(place.root, options.partitions).close()  # a new folder is made
    if filled:
        said = json.dumps([[text_of(one.kind), one.key, repr(one)] for one in filled])
        governed_ingress.append(place, topics.REFERENCE, reference_records.records(filled), f"reference {hashlib.sha256(said.encode()).hexdigest()}")
    rows = [{"kind": one.kind, "key": one.key, "valid_from": text_of(one.valid_from), "valid_to": _text(one.valid_to), "author": one.author} for one in filled]
    output.show(rows, options.output, "recorded")
    return 0


def _documents(name: str) -> list[ReferenceDocument]:
    """The documents of a file; CommandError with every problem by its line, and nothing is written."""
    found, problems = [], []
    for number, document in files.read_lines(name):
        try:
            if not isinstance(document, dict):
                problems.append(f"line {number}: is no JSON object; write one record a line")
                continue
            found.append(parse(document))
        except ReferenceRefused as refused:
            problems += [f"line {number}, {p.path or 'document'}: {p.message}" for p in refused.problems]
    if problems:
        msg = f"{name}: refused, nothing was recorded" + "".join(f"\n  {problem}" for problem in problems)
        raise CommandError(msg)
    return found


def _ls(options: argparse.Namespace) -> int:
    book, instant = _book(places.place(options)), time.time_ns() // 1000
    kinds = [_kind(name) for name in options.names] or list(KINDS)
    rows = []
    for kind in kinds:
        for key in book.keys(kind):
            record = book.at(kind, key, instant)
            last = book.history(kind, key)[-1]
            rows.append({"kind": kind, "key": key, "records": len(book.history(kind, key)), "holds_now": None if record is None else _value(record), "recorded_at": _at(last.recorded_at), "author": last.author})
    output.show(rows, options.output, "reference data")
    return 0


def _show(options: argparse.Namespace) -> int:
    if len(options.names) != 2:
        msg = "reference show: name kind and key, as in 'tieout reference show customer acme'"
        raise CommandError(msg, 2)
    kind, key = _kind(options.names[0]), options.names[1]
    place = places.place(options)
    book, instant = _book(place), time.time_ns() // 1000
    records = book.history(kind, key)
    if not records:
        msg = f"{place.name}: has no {kind} {key!r}; 'tieout reference ls {kind}' lists what is there"
        raise CommandError(msg)
    governs = book.at(kind, key, instant)
    rows = [
        {
            "valid_from": _at(record.valid_from), "valid_to": None if record.valid_to is None else _at(record.valid_to), "recorded_at": _at(record.recorded_at),
            "author": record.author, "reason": record.reason, "holds_now": record is governs, kind: _value(record),
        }
        for record in records
    ]
    output.show(rows, options.output, f"{kind} {key}, in the order in which it was recorded")
    return 0


def _book(place: FilePlace | KafkaPlace) -> ReferenceBook:
    fold = ContractFold.of(place, place.partitions(topics.REFERENCE) if isinstance(place, KafkaPlace) else 1)
    try:
        fold.reference.advance()
    finally:
        fold.close()
    return fold.book


def _kind(name: str) -> str:
    if name not in KINDS:
        msg = f"reference: there is no kind {name!r}; the kinds are {', '.join(KINDS)}"
        raise CommandError(msg, 2)
    return name


def _value(record: ReferenceRecord) -> dict[str, Any]:
    """What a record says, as a document writes it."""
    found: dict[str, Any] = {}
    for name, value in record.value.items():
        if name == "charges":
            found[name] = json.loads(value)
        elif isinstance(value, bytes):
            found[name] = base64.b64encode(value).decode()
        elif value is not None:
            found[name] = value if isinstance(value, dict | str | int) else text_of(value)
    return found


def _at(instant: int) -> str:
    return text_of(_EPOCH + timedelta(microseconds=instant))


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else _at(micros(moment))
