"""What comes from outside to a broker: usage and contracts, one transaction for each append.

Guarantee: an append stands whole or not at all. A broker does not remember where records came from, so an append that
is run again stands twice: usage is deduplicated by the flow, a contract version that comes again changes nothing.
"""

from collections.abc import Mapping

import pyarrow as pa

from flows import topics
from flows.kafka_place import KafkaPlace
from sinks.kafka import Records, TransactionalWriter


class KafkaIngress:
    """Writes outside records to a broker's topics, in the partition that each batch names."""

    def __init__(self, place: KafkaPlace) -> None:
        self._place = place
        self._writer = TransactionalWriter.open(place.settings, f"{place.installation}.{topics.INGRESS}")

    def append(self, topic: str, batches: Mapping[int, pa.RecordBatch], source: str) -> int:  # noqa: ARG002 - a place's signature
        """Append records by partition; how many."""
        records = [
            Records(self._place.physical(topic), batch, partition, dated=True) for partition, batch in sorted(batches.items()) if batch.num_rows
        ]
        self._writer.commit(records, [], None)
        return sum(batch.num_rows for batch in batches.values())

    def close(self) -> None:
        """Let the client go."""
        self._writer.close()
