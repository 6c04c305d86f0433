"""What a place knows of contracts: published versions, what waits, and what is in the way.

In: a folder or a broker. Out: versions as every consumer sees them (imported ones too), and the lifecycle as the contract
flow has it after its last interval, folded on over what has come since with the reference data of now. Nothing is written.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, contract_records, topics
from flows import token as tokens
from flows.contract import TOKEN
from flows.contract_fold import ContractFold
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from tieout.contracts import ContractVersion
from tieout.lifecycle import referred
from tieout.proposal import Proposal, VersionKey

_ROWS = 8_000


def fold_of(place: FilePlace | KafkaPlace) -> ContractFold:
    """The lifecycle as it stands now."""
    fold = ContractFold.of(place, place.partitions(topics.REFERENCE) if isinstance(place, KafkaPlace) else 1)
    try:
        fold.restore(tokens.all_of(place.reader(TOKEN, 0)))
        fold.advance()
    finally:
        fold.close()
    return fold


@dataclass(slots=True)
class ContractView:
    """One place's contracts."""

    place: FilePlace | KafkaPlace
    fold: ContractFold = field(init=False)

    def __post_init__(self) -> None:
        self.fold = fold_of(self.place)

    def versions(self, contract_id: str | None = None) -> list[ContractVersion]:
        """Published versions in the order of their topic, of one contract or of all."""
        return [version for partition in range(_partitions(self.place)) for version in _versions(self.place, partition, contract_id)]

    def version(self, key: VersionKey) -> ContractVersion | None:
        """A version as published, else as proposed."""
        found = next((version for version in self.versions(key.contract_id) if version.version == key.version), None)
        if found is not None:
            return found
        waiting = next((version for version in self.complete(key.contract_id) if version.version == key.version), None)
        given = self.proposal(key)
        return waiting if given is None else self._drafted(given)

    def complete(self, contract_id: str) -> list[ContractVersion]:
        """Versions that are approved and complete, as the flow has published them or will at its next interval."""
        contract = self.fold.state.contracts.get(contract_id)
        return [] if contract is None else [one.version for one in contract.published]

    def _drafted(self, given: Proposal) -> ContractVersion:
        """What would be published now, as far as it is known."""
        version, _ = referred(given.version, self.fold.book)
        return replace(version, change=replace(version.change, requested_by=given.requester))

    def proposal(self, key: VersionKey) -> Proposal | None:
        """The open proposal of a version."""
        contract = self.fold.state.contracts.get(key.contract_id)
        return None if contract is None or key.version not in contract.proposals else contract.proposals[key.version][1]


def _partitions(place: FilePlace | KafkaPlace) -> int:
    return place.partitions(topics.CONTRACTS) if isinstance(place, KafkaPlace) else place.partitions()


def _versions(place: FilePlace | KafkaPlace, partition: int, contract_id: str | None) -> Iterator[ContractVersion]:
    reader = place.reader(topics.CONTRACTS, partition)
    end, at = reader.refresh(), reader.start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        rows = codecs.own(contract_records.SCHEMA).decode(lot.records["value"]).batch
        chosen = rows if contract_id is None else rows.filter(pc.equal(rows["contract_id"], pa.scalar(contract_id)))
        yield from contract_records.versions(chosen)
        at = lot.end
