"""The ticker as a process of its own, as it is deployed.

In: a broker whose topics exist, a registry and the lock file of its ids. Out: a tick each minute; it ends in order on SIGTERM.
"""

import sys
from pathlib import Path

from flows.stack import loopback
from flows.stack.process import Part


class Ticker(Part):
    """The one ticker of an installation."""

    name = "The ticker"

    def __init__(self, folder: Path, bootstrap: str, registry: str, lock: Path) -> None:
        super().__init__(folder)
        self._places = ("--bootstrap", bootstrap, "--registry", registry, "--schema-lock", str(lock))
        [self.port] = loopback.free(1)

    @property
    def address(self) -> str:
        """Where it serves ``/live``, ``/ready``, ``/health`` and ``/metrics``."""
        return f"{loopback.ADDRESS}:{self.port}"

    def command(self) -> list[str]:
        """Say how to run it."""
        return [sys.executable, "-m", "flows.cli", "run", "ticker", *self._places, "--health-address", self.address]

    def ready(self) -> bool:
        """Whether it ticks."""
        return loopback.get(self.port, "/ready") is not None
