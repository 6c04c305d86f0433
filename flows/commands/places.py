"""Where a command's topics are: the folder or the broker that its options name."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows import codecs
from flows.cli import CommandError
from flows.file_place import FilePlace
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.settings import client_settings
from flows.usage_records import FLOW
from schemas import lock as locks
from schemas.registry import Registry
from sinks.ingress import Ingress


def broker(options: argparse.Namespace) -> KafkaPlace:
    """The broker that the options name."""
    return KafkaPlace(client_settings(options.bootstrap, options.client_config), options.installation, options.topic_prefix, flow=vars(options).get("flow", FLOW))


@contextmanager
def pinned(registry: Registry | None, lock: str) -> Iterator[None]:
    """Within it, values carry the ids that the lock file pins, once the registry has confirmed them; without one, the catalogue's."""
    if registry is None:
        yield
        return
    pins = locks.read(Path(lock))
    with codecs.pinned(pins, registry.confirm(pins)):
        yield


def place(options: argparse.Namespace) -> FilePlace | KafkaPlace:
    """The folder or the broker; CommandError where the options name none, or both."""
    if (options.dir is None) == (options.bootstrap is None):
        msg = f"{options.command}: say where the topics are, with either --dir FOLDER or --bootstrap HOST:PORT"
        raise CommandError(msg, 2)
    return FilePlace(Path(options.dir)) if options.bootstrap is None else broker(options)


def ingress(options: argparse.Namespace) -> tuple[Ingress | KafkaIngress, int]:
    """The way in for records from outside, and the number of partitions: a new folder gets as many as were asked for."""
    found = place(options)
    if isinstance(found, FilePlace):
        return Ingress.open(found.root, options.partitions), options.partitions
    partitions = found.partitions()  # asked first: a refusal shows at once
    return KafkaIngress(found), partitions
