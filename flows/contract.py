"""The contract flow: proposals and approvals in, published contract versions and refusals out, exactly once.

In: ``governance.command.v1``, one partition, and ``reference.data.v1`` whole. Out: ``contract.version.v1`` and
``finance.exception.v1`` in the partitions of their customers, and dead letters. A ``ContractCell`` fences the flow, folds
the committed intervals again, and then takes lot by lot: the reference data is read to its end, the lot is folded, and one
commit over all partitions writes what it came to, token last. Source: docs/contracts.md, docs/architecture.md.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import pyarrow as pa

from flows import codecs, command_records, contract_fold, contract_outputs, topics
from flows import token as tokens
from flows.contract_fold import ROWS, ContractFold
from flows.contract_outputs import DEAD, FLOW
from flows.pipeline import Log, Pipeline, Place, Prepared, Reader
from flows.token import Token
from schemas import segments
from sources.lot import Lot
from tieout.lifecycle import Result

IDLE_SECONDS: Final = 86_400.0
"""Where only ticks come, so long after a commit the next one: what ordinary tools show as lag stays below a day of them."""
TOKEN: Final = topics.state_topics(FLOW)[2]


@dataclass(slots=True)
class ContractCell:
    """The contract flow's one partition."""

    partition: int
    log: Log
    input: ContractFold
    partitions: int
    """Of the topics about a customer."""
    token: Token
    generation: int = 1
    cells: int = 1
    on_commit: Callable[[Token, Result, Mapping[str, float]], None] | None = None
    """Hears of each interval: its token, what it came to, and the seconds of its steps."""
    _committed_at: float = field(default_factory=time.monotonic, init=False)

    @classmethod
    def start(cls, place: Place, partitions: int, reference_partitions: int = 1) -> "ContractCell":
        """Fence, then fold the committed intervals again."""
        log = place.fence(FLOW, 0)
        found = ContractFold.of(place, reference_partitions)
        try:
            known = list(tokens.all_of(log.reader(TOKEN))) if log.last(TOKEN).num_rows else []
            found.restore(known)
        except BaseException:
            found.close()
            log.close()
            raise
        return cls(0, log, found, partitions, known[-1] if known else Token(FLOW, 0, 0))

    @property
    def position(self) -> int:
        """The next command to read."""
        return self.token.positions.get(command_records.NAME, 0)

    def close(self) -> None:
        """Give the flow up."""
        self.input.close()
        self.log.close()

    def take(self, prepared: Prepared) -> None:
        """Fold one lot and commit the interval; nothing where no command came, and for ticks alone once a day: they say nothing about contracts."""
        lot, decoded = prepared.lot, prepared.decoded
        asked = len(lot.positions) - int(command_records.are_ticks(decoded.batch).sum())
        if not asked and (lot.end <= self.position or time.monotonic() - self._committed_at < IDLE_SECONDS):
            self.input.position = lot.end
            return
        before = time.perf_counter()
        self.input.reference.advance()
        result = self.input.fold(lot, decoded)
        folded = time.perf_counter()
        outputs = contract_outputs.outputs(result, self.partitions) | {DEAD: contract_outputs.letters(decoded.rejected, lot)}
        token = self._next_token(result, outputs, lot.end)
        outputs[TOKEN] = tokens.record(token)
        encoded = time.perf_counter()
        self.log.commit(token.sequence, outputs, token.positions, None)
        self.token, self._committed_at = token, time.monotonic()
        if self.on_commit is not None:
            seconds = {"decode": prepared.seconds, "fold": folded - before, "encode": encoded - folded, "commit": time.perf_counter() - encoded}
            self.on_commit(token, result, seconds)

    def _next_token(self, result: Result, outputs: Mapping[str, pa.RecordBatch], end: int) -> Token:
        counts = contract_fold.counts(result)
        made = {name: batch for name, batch in outputs.items() if batch.num_rows}
        token = Token(
            FLOW, self.partition, self.token.sequence + 1, self.generation, self.cells,
            positions=self.input.reference.positions | {command_records.NAME: end},
            written=self.token.written | {name: self.token.written.get(name, 0) + batch.num_rows for name, batch in made.items()},
            clock=self.input.state.clock, counts=counts,
            totals={name: self.token.totals.get(name, 0) + count for name, count in counts.items()},
            digests={name: segments.digest(batch) for name, batch in made.items()},
            previous_chain=self.token.chain,
        )
        return replace(token, chain=token.linked())


class CommandSource:
    """Lots of the commands, from the cell's position to the end that the topic had at the start."""

    def __init__(self, reader: Reader, position: int, rows: int) -> None:
        self._reader, self._position, self._rows = reader, position, rows
        self._end = reader.refresh()

    @property
    def ended(self) -> bool:
        """Whether all of it was handed over."""
        return self._position >= self._end

    def poll(self) -> Lot | None:
        """The next lot."""
        lot = self._reader.lot(self._position, self._rows, self._end)
        self._position = lot.end
        return lot


def prepare(lot: Lot) -> Prepared:
    """Decode a lot of commands."""
    before = time.perf_counter()
    decoded = codecs.own(command_records.SCHEMA).decode(lot.records["value"])
    return Prepared(lot, decoded, time.perf_counter() - before)


def pipeline(cell: ContractCell, *, rows: int = ROWS) -> Pipeline:
    """A cell wired up to read what commands there are now."""
    return Pipeline(FLOW, {0: CommandSource(cell.log.reader(topics.COMMANDS), cell.position, rows)}, {0: cell}, prepare)
