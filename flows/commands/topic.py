"""``tieout topic``: list, count and show the records of a folder's topics."""

import argparse
import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from flows import codecs, output, topics
from flows.cli import CommandError
from flows.commands import files
from flows.file_place import FilePlace
from sources.files import TopicReader, list_topics


def run(options: argparse.Namespace) -> int:
    """Answer ``ls``, ``count`` or ``peek``."""
    root, partitions = files.folder(options.dir)
    sizes = list_topics(root)
    if options.what == "ls":
        output.show([size._asdict() for size in sizes], options.output)
        return 0
    if options.topic is None:
        msg = f"topic {options.what}: name the topic; 'tieout topic ls --dir {options.dir}' lists them"
        raise CommandError(msg, 2)
    if options.topic not in {size.topic for size in sizes}:
        msg = f"{root}: has no topic {options.topic!r}; 'tieout topic ls --dir {options.dir}' lists them"
        raise CommandError(msg)
    if options.what == "count":
        rows = [{"partition": s.partition, "records": s.records} for s in sizes if s.topic == options.topic]
        if options.partition is not None:
            rows = [row for row in rows if row["partition"] == options.partition]
        output.show([*rows, {"partition": "all", "records": sum(row["records"] for row in rows)}], options.output)
        return 0
    chosen = range(partitions) if options.partition is None else [options.partition]
    shown: list[dict[str, Any]] = []
    for partition in chosen:
        reader = TopicReader(root, options.topic, partition)
        reader.refresh()
        start = reader.start if options.offset is None else options.offset
        batch = reader.read(start, options.limit - len(shown))
        shown += [
            {"partition": partition, "offset": start + at} | row
            for at, row in enumerate(_rows(options.topic, batch, FilePlace(root).writers()))
        ]
    output.show(shown, options.output)
    return 0


def _rows(topic: str, batch: Any, writers: dict[int, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    schema = topics.SCHEMAS.get(topic) or ("state_token" if topic.endswith(".token") and ".usage." in topic else None)
    values: dict[int, Any] = {}
    if schema is not None:
        decoded = codecs.decoder(schema, writers if schema == "usage_event" else {}).decode(batch["value"])
        values = dict(zip(decoded.rows.tolist(), decoded.batch.to_pylist(), strict=True))
    for at, record in enumerate(batch.to_pylist()):
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
