"""A part as a process of this one: started, stopped, killed, paused, and never left behind.

In: a command, an environment and a log file. Out: a process that ends with ours, however ours ends: a watcher waits
on a pipe that only we hold open, and kills the part when the pipe closes. It does so whichever thread started it.
"""

import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from flows.stack.errors import StackError

START_SECONDS: Final = 90.0
STOP_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_HALT_SECONDS: Final = 5.0
_TAIL: Final = 12
_WATCH: Final = ("/bin/sh", "-c", 'read -r line; kill -KILL "$0"')


class Part(ABC):
    """One program that runs beside us; ``folder`` holds all its files, ``log`` what it prints, over restarts."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Say what to run, after making what it needs."""

    def environment(self) -> Mapping[str, str]:
        """Variables beside ours."""
        return {}

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    @property
    def running(self) -> bool:
        """Whether its process is there, paused or not."""
        if self._process is not None and self._process.poll() is not None:
            self._end()
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process id; StackError where it does not run."""
        if not self.running or self._process is None:
            msg = f"{self.name} is not running; start it first"
            raise StackError(msg)
        return self._process.pid

    def start(self) -> None:
        """Start it on what its folder holds; back when it answers. StackError, with what it printed last, where it fails."""
        if self.running:
            msg = f"{self.name} runs already, as process {self.pid}; stop it first"
            raise StackError(msg)
        self.folder.mkdir(parents=True, exist_ok=True)
        command, environment = self.command(), {**os.environ, **self.environment()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )
        self._watcher = subprocess.Popen([*_WATCH, str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True)
        try:
            self._await()
        except BaseException:
            self.kill()
            raise

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if not self.running:
                raise StackError(self._failed("ended at its start"))
            if time.monotonic() > deadline:
                raise StackError(self._failed(f"did not answer within {START_SECONDS:.0f} s"))
            time.sleep(_LOOK_SECONDS)

    def _failed(self, what: str) -> str:
        return f"{self.name} {what}; {self.log} has all it said, at last:\n{last_lines(self.log.read_text(errors='replace'), _TAIL)}"

    def stop(self) -> None:
        """End it in order, by force where that takes too long; nothing where it does not run."""
        if self.running and self._process is not None:
            self._process.terminate()
            self.resume()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._end()

    def kill(self) -> None:
        """End it at once, as a power cut would; nothing where it does not run."""
        if self._process is not None:
            self._process.kill()
        self._end()

    def pause(self) -> None:
        """Halt it: its connections stay open and nothing answers, once this returns."""
        os.kill(self.pid, signal.SIGSTOP)
        waited_until = time.monotonic() + _HALT_SECONDS
        while not _halted(self.pid) and time.monotonic() < waited_until:  # its threads stop one by one
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self) -> None:
        process, self._process = self._process, None
        watcher, self._watcher = self._watcher, None
        if process is not None:
            process.wait()
        if watcher is not None:
            watcher.kill()
            watcher.communicate()


def last_lines(text: str, count: int) -> str:
    """The last lines of what a Java program said, without the lines of its stack traces."""
    return "\n".join([line for line in text.splitlines() if line.strip() and not line.startswith("\tat ")][-count:])


def _halted(pid: int) -> bool:
    """Whether no thread of a process runs, as far as the system tells."""
    try:
        states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # a thread has ended meanwhile
        return False
    return all(state in "Tt" for state in states)
