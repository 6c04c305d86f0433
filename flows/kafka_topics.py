"""The topics of an installation on a broker: how each has to be set, made and checked before a flow starts.

All topics about a customer have the same number of partitions, fixed for life. Nothing that bears money is compacted
or deleted by time or size; usage is kept for the horizon and the longest hold, rated usage for as long as it may be
priced again. A setting that would lose something is a refusal to start that says what to set.
Source: docs/operations.md (topics).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from flows import topics
from flows.usage_records import DEAD, FLOW
from sources import kafka
from sources.errors import SourceError
from tieout.usage_stage import DAY, Limits

FOREVER: Final = -1
REPRICE_LIMIT: Final = 400 * DAY
LARGE: Final = 8 * 2**20
"""Bytes of the largest record: an exception carries two payloads as text."""
_RECORD_BYTES: Final = "max.message.bytes"
_STAMPS: Final = "message.timestamp.type"
_SEGMENTS: Final = {"segment.bytes": str(16 * 2**20), "segment.ms": str(3_600_000)}
"""Small segments for what is deleted from the front, or the disk never shrinks."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic: how long it keeps its records (microseconds, FOREVER), and the largest record it takes."""

    name: str
    keeps: int = FOREVER
    largest: int | None = None
    trimmed: bool = False
    stamped: bool = False
    """Whether the broker sets the record time: a sender's clock must neither shorten what is kept nor hide a wrong time."""

    def settings(self) -> dict[str, str]:
        """What it is made with."""
        keeps = FOREVER if self.keeps == FOREVER else self.keeps // 1000
        made = {"cleanup.policy": "delete", "retention.ms": str(keeps), "retention.bytes": "-1"}
        made |= {_RECORD_BYTES: str(self.largest)} if self.largest else {}
        made |= {_STAMPS: "LogAppendTime"} if self.stamped else {}
        return made | (_SEGMENTS if self.trimmed else {})

    def faults(self, found: Mapping[str, str]) -> list[str]:
        """What of its settings would lose something, each with what to set."""
        faults = []
        if found["cleanup.policy"] != "delete":
            faults.append(f"cleanup.policy is {found['cleanup.policy']!r}, set 'delete'")
        kept, wanted = int(found["retention.ms"]), FOREVER if self.keeps == FOREVER else self.keeps // 1000
        if kept != FOREVER and (wanted == FOREVER or kept < wanted):
            faults.append(f"retention.ms is {kept}, set {wanted}" + ("" if wanted == FOREVER else " or more"))
        if int(found["retention.bytes"]) != FOREVER:
            faults.append(f"retention.bytes is {found['retention.bytes']}, set -1")
        if self.largest and int(found[_RECORD_BYTES]) < self.largest:
            faults.append(f"{_RECORD_BYTES} is {found[_RECORD_BYTES]}, set {self.largest} or more")
        if self.stamped and found[_STAMPS] != "LogAppendTime":
            faults.append(f"{_STAMPS} is {found[_STAMPS]}, set LogAppendTime")
        return faults


def specs(limits: Limits) -> tuple[TopicSpec, ...]:
    """The topics of the usage flow."""
    state, seen, token = topics.state_topics(FLOW)
    return (
        TopicSpec(topics.USAGE, limits.horizon + limits.hold_limit, stamped=True),
        TopicSpec(topics.CONTRACTS, largest=LARGE),
        TopicSpec(topics.RATED, REPRICE_LIMIT),
        TopicSpec(topics.HOLDS),
        TopicSpec(topics.EXCEPTIONS, largest=LARGE),
        TopicSpec(DEAD, largest=LARGE),
        TopicSpec(state, largest=LARGE, trimmed=True),
        TopicSpec(seen, trimmed=True),
        TopicSpec(token),
    )


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, limits: Limits) -> list[str]:
    """Make the topics that are missing; their names. SourceError where the broker refuses."""
    have = _partitions(admin)
    wanted = [spec for spec in specs(limits) if prefix + spec.name not in have]
    new = [NewTopic(prefix + spec.name, partitions, replication, config=spec.settings()) for spec in wanted]
    for name, made in (admin.create_topics(new, request_timeout=kafka.ANSWER_SECONDS) if new else {}).items():
        try:
            made.result()
        except KafkaException as error:
            msg = f"{name}: cannot be made ({error.args[0].str()}); check the user's rights and the number of brokers"
            raise SourceError(msg) from error
    return [prefix + spec.name for spec in wanted]


def check(admin: AdminClient, prefix: str, limits: Limits) -> int:
    """The number of partitions; SourceError names every topic that is missing or set so that something could be lost."""
    have = _partitions(admin)
    wanted = specs(limits)
    missing = [prefix + spec.name for spec in wanted if prefix + spec.name not in have]
    if missing:
        msg = f"topics are missing: {', '.join(missing)}; make them with 'tieout topic create --bootstrap ... --partitions N'"
        raise SourceError(msg)
    counts = {prefix + spec.name: have[prefix + spec.name] for spec in wanted}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        msg = f"topics about a customer must have the same number of partitions: {told}; make the odd ones anew, the number is fixed for life"
        raise SourceError(msg)
    found = _settings(admin, list(counts))
    faults = [f"{prefix + spec.name}: {fault}" for spec in wanted for fault in spec.faults(found[prefix + spec.name])]
    if faults:
        msg = f"topics are set so that something could be lost: {'; '.join(faults)}"
        raise SourceError(msg)
    return counts[prefix + topics.USAGE]


def _partitions(admin: AdminClient) -> dict[str, int]:
    try:
        listed = admin.list_topics(timeout=kafka.ANSWER_SECONDS)
    except KafkaException as error:
        raise kafka.failed(error.args[0], "the broker", 0) from error
    return {name: len(topic.partitions) for name, topic in listed.topics.items()}


def _settings(admin: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=kafka.ANSWER_SECONDS)
    try:
        return {resource.name: {name: entry.value for name, entry in answer.result().items()} for resource, answer in asked.items()}
    except KafkaException as error:
        raise kafka.failed(error.args[0], "the topics' settings", 0) from error
