"""Invoicing cells and the document flow's cell as processes on a broker: fed, killed at random instants, started again.

A process is killed only while it has work to do, so that a kill strikes the making of invoices or of their numbers. Whether
it struck inside a transaction shows on the broker: records stand behind the last that can be read.
"""

import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from flows import document, document_topics, invoice_records, invoicing, invoicing_topics, local_engine, topics, usage
from flows import token as tokens
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.invoicing_live import INVOICING
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
from sources.kafka import TopicReader
from tests.kafka import installations
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
PARTITIONS = 3
DOCUMENT = PARTITIONS
"""The number of the document flow's process; the invoicing cells have those of their partitions."""
NAMES = [f"invoicing-{number}" for number in range(PARTITIONS)] + ["document"]
CODE = "import sys; from flows import cli, invoicing; invoicing.CLOSES = 1; sys.exit(cli.main(sys.argv[1:]))"
"""One contract an interval, so that there are many commits to strike."""


def make(broker, prefix):
    installations.make(broker.bootstrap, prefix, PARTITIONS)
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap, "log_level": 2}, prefix, prefix + ".", flow="invoicing")
    invoicing_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    document_topics.create(place.admin, place.prefix, PARTITIONS, 1, Limits())
    return place


def price(place, cells=range(PARTITIONS)):
    """The usage flow's cells to the end of what there is; then what they wrote can be read. The last token of each."""
    found = {}
    for number in cells:
        cell = installations.cell(KafkaPlace(place.settings, place.installation, place.prefix), Share(number, PARTITIONS), PARTITIONS)
        cell.attempt()
        found |= cell.tokens
        for topic in (topics.RATED, topics.HOLDS, usage.TOKEN):
            place.written(topic, number).refresh()
    return found


def bill(place):
    """The invoicing flow's cells to the end of what there is; the last token of each partition."""
    tokens_ = {}
    for number in range(PARTITIONS):
        live = Live(Share(number, PARTITIONS), drain=True)
        cell = LiveCell(place, [number], live, FlowMetrics("invoicing", [number], fates=INVOICING.fates), local_engine.run, lambda: False, print, flow=INVOICING)
        cell.attempt()
        tokens_ |= cell.tokens
    return tokens_


def invoices(place):
    """All documents of the invoicing flow by partition."""
    return [invoice_records.decode(pa.array(values, pa.large_binary())) if values else [] for values in installations.values(place, topics.INVOICES, PARTITIONS)]


@dataclass
class Log:
    """The last token of a process, as committed."""

    reader: TopicReader
    at: int = 0
    last: tokens.Token | None = None

    def token(self):
        end = self.reader.refresh()
        while self.at < end:
            lot = self.reader.lot(self.at, 10_000, end)
            self.at = lot.end
            self.last = (tokens.decode(lot.records["value"]) or [self.last])[-1]
        return self.last

    def total(self, *names):
        token = self.token()
        return 0 if token is None else sum(token.totals.get(name, 0) for name in names)


@dataclass
class Kill:
    """A process that was struck while it had work to do."""

    name: str
    inside: bool
    """Whether one of its transactions was open."""


