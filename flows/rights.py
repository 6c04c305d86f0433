"""What a cell's user may do on a broker with access control, by flow, and the check of it.

In: the operations that the broker says this user is granted. Out: nothing, or every missing right at once. Without the
check a missing one would show as a topic that is not there, as a commit without an answer, or days later, when the
state is trimmed for the first time. A broker without access control grants all; one that does not say is believed.
Source: docs/security.md.
"""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from flows import (
    contract,
    contract_outputs,
    control,
    document,
    document_outputs,
    invoicing,
    route,
    route_records,
    ticker,
    topics,
    usage,
    usage_records,
)
from sources import kafka
from sources.errors import SourceError

Rights = frozenset[AclOperation]
_LOOK: Final = frozenset({AclOperation.DESCRIBE, AclOperation.DESCRIBE_CONFIGS})
"""What the check of a topic's settings needs; describing comes with reading and writing."""
_READ: Final = _LOOK | {AclOperation.READ}
_WRITE: Final = _LOOK | {AclOperation.WRITE}

NEEDED: Final[Mapping[str, Mapping[str, Rights]]] = {
    usage_records.FLOW: {
        topics.USAGE: _READ,
        topics.CONTRACTS: _READ,
        topics.COMMANDS: _READ,
        topics.REFERENCE: _READ,
        topics.RATED: _READ | _WRITE,
        topics.HOLDS: _WRITE,
        topics.EXCEPTIONS: _WRITE,
        usage_records.DEAD: _WRITE,
        topics.DLQ_PROGRESS: _LOOK,
        route.TOKEN: _READ,
        usage.STATE: _READ | _WRITE | {AclOperation.DELETE},
        usage.SEEN: _READ | _WRITE | {AclOperation.DELETE},
        usage.TOKEN: _READ | _WRITE,
    },
    route_records.FLOW: {
        topics.RAW: _READ,
        topics.REFERENCE: _READ,
        topics.COMMANDS: _READ,
        topics.USAGE: _WRITE,
        route_records.DEAD: _WRITE,
        route.TOKEN: _READ | _WRITE,
    },
    contract_outputs.FLOW: {
        topics.COMMANDS: _READ,
        topics.REFERENCE: _READ,
        topics.CONTRACTS: _WRITE,
        topics.EXCEPTIONS: _WRITE,
        contract_outputs.DEAD: _WRITE,
        contract.TOKEN: _READ | _WRITE,
    },
    ticker.NAME: {topics.COMMANDS: _READ | _WRITE},
    control.NAME: {
        topics.USAGE: _LOOK,
        topics.RATED: _READ,
        topics.INVOICES: _READ,
        topics.CONTRACTS: _READ,
        topics.HOLDS: _READ,
        topics.COMMANDS: _READ,
        topics.REFERENCE: _READ,
        topics.EXCEPTIONS: _READ | _WRITE,
        usage.TOKEN: _READ,
        invoicing.STATE: _READ,
        invoicing.TOKEN: _READ,
    },
    document_outputs.FLOW: {
        topics.INVOICES: _READ,
        topics.DOCUMENTS: _WRITE,
        document.TOKEN: _READ | _WRITE,
    },
    invoicing.FLOW: {
        topics.RATED: _READ,
        topics.HOLDS: _READ,
        usage.TOKEN: _READ,
        topics.CONTRACTS: _READ,
        topics.REFERENCE: _READ,
        topics.COMMANDS: _READ,
        topics.INVOICES: _READ | _WRITE,
        topics.EXCEPTIONS: _WRITE,
        invoicing.STATE: _READ | _WRITE | {AclOperation.DELETE},
        invoicing.TOKEN: _READ | _WRITE,
    },
}


def check(admin: AdminClient, prefix: str, flow: str, seconds: float = kafka.ANSWER_SECONDS) -> None:
    """SourceError names what this user may not do of what a flow does; topics that are missing are another check's."""
    needed = {prefix + topic: rights for topic, rights in NEEDED[flow].items()}
    asked = admin.describe_topics(TopicCollection(list(needed)), include_authorized_operations=True, request_timeout=seconds)
    missing = []
    for topic, answer in asked.items():
        try:
            granted = answer.result().authorized_operations
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                missing.append(f"{topic}: {_words(needed[topic])} ({reason.str()})")
            elif reason.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise kafka.failed(reason, topic, 0) from error
        else:
            lacking = needed[topic] - set(granted or needed[topic])
            if lacking:
                missing.append(f"{topic}: {_words(lacking)}")
    if missing:
        msg = f"the broker does not let this user do what the {flow} flow does: {'; '.join(missing)}; give it the rights that docs/security.md lists"
        raise SourceError(msg)


def _words(rights: Rights) -> str:
    """Operations as the broker's tools call them."""
    return ", ".join(sorted(operation.name.title().replace("_", "") for operation in rights))
