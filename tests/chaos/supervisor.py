"""Who starts what has ended, as an operator's supervisor does, and says which ends are breaks.

In: the lives of cells and of the ticker, and what the faults say that may happen to them. A cell that was killed is
started again. One that ends fenced was replaced, or the broker has ended a transaction that stayed open for long: a life
that only kills have struck since it began has no reason for it, and none to hang. Everything else is a break.
"""

import time
from contextlib import contextmanager

from tests.chaos import cells, judge

PROBE_SECONDS = 3
DEATHS = 6
"""A cell that ends by itself so often in a row will not come back."""


class Stalled(Exception):
    """The cells do not get on; the message says which and what they said."""


class Supervisor:
    """The running cells and the ticker of a campaign."""

    _probed, _in_trouble = 0.0, False

    # what the faults use

    def cell(self, ordinal):
        """The present life of a cell."""
        self._tend()
        return self.running[ordinal]

    def partitions_of(self, cell):
        return [partition for partition in range(self.plan.partitions) if partition % self.count == cell.ordinal]

    def kill(self, cell):
        """Kill -9."""
        if cell.ended:
            return
        self.expected[cell.number] = "killed"
        cell.kill()
        self.kills += 1
        self._tend()

    def expect(self, cell, how):
        """Say that a cell may end in this way."""
        self.expected[cell.number] = how

    def replace(self, cell):
        """Start another process for the same partitions; the cell goes on, or stays frozen, beside it."""
        self.expected[cell.number] = "fenced"
        self.loose.append(cell)
        self._start(cell.ordinal)

    def fenced(self, cell, what):
        """Wait until a replaced cell meets its fence, at its next commit; where no input is left for one it is told to end."""
        self.until(lambda: cell.ended or self.done, "the end of a replaced cell", feeding=True)
        if not cell.ended:
            cell.kill()
            return f"{what}, idle"
        self.must_be_fenced(cell)
        return what

    def must_be_fenced(self, cell):
        if not cell.fenced:
            self.report.breaks.append(judge.Break("fence", f"cell {cell.ordinal} was replaced and ended with {cell.process.returncode}: {cell.words}"))

    def ticker_fenced(self, life):
        """Wait until a replaced ticker meets its fence, at its next minute; where no input is left for one it is told to end."""
        self.until(lambda: life.ended or self.done, "the end of a replaced ticker", feeding=True)
        if not life.ended:
            life.kill()
            return "ticker replaced, idle"
        if not life.fenced:
            self.report.breaks.append(judge.Break("fence", f"the ticker was replaced and ended with {life.process.returncode}: {life.words}"))
        return "ticker replaced"

    @contextmanager
    def trouble(self):
        """Within it cells and the ticker may end fenced, or hang; those that live in it also later."""
        self._in_trouble = True
        for life in [*self.running.values(), *([self.ticker.life] if self.ticker else ())]:
            life.troubled = True
        try:
            yield
        finally:
            self._in_trouble = False

    @contextmanager
    def spared(self, ordinal):
        """No other fault strikes this cell within it."""
        self.shielded.add(ordinal)
        try:
            yield
        finally:
            self.shielded.discard(ordinal)

    # what goes on beside them

    def _start(self, ordinal):
        draw = self.rnd.random()
        if any(cell.ordinal == ordinal and not cell.ended for cell in self.loose):
            pass  # whom it replaces has the files still
        elif draw < 1 / 3:
            self.files["files deleted"] += cells.delete_local_files(self.deployment, ordinal)
            self.files["starts without files"] += 1
        elif draw < 1 / 2:
            self.files["files torn"] += cells.tear_a_local_file(self.deployment, ordinal, self.rnd)
        bootstrap = self.ways[ordinal].relay.address if self.ways else None
        often = self.deployment.command == cells.COMMAND and self.rnd.random() < self.plan.full_states
        command = ("-m", "tests.chaos.bugged", "full_states") if often else self.deployment.command
        self.running[ordinal] = cells.Cell(self.deployment, self.group, ordinal, self.count, self.generation, bootstrap=bootstrap, command=command)
        self.running[ordinal].troubled = self._in_trouble
        self.expected.setdefault(self.running[ordinal].number, None)

    def _tend(self):
        """Start again every cell that has ended; one that ends by itself is a break."""
        if self.feeder.failure is not None:
            raise Stalled(f"the feeder failed: {self.feeder.failure!r}")
        self._probe()
        if self.ticker is not None:
            self._tend_the_ticker()
        for ordinal, cell in list(self.running.items()):
            if not cell.ended:
                continue
            how = self.expected[cell.number]
            if how == "killed" or (how == "fenced" and cell.fenced) or (how == "disk full" and cell.wrote_nowhere):
                self.deaths[ordinal] = 0
            elif cell.fenced:
                self._fenced_by_a_timeout(cell)
            else:
                self._unexpected(cell)
                self.deaths[ordinal] += 1
                if self.deaths[ordinal] >= DEATHS:
                    raise Stalled(f"cell {ordinal} ends again and again: {cell.words}")
            self._start(ordinal)

    def _tend_the_ticker(self):
        """Tell it the time, and start it again where the broker has fenced it: one that ends otherwise, or untroubled, is a break."""
        self.ticker.tell(self._now())
        life = self.ticker.life
        if not life.ended_by_itself:
            return
        if not life.fenced:
            raise Stalled(f"the ticker has ended by itself: {life.words}")
        self._fenced_by_a_timeout(life)
        self.ticker.start(troubled=self._in_trouble)

    def _fenced_by_a_timeout(self, life):
        """The broker does it to who left a transaction open for long; one that only kills have struck since it began has no reason to."""
        if life.troubled:
            self.report.hits[f"{'cell' if isinstance(life, cells.Cell) else 'ticker'} fenced by a timeout"] += 1
        else:
            self.report.breaks.append(judge.Break("fence", f"nobody has taken the place of what ended fenced: {life.words}"))

    def _probe(self):
        """Kill a cell that hangs, as a supervisor does by its liveness: a call of the client may never come back (librdkafka issue 5456)."""
        if time.monotonic() < self._probed + PROBE_SECONDS:
            return
        self._probed = time.monotonic()
        for cell in self.running.values():
            found = None if cell.ended else cell.health()
            if found is not None and cell.was_live and not found["live"]:
                self.report.hits["restarted by its liveness"] += 1
                self.expected[cell.number] = "killed"
                cell.abort()
                if not cell.troubled:
                    self.report.breaks.append(judge.Break("hang", f"cell {cell.ordinal}, life {cell.number}: {found['live_reasons']}; {cell.words}"))
            cell.was_live |= found is not None and found["live"]

    def _unexpected(self, cell):
        self.report.breaks.append(judge.Break("exit", f"cell {cell.ordinal}, life {cell.number}, ended by itself with {cell.process.returncode}: {cell.words}"))
