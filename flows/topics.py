"""Names of topics, and the schemas of their records."""

from typing import Final

RAW: Final = "usage.raw.v1"
"""Usage in any partition, under any key, for the route flow."""
USAGE: Final = "usage.event.v1"
CONTRACTS: Final = "contract.version.v1"
REFERENCE: Final = "reference.data.v1"
RATED: Final = "usage.rated.v1"
HOLDS: Final = "usage.hold.v1"
INVOICES: Final = "billing.invoice.v1"
"""Invoices and credit notes without numbers, in the partitions of their customers."""
DOCUMENTS: Final = "billing.document.v1"
"""The same, numbered, in the partitions of their legal entities."""
EXCEPTIONS: Final = "finance.exception.v1"
COMMANDS: Final = "governance.command.v1"
"""What people ask for, in one partition that every cell reads whole."""
DLQ_PROGRESS: Final = "_tieout.dlq.progress"
"""Which dead letters are settled, and how."""
WHOLE_FLOWS: Final = frozenset({"contract", "document", "control"})
"""Flows of one partition whose intervals reach all partitions of their outputs."""
INGRESS: Final = "ingress"
"""The writer of topics that come from outside."""

SCHEMAS: Final = {
    RAW: "usage_event",
    USAGE: "usage_event",
    CONTRACTS: "contract_version",
    REFERENCE: "reference_record",
    RATED: "rated_usage",
    HOLDS: "hold",
    INVOICES: "invoice",
    DOCUMENTS: "document",
    EXCEPTIONS: "exception",
    COMMANDS: "command",
}


FLOW_HEADER: Final = "flow"
"""The header of a record on a topic of several flows that says which one wrote it; the usage flow's have none."""


def dead_letters(topic: str, flow: str) -> str:
    """Where a flow puts what it rejects from a topic."""
    return f"{topic}.dlq.{flow}"


def in_partition(topic: str, partition: int) -> str:
    """A topic's partition as one name; no topic has a slash in its own."""
    return f"{topic}/{partition}"


def placed(name: str, partition: int) -> tuple[str, int]:
    """The topic and the partition of such a name, whatever it is read for (behind a ``#``); a topic's own name means the given partition."""
    topic, slash, number = name.partition("#")[0].partition("/")
    return topic, int(number) if slash else partition


def state_topics(flow: str) -> tuple[str, str, str]:
    """The state, identities and tokens of a flow."""
    return f"_tieout.{flow}.state", f"_tieout.{flow}.seen", f"_tieout.{flow}.token"


def is_own(topic: str) -> bool:
    """Whether a topic is a flow's own, read by nobody else: state, identities, tokens."""
    return topic.startswith("_tieout.")


def is_state(topic: str) -> bool:
    """Whether a topic holds state that a restart reads back whole: tokens are read from their end."""
    return is_own(topic) and not topic.endswith(".token")


def is_dead_letters(topic: str) -> bool:
    """Whether a topic holds what a flow rejected: its records keep their own timestamps."""
    return ".dlq." in topic
