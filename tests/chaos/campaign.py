"""One campaign: an installation is made, fed and run in cells, struck by seeded faults, drained, and judged.

In: a plan and a broker. Out: a ``Report`` with every break. What the seed fixes is the input, the order of the faults
and every draw; the instants at which they hit are the machine's, so a repeat is the same campaign, not the same film.
"""

import random
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from flows import kafka_topics, topics
from tests.chaos import cells, faults, judge, oracle, wire
from tests.chaos.feeder import Feeder
from tests.chaos.input import SPAN, START, Shares, make
from tests.chaos.observed import Reader
from tests.chaos.supervisor import Stalled, Supervisor
from tests.chaos.ticking import Ticker
from tieout.usage_stage import Limits

LAST = 64
"""Positions in which the last token is, whatever was aborted after it."""


class Plan(NamedTuple):
    """What a campaign does; ``repeat`` is the line that does it again."""

    seed: int
    events: int = 300_000
    kills: int = 100
    broker_faults: int = 5
    zombies: int = 6
    take_overs: int = 4
    freezes: int = 1
    rescales: int = 2
    unanswered: int = 3
    full_disks: int = 2
    tickers: int = 4
    """How often the ticker is killed or replaced; where it is not, none runs."""
    partitions: int = 12
    cells: int = 3
    customers: int = 300
    rows: int = 100
    seconds: float = 0.1
    aims: tuple = tuple(faults.KILLS)
    shares: Shares = Shares()
    unanswered_seconds: float = 75
    """Longer than the product waits for the answer to a commit (60 s)."""
    stall_seconds: float = 240
    """No record committed for so long, although there are some: the campaign gives up. No verdict depends on it."""
    full_states: float = 0.25
    """Share of the starts after which full states are written often."""

    @property
    def network(self):
        """Whether each process comes to the broker by a way that can be made bad."""
        return self.unanswered > 0 or self.broker_faults > 2

    @property
    def repeat(self):
        return f"make chaos SEED={self.seed} KILLS={self.kills} BROKER_FAULTS={self.broker_faults} EVENTS={self.events}"


@dataclass
class Report:
    plan: Plan
    breaks: list = field(default_factory=list)
    hits: Counter = field(default_factory=Counter)
    figures: dict = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def kills(self):
        return self.figures.get("kills", 0)


