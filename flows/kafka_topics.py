"""The topics of an installation on a broker: how each has to be set, made and checked before a flow starts.

All topics about a customer have the same number of partitions, fixed for life. Nothing that bears money is compacted
or deleted by time or size; usage is kept for the horizon and the longest hold, rated usage for as long as it may be
priced again. A setting that would lose something is a refusal to start that says what to set.
Source: docs/operations.md (topics).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from flows import topics
from flows.usage_records import DEAD, FLOW
from sources import kafka
from sources.errors import SourceError
from tieout.usage_stage import Limits

FOREVER: Final = -1
LARGE: Final = 8 * 2**20
"""Bytes of the largest record: an exception carries two payloads as text."""
_RECORD_BYTES: Final = "max.message.bytes"
_HEADER_BYTES: Final = 64 * 1024
"""More than the headers take that a dead letter has beside its original."""
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
    keeps_stamps: bool = False
    """Whether records keep the time that they are written with."""

    def settings(self) -> dict[str, str]:
        """What it is made with."""
        keeps = FOREVER if self.keeps == FOREVER else self.keeps // 1000
        made = {"cleanup.policy": "delete", "retention.ms": str(keeps), "retention.bytes": "-1"}
        made |= {_RECORD_BYTES: str(self.largest)} if self.largest else {}
        made |= {_STAMPS: self._stamps} if self._stamps else {}
        return made | (_SEGMENTS if self.trimmed else {})

    @property
    def _stamps(self) -> str | None:
        """Who sets the record time, where it matters."""
        return "LogAppendTime" if self.stamped else "CreateTime" if self.keeps_stamps else None

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
        if self._stamps and found[_STAMPS] != self._stamps:
            faults.append(f"{_STAMPS} is {found[_STAMPS]}, set {self._stamps}")
        return faults


def specs(limits: Limits) -> tuple[TopicSpec, ...]:
    """The topics of the usage flow."""
    state, seen, token = topics.state_topics(FLOW)
    return (
        TopicSpec(topics.USAGE, limits.horizon + limits.hold_limit, stamped=True),
        TopicSpec(topics.CONTRACTS, largest=LARGE),
        TopicSpec(topics.RATED, limits.reprice_limit),
        TopicSpec(topics.HOLDS),
        TopicSpec(topics.EXCEPTIONS, largest=LARGE),
        TopicSpec(DEAD, largest=LARGE, keeps_stamps=True),
        TopicSpec(topics.DLQ_PROGRESS),
        TopicSpec(state, largest=LARGE, trimmed=True),
        TopicSpec(seen, trimmed=True),
        TopicSpec(token),
    )


WHOLE: Final = (TopicSpec(topics.COMMANDS, largest=LARGE, stamped=True),)
"""Topics of one partition, which every cell reads whole: what is asked for has one order."""


INVOICES: Final = TopicSpec(topics.INVOICES, largest=LARGE)
"""Written by the invoicing flow, in the partitions of their customers; read by the document flow."""
DOCUMENTS: Final = TopicSpec(topics.DOCUMENTS, largest=2 * LARGE)
"""An invoice with its number is a little longer than the invoice."""


def create(admin: AdminClient, prefix: str, partitions: int, replication: int, limits: Limits) -> list[str]:
    """Make the topics of the usage flow that are missing; their names. SourceError where the broker refuses."""
    return create_all(admin, prefix, specs(limits), partitions, replication) + create_all(admin, prefix, WHOLE, 1, replication)


def create_all(admin: AdminClient, prefix: str, chosen: Sequence[TopicSpec], partitions: int, replication: int) -> list[str]:
    """Make those of some topics that are missing; their names. SourceError where the broker refuses."""
    have = _partitions(admin)
    wanted = [spec for spec in chosen if prefix + spec.name not in have]
    new = [NewTopic(prefix + spec.name, partitions, replication, config=spec.settings()) for spec in wanted]
    for name, made in (admin.create_topics(new, request_timeout=kafka.ANSWER_SECONDS) if new else {}).items():
        try:
            made.result()
        except KafkaException as error:
            msg = f"{name}: cannot be made ({error.args[0].str()}); check the user's rights and the number of brokers"
            raise SourceError(msg) from error
    names = [prefix + spec.name for spec in wanted]
    _wait_for(admin, names)
    return names


def _wait_for(admin: AdminClient, names: Sequence[str]) -> None:
    """Made topics are known to all brokers a little later."""
    until = time.monotonic() + kafka.ANSWER_SECONDS
    while missing := set(names) - _partitions(admin).keys():
        if time.monotonic() > until:
            msg = f"{', '.join(sorted(missing))}: made, but the broker does not list them yet; look at the broker, then run this again"
            raise SourceError(msg)
        time.sleep(0.05)


def check(admin: AdminClient, prefix: str, limits: Limits) -> int:
    """The number of partitions of the usage flow's topics; SourceError as for ``check_all``."""
    _check_there(_partitions(admin), prefix, (*specs(limits), *WHOLE))
    check_commands(admin, prefix)
    partitions = check_all(admin, prefix, specs(limits))
    check_room(admin, prefix + topics.USAGE, prefix + DEAD)
    return partitions


def check_commands(admin: AdminClient, prefix: str) -> int:
    """The number of partitions of the commands, 1; SourceError as for ``check_all``, and where there are more."""
    whole = check_all(admin, prefix, WHOLE)
    if whole != 1:
        msg = f"{prefix}{topics.COMMANDS} has {whole} partitions; commands have one order, make the topic anew with one partition"
        raise SourceError(msg)
    return whole


def _check_there(have: Mapping[str, int], prefix: str, wanted: Sequence[TopicSpec]) -> None:
    missing = [prefix + spec.name for spec in wanted if prefix + spec.name not in have]
    if missing:
        msg = f"topics are missing: {', '.join(missing)}; make them with 'tieout topic create --bootstrap ... --partitions N', those of the route flow with --flow route"
        raise SourceError(msg)


def check_room(admin: AdminClient, topic: str, onto: str) -> None:
    """SourceError where a record of a topic could be too large for the one that it is put onto, with more headers or a longer key."""
    found = _settings(admin, [topic, onto])
    wanted = int(found[topic][_RECORD_BYTES]) + _HEADER_BYTES
    if int(found[onto][_RECORD_BYTES]) < wanted:
        msg = f"{onto}: {_RECORD_BYTES} is {found[onto][_RECORD_BYTES]}, a record of {topic} may not fit; set {wanted} or more"
        raise SourceError(msg)


def check_all(admin: AdminClient, prefix: str, wanted: Sequence[TopicSpec]) -> int:
    """The number of partitions, the same for all; SourceError names every topic that is missing or set so that something could be lost."""
    have = _partitions(admin)
    _check_there(have, prefix, wanted)
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
    return counts[prefix + wanted[0].name]


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
