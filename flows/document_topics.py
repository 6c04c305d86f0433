"""The topics of the document flow on a broker: how each has to be set, made and checked before the flow starts.

Invoices come in the partitions of their customers, documents go to those of their legal entities, which are as many; the
flow's tokens have one partition, because one process gives all numbers. None of them is ever deleted or compacted.
Source: docs/operations.md (topics).
"""

from typing import Final

from confluent_kafka.admin import AdminClient

from flows import kafka_topics
from flows.document import TOKEN
from flows.kafka_topics import TopicSpec
from sources.errors import SourceError
from tieout.usage_stage import Limits

OWN: Final = (TopicSpec(TOKEN),)
MONEY: Final = (kafka_topics.INVOICES, kafka_topics.DOCUMENTS)


def specs() -> tuple[TopicSpec, ...]:
    """All topics of the flow."""
    return (*MONEY, *OWN)


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, _: Limits) -> list[str]:
    """Make the topics that are missing, ``partitions`` for those of invoices and documents; their names. SourceError where the broker refuses."""
    made = kafka_topics.create_all(admin, prefix, MONEY, partitions, replication)
    return made + kafka_topics.create_all(admin, prefix, OWN, 1, replication)


def check(admin: AdminClient, prefix: str, _: Limits) -> int:
    """How many processes can share the flow, 1; SourceError as for ``kafka_topics.check_all``."""
    kafka_topics.check_all(admin, prefix, MONEY)
    partitions = kafka_topics.check_all(admin, prefix, OWN)
    if partitions != 1:
        msg = f"{prefix}{TOKEN} has {partitions} partitions; numbers are given by one process, make the topic anew with one partition"
        raise SourceError(msg)
    kafka_topics.check_room(admin, prefix + kafka_topics.INVOICES.name, prefix + kafka_topics.DOCUMENTS.name)
    return partitions