@dataclass
class Campaign:
    """The processes of one test, what they have to do, and the kills so far."""

    place: KafkaPlace
    folder: Path
    rnd: object
    wanted: dict = field(default_factory=lambda: dict.fromkeys(range(PARTITIONS), 0))
    """Closes and credit notes that each partition has to come to."""
    kills: list = field(default_factory=list)
    starts: int = 0
    running: dict = field(default_factory=dict)
    logs: list = field(default_factory=list)

    def __post_init__(self):
        self.logs = [Log(self.place.reader(invoicing.TOKEN, number)) for number in range(PARTITIONS)] + [Log(self.place.reader(document.TOKEN, 0))]

    def start(self):
        """Start what does not run; the numbers of those."""
        dead = [number for number in range(PARTITIONS + 1) if number not in self.running]
        for number in dead:
            with (self.folder / f"{NAMES[number]}.log").open("ab") as said:
                self.running[number] = subprocess.Popen(self._command(number), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)
            self.starts += 1
        return dead

    def _command(self, number):
        flow = "document" if number == DOCUMENT else "invoicing"
        cell = [] if number == DOCUMENT else ["--cells", str(PARTITIONS), "--cell", str(number)]
        where = ["--bootstrap", self.place.settings["bootstrap.servers"], "--installation", self.place.installation, "--topic-prefix", self.place.prefix]
        return [sys.executable, "-c", CODE, "run", flow, *where, *cell, "--rows", "5", "--seconds", "0.05", "--engine", "bytewax"]

    def left(self, number):
        """What a process has still to do."""
        if number != DOCUMENT:
            return self.wanted[number] - self.logs[number].total("closed", "credit_notes")
        return self._unnumbered() + sum(self.left(partition) for partition in range(PARTITIONS))

    def strike(self, most, until):
        """Kill at most so many processes that have work, and so many in all, those that were struck least first.

        Each is killed at an instant of its own: while it starts and restores, some time after it has committed again, or then
        with a transaction open, for which it is stopped at some instants until one is.
        """
        self.start()
        began, struck = time.monotonic(), Counter(kill.name for kill in self.kills)
        work = [number for number in range(PARTITIONS + 1) if self.left(number) > 0]
        targets = sorted(work, key=lambda number: (struck[NAMES[number]], self.rnd.random()))[: min(most, until - len(self.kills))]
        due = {number: began + self.rnd.uniform(0, 2) for number in targets if self.rnd.random() < 0.2}
        seen = {number: (self._end(number), self.rnd.randrange(1, 5)) for number in targets if number not in due}
        looked, committed = began, set()
        while due or seen:
            for number, (end, commits) in list(seen.items()):
                if self._end(number) == end:
                    continue
                seen[number] = self._end(number), commits - 1
                if commits == 1:
                    del seen[number]
                    committed.add(number)
                    due[number] = time.monotonic() + self.rnd.uniform(0, 0.1)
            for number in [number for number, at in due.items() if at <= time.monotonic()]:
                del due[number]
                if number in committed and self.rnd.random() < 0.5:
                    self._catch(number)
                self.kill(number)
            if time.monotonic() > looked + 0.1:
                seen = {number: found for number, found in seen.items() if self._gets_some(number)}
                looked = time.monotonic()
            assert time.monotonic() < began + 120, "a cell that has work commits nothing"
            time.sleep(0.001)

    def _catch(self, number):
        """Stop a process that has work where one of its transactions is open."""
        process = self.running[number]
        process.send_signal(signal.SIGSTOP)
        while not self._open(number) and self._gets_some(number):
            process.send_signal(signal.SIGCONT)
            time.sleep(self.rnd.uniform(0, 0.02))
            process.send_signal(signal.SIGSTOP)

    def _open(self, number):
        """Whether records of a process stand behind the last that can be read."""
        return any(self.place.ends(*where) > self.place.reader(*where).refresh() for where in self._topics(number))

    def rest(self):
        """Kill those who have nothing to do: all begin anew with what comes next."""
        for number in list(self.running):
            self.kill(number)

    def _gets_some(self, number):
        """Whether a process gets something to do: numbers are given only to what somebody makes."""
        makers = [partition for partition in range(PARTITIONS) if partition in self.running and self.left(partition) > 0]
        return self.left(number) > 0 and (number != DOCUMENT or bool(makers) or self._unnumbered() > 0)

    def _unnumbered(self):
        return sum(log.total("invoices", "credit_notes") for log in self.logs[:PARTITIONS]) - self.logs[DOCUMENT].total("numbered")

    def _end(self, number):
        return self.place.ends(*self._topics(number)[0])

    def _topics(self, number):
        if number == DOCUMENT:
            return [(document.TOKEN, 0), *((topics.DOCUMENTS, partition) for partition in range(PARTITIONS))]
        return [(invoicing.TOKEN, number), (invoicing.STATE, number), (topics.INVOICES, number)]

    def kill(self, number):
        """Kill a process, which must not have ended by itself; it counts where there was work left."""
        process = self.running.pop(number)
        assert process.poll() is None, self._said(number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        inside = self._open(number)
        if self.left(number) > 0:
            self.kills.append(Kill(NAMES[number], inside))

    def settle(self, clocks):
        """Let all of it be done: every cell has adopted its clock, nothing is left, and nobody commits any more."""
        self.start()
        quiet, until = 0.0, time.monotonic() + 120
        seen = None
        while time.monotonic() < quiet + 0.5 or seen is None:
            for number, process in self.running.items():
                assert process.poll() is None, self._said(number)
            assert time.monotonic() < until, {NAMES[number]: self.left(number) for number in range(PARTITIONS + 1)}
            there = [None if (token := log.token()) is None else token.sequence for log in self.logs]
            late = [number for number, clock in clocks.items() if self.logs[number].last is None or self.logs[number].last.clock != clock]
            if there != seen or late or self.left(DOCUMENT) > 0:
                seen, quiet = there, time.monotonic()
            time.sleep(0.02)

    def _said(self, number):
        return f"{NAMES[number]} has ended by itself: {(self.folder / f'{NAMES[number]}.log').read_text()[-2000:]}"

    def close(self):
        for process in self.running.values():
            process.kill()
            process.wait()
        self.running.clear()
