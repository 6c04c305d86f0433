"""A Kafka broker of one node (KRaft) on the loopback address, for development and tests.

In: a folder for its data. Out: a broker that has answered a metadata request. It may be stopped, killed, paused and
started again on the same data and ports. Settings: those of one node without replicas; quick to come back after a
kill; deleted records leave the disk at once; record times may be any, so that usage of any year can be replayed.
"""

import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from flows.stack import downloads, loopback
from flows.stack.errors import StackError
from flows.stack.process import Part, last_lines

_SETTINGS: Final = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "2000",  # a killed broker comes back only when its old session is over
    "broker.heartbeat.interval.ms": "400",
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "log.segment.delete.delay.ms": "100",
    "log.message.timestamp.after.max.ms": str(2**63 - 1),
}
_OPTIONS: Final = (
    "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xlog:all=error", "--sun-misc-unsafe-memory-access=allow",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
_ASK_SECONDS: Final = 1.0
_CLASSES: Final = "classes.aot"


class Listener(NamedTuple):
    """A further way in: its name, its port, the port that clients are told (a proxy's), its security protocol."""

    name: str
    port: int
    advertised_port: int
    protocol: str = "PLAINTEXT"


class Broker(Part):
    """One broker: ``start`` it, use ``bootstrap``, ``stop`` it; ``settings`` go before those of this module."""

    name = "Kafka"

    def __init__(self, folder: Path, *, listeners: Sequence[Listener] = (), settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self.port, self._controller = loopback.free(2)
        self.settings = _SETTINGS | self._addresses(listeners) | dict(settings or {})

    @property
    def bootstrap(self) -> str:
        """Its address for clients."""
        return f"{loopback.ADDRESS}:{self.port}"

    def _addresses(self, listeners: Sequence[Listener]) -> dict[str, str]:
        clients = [Listener("PLAINTEXT", self.port, self.port), *listeners]
        controller = f"{loopback.ADDRESS}:{self._controller}"
        return {
            "controller.quorum.voters": f"1@{controller}",
            "listeners": ",".join([*(f"{one.name}://{loopback.ADDRESS}:{one.port}" for one in clients), f"CONTROLLER://{controller}"]),
            "advertised.listeners": ",".join(f"{one.name}://{loopback.ADDRESS}:{one.advertised_port}" for one in clients),
            "listener.security.protocol.map": ",".join([*(f"{one.name}:{one.protocol}" for one in clients), "CONTROLLER:PLAINTEXT"]),
            "log.dirs": str(self.folder / "data"),
        }

    def command(self) -> list[str]:
        """Say how to run it, after formatting its storage the first time."""
        properties = self.folder / "server.properties"
        properties.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        java = [str(downloads.java()), *_OPTIONS, self._archive(), "-cp", str(downloads.kafka() / "*")]
        if not (self.folder / "data" / "meta.properties").exists():
            self._format([*java, "kafka.tools.StorageTool", "format", "--config", str(properties)])
        return [*java, "kafka.Kafka", str(properties)]

    def _archive(self) -> str:
        """Java's option for classes that are loaded and linked already: a start costs half."""
        folder = downloads.once(f"kafka-{downloads.KAFKA}-java-{downloads.java_version()}", _learn)
        return f"-XX:AOTCache={folder / _CLASSES}"

    def _format(self, tool: Sequence[str]) -> None:
        cluster = f"A{secrets.token_urlsafe(16)[1:]}"  # an id that begins with a dash would be taken for an option
        answer = subprocess.run([*tool, "--cluster-id", cluster], capture_output=True, text=True, check=False)
        if answer.returncode:
            said = last_lines(answer.stdout + answer.stderr, 3)
            msg = f"{self.folder / 'data'}: Kafka's storage could not be formatted; check the settings, and that the folder can be written. It said:\n{said}"
            raise StackError(msg)

    def ready(self) -> bool:
        """Whether it answers a metadata request with a broker that takes records."""
        if not loopback.open_at(self.port):
            return False
        try:
            client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(client.list_topics(timeout=_ASK_SECONDS).brokers)
        except KafkaException:
            return False


class _Learner(Broker):
    """A broker whose life tells Java which classes a broker needs; Java writes them at its end."""

    def _archive(self) -> str:
        return f"-XX:AOTCacheOutput={self.folder.parent / _CLASSES}"


def _learn(folder: Path) -> None:
    learner = _Learner(folder / "learner")
    learner.start()
    learner.stop()
    shutil.rmtree(learner.folder)
