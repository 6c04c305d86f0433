"""``tieout run usage --bootstrap``: one cell of the usage flow on a broker, until SIGTERM, SIGINT or the drained end."""

import argparse
import signal
import threading
from types import FrameType

from flows import bytewax_engine, kafka_topics, local_engine, output
from flows.cells import Share, keep_going
from flows.commands import places
from flows.commands.summary import totals
from flows.flow_metrics import FlowMetrics
from flows.health import HealthServer
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
from flows.usage_records import FLOW
from schemas.registry import Registry
from sources.errors import SourceAway
from tieout.usage_stage import Limits


def run(options: argparse.Namespace) -> int:
    """Run a cell; what it came to when it ends."""
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    live = Live(Share(options.cell, options.cells), options.generation, Limits(), options.rows, options.seconds, options.drain)
    place = places.broker(options)
    partitions = live.share.partitions(_checked(place, live.limits, stop))
    metrics = FlowMetrics(FLOW, partitions, cell=options.cell, cells=options.cells, generation=options.generation or 1)
    engine = bytewax_engine.run if options.engine == "bytewax" else local_engine.run
    registry = None if options.registry is None else Registry(options.registry)
    cell = LiveCell(place, partitions, live, metrics, engine, stop.is_set, output.say, None if registry is None else registry.writer)

    def waits(why: str, seconds: float) -> None:
        cell.away()
        output.say(f"{why}; next attempt in {seconds:.1f} s")

    def attempt() -> None:
        for partition in partitions:
            metrics.paused(partition, None)
        with places.pinned(registry, options.schema_lock):
            cell.attempt()

    if options.health_address is None:
        keep_going(attempt, stop.wait, waits)
    else:
        with HealthServer(options.health_address, metrics):
            keep_going(attempt, stop.wait, waits)
    output.show(totals(list(cell.tokens.values())), options.output, "usage flow, this cell's partitions since the start")
    place.close()
    return 0


def _checked(place: KafkaPlace, limits: Limits, stop: threading.Event) -> int:
    """The number of partitions, once the broker answers and its topics are as they have to be."""
    while True:
        try:
            return kafka_topics.check(place.admin, place.prefix, limits)
        except SourceAway as error:
            output.say(f"{error}; next attempt in 2 s")
            if stop.wait(2):
                raise

