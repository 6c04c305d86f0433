"""The fold of the contract flow with what it reads: commands and reference data, up to an interval or to their ends.

In: a place's commands, reference data and the flow's tokens. Out: the lifecycle's state. The state is small and nothing but
a consequence of what was read, so it is not kept: a restart folds the committed intervals again, each with the reference
data that its token names, and counts must come out as the tokens have them. Source: docs/architecture.md (contract flow).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from flows import codecs, command_records, reference_records, signing, topics
from flows.pipeline import Place, Reader, let_go
from flows.side_input import SideInput
from flows.token import Token
from schemas.decode import Decoded
from sources.errors import SourceError
from sources.lot import Lot
from tieout.lifecycle import Lifecycle, Received, Result
from tieout.reference import ReferenceBook

ROWS = 1000
"""Commands of an interval at most."""


@dataclass(slots=True)
class ContractFold:
    """The lifecycle of all contracts, up to a position of the commands."""

    commands: Reader
    book: ReferenceBook
    reference: SideInput
    state: Lifecycle
    position: int = 0

    @classmethod
    def of(cls, place: Place, reference_partitions: int) -> "ContractFold":
        """A fold of nothing yet."""
        book = ReferenceBook()
        readers = [place.reader(topics.REFERENCE, partition) for partition in range(reference_partitions)]
        reference = SideInput(topics.REFERENCE, readers, lambda lot, partition: book.learn(reference_records.read(lot, partition)))
        return cls(place.reader(topics.COMMANDS, 0), book, reference, Lifecycle(signing.verify))

    def restore(self, tokens: Iterable[Token]) -> None:
        """Fold the committed intervals again; SourceError where they come out otherwise than their tokens say."""
        self.commands.refresh()
        for token in tokens:
            self.reference.advance(token.positions)
            found = self._until(token.positions.get(command_records.NAME, self.position))
            wrong = [name for name, count in counts(found).items() if count != token.counts.get(name, 0)]
            if wrong:
                msg = f"{token.batch_id}: folded again the commands come to {counts(found)}, the token says {token.counts}; the topics or the rules of this release are not those that it was committed with"
                raise SourceError(msg)

    def advance(self) -> Result:
        """Fold on to the ends that the topics have now."""
        self.reference.advance()
        return self._until(self.commands.refresh())

    def fold(self, lot: Lot, decoded: Decoded) -> Result:
        """Fold the next lot, with the reference data as it was last read. Ticks are no commands here: nobody counts them."""
        self.position = lot.end
        asked = ~command_records.are_ticks(decoded.batch)
        rows = decoded.rows[asked]
        stamps, positions = lot.records["timestamp"].to_numpy()[rows].tolist(), lot.positions[rows].tolist()
        found = command_records.commands(decoded.batch.filter(pa.array(asked)))
        result = self.state.step(map(Received, positions, stamps, found), self.book)
        result.counts["received"] += len(decoded.rejected)
        result.counts["rejected"] += len(decoded.rejected)
        return result

    def _until(self, end: int) -> Result:
        whole = Result()
        while self.position < end:
            lot = self.commands.lot(max(self.position, self.commands.start), ROWS, end)
            if lot.end <= self.position:
                msg = f"{topics.COMMANDS}: records {self.position} to {end - 1} are missing; restore the topic from a backup"
                raise SourceError(msg)
            whole.add(self.fold(lot, codecs.own(command_records.SCHEMA).decode(lot.records["value"])))
        return whole

    def close(self) -> None:
        """Let the readers go."""
        for reader in (self.commands, *self.reference.readers):
            let_go(reader)


def counts(result: Result) -> dict[str, int]:
    """An interval's figures for its token: commands by fate, and what was told."""
    return result.counts | {"published": len(result.published), "refusals": len(result.refused), "settled": len(result.settled)}
