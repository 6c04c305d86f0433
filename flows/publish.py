"""Putting usage and contracts on the topics of a folder.

In: contract version documents, or columns of usage events. Out: records in the partition of their customer. A
contract is validated before anything is written; a usage event is written as it is, the flow judges it.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from schemas import catalog, segments
from sinks.ingress import Ingress
from tieout import ids
from tieout.contracts import ContractVersion, parse_contract

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def contracts(ingress: Ingress, documents: Sequence[Mapping[str, Any]], partitions: int, source: str) -> int:
    """Publish contract versions in their order; how many were new. ContractRefused before anything is written."""
    versions = [parse_contract(document) for document in documents]
    by_partition: dict[int, list[dict[str, Any]]] = {}
    for document, version in zip(documents, versions, strict=True):
        row = _contract_row(document, version)
        by_partition.setdefault(ids.partition_of(version.customer_id, partitions), []).append(row)
    schema = catalog.arrow_schema("contract_version")
    batches = {}
    for partition, rows in by_partition.items():
        values = codecs.encode("contract_version", pa.RecordBatch.from_pylist(rows, schema=schema))
        stamps = np.array([_micros(row["recorded_at"] or row["effective_from"]) for row in rows], np.int64)
        batches[partition] = segments.records(values, pa.array([row["customer_id"] for row in rows]), stamps)
    return ingress.append(topics.CONTRACTS, batches, source)


def _contract_row(document: Mapping[str, Any], version: ContractVersion) -> dict[str, Any]:
    fields = ("contract_id", "version", "customer_id", "legal_entity_id", "currency", "status", "effective_from", "effective_to", "recorded_at")
    return {name: getattr(version, name) for name in fields} | {"terms": json.dumps(document, sort_keys=True)}


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


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
