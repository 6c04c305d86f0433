"""``tieout topic``: list, count and show the records of a folder's or a broker's topics, and make a broker's."""

import argparse
import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flows import codecs, contract_topics, document_topics, invoicing_topics, kafka_topics, output, route_topics, topics
from flows.cli import FLOWS, CommandError
from flows.commands import places
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.pipeline import Place, TopicSize
from sources.lot import Lot
from tieout.usage_stage import Limits

_ROWS: Final = 20_000
_TOPICS: Final = {
    "usage": (kafka_topics.create, (*kafka_topics.specs(Limits()), *kafka_topics.WHOLE)),
    "route": (route_topics.create, (*route_topics.specs(Limits()), *route_topics.REFERENCE)),
    "contract": (contract_topics.create, contract_topics.specs()),
    "document": (document_topics.create, document_topics.specs()),
    "invoicing": (invoicing_topics.create, (*invoicing_topics.specs(Limits()), *kafka_topics.WHOLE, *route_topics.REFERENCE)),
}
_TOKENS: Final = {topics.state_topics(flow)[2] for flow in FLOWS}


def run(options: argparse.Namespace) -> int:
    """Answer ``ls``, ``count``, ``peek`` or ``create``."""
    place = places.place(options)
    if options.what == "create":
        return _create(place, options)
    sizes = place.sizes()
    if options.what == "ls":
        output.show([size._asdict() for size in sizes], options.output)
        return 0
    if options.topic is None:
        msg = f"topic {options.what}: name the topic; 'tieout topic ls' lists them"
        raise CommandError(msg, 2)
    chosen = [size for size in sizes if size.topic == options.topic and options.partition in {None, size.partition}]
    if not chosen:
        msg = f"{place.name}: has no topic {options.topic!r} (or no such partition of it); 'tieout topic ls' lists them"
        raise CommandError(msg)
    if options.what == "count":
        rows: list[dict[str, Any]] = [{"partition": size.partition, "records": _count(place, size)} for size in chosen]
        output.show([*rows, {"partition": "all", "records": sum(row["records"] for row in rows)}], options.output)
        return 0
    shown: list[dict[str, Any]] = []
    for size in chosen:
        reader = place.reader(options.topic, size.partition)
        reader.refresh()
        start = size.start if options.offset is None else options.offset
        if len(shown) < options.limit and start < size.end:
            lot = reader.lot(start, options.limit - len(shown), size.end)
            rows = _rows(options.topic, lot, place.writers())
            shown += [{"partition": size.partition, "offset": position} | row for position, row in zip(lot.positions.tolist(), rows, strict=True)]
    output.show(shown, options.output)
    return 0


def _create(place: FilePlace | KafkaPlace, options: argparse.Namespace) -> int:
    if isinstance(place, FilePlace):
        msg = "topic create: makes the topics of a broker, with --bootstrap; a folder makes its own"
        raise CommandError(msg, 2)
    create, specs = _TOPICS[options.flow]
    with place.asking():
        made = create(place.admin, place.prefix, options.partitions, options.replication_factor, Limits())
    counts = place.topics()
    rows = [{"topic": place.physical(spec.name), "partitions": counts[spec.name], "made": place.physical(spec.name) in made} for spec in specs]
    output.show(rows, options.output)
    return 0


def _count(place: Place, size: TopicSize) -> int:
    """The records of a partition: read and counted where offsets have gaps."""
    if isinstance(place, FilePlace):
        return size.end - size.start
    reader, count, at = place.reader(size.topic, size.partition), 0, size.start
    while at < size.end:
        lot = reader.lot(at, _ROWS, size.end)
        at, count = lot.end, count + lot.records.num_rows
    return count


def _rows(topic: str, lot: Lot, writers: Mapping[int, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    schema = topics.SCHEMAS.get(topic) or ("state_token" if topic in _TOKENS else None)
    values: dict[int, Any] = {}
    if schema is not None:
        decoded = codecs.decoder(schema, writers if schema == "usage_event" else {}).decode(lot.records["value"])
        values = dict(zip(decoded.rows.tolist(), decoded.batch.to_pylist(), strict=True))
    for at in range(lot.records.num_rows):
        record = lot.record(at)
        raw = record["value"] or b""
        row = {
            "timestamp": (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=record["timestamp"])).isoformat() if record["timestamp"] > 0 else None,
            "key": None if record["key"] is None else record["key"].decode(errors="replace"),
            "value": _plain(values[at]) if at in values else {"base64": base64.b64encode(raw[:200]).decode(), "bytes": len(raw)},
        }
        if record["headers"]:
            row["headers"] = {header["key"]: (header["value"] or b"").decode(errors="replace") for header in record["headers"]}
        rows.append(row)
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value if isinstance(value, int | str | bool) or value is None else str(value)
