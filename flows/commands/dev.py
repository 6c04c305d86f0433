"""``tieout dev``: broker, schema registry, the flows from contract to document, ticker, control and a seeded load, in one terminal, without containers.

Everything listens on the loopback address and ends with this command, in the reverse order of its start; data and logs
stay in the folder, and the next run goes on with them. The load comes in rounds that are never the same events again.
"""

import argparse
import io
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from flows import contract_topics, document_topics, generate, invoicing_topics, kafka_topics, output, publish
from flows.cli import DONE, CommandError, parser
from flows.commands import places, schema
from flows.generate import Generated
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.stack import load
from flows.stack.broker import Broker
from flows.stack.errors import StackError
from flows.stack.flow import ContractFlow, Control, DocumentFlow, InvoicingFlow, Ticker, UsageFlow
from flows.stack.process import Part
from flows.stack.registry import Registry
from schemas.registry import Registry as RegistryClient
from sinks.errors import CommitUnknown
from sources.errors import SourceError
from tieout.usage_stage import Limits

_SECOND: Final = 1_000_000
_RATE_MOST: Final = 100_000
_ROUND_SECONDS: Final = 20
_STEP_SECONDS: Final = 0.25
_TOPICS_SECONDS: Final = 10.0
_SAY_SECONDS: Final = 5.0
_OTHERS: Final = (contract_topics, invoicing_topics, document_topics)
"""The topics of the flows beside the usage flow."""
_QUIET: Final = {"log_level": "2"}
"""The client tells of each lost connection, and all are lost when the parts end; what fails raises anyway."""


def run(options: argparse.Namespace) -> int:
    """Start everything and send the load until Ctrl-C or SIGTERM; then end everything."""
    if not 1 <= options.rate <= _RATE_MOST:
        msg = f"dev: {options.rate} events a second is no load that this machine would bear; give --rate 1 to {_RATE_MOST}"
        raise CommandError(msg, 2)
    parts: list[Part] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        _run(options, parts)
    except KeyboardInterrupt:
        output.say("ending")
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for part in reversed(parts):
            part.stop()
    output.say(f"all parts have ended; data and logs are in {options.dir}, the same command goes on with them")
    return DONE


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _run(options: argparse.Namespace, parts: list[Part]) -> NoReturn:
    root = Path(options.dir).absolute()
    broker, registry, lock = Broker(root / "kafka"), Registry(root / "registry"), root / "schema-lock.json"
    _start(broker, parts)
    _start(registry, parts)
    _pin(registry.url, lock)
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, **_QUIET}, "tieout")
    partitions = _topics(place, options.partitions)
    with places.pinned(RegistryClient(registry.url), str(lock)):
        publish.contracts(KafkaIngress(place), generate.contracts(options.seed, options.customers), partitions, "dev")
        flow = UsageFlow(root / "usage", broker.bootstrap, registry.url, lock)
        ours = (flow, *(one(root / one.flow, broker.bootstrap, registry.url, lock) for one in (ContractFlow, InvoicingFlow, DocumentFlow, Ticker, Control)))
        for part in ours:
            _start(part, parts)
        addresses = (broker.bootstrap, registry.url, *(f"http://{part.address}/metrics" for part in ours))
        rows = [{"part": part.name, "address": where, "process": str(part.pid), "log": str(part.log)} for part, where in zip(parts, addresses, strict=True)]
        output.show(rows, options.output)
        sys.stdout.flush()
        output.say(f"sending {options.rate:,} usage events a second to {partitions} partitions; Ctrl-C ends everything")
        _send(options, _Sender(place, partitions, parts), flow)


def _topics(place: KafkaPlace, partitions: int) -> int:
    """Make the topics that are missing; the number of partitions that they have, once the broker shows them all."""
    for one in (kafka_topics, *_OTHERS):
        one.create(place.admin, place.prefix, partitions, 1, Limits())
    deadline = time.monotonic() + _TOPICS_SECONDS
    while True:
        try:
            for one in _OTHERS:
                one.check(place.admin, place.prefix, Limits())
            return kafka_topics.check(place.admin, place.prefix, Limits())
        except SourceError:  # what was just made is shown a moment later
            if time.monotonic() > deadline:
                raise
            time.sleep(_STEP_SECONDS)


def _pin(registry: str, lock: Path) -> None:
    """Register the release's schemas and write the registry's ids down, by the commands that a deployment uses."""
    for what in ("register", "lock"):
        told = io.StringIO()
        with redirect_stdout(told):
            code = schema.run(parser().parse_args(["schema", what, "--registry", registry, "--lock", str(lock)]))
        if code != DONE:
            msg = f"'tieout schema {what}' ended with {code}:\n{told.getvalue()}mend the schemas, or begin with another --dir"
            raise StackError(msg)


def _start(part: Part, parts: list[Part]) -> None:
    """Start a part that is ended with the others, even if it is interrupted here."""
    output.say(f"{part.name} starts")
    parts.append(part)
    part.start()


class _Sender:
    """Sends usage to the broker, however often it takes: what comes twice is a duplicate, the flow counts it once."""

    def __init__(self, place: KafkaPlace, partitions: int, parts: Sequence[Part]) -> None:
        self._place, self._partitions, self._parts = place, partitions, parts
        self._ingress: KafkaIngress | None = None

    def send(self, made: Generated, start: int, end: int) -> None:
        """Send some of the events; StackError where a part has ended by itself."""
        sent = False
        while not sent:
            self._all_run()
            try:
                self._ingress = self._ingress or KafkaIngress(self._place)
                publish.usage(self._ingress, made.values[start:end], made.keys[start:end], made.record_time[start:end], self._partitions, "dev")
                sent = True
            except CommitUnknown as error:
                output.say(str(error))
                self._ingress = None

    def _all_run(self) -> None:
        for part in self._parts:
            if not part.running:
                msg = f"{part.name} has ended by itself; {part.log} says why, then run the command again"
                raise StackError(msg)


def _send(options: argparse.Namespace, sender: _Sender, flow: UsageFlow) -> NoReturn:
    """Send rounds of usage for ever, and tell now and then what became of them."""
    rows, every = options.rate * _ROUND_SECONDS, _SECOND // options.rate
    first_at, seed, sent, said_at = _now(), options.seed, 0, time.monotonic()
    while True:
        made = load.live(seed, rows, options.customers, first_at, every)
        for start, end in _due(first_at, every, rows):
            sender.send(made, start, end)
            sent += end - start
            if time.monotonic() - said_at >= _SAY_SECONDS:
                said_at = time.monotonic()
                output.say(f"sent {sent:,} now; since the start " + ", ".join(f"{name} {n:,}" for name, n in flow.counted().items()))
        first_at, seed = max(first_at + rows * every, _now()), seed + 1


def _due(first_at: int, every: int, rows: int) -> Iterator[tuple[int, int]]:
    """Which events of a round are to be sent now, again and again until all are."""
    at = 0
    while at < rows:
        due = min(rows, (_now() - first_at) // every + 1)
        if due > at:
            yield at, due
            at = due
        time.sleep(_STEP_SECONDS)


def _now() -> int:
    """The wall clock, in microseconds."""
    return time.time_ns() // 1000
