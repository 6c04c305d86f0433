"""The rated topic as a memory: what an event was priced at, for corrections and for backdated versions.

In: identities of originals, or contract versions that came. Out: the live applications of the originals at today's
quantity, and how many priced events a version would govern. The index is built on first need and grows with the
topic; it is a cache of what is committed, never the truth.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs
from flows.pipeline import Reader
from sources.lot import Lot
from tieout import wide
from tieout.contract_batch import Span
from tieout.ids import EventKey, Lanes, combine, of_strings
from tieout.usage import identities
from tieout.usage_stage import Original

I64 = npt.NDArray[np.int64]
_ROWS = 50_000
_NEIGHBOURS = 500


@dataclass(slots=True)
class RatedIndex:
    """An index over one partition of the rated topic by the identity of the usage."""

    reader: Reader
    _position: int = -1
    _offsets: list[I64] = field(default_factory=list)
    _hashes: list[npt.NDArray[np.uint64]] = field(default_factory=list)

    def find(self, wanted: Iterable[tuple[str, EventKey]]) -> Mapping[tuple[str, EventKey], Sequence[Original]]:
        """The charges that each wanted event was priced under, with the sum of their quantities."""
        self._grow()
        names = list(wanted)
        if not self._hashes:
            return {}
        hashes = np.concatenate(self._hashes)
        self._hashes = [hashes]
        keys = _identities(
            pa.array([c for c, _ in names]), pa.array([k.source for _, k in names]), pa.array([k.event_id for _, k in names])
        )[:, 0]
        offsets = np.concatenate(self._offsets)
        self._offsets = [offsets]
        rows = offsets[np.isin(hashes, keys)].tolist()
        found: dict[tuple[str, EventKey], dict[tuple[object, ...], Original]] = {}
        chosen = set(names)
        decode = codecs.own("rated_usage")
        for lot in neighbours(self.reader, rows):
            chosen_rows = pa.array(np.nonzero(np.isin(lot.positions, rows))[0])
            for event in _rated_rows(decode.decode(lot.records["value"].take(chosen_rows)).batch):
                name = (event["customer_id"], EventKey(event["usage"]["source"], event["usage"]["id"]))
                if name in chosen and event["cause"]["kind"] != "carry":
                    _add(found.setdefault(name, {}), event)
        return {name: list(charges.values()) for name, charges in found.items()}

    def backdated(self, versions: Sequence[Span]) -> dict[tuple[str, int], int]:
        """How many priced events each of these versions governs; nothing where nothing has been priced."""
        if not versions or not self.reader.refresh():
            return {}
        counts: dict[tuple[str, int], int] = {}
        decode = codecs.own("rated_usage")
        contracts = pa.array(sorted({version.contract_id for version in versions}))
        for lot in _lots(self.reader, self.reader.start):
            batch = decode.decode(lot.records["value"]).batch
            kind = batch["cause"].field("kind").cast(pa.string())
            batch = batch.filter(pc.and_(pc.is_in(batch["contract_id"], contracts), pc.equal(kind, "usage")))
            time = batch["time"].cast(pa.int64()).to_numpy(zero_copy_only=False)
            for version in versions:
                mine = pc.equal(batch["contract_id"], version.contract_id).to_numpy(zero_copy_only=False)
                end = version.effective_to_us
                hits = int((mine & (time >= version.effective_from_us) & (time < (2**62 if end is None else end))).sum())
                if hits:
                    name = (version.contract_id, version.version)
                    counts[name] = counts.get(name, 0) + hits
        return counts

    def _grow(self) -> None:
        self.reader.refresh()
        decode = codecs.own("rated_usage")
        for lot in _lots(self.reader, max(self._position, self.reader.start)):
            batch = decode.decode(lot.records["value"]).batch
            usage = batch["usage"]
            self._hashes.append(_identities(batch["customer_id"], usage.field("source"), usage.field("id"))[:, 0].copy())
            self._offsets.append(lot.positions)
            self._position = lot.end


def neighbours(reader: Reader, positions: Sequence[int]) -> list[Lot]:
    """Lots that hold the records at these rising positions, each a few hundred records long: a read each is dear."""
    lots: list[Lot] = []
    for position in positions:
        if not lots or lots[-1].row_of(position) is None:
            lots.append(reader.lot(position, _NEIGHBOURS))
    return lots


def _lots(reader: Reader, position: int) -> Iterator[Lot]:
    while position < reader.end:
        lot = reader.lot(position, _ROWS)
        yield lot
        position = lot.end


def _identities(customer: pa.Array, source: pa.Array, name: pa.Array) -> Lanes:
    return combine(of_strings(pc.dictionary_encode(customer)), identities(source, name))


def _rated_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    rows = batch.to_pylist()
    times, quantities = batch["time"].cast(pa.int64()).to_pylist(), wide.integers(batch["quantity"])
    return [row | {"time": time, "quantity": quantity} for row, time, quantity in zip(rows, times, quantities, strict=True)]


def _add(charges: dict[tuple[object, ...], Original], event: Mapping[str, Any]) -> None:
    group = event["group"]
    name = (event["contract_id"], event["contract_version"], event["charge_id"])
    known = charges.get(name)
    quantity = (known.quantity if known else 0) + int(event["quantity"])
    charges[name] = Original(
        str(event["customer_id"]), str(event["contract_id"]), int(event["contract_version"]), str(event["charge_id"]),
        None if group is None else tuple(group),
        int(event["time"]), quantity,
    )
