"""A process that runs until SIGTERM or SIGINT, and waits without being taken for one that hangs."""

import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import FrameType
from typing import Final

from flows import output
from flows.cells import keep_going
from flows.flow_metrics import FlowMetrics
from flows.health import HealthServer

_TURN_SECONDS: Final = 1.0
"""Between two looks whether to end, which are also what the health endpoint takes for a sign of life."""


class Stopping:
    """Whether this process was told to stop; it listens from its making on."""

    def __init__(self, metrics: FlowMetrics) -> None:
        self._metrics, self._stop = metrics, threading.Event()
        signal.signal(signal.SIGTERM, self._told)
        signal.signal(signal.SIGINT, self._told)

    def _told(self, _signal: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def stopped(self, seconds: float) -> bool:
        """Wait so many seconds; whether to stop."""
        end = time.monotonic() + seconds
        self._metrics.turned()
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            self._stop.wait(min(left, _TURN_SECONDS))
            self._metrics.turned()
        return self._stop.is_set()

    def keep_going(self, attempt: Callable[[], None], health_address: str | None) -> None:
        """Attempt until one ends by itself or the process is told to stop, with a health endpoint where an address is given."""
        with nullcontext() if health_address is None else HealthServer(health_address, self._metrics):
            keep_going(attempt, self.stopped, lambda why, seconds: output.say(f"{why}; next attempt in {seconds:.1f} s"))
