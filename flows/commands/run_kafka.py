"""``tieout run FLOW --bootstrap``: one cell of a flow on a broker, until SIGTERM, SIGINT or the drained end."""

import argparse
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Final

from confluent_kafka.admin import AdminClient

from flows import bytewax_engine, contract_topics, document_topics, invoicing_topics, kafka_topics, local_engine, output, rights, route_topics
from flows.cells import Share, keep_going
from flows.commands import places
from flows.commands.summary import balances, counts, totals
from flows.contract_live import CONTRACT
from flows.document_live import DOCUMENT, DocumentLive
from flows.flow_metrics import FlowMetrics
from flows.health import HealthServer
from flows.invoicing_live import INVOICING
from flows.kafka_place import KafkaPlace
from flows.route_live import ROUTE
from flows.usage_live import USAGE, Live, LiveCell
from schemas.registry import Registry
from sinks.errors import SinkError
from sources.errors import SourceAway, SourceError
from tieout.usage_stage import Limits

FLOWS: Final = {flow.name: flow for flow in (USAGE, ROUTE, CONTRACT, INVOICING, DOCUMENT)}
_LOOK_SECONDS: Final = 2.0
"""How long a failure is looked into before the cell goes on: a broker that is away has no answer."""
CHECKS: Final = {
    USAGE.name: kafka_topics.check, ROUTE.name: route_topics.check, CONTRACT.name: contract_topics.check, INVOICING.name: invoicing_topics.check,
    DOCUMENT.name: document_topics.check,
}


def run(options: argparse.Namespace) -> int:
    """Run a cell; what it came to when it ends."""
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    live = Live(Share(options.cell, options.cells), options.generation, Limits(), options.rows, options.seconds, options.drain, None if options.cache is None else Path(options.cache))
    place, flow = places.broker(options), FLOWS[options.flow]
    partitions = live.share.partitions(_checked(place, live.limits, stop, CHECKS[flow.name]))
    metrics = FlowMetrics(flow.name, partitions, cell=options.cell, cells=options.cells, generation=options.generation or 1, fates=flow.fates)
    engine = bytewax_engine.run if options.engine == "bytewax" else local_engine.run
    registry = None if options.registry is None else Registry(options.registry)
    cell = (DocumentLive if flow is DOCUMENT else LiveCell)(place, partitions, live, metrics, engine, stop.is_set, output.say, None if registry is None else registry.writer, flow=flow)

    def waits(why: str, seconds: float) -> None:
        cell.away()
        output.say(f"{why}; next attempt in {seconds:.1f} s")

    def attempt() -> None:
        try:
            with places.pinned(registry, options.schema_lock):
                cell.attempt()
        except (SourceError, SinkError):
            if not stop.is_set():
                _still_allowed(place)
            raise
        finally:
            place.close()  # a client keeps what it was told of a broker that was just starting, and would not ask anew

    if options.health_address is None:
        keep_going(attempt, stop.wait, waits)
    else:
        with HealthServer(options.health_address, metrics):
            keep_going(attempt, stop.wait, waits)
    tokens = list(cell.tokens.values())
    rows = totals(tokens) if flow is USAGE else balances(tokens) if flow is INVOICING else counts(tokens, ("received", *flow.fates))
    output.show(rows, options.output, f"{flow.name} flow, this cell's partitions since the start")
    place.close()
    return 0


def _checked(place: KafkaPlace, limits: Limits, stop: threading.Event, check: Callable[[AdminClient, str, Limits], int]) -> int:
    """The number of partitions, once the broker answers and its topics are as they have to be."""
    while True:
        try:
            with place.asking():
                rights.check(place.admin, place.prefix, place.flow)
                return check(place.admin, place.prefix, limits)
        except SourceAway as error:
            output.say(f"{error}; next attempt in 2 s")
            if stop.wait(2):
                raise


def _still_allowed(place: KafkaPlace) -> None:
    """SourceError where the broker has begun to refuse this user: what failed says less of it, or looks as if it passed."""
    with suppress(SourceAway), place.asking():
        rights.check(place.admin, place.prefix, place.flow, _LOOK_SECONDS)
