"""An Apicurio schema registry on the loopback address, with the API that Confluent's clients speak.

In: a folder. Out: a registry that is ready, refuses what is not compatible with all earlier versions in both
directions, and keeps its schemas in the folder, so that it may be stopped, killed, paused and started again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from confluent_kafka.schema_registry import SchemaRegistryClient

from flows.stack import downloads, loopback
from flows.stack.process import Part

COMPATIBILITY: Final = "FULL_TRANSITIVE"
_OPTIONS: Final = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "--sun-misc-unsafe-memory-access=allow")


class Registry(Part):
    """One registry: ``start`` it, use ``url``, ``stop`` it."""

    name = "The schema registry"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port, self._management = loopback.free(2)

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"http://{loopback.ADDRESS}:{self.port}/apis/ccompat/v7"

    def command(self) -> list[str]:
        """Say how to run it."""
        return [str(downloads.java()), *_OPTIONS, "-jar", str(downloads.apicurio() / "quarkus-run.jar")]

    def environment(self) -> Mapping[str, str]:
        """Its settings."""
        return {
            "QUARKUS_HTTP_HOST": loopback.ADDRESS,
            "QUARKUS_HTTP_PORT": str(self.port),
            "QUARKUS_MANAGEMENT_HOST": loopback.ADDRESS,
            "QUARKUS_MANAGEMENT_PORT": str(self._management),
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self.folder / 'data'};WRITE_DELAY=0",
        }

    def start(self) -> None:
        """Start it as any part; a new one learns the compatibility that it must hold."""
        super().start()
        SchemaRegistryClient({"url": self.url}).set_compatibility(level=COMPATIBILITY)

    def ready(self) -> bool:
        """Whether it says that it can work."""
        return loopback.get(self._management, "/health/ready") is not None
