"""What the invoicing flow reads beside rated usage: contracts, reference data, requests, and how far its input is complete.

In: one partition of the contract versions, of the held usage and of the usage flow's tokens; reference data and commands
whole. Out: what an interval learns at its start, with positions for the token. The clock of a usage token is adopted only when
as many rated records and holds of the partition are here as that token counts: then everything up to that clock has been read.
Holds are taken in up to the adopted token and no further, because a hold that is released later comes with rated records that
may not be here yet. Source: docs/architecture.md (invoicing).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa

from flows import authority, codecs, command_records, reference_records, topics, usage
from flows import token as tokens
from flows.contract_records import KeptRecords
from flows.pipeline import Log, Place, Reader
from flows.side_input import SideInput
from flows.token import Token
from sources.errors import SourceError
from sources.lot import Lot
from tieout.contract_batch import ContractBatch
from tieout.exception_queue import EXCEPTION
from tieout.governance import Command
from tieout.held_usage import HeldUsage, HoldChange
from tieout.ids import EventKey
from tieout.invoicing.tax import Taxes
from tieout.invoicing.tax_reference import ReferenceTaxes
from tieout.late_usage import DECISIONS
from tieout.reference import ReferenceBook
from tieout.usage import NO_CLOCK

CLOSE: Final = "close"
PERIOD: Final = "period"
"""The type of a subject that is a billing period."""
CORRECT: Final = "correct"
INVOICE: Final = "invoice"
"""The type of a subject that is a document."""
_ASKED: Final = frozenset({(CLOSE, PERIOD), (CORRECT, INVOICE), *((decision, EXCEPTION) for decision in DECISIONS)})
"""What may be asked of this flow, and about what."""
_ROWS: Final = 10_000
_CONTRACT_ROWS: Final = 8_000


class Request(NamedTuple):
    """A command to this flow, and why it does not count, if so."""

    command: Command
    fault: str | None


class Hold(NamedTuple):
    """A record of the hold topic, and the position after it."""

    end: int
    change: HoldChange


class Adoptable(NamedTuple):
    """A token of the usage flow, and the position after it."""

    end: int
    token: Token


@dataclass(slots=True)
class Upstream:
    """The usage flow of a partition as far as this flow has caught up with it."""

    tokens: Reader
    holds: Reader
    held: HeldUsage
    clock: int = NO_CLOCK
    positions: dict[str, int] = field(default_factory=dict)
    """After the adopted token and the holds that it counts."""
    held_records: int = 0
    _tokens: deque[Adoptable] = field(default_factory=deque)
    _holds: deque[Hold] = field(default_factory=deque)
    _tokens_read: int = 0
    _holds_read: int = 0

    def restore(self, token: Token) -> None:
        """Go back to what an interval had adopted."""
        self.clock = token.clock
        self.positions = {name: token.positions[name] for name in (usage.TOKEN, topics.HOLDS) if name in token.positions}
        self._tokens_read = self.positions.get(usage.TOKEN, 0)
        end = self.positions.get(topics.HOLDS, 0)
        self.holds.refresh()
        for hold in self._holds_until(end):
            self.held.take([hold.change])
            self.held_records += 1
        self._holds_read = end

    def advance(self, rated: int) -> int | None:
        """Adopt the last token that counts no more rated records than are here; how many it counts, None where there was none."""
        self._read()
        adopted = None
        while self._tokens and self._here(self._tokens[0].token, rated):
            adopted = self._tokens.popleft()
        if adopted is None:
            return None
        while self.held_records < adopted.token.written.get(topics.HOLDS, 0):
            end, change = self._holds.popleft()
            self.held.take([change])
            self.held_records += 1
            self.positions[topics.HOLDS] = end
        self.positions[usage.TOKEN] = adopted.end
        self.clock = max(self.clock, adopted.token.clock)
        return adopted.token.written.get(topics.RATED, 0)

    def _here(self, token: Token, rated: int) -> bool:
        return token.written.get(topics.RATED, 0) <= rated and token.written.get(topics.HOLDS, 0) <= self.held_records + len(self._holds)

    def _read(self) -> None:
        """Read tokens, then holds, as far as they are there."""
        end = self.tokens.refresh()
        while self._tokens_read < end:
            lot = self.tokens.lot(self._tokens_read, _ROWS, end)
            self._tokens += [Adoptable(position + 1, token) for position, token in zip(lot.positions.tolist(), tokens.decode(lot.records["value"]), strict=True)]
            if lot.end <= self._tokens_read:
                msg = f"{usage.TOKEN}: tokens {self._tokens_read} to {end - 1} are missing; restore the topic from a backup"
                raise SourceError(msg)
            self._tokens_read = lot.end
        end = self.holds.refresh()
        self._holds += self._holds_until(end)

    def _holds_until(self, end: int) -> Iterator[Hold]:
        while self._holds_read < end:
            lot = self.holds.lot(self._holds_read, _ROWS, end)
            if lot.end <= self._holds_read:
                msg = f"{topics.HOLDS}: records {self._holds_read} to {end - 1} are missing; restore the topic from a backup"
                raise SourceError(msg)
            yield from _holds(lot)
            self._holds_read = lot.end


def _holds(lot: Lot) -> Iterator[Hold]:
    decoded = codecs.own("hold").decode(lot.records["value"])
    if decoded.rejected:
        msg = f"{topics.HOLDS}: record at position {lot.positions[decoded.rejected[0].row]}: {decoded.rejected[0].message}"
        raise SourceError(msg)
    rows, usage_ = decoded.batch, decoded.batch["usage"]
    columns = zip(
        lot.positions.tolist(), rows["customer_id"].to_pylist(), usage_.field("source").to_pylist(), usage_.field("id").to_pylist(),
        rows["contract_id"].to_pylist(), rows["time"].cast(pa.int64()).to_pylist(), rows["reason"].to_pylist(), rows["state"].to_pylist(),
        rows["at"].cast(pa.int64()).to_pylist(), strict=True,
    )  # fmt: skip
    for position, customer, source, name, contract, time, reason, state, at in columns:
        yield Hold(position + 1, HoldChange(customer, EventKey(source, name), contract, time, reason, state, at))


@dataclass(slots=True)
class SideInputs:
    """Contracts, reference data and requests, up to some positions."""

    contracts: Reader
    reference: SideInput
    commands: Reader
    facts: ReferenceBook
    records: KeptRecords = field(default_factory=KeptRecords)
    positions: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Place, log: Log, reference_partitions: int) -> "SideInputs":
        """Nothing read yet."""
        facts = ReferenceBook()
        readers = [place.reader(topics.REFERENCE, partition) for partition in range(reference_partitions)]
        reference = SideInput(topics.REFERENCE, readers, lambda lot, partition: facts.learn(reference_records.read(lot, partition)))
        return cls(log.reader(topics.CONTRACTS), reference, place.reader(topics.COMMANDS, 0), facts)

    @property
    def known(self) -> int:
        """How much of the reference data is known."""
        return sum(self.reference.positions.values())

    @property
    def taxes(self) -> Taxes | None:
        """Tax facts; none where the installation records no tax rates."""
        return ReferenceTaxes(self.facts) if self.facts.has("tax_rate") else None

    def learn(self, until: dict[str, int] | None = None) -> bool:
        """Read the reference data on, to its end or to positions; whether it moved."""
        before = dict(self.reference.positions)
        self.reference.advance(until)
        self.positions |= self.reference.positions
        return before != self.reference.positions

    def versions(self, until: int | None = None) -> Iterator[ContractBatch]:
        """The contract versions that have come, to the end or to a position, a batch at a time."""
        end = self.contracts.refresh() if until is None else until
        at = self.positions.get(topics.CONTRACTS, self.contracts.start)
        while at < end:
            lot = self.contracts.lot(at, _CONTRACT_ROWS, end)
            if lot.end <= at:
                msg = f"{topics.CONTRACTS}: records {at} to {end - 1} are missing; restore the topic from a backup"
                raise SourceError(msg)
            if lot.records.num_rows:
                yield self.records.take(lot.records["value"])
            at = lot.end
            self.positions[topics.CONTRACTS] = at

    def requests(self) -> list[Request]:
        """What has come that asks something of this flow; it counts where it is signed, once the reference data knows users."""
        end = self.commands.refresh()
        at = self.positions.get(command_records.NAME, self.commands.start)
        found: list[Request] = []
        while at < end:
            lot = self.commands.lot(at, _ROWS, end)
            decoded = codecs.own(command_records.SCHEMA).decode(lot.records["value"])
            stamps = lot.records["timestamp"].to_numpy()[decoded.rows].tolist()
            for stamp, command in zip(stamps, command_records.commands(decoded.batch), strict=True):
                if (command.kind, command.subject_type) in _ASKED:
                    found.append(Request(command, authority.why_not(self.facts, command, stamp)))
            if lot.end <= at:
                msg = f"{topics.COMMANDS}: records {at} to {end - 1} are missing; restore the topic from a backup"
                raise SourceError(msg)
            at = lot.end
            self.positions[command_records.NAME] = at
        return found
