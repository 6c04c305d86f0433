"""Putting usage and contracts on the topics of a folder.

In: contract version documents, or columns of usage events. Out: records in the partition of their customer. A
contract is validated before anything is written; a usage event is written as it is, the flow judges it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import contract_records, topics
from schemas import segments
from tieout import ids
from tieout.contracts import ContractVersion, parse_contract
from tieout.period import micros


class Ingress(Protocol):
    """The way of outside records into a place."""

    def append(self, topic: str, batches: Mapping[int, pa.RecordBatch], source: str) -> int:
        """Append records by partition under the name of their source; how many were new."""


def contracts(ingress: Ingress, documents: Sequence[Mapping[str, Any]], partitions: int, source: str) -> int:
    """Publish contract versions in their order; how many were new. ContractRefused before anything is written."""
    by_partition: dict[int, list[ContractVersion]] = {}
    for version in [parse_contract(document) for document in documents]:
        by_partition.setdefault(ids.partition_of(version.customer_id, partitions), []).append(version)
    batches = {}
    for partition, versions in by_partition.items():
        stamps = np.array([micros(version.recorded_at or version.effective_from) for version in versions], np.int64)
        keys = pa.array([version.customer_id for version in versions])
        batches[partition] = segments.records(contract_records.encode(versions), keys, stamps)
    return ingress.append(topics.CONTRACTS, batches, source)


def usage(
    ingress: Ingress, values: pa.Array, customers: pa.Array, record_time: npt.NDArray[np.int64], partitions: int, source: str
) -> int:
    """Append framed usage events, one value a row, in the partition of their customer; how many were new."""
    encoded = customers if pa.types.is_dictionary(customers.type) else pc.dictionary_encode(customers)
    homes = np.array([ids.partition_of(name, partitions) for name in encoded.dictionary.to_pylist()], np.int64)
    home = homes[encoded.indices.to_numpy()]
    keys = encoded.cast(pa.string())
    batches = {}
    for partition in range(partitions):
        at = np.nonzero(home == partition)[0]
        rows = pa.array(at)
        batches[partition] = segments.records(values.take(rows), keys.take(rows), record_time[at])
    return ingress.append(topics.USAGE, batches, source)
