"""The topics of the contract flow on a broker: how each has to be set, made and checked before the flow starts.

Commands, reference data, the flow's dead letters and its tokens have one partition each; contract versions and exceptions
are those of the usage flow. The broker sets the record time of commands: it says when something was known, and which key
of a user counts. Source: docs/operations.md (topics).
"""

from typing import Final

from confluent_kafka.admin import AdminClient

from flows import kafka_topics, route_topics, topics
from flows.contract import TOKEN
from flows.contract_outputs import DEAD
from flows.kafka_topics import LARGE, TopicSpec
from sources.errors import SourceError
from tieout.usage_stage import Limits

OWN: Final = (TopicSpec(DEAD, largest=2 * LARGE, keeps_stamps=True), TopicSpec(TOKEN))
_OUTPUTS: Final = (topics.CONTRACTS, topics.EXCEPTIONS)


def specs() -> tuple[TopicSpec, ...]:
    """The topics of one partition."""
    return (*kafka_topics.WHOLE, *route_topics.REFERENCE, *OWN)


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, limits: Limits) -> list[str]:
    """Make the topics that are missing, ``partitions`` for those about a customer; their names. SourceError where the broker refuses."""
    outputs = [spec for spec in kafka_topics.specs(limits) if spec.name in _OUTPUTS]
    made = kafka_topics.create_all(admin, prefix, specs(), 1, replication)
    return made + kafka_topics.create_all(admin, prefix, outputs, partitions, replication)


def check(admin: AdminClient, prefix: str, limits: Limits) -> int:
    """The number of partitions of the flow's input, 1; SourceError as for ``kafka_topics.check_all``, for its outputs too."""
    kafka_topics.check_all(admin, prefix, [spec for spec in kafka_topics.specs(limits) if spec.name in _OUTPUTS])
    partitions = kafka_topics.check_all(admin, prefix, specs())
    if partitions != 1:
        msg = f"{prefix}{topics.COMMANDS} has {partitions} partitions; commands have one order, make the topic anew with one partition"
        raise SourceError(msg)
    kafka_topics.check_room(admin, prefix + topics.COMMANDS, prefix + DEAD)
    return partitions
