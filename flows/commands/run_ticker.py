"""``tieout run ticker``: a tick each minute on a broker until SIGTERM or SIGINT, or this minute's into a folder."""

import argparse
import time

from flows import kafka_topics, output, rights, ticker
from flows.cli import CommandError
from flows.commands import files, places
from flows.commands.stopping import Stopping
from flows.file_place import FilePlace
from flows.flow_metrics import FlowMetrics
from flows.kafka_place import KafkaPlace
from schemas.registry import Registry
from tieout import ticks


def run(options: argparse.Namespace) -> int:
    """Write ticks, and say which was the last."""
    if options.bootstrap is not None:
        return _on_a_broker(options)
    if options.dir is None:
        msg = "run ticker: say where the topics are, with --dir FOLDER or --bootstrap HOST:PORT"
        raise CommandError(msg, 2)
    root, _ = files.folder(options.dir)
    minute = ticks.minute_of(_now())
    new = ticker.once(FilePlace(root), minute)
    output.show([{"minute": ticks.command(minute).subject_id, "new": new}], options.output)
    return 0


def _on_a_broker(options: argparse.Namespace) -> int:
    place, stopping = places.broker(options), Stopping(FlowMetrics(ticker.NAME, []))
    registry = None if options.registry is None else Registry(options.registry)
    last: dict[str, object] = {}

    def attempt() -> None:
        try:
            with places.pinned(registry, options.schema_lock):
                _checked(place)
                ticker.keep_ticking(place, _now, stopping.stopped, lambda minute: last.update(minute=ticks.command(minute).subject_id))
        finally:
            place.close()

    stopping.keep_going(attempt, options.health_address)
    output.show([last] if last else [], options.output)
    return 0


def _checked(place: KafkaPlace) -> None:
    """SourceError where this user may not write ticks, or where the topic would not stamp them."""
    with place.asking():
        rights.check(place.admin, place.prefix, place.flow)
        kafka_topics.check_commands(place.admin, place.prefix)


def _now() -> int:
    return time.time_ns() // 1000
