"""The topics of the invoicing flow on a broker: how each has to be set, made and checked before the flow starts.

Its input and outputs about a customer have the partitions of the usage flow's; commands and reference data one each.
Source: docs/operations.md (topics).
"""

from typing import Final

from confluent_kafka.admin import AdminClient

from flows import kafka_topics, route_topics, topics
from flows.invoicing import STATE, TOKEN
from flows.kafka_topics import INVOICES, LARGE, TopicSpec
from tieout.usage_stage import Limits

OWN: Final = (INVOICES, TopicSpec(STATE, largest=LARGE, trimmed=True), TopicSpec(TOKEN))
_INPUTS: Final = (topics.RATED, topics.HOLDS, topics.CONTRACTS, topics.EXCEPTIONS)


def specs(limits: Limits) -> tuple[TopicSpec, ...]:
    """The topics that are partitioned by customer."""
    return (*(spec for spec in kafka_topics.specs(limits) if spec.name in _INPUTS), *OWN)


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, limits: Limits) -> list[str]:
    """Make the topics that are missing, ``partitions`` for those about a customer; their names. SourceError where the broker refuses."""
    made = kafka_topics.create_all(admin, prefix, (*kafka_topics.WHOLE, *route_topics.REFERENCE), 1, replication)
    return made + kafka_topics.create_all(admin, prefix, specs(limits), partitions, replication)


def check(admin: AdminClient, prefix: str, limits: Limits) -> int:
    """The number of partitions of rated usage; SourceError as for ``kafka_topics.check_all``."""
    for whole in (kafka_topics.WHOLE, route_topics.REFERENCE):
        kafka_topics.check_all(admin, prefix, whole)
    return kafka_topics.check_all(admin, prefix, specs(limits))
