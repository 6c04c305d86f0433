"""The product's ticker with the campaign's time: the events are of long ago, and ticks of today would make all of them too late.

``python -m tests.chaos.ticking BOOTSTRAP PREFIX INSTALLATION FILE``: the file holds the present instant in UTC microseconds.
Run as a process of its own, ``Ticker`` starts it, kills it and starts it again.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows import ticker
from flows.cells import keep_going
from flows.kafka_place import KafkaPlace
from tests.chaos.cells import FENCED, ROOT
from tieout.ticks import minute_of

SECONDS = 0.3
"""Between two looks at the time."""


def main(bootstrap, prefix, installation, file):
    place, clock = KafkaPlace({"bootstrap.servers": bootstrap}, installation, prefix), Path(file)

    def stopped(_seconds):
        time.sleep(SECONDS)
        return False

    def attempt():
        try:
            ticker.keep_ticking(place, lambda: int(clock.read_text()), stopped, lambda _: None)
        finally:
            place.close()

    keep_going(attempt, stopped, lambda why, seconds: print(f"{why}; next attempt in {seconds:.1f} s", flush=True))


class Life:
    """One life of a ticker; ``troubled``: something else than kills has struck since it began, so it may end fenced."""

    def __init__(self, command, said, group, *, troubled):
        self.said, self.troubled, self.killed = said, troubled, False
        with said.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=group.number)

    @property
    def ended(self):
        return self.process.poll() is not None

    @property
    def ended_by_itself(self):
        return self.ended and not self.killed

    @property
    def fenced(self):
        return self.ended_by_itself and self.process.returncode == 1 and FENCED in self.words

    @property
    def words(self):
        return self.said.read_text(errors="replace")[-700:]

    def kill(self):
        self.killed = True
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def wake(self):
        self.process.send_signal(signal.SIGCONT)


class Ticker:
    """The tickers of a campaign, one after the other, by the time that they are told."""

    def __init__(self, deployment, group, instant, way=None):
        self.deployment, self.group, self.clock, self.lives = deployment, group, deployment.folder / "clock", 0
        self.way, self.bootstrap = way, way.relay.address if way else deployment.bootstrap
        self.tell(instant)
        self.start()

    def tell(self, instant):
        """What time it is."""
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(str(instant))
        os.replace(fresh, self.clock)

    def start(self, *, troubled=False):
        """Begin a life; one that goes on beside it is fenced by it."""
        self.lives += 1
        command = [sys.executable, "-m", "tests.chaos.ticking", self.bootstrap, self.deployment.prefix, self.deployment.installation, str(self.clock)]
        self.life = Life(command, self.deployment.folder / f"ticker-life-{self.lives}.log", self.group, troubled=troubled)

    def finish(self, instant, until, ticks):
        """End it when the minute of an instant stands; the instant up to which its last tick moves clocks."""
        wanted = minute_of(instant)
        self.tell(wanted)
        until(lambda: (found := ticks()) and found[-1][1] == wanted, "the last tick", pause=0.3)
        self.life.kill()
        return wanted


if __name__ == "__main__":
    main(*sys.argv[1:])
