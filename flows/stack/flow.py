"""A flow as a process of its own, as it is deployed: usage and invoicing with all partitions in one cell, the others are one always.

In: a broker whose topics exist, a registry and the lock file of its ids. Out: a process that is ready, with its health and metrics on a port of the
loopback address. It ends in order on SIGTERM, with what it was doing committed.
"""

import sys
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from flows import metrics
from flows.stack import loopback
from flows.stack.process import Part


class FlowProcess(Part):
    """What ``tieout run`` runs: ``start`` it, ``stop`` it."""

    flow: str

    def __init__(self, folder: Path, bootstrap: str, registry: str, lock: Path) -> None:
        super().__init__(folder)
        self._places = ("--bootstrap", bootstrap, "--registry", registry, "--schema-lock", str(lock))
        [self.port] = loopback.free(1)

    @property
    def address(self) -> str:
        """Where it serves ``/ready``, ``/health`` and ``/metrics``."""
        return f"{loopback.ADDRESS}:{self.port}"

    def command(self) -> list[str]:
        """Say how to run it."""
        return [sys.executable, "-m", "flows.cli", "run", self.flow, *self._places, "--health-address", self.address]

    def ready(self) -> bool:
        """Whether it has restored its partitions and works."""
        return loopback.get(self.port, "/ready") is not None


class UsageFlow(FlowProcess):
    """One cell of the usage flow; look at ``counted``."""

    name = "The usage flow"
    flow = "usage"

    def counted(self) -> dict[str, int]:
        """Events by fate since the first start, over all partitions, and ``lag``: records not committed yet; empty where it does not answer."""
        text = loopback.get(self.port, "/metrics")
        counts: Counter[str] = Counter()
        for family in text_string_to_metric_families(text or ""):
            for sample in family.samples:
                if sample.name == metrics.EVENTS.name:
                    counts[sample.labels["fate"]] += int(sample.value)
                elif sample.name == metrics.LAG.name:
                    counts["lag"] += int(sample.value)
        return dict(counts)


class ContractFlow(FlowProcess):
    """The contract flow, which is one cell always."""

    name = "The contract flow"
    flow = "contract"


class InvoicingFlow(FlowProcess):
    """The invoicing flow, all its partitions in one cell."""

    name = "The invoicing flow"
    flow = "invoicing"


class DocumentFlow(FlowProcess):
    """The document flow, which is one cell always."""

    name = "The document flow"
    flow = "document"


class Ticker(FlowProcess):
    """The one ticker of an installation."""

    name = "The ticker"
    flow = "ticker"


class Control(FlowProcess):
    """The one control of an installation."""

    name = "The control"
    flow = "control"
