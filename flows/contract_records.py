"""Contract versions as records of their topic, and back.

In: a validated ``ContractVersion``. Out: a row of ``contract_version.avsc``, field by field; and the version that such
a row describes, validated as strictly as the document was. The usage flow takes records as columns, and keeps them
compressed, so that a version can be seen whole again while somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from flows import codecs
from schemas import catalog
from tieout import contract_documents, ids, payment_terms, whole_contracts
from tieout.contract_batch import ContractBatch

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

SCHEMA: Final = "contract_version"
BLOCK: Final = 64
"""Records that are compressed together: one is had again in less than a tenth of a millisecond."""


class ContractRecordError(ValueError):
    """A record of the contract topic that cannot be read; the message names the first one by its row."""


def encode(versions: list[ContractVersion]) -> pa.Array:
    """Versions as framed values."""
    rows = [_row(version) for version in versions]
    return codecs.encode(SCHEMA, pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema(SCHEMA)))


def decode(values: pa.Array) -> list[ContractVersion]:
    """Versions from framed values; ContractRecordError where one cannot be decoded, ContractRefused where it is invalid."""
    return versions(_columns(values))


def versions(rows: pa.RecordBatch) -> list[ContractVersion]:
    """The versions of decoded rows; ContractRefused where one is invalid."""
    return whole_contracts.versions(contract_documents.documents(rows))


class KeptRecords:
    """The records that a partition read: taken as columns, then kept in compressed blocks, by their place."""

    def __init__(self) -> None:
        self._codec = pa.Codec("zstd", compression_level=1)
        self._blocks: list[tuple[bytes, int]] = []
        self._tail: list[bytes] = []

    def take(self, values: pa.Array) -> ContractBatch:
        """A batch of framed values; ContractRecordError where one cannot be decoded, ContractRefused where it is invalid."""
        columns = _columns(values)
        places = np.arange(len(values)) + len(self._blocks) * BLOCK + len(self._tail)
        batch = ContractBatch.of(columns, ids.of_strings(values), places, self, versions)
        self._tail += values.to_pylist()
        while len(self._tail) >= BLOCK:
            self._blocks.append(self._packed(self._tail[:BLOCK]))
            del self._tail[:BLOCK]
        return batch

    def version(self, place: int) -> ContractVersion:
        """The version of a record that was taken."""
        block, at = divmod(place, BLOCK)
        value = self._tail[at] if block == len(self._blocks) else self._unpacked(*self._blocks[block])[at]
        record = codecs.own(SCHEMA).read(value)
        if record is None:
            msg = f"contract record {place} was read by columns and cannot be read alone; this is a bug in the codec"
            raise AssertionError(msg)
        return whole_contracts.versions([contract_documents.document(record)])[0]

    def several(self, places: Sequence[int]) -> list[ContractVersion]:
        """The versions of records, read together: a hundred times cheaper each than one alone."""
        found: dict[int, list[bytes]] = {}
        values = []
        for place in places:
            block, at = divmod(place, BLOCK)
            if block == len(self._blocks):
                values.append(self._tail[at])
                continue
            if block not in found:
                found[block] = self._unpacked(*self._blocks[block])
            values.append(found[block][at])
        return versions(_columns(pa.array(values, pa.large_binary())))

    def _packed(self, records: list[bytes]) -> tuple[bytes, int]:
        """Records one after the other, behind their sizes, and how long that was."""
        raw = np.array([len(record) for record in records], "<u4").tobytes() + b"".join(records)
        return self._codec.compress(raw, asbytes=True), len(raw)

    def _unpacked(self, block: bytes, size: int) -> list[bytes]:
        raw = self._codec.decompress(block, size, asbytes=True)
        ends = np.cumsum(np.frombuffer(raw, "<u4", BLOCK)).tolist()
        return [raw[4 * BLOCK + start : 4 * BLOCK + end] for start, end in zip([0, *ends], ends, strict=False)]


def _columns(values: pa.Array) -> pa.RecordBatch:
    decoded = codecs.own(SCHEMA).decode(values)
    if decoded.rejected:
        first = decoded.rejected[0]
        msg = f"record {first.row}: {first.message}"
        raise ContractRecordError(msg)
    return decoded.batch


def _row(version: ContractVersion) -> Any:
    """A version as plain values."""
    return _plain(payment_terms.settled(version))


def _plain(value: Any) -> Any:
    """A part of a document as plain values; a price's figures keep their names, but tiers of rates have their own."""
    if is_dataclass(value):
        row = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        if row.get("model") == "graduated_percentage":
            row["rate_tiers"] = row.pop("tiers")
        return row
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
