"""The topics of the route flow on a broker: how each has to be set, made and checked before the flow starts.

Raw usage, its dead letters and the flow's tokens have the same number of partitions, any number: it has nothing to do
with that of the topics about a customer. Reference data is small and read whole by every cell; one partition is made.
Source: docs/operations.md (topics).
"""

from typing import Final

from confluent_kafka.admin import AdminClient

from flows import kafka_topics, topics
from flows.kafka_topics import LARGE, TopicSpec
from flows.route import TOKEN
from flows.route_records import DEAD
from tieout.usage_stage import Limits

RAW_BYTES: Final = 960 * 1024
"""Raw records of the largest size still fit the usage topic, whose size is the broker's default, under a longer customer."""
REFERENCE: Final = (TopicSpec(topics.REFERENCE, largest=LARGE),)


def specs(limits: Limits) -> tuple[TopicSpec, ...]:
    """The topics that are partitioned like raw usage."""
    return (
        TopicSpec(topics.RAW, limits.horizon + limits.hold_limit, RAW_BYTES, stamped=True),
        TopicSpec(DEAD, largest=LARGE, keeps_stamps=True),
        TopicSpec(TOKEN),
    )


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, limits: Limits) -> list[str]:
    """Make the topics that are missing; their names. SourceError where the broker refuses."""
    made = kafka_topics.create_all(admin, prefix, specs(limits), partitions, replication)
    return made + kafka_topics.create_all(admin, prefix, (*REFERENCE, *kafka_topics.WHOLE), 1, replication)


def check(admin: AdminClient, prefix: str, limits: Limits) -> int:
    """The number of partitions of raw usage; SourceError as for ``kafka_topics.check_all``, for the usage topic too."""
    usage = [spec for spec in kafka_topics.specs(limits) if spec.name == topics.USAGE]
    for chosen in (usage, REFERENCE, kafka_topics.WHOLE):
        kafka_topics.check_all(admin, prefix, chosen)
    partitions = kafka_topics.check_all(admin, prefix, specs(limits))
    for onto in (topics.USAGE, DEAD):
        kafka_topics.check_room(admin, prefix + topics.RAW, prefix + onto)
    return partitions