class Campaign(Supervisor):
    """A running campaign, as the faults see it."""

    def __init__(self, plan, folder, broker, *, ways=(), command=cells.COMMAND, told=print):
        self.plan, self.broker, self.told, self.ways = plan, broker, told, ways
        self.rnd = random.Random(f"faults {plan.seed}")
        self.name = f"chaos-{plan.seed}-{time.time_ns()}"
        self.deployment = cells.Deployment(broker.bootstrap, f"{self.name}.", self.name, plan.rows, plan.seconds, folder, command)
        self.reader = Reader(broker.bootstrap, self.deployment.prefix, plan.partitions)
        self.given = make(plan.seed, plan.events, plan.customers, plan.partitions, plan.shares)
        self.report = Report(plan)
        self.group, self.ticker, self.running, self.loose = None, None, {}, []
        self.count, self.generation = plan.cells, 1
        self.expected, self.deaths, self.files, self.shielded = {}, Counter(), Counter(), set()
        self.kills = self.slice = 0

    def run(self):
        began = time.monotonic()
        kafka_topics.create(AdminClient({"bootstrap.servers": self.broker.bootstrap, "log_level": 0}), self.deployment.prefix, self.plan.partitions, 1, Limits())
        self.feeder = Feeder(self.broker.bootstrap, self.deployment.prefix, self.plan.partitions, self.given)
        self.group = cells.Group()
        try:
            if self.plan.tickers:
                self.ticker = Ticker(self.deployment, self.group, START, self.ways[self.plan.cells] if self.ways else None)
            self.feeder.start()
            self._strike()
            self._drain()
            self._restart_changes_nothing()
        except Stalled as stalled:
            self.report.breaks.append(judge.Break("stalled", str(stalled)))
        finally:
            self.feeder.close()
            self.group.close()
        self._judge()
        self.report.seconds = time.monotonic() - began
        return self.report

    # the course of a campaign

    def _strike(self):
        plan, rnd = self.plan, self.rnd
        special = [faults.zombie] * plan.zombies + [faults.take_over] * plan.take_overs + [faults.frozen_past_the_timeout] * plan.freezes
        special += [faults.TICKER[number % len(faults.TICKER)] for number in range(plan.tickers)]
        special += [faults.rescaled] * plan.rescales + [faults.disk_full] * plan.full_disks
        special += [faults.UNANSWERED[number % len(faults.UNANSWERED)] for number in range(plan.unanswered)]
        broker = faults.NETWORK if plan.network else faults.BROKER
        special += [broker[number % len(broker)] for number in range(plan.broker_faults)]
        rnd.shuffle(special)
        weights = [faults.KILLS[aim] for aim in plan.aims]
        self.slice = max(1, plan.events * 9 // 10 // (plan.kills + 3 * len(special) + 1))
        self.feeder.release(plan.events // 12)
        self.until(lambda: self.feeder.sent >= self.feeder.released, "the first input")
        for ordinal in range(self.count):
            self._start(ordinal)
        while self.kills < plan.kills or special:
            left = max(0, plan.kills - self.kills)
            if special and rnd.random() < len(special) / (len(special) + left):
                fault = special.pop()
            else:
                fault = rnd.choices(plan.aims, weights)[0]
            hit, seconds = faults.timed(fault, self, rnd)
            self.report.hits[hit] += 1
            self.told(f"{self.kills:4} kills, {self.feeder.sent:7} of {plan.events} sent: {hit}, {seconds:.1f} s")

    def _drain(self):
        while self.feeder.left:  # bit by bit, so that events wait for contracts that come later
            self.feeder.release(self.plan.events // 20)
            self.until(lambda: self.committed(range(self.plan.partitions)) >= self.feeder.released, "the last input", pause=0.1)
        ends = Counter(record.partition for record in self.given.records)
        wanted = [ends[partition] for partition in range(self.plan.partitions)]
        contracts = Counter(cells_partition(d, self.plan.partitions) for p in self.given.publications for d in p.documents)
        known = [contracts[partition] for partition in range(self.plan.partitions)]

        instant = oracle.NEVER if self.ticker is None else self.ticker.finish(self._now(), self.until, lambda: judge.ticks(self.reader))
        self.ticker = None

        def drained():
            if instant != oracle.NEVER and any(clock is None or clock < instant for clock in self._clocks()):
                return False
            group = self.deployment.installation + ".usage"
            return self.reader.positions(group, topics.USAGE) == wanted and self._at(topics.CONTRACTS) == known

        began = time.monotonic()
        self.until(drained, "the end of the input", pause=0.3)
        self.told(f"drained, {time.monotonic() - began:.1f} s")
        for cell in self.running.values():
            self.expected[cell.number] = "stopped"
            cell.stop()
        self._wait_for_the_end(list(self.running.values()))

    def _clocks(self):
        """The clock of each partition, by its last token."""
        return [wire.decode("state_token", found[-1].value)["clock"] if found else None for found in self.reader.topic(judge.TOKEN, last=LAST)]

    def _now(self):
        """The time of the last event that was appended, as the input is made."""
        return START + SPAN * self.feeder.sent // self.plan.events

    def _restart_changes_nothing(self):
        """A flow that has read everything writes nothing when it is started again."""
        names = [topics.RATED, topics.HOLDS, topics.EXCEPTIONS, *judge.OUTPUTS, judge.TOKEN]
        before = self.reader.ends(names, committed=False)
        for ordinal in range(self.count):
            self.running[ordinal] = cells.Cell(self.deployment, self.group, ordinal, self.count, self.generation, drain=True)
            self.expected[self.running[ordinal].number] = "stopped"
        self._wait_for_the_end(list(self.running.values()))
        after = self.reader.ends(names, committed=False)
        if after != before:
            moved = {place: (before[place], after[place]) for place in before if before[place] != after[place]}
            self.report.breaks.append(judge.Break("restart", f"a restart at the end wrote again: {moved}"))

    def _wait_for_the_end(self, ending):
        deadline = time.monotonic() + self.plan.stall_seconds
        while not all(cell.ended for cell in ending):
            if time.monotonic() > deadline:
                hang = [(cell.number, cell.health()) for cell in ending if not cell.ended]
                for cell in ending:
                    cell.abort()
                raise Stalled(f"cells do not end when told to: {hang}")
            self._probe()
            time.sleep(0.02)
        for cell in ending:
            if cell.fenced:
                self._fenced_by_a_timeout(cell)
            elif self.expected[cell.number] != "killed" and cell.process.returncode and not cell.stopped_young and not cell.was_ending:
                self._unexpected(cell)

    def _judge(self):
        documents = [document for publication in self.given.publications for document in publication.documents]
        stalled = bool(self.report.breaks) and self.report.breaks[-1].check == "stalled"
        if self.feeder.failure is not None:
            self.report.breaks.append(judge.Break("feeder", repr(self.feeder.failure)))
        began = time.monotonic()
        if not stalled:
            try:
                found = judge.judge(self.reader, self.deployment.installation + ".usage", self.given.records, documents)
                self.report.breaks += found.breaks
                self.report.figures |= found.figures
            except Exception:  # noqa: BLE001 - no verdict is a break, and what else was found is told with it
                self.report.breaks.append(judge.Break("no verdict", traceback.format_exc()))
        self.told(f"judged, {time.monotonic() - began:.1f} s")
        self.reader.close()
        self.report.figures |= {"kills": self.kills, "lives": len(self.expected), **self.files}

    # what the faults use

    def wait(self, seconds):
        """Let the cells work, and start again what ended."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._tend()
            time.sleep(min(0.02, left))

    def until(self, holds, what, *, feeding=False, pause=0.02):
        """Wait for something; Stalled where neither it nor anything else comes."""
        deadline, fed = time.monotonic() + self.plan.stall_seconds, time.monotonic()
        progress = None
        while not holds():
            self._tend()
            if feeding and time.monotonic() - fed > 0.5:
                self.feeder.release(max(1, self.slice // 10))
                fed = time.monotonic()
            if time.monotonic() > deadline:
                now = (self.feeder.sent, self.committed(range(self.plan.partitions)))
                if now == progress:
                    raise Stalled(f"waited in vain for {what}: {self._standing()}")
                progress, deadline = now, time.monotonic() + self.plan.stall_seconds
            time.sleep(pause)

    def _standing(self):
        """How far everything is, in words."""
        names = [topics.USAGE, topics.RATED, judge.SEEN, judge.TOKEN]
        stable, ends = self.reader.ends(names), self.reader.ends(names, committed=False)
        behind = [f"{topic.removeprefix(self.deployment.prefix)} {p}: {stable[topic, p]} of {end}" for (topic, p), end in ends.items() if stable[topic, p] < end]
        left = [f"{p}: {at} of {ends[self.deployment.prefix + topics.USAGE, p]}" for p, at in enumerate(self._at(topics.USAGE))]
        said = [f"cell {ordinal}, life {cell.number}: {cell.words}; {cell.health()}" for ordinal, cell in self.running.items()]
        return f"usage {left}, contracts {self._at(topics.CONTRACTS)}; open {behind}; {said}"

    def feed(self):
        """Let some more input come."""
        self.feeder.release(self.slice)

    def working(self):
        """A cell that has restored its partitions and gets new input."""
        found = []

        def any_up():
            found[:] = [cell for cell in self._open_to_faults() if cell.up()]
            return bool(found)

        self.until(any_up, "a cell at work")
        self.feed()
        return self.rnd.choice(found)

    def starting(self):
        """A cell that has just been started, if need be by killing one."""
        young = [cell for cell in self._open_to_faults() if cell.health() is None]
        if young:
            return self.rnd.choice(young)
        cell = self.working()
        self.kill(cell)
        return self.cell(cell.ordinal)

    def _open_to_faults(self):
        return [cell for ordinal, cell in self.running.items() if ordinal not in self.shielded and not cell.ended]

    def ahead_of(self, cell):
        """Whether the broker holds commits of a cell that the cell does not know to be done; not where it does not say what it knows."""
        told = cell.health()
        if told is None:
            return False
        known = {partition["partition"]: partition["sequence"] for partition in told["partitions"] if partition["restored"]}
        there = [wire.decode("state_token", found[-1].value)["sequence"] if found else 0 for found in self.reader.topic(judge.TOKEN, last=LAST)]
        return any(there[partition] > sequence for partition, sequence in known.items())

    def committed(self, partitions):
        """How many usage records of these partitions are committed."""
        at = self._at(topics.USAGE)
        return sum(at[partition] for partition in partitions)

    @property
    def done(self):
        """Whether no input is left, and all of it is committed."""
        return not self.feeder.left and self.committed(range(self.plan.partitions)) >= self.plan.events

    def rescale(self, count, *, in_order):
        """Begin the next generation with so many cells; the old ones are stopped before, or fenced by it."""
        old = list(self.running.values())
        for cell in old:
            self.expected[cell.number] = "stopped" if in_order else "fenced"
            if in_order:
                cell.stop()
        if in_order:
            self._wait_for_the_end(old)
        self.running.clear()
        self.count, self.generation = count, cells.rescale(self.deployment, count)
        for ordinal in range(count):
            self._start(ordinal)
        if not in_order:
            self.until(lambda: all(cell.ended for cell in old), "the end of the older generation", feeding=True)
            for cell in old:
                self.must_be_fenced(cell)

    def _at(self, topic):
        return [max(0, position) for position in self.reader.positions(self.deployment.installation + ".usage", topic)]

def cells_partition(document, partitions):
    return judge.ids.partition_of(document["customer_id"], partitions)


def quiet(plan):
    """The same without any fault."""
    return plan._replace(kills=0, broker_faults=0, zombies=0, take_overs=0, freezes=0, rescales=0, unanswered=0, full_disks=0, tickers=0)
