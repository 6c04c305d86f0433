"""The cells as processes: ``tieout run usage --bootstrap``, started, killed, frozen, woken, and started again.

All of them end with the campaign, however it ends: a shell leads their process group and kills it when the pipe that
only the campaign holds open is closed.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from flows.stack import loopback

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "flows.cli")
FENCED = "another process has taken this partition"


class Deployment(NamedTuple):
    """What all cells are started with."""

    bootstrap: str
    prefix: str
    installation: str
    rows: int
    seconds: float
    folder: Path
    command: tuple = COMMAND
    """What Python runs: the product, or the product with a seeded bug."""


class Group:
    """The process group of all cells of a campaign."""

    def __init__(self):
        self._leader = subprocess.Popen(["/bin/sh", "-c", "read -r line; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0)

    @property
    def number(self):
        return self._leader.pid

    def close(self):
        self._leader.stdin.close()
        self._leader.wait()


class Cell:
    """One life of a cell; ``troubled``: something else than kills has struck since it began, so it may end fenced or hang."""

    lives = 0

    def __init__(self, deployment, group, ordinal, cells, generation, *, bootstrap=None, drain=False, command=None):
        Cell.lives += 1
        self.ordinal, self.number, self.was_live, self.troubled, self._was_young = ordinal, Cell.lives, False, False, False
        self.port = loopback.free(1)[0]
        self.said = deployment.folder / f"cell-{ordinal}-life-{self.number}.log"
        self.cache = cache_of(deployment, ordinal)
        options = [
            "run", "usage", "--bootstrap", bootstrap or deployment.bootstrap, "--topic-prefix", deployment.prefix, "--installation", deployment.installation,
            "--cells", str(cells), "--cell", str(ordinal), "--generation", str(generation), "--rows", str(deployment.rows), "--seconds", str(deployment.seconds),
            "--health-address", f"{loopback.ADDRESS}:{self.port}", "--cache", str(self.cache), "--output", "ndjson", *(["--drain"] if drain else []),
        ]
        with self.said.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(command or deployment.command), *options], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=group.number,
                env=os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"},
            )

    @property
    def ended(self):
        return self.process.poll() is not None

    @property
    def words(self):
        """What it printed last."""
        lines = [line for line in self.said.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-700:]

    @property
    def fenced(self):
        return self.ended and self.process.returncode == 1 and FENCED in self.words

    def kill(self):
        self.process.kill()
        self.process.wait()

    def abort(self):
        """Kill it; it says first where each of its threads is."""
        self.process.send_signal(signal.SIGABRT)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def wake(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        """SIGTERM; a process that has not come to its own first line yet ends by it at once."""
        self._was_young = self.health() is None
        self.process.terminate()

    @property
    def stopped_young(self):
        return self._was_young and self.process.returncode == -signal.SIGTERM

    @property
    def was_ending(self):
        """Whether it had said its last word, that it was fenced or cannot write its folder, before the signal came."""
        last = self.words.split(" | ")[-1]
        return self.process.returncode == -signal.SIGTERM and last.startswith("tieout: ") and (FENCED in last or str(self.cache) in last)

    @property
    def wrote_nowhere(self):
        """Whether it ended in order, or with a word about the folder that it cannot write."""
        return self.ended and (self.process.returncode == 0 or (self.process.returncode == 1 and f"tieout: {self.cache}" in self.words))

    def health(self):
        """Its own account of itself; None where it does not answer."""
        connection = http.client.HTTPConnection(loopback.ADDRESS, self.port, timeout=1)
        try:
            connection.request("GET", "/health")
            return json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def restoring(self):
        """Whether it is between its start and the end of its restore."""
        found = self.health()
        return found is not None and not all(partition["restored"] for partition in found["partitions"])

    def up(self):
        """Whether it has restored all of its partitions."""
        found = self.health()
        return found is not None and all(partition["restored"] for partition in found["partitions"])


def rescale(deployment, count):
    """``tieout rescale``, again where a cell that came back took a partition from it: the number of the generation that it began."""
    command = [
        sys.executable, *COMMAND, "rescale", "usage", "--bootstrap", deployment.bootstrap, "--topic-prefix", deployment.prefix,
        "--installation", deployment.installation, "--cells", str(count), "--output", "ndjson",
    ]
    for _ in range(10):
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if FENCED not in answer.stderr:
            break
    assert answer.returncode == 0, answer.stderr
    return int(re.search(r"--generation (\d+)", answer.stdout)[1])


def cache_of(deployment, ordinal):
    return deployment.folder / "cache" / str(ordinal)


def local_files(deployment, ordinal):
    """The files that a cell keeps for itself."""
    return sorted(path for path in cache_of(deployment, ordinal).rglob("*") if path.is_file())


def delete_local_files(deployment, ordinal):
    """All of them; how many there were."""
    found = len(local_files(deployment, ordinal))
    shutil.rmtree(cache_of(deployment, ordinal), ignore_errors=True)
    return found


def tear_a_local_file(deployment, ordinal, rnd):
    """Cut one short, or lose the end of it to zeros, as a power cut would; whether there was one."""
    found = [path for path in local_files(deployment, ordinal) if path.stat().st_size]
    if not found:
        return False
    path = rnd.choice(found)
    size = path.stat().st_size
    with contextlib.suppress(OSError), path.open("r+b") as file:
        at = rnd.randrange(size)
        file.truncate(at)
        if rnd.random() < 0.5:
            file.truncate(size)
    return True
