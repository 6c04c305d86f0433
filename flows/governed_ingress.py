"""What people put in: commands and reference data, each a topic of one partition, in a folder or on a broker.

Guarantee: records that are put together stand whole or not at all.
"""

from typing import Final

import pyarrow as pa

from flows import topics
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from sinks.ingress import Ingress
from sinks.kafka import Records, TransactionalWriter

_WRITERS: Final = {topics.COMMANDS: "commands", topics.REFERENCE: "reference"}


def append(place: FilePlace | KafkaPlace, topic: str, records: pa.RecordBatch, name: str) -> int:
    """Append records under a name; how many were new: a folder takes a name once."""
    if isinstance(place, FilePlace):
        ingress = Ingress.open(place.root, place.partitions())
        try:
            return ingress.append(topic, {0: records}, name)
        finally:
            ingress.close()
    writer = TransactionalWriter.open(place.settings, f"{place.installation}.{_WRITERS[topic]}")
    try:
        writer.commit([Records(place.physical(topic), records, 0, dated=True)], [], None)
    finally:
        writer.close()
    return records.num_rows
