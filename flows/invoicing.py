"""The invoicing flow: rated usage in, invoices and credit notes out, exactly once.

One ``InvoicingCell`` owns a partition of customers. An interval reads what is new beside its input (contracts, reference
data, requests), folds a lot of rated records into increments, adopts the usage flow's clock as far as its records are here,
closes what is due, so many contracts at most, and commits everything it changed at once, token last. A close of many contracts
takes several intervals, so none of them grows long. The token counts by currency what was taken, billed and is open, and an
interval in which these do not tie out is not committed. Source: docs/architecture.md (invoicing), docs/semantics.md section 5.
"""

import gc
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from flows import cells as sharing
from flows import (
    codecs,
    command_records,
    invoice_view,
    invoicing_division,
    invoicing_outputs,
    invoicing_requests,
    invoicing_state,
    pause,
    topics,
    usage,
    usage_records,
)
from flows import token as tokens
from flows.invoicing_inputs import CORRECT, SideInputs, Upstream
from flows.invoicing_outputs import FLOW, Refused
from flows.invoicing_state import Changes, PackedAccounts, Sizes
from flows.pipeline import Log, Pipeline, Place, Prepared, Reader, let_go
from flows.token import Token
from schemas import segments
from sinks.errors import Fenced
from sources.errors import SourceAway, SourceError
from sources.lot import Lot
from tieout import money, wide
from tieout.closing import Closed, Closing
from tieout.exception_queue import EXCEPTION
from tieout.governance import Command
from tieout.held_usage import HeldUsage
from tieout.increments import increments
from tieout.invoicing.notes import ReleaseRefused
from tieout.usage_stage import Limits

__all__ = ["FATES", "FLOW", "STATE", "TOKEN", "InvoicingCell", "pipeline", "start_cells"]

ROWS: Final = 25_000
CLOSES: Final = 500
"""Contracts looked at in an interval at most."""
IDLE_SECONDS: Final = 86_400.0
SLACK: Final = 4 << 20
"""Bytes of changes that are kept beside a full state whatever its size."""
FATES: Final = ("taken",)
STATE, _, TOKEN = topics.state_topics(FLOW)
WAITS: Final = "waits_"
"""Begins the names of counts of what waits at the end of an interval, by reason."""
TAKEN, BILLED, OPEN = "taken", "billed", "open"
"""What a token says of each currency: ``USD/taken`` = ``USD/billed`` + ``USD/open``."""


@contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Bills make many objects and hardly any garbage: looking for it as often as usual costs a fifth of them."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(slots=True)
class InvoicingFold:
    """The state of a partition, with what it reads beside its input."""

    side: SideInputs
    upstream: Upstream
    closing: Closing
    accounts: PackedAccounts
    sizes: Sizes = field(default_factory=Sizes)
    future_limit: int = Limits().future_limit
    taken: dict[str, int] = field(default_factory=dict)
    billed: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Place, log: Log, reference_partitions: int, limits: Limits) -> "InvoicingFold":
        """A fold of nothing yet."""
        held, accounts = HeldUsage(limits.hold_limit), PackedAccounts()
        upstream = Upstream(log.reader(usage.TOKEN), log.reader(topics.HOLDS), held)
        return cls(SideInputs.of(place, log, reference_partitions), upstream, Closing(held, accounts, reprice_limit=limits.reprice_limit), accounts, future_limit=limits.future_limit)

    def restore(self, token: Token, records: Iterator[tuple[str, bytes]]) -> None:
        """Go back to what an interval left; what is not in the state is read again up to the token's positions."""
        self.sizes = invoicing_state.restore(self.closing, self.accounts, records)
        self.side.learn(token.positions)
        self.side.contracts.refresh()
        for batch in self.side.versions(token.positions.get(topics.CONTRACTS, 0)):
            self.closing.learn(batch)
        if command_records.NAME in token.positions:
            self.side.positions[command_records.NAME] = token.positions[command_records.NAME]
        self.upstream.restore(token)
        for name, text in token.amounts.items():
            currency, _, kind = name.partition("/")
            if kind in (TAKEN, BILLED):
                (self.taken if kind == TAKEN else self.billed)[currency] = money.units(Decimal(text), money.RATED_SCALE)
        self.closing.open = sum(self.taken.values()) - sum(self.billed.values())
        self.closing.advance(self.upstream.clock, self.side.known)

    def count(self, rows: pa.RecordBatch) -> None:
        """Add rated amounts by currency, apart from the increments that they become."""
        currency = pc.dictionary_encode(rows["currency"])
        high, low = wide.lanes_of(rows["amount"])
        for code, name in enumerate(currency.dictionary.to_pylist()):
            mine = currency.indices.to_numpy() == code
            self.taken[name] = self.taken.get(name, 0) + wide.total(high[mine], low[mine])

    def bill(self, closed: Sequence[Closed]) -> None:
        """Count what documents bill; AssertionError where the control total breaks."""
        for one in closed:
            for invoice in one.billed.invoices:
                for line in invoice.lines:
                    self.billed[line.key.currency] = self.billed.get(line.key.currency, 0) + line.usage_exact
        left = sum(self.taken.values()) - sum(self.billed.values())
        if left != self.closing.open:
            msg = f"rated amounts less what is billed come to {left}, but {self.closing.open} is open; this is a bug in invoicing, nothing was committed"
            raise AssertionError(msg)

    def amounts(self) -> dict[str, str]:
        """The control totals by currency, for the token."""
        found = {}
        for currency in sorted({*self.taken, *self.billed}):
            taken, billed = self.taken.get(currency, 0), self.billed.get(currency, 0)
            for kind, units in ((TAKEN, taken), (BILLED, billed), (OPEN, taken - billed)):
                found[f"{currency}/{kind}"] = format(money.decimal(units, money.RATED_SCALE), "f")
        return found


@dataclass(slots=True)
class InvoicingCell:
    """One partition of the invoicing flow."""

    partition: int
    log: Log
    fold: InvoicingFold
    token: Token
    closes: int = CLOSES
    generation: int = 1
    cells: int = 1
    on_commit: Callable[[Token, list[Closed], Mapping[str, float]], None] | None = None
    """Hears of each interval: its token, what it came to, and the seconds of its steps."""
    lots: int = 0
    """How many lots were taken."""
    _committed_at: float = field(default_factory=time.monotonic, init=False)

    @classmethod
    def start(cls, place: Place, partition: int, reference_partitions: int = 1, limits: Limits | None = None, closes: int = CLOSES) -> "InvoicingCell":
        """Fence, then restore."""
        log = place.fence(FLOW, partition)
        try:
            fold = InvoicingFold.of(place, log, reference_partitions, limits or Limits())
            cell = cls(partition, log, fold, Token(FLOW, partition, 0), closes)
            cell._restore()
        except BaseException:
            log.close()
            raise
        return cell

    @property
    def position(self) -> int:
        """The next rated record to read."""
        return self.token.positions.get(topics.RATED, 0)

    @property
    def unfinished(self) -> bool:
        """Whether something can be closed without any input."""
        return self.fold.closing.unfinished and self.token.totals.get("received", 0) == self.adopted

    @property
    def adopted(self) -> int:
        """How many rated records the adopted token of the usage flow counts."""
        return self.token.totals.get("adopted", 0)

    def close(self) -> None:
        """Give the partition up."""
        self.log.close()

    def _restore(self) -> None:
        found = self.log.last(TOKEN)
        if not found.num_rows:
            return
        try:
            self.token = tokens.decode(found["value"])[0]
            invoicing_state.check(self.token)
            self.fold.restore(self.token, self._blobs())
        except SourceAway:
            raise
        except (SourceError, ValueError) as error:
            if self.log.last(TOKEN).equals(found):
                raise
            msg = f"{FLOW}, partition {self.partition}: another process has taken this partition while it was restored; this one ends, let only one cell own a partition"
            raise Fenced(msg) from error

    def _blobs(self) -> Iterator[tuple[str, bytes]]:
        """The state's records; ValueError where some are gone and no full state has replaced them."""
        written, found, whole = self.token.written.get(STATE, 0), 0, False
        for _, part in self.log.own(STATE, written):
            for key, value in zip(part["key"].to_pylist(), part["value"].to_pylist(), strict=True):
                found, whole = found + 1, whole or key == invoicing_state.FULL.encode()
                yield key.decode(), value
        if found < written and not whole:
            msg = f"{STATE}, partition {self.partition}: {written - found} of {written} records are gone and no full state has replaced them; restore the topic from a backup"
            raise ValueError(msg)

    def take(self, prepared: Prepared) -> None:
        """Fold one lot, close what is due, and commit the interval; nothing where nothing has come and nothing is due.

        Periods are closed between two commits of the usage flow, never amid one: a commit may move an amount from one sum
        to another. So what comes of the lot after the adopted token is folded when the closing is done.
        """
        self.lots += 1
        with _seldom_collecting():
            self._interval(prepared)

    def _interval(self, prepared: Prepared) -> None:
        before = time.perf_counter()
        lot, fold, rows = prepared.lot, self.fold, self._rows(prepared)
        changed = Changes(touched=bool(fold.closing.touched))
        news = self._learn(changed)
        received = self.token.totals.get("received", 0)
        adopted = fold.upstream.advance(received + rows.num_rows)
        moved = lot.end > self.position and time.monotonic() - self._committed_at >= IDLE_SECONDS
        fold.closing.advance(fold.upstream.clock, fold.side.known)
        until = self.adopted if adopted is None else adopted
        head = max(until - received, 0)
        due = fold.closing.unfinished and received + head == until
        if not (news or rows.num_rows or adopted is not None or moved or due):
            return
        if head:
            self._fold(rows.slice(0, head), changed)
            fold.closing.advance(fold.upstream.clock, fold.side.known)
        closed = changed.notes + (self._close(changed) if received + head == until else [])
        self._fold(rows.slice(head), changed)
        fold.bill(closed)
        _note(changed, closed)
        self._commit(lot, changed, closed, until, {"decode": prepared.seconds, "fold": time.perf_counter() - before})

    def _rows(self, prepared: Prepared) -> pa.RecordBatch:
        if prepared.decoded.rejected:
            first = prepared.decoded.rejected[0]
            msg = f"{topics.RATED}, partition {self.partition}: record at position {prepared.lot.positions[first.row]}: {first.message}; restore the topic from a backup"
            raise SourceError(msg)
        return prepared.decoded.batch

    def _close(self, changed: Changes) -> list[Closed]:
        """Bill what has reached a threshold, then what is due, then what was asked for."""
        closing, side, clock = self.fold.closing, self.fold.side, self.fold.upstream.clock
        asked = list(closing.asks)
        closed = closing.early(clock, side.taxes) + closing.close(clock, side.known, self.closes, side.taxes)
        changed.asks |= asked != closing.asks
        return closed

    def _learn(self, changed: Changes) -> bool:
        """Read what is new beside the input; whether there was anything."""
        side, closing = self.fold.side, self.fold.closing
        before = dict(side.positions)
        side.learn()
        cut = {place for batch in side.versions() for place in closing.learn(batch)}
        if cut:
            self._divide_again(cut, changed)
        for command, fault in side.requests():
            if command.kind == CORRECT:
                self._take_back(command, fault, changed)
            elif command.subject_type == EXCEPTION:  # one without effect is told by 'tieout exception', which reads the same commands
                late = None if fault is not None else closing.decide(command.subject_id, command.kind, command.author)
                if late is not None:
                    changed.late[late.contract_id, late.exception_id] = None
            elif fault is None:
                closing.asks.append(invoicing_requests.ask(command))
                changed.asks = True
            elif self.partition == 0:  # each partition reads it, one tells
                changed.refused.append(Refused(command, "", fault))
        return before != side.positions

    def _divide_again(self, cut: Collection[tuple[str, int]], changed: Changes) -> None:
        """Move sums of billing periods through which a bound of a grant cuts that has become known."""
        closing, reader = self.fold.closing, self.log.reader(topics.RATED)
        reader.refresh()
        for (contract, start), sums in invoicing_division.sums_again(reader, self.position, cut, closing.divided, self.fold.future_limit).items():
            changed.sums |= {(contract, moved.sum.key): None for moved in closing.divide_again(contract, start, sums.values())}
        let_go(reader)

    def _take_back(self, command: Command, fault: str | None, changed: Changes) -> None:
        """Take a document of this partition back; one that is not here is another partition's."""
        reader = self.log.reader(topics.INVOICES)
        invoice = invoice_view.find(reader, command.subject_id)
        before = invoice_view.followers(reader, invoice) if invoice is not None and self.fold.closing.forgot(invoice) else []
        let_go(reader)
        if invoice is None:
            return
        try:
            wanted = invoicing_requests.taking_back(command, invoice.currency)
            if fault is not None:
                changed.refused.append(Refused(command, invoice.customer_id, fault))
            else:
                changed.notes.append(self.fold.closing.take_back(invoice, wanted, self.fold.upstream.clock, before))
        except ReleaseRefused as refused:
            changed.refused.append(Refused(command, invoice.customer_id, str(refused)))

    def _fold(self, rows: pa.RecordBatch, changed: Changes) -> None:
        if not rows.num_rows:
            return
        self.fold.count(rows)
        found = increments(rows, self.fold.closing.divided)
        self.fold.closing.take(found)
        changed.sums |= {(one.contract_id, one.sum.key): None for one in found}

    def _commit(self, lot: Lot, changed: Changes, closed: list[Closed], adopted: int, seconds: dict[str, float]) -> None:
        before = time.perf_counter()
        fold, clock = self.fold, self.fold.upstream.clock
        outputs = invoicing_outputs.outputs(closed, changed.refused, clock)
        changes = invoicing_state.changes(fold.closing, fold.accounts, changed)
        sizes = Sizes(fold.sizes.full, fold.sizes.since + sum(len(raw) for _, raw in changes))
        full = sizes.since > 2 * sizes.full + SLACK
        if full:
            changes = invoicing_state.whole(fold.closing, fold.accounts)
            sizes = Sizes(sum(len(raw) for _, raw in changes), 0)
        outputs[STATE] = usage_records.blobs(changes, clock)
        token = self._next_token(lot, closed, adopted, outputs)
        outputs[TOKEN] = tokens.record(token)
        encoded = time.perf_counter()
        self.log.commit(token.sequence, outputs, token.positions, STATE if full else None)
        self.token, fold.sizes, self._committed_at = token, sizes, time.monotonic()
        if self.on_commit is not None:
            self.on_commit(token, closed, seconds | {"encode": encoded - before, "commit": time.perf_counter() - encoded})

    def _next_token(self, lot: Lot, closed: Sequence[Closed], adopted: int, outputs: Mapping[str, pa.RecordBatch]) -> Token:
        fold, received = self.fold, lot.records.num_rows
        counts = {"received": received, "taken": received, "adopted": adopted - self.adopted} | invoicing_outputs.counts(closed)
        written = dict(self.token.written)
        made = {name: batch for name, batch in outputs.items() if batch.num_rows}
        for name, batch in made.items():
            written[name] = written.get(name, 0) + batch.num_rows
        waits: dict[str, int] = {}
        for wait in fold.closing.waits.values():
            waits[WAITS + wait.reason] = waits.get(WAITS + wait.reason, 0) + 1
        names = sorted({*self.token.totals, *counts})
        token = Token(
            FLOW, self.partition, self.token.sequence + 1, self.generation, self.cells, invoicing_state.FORMAT,
            positions=fold.side.positions | fold.upstream.positions | {topics.RATED: lot.end}, written=written, clock=fold.upstream.clock,
            counts=counts | dict(sorted(waits.items())), totals={name: self.token.totals.get(name, 0) + counts.get(name, 0) for name in names},
            amounts=fold.amounts(), digests={name: segments.digest(batch) for name, batch in made.items()}, previous_chain=self.token.chain,
        )  # fmt: skip
        return replace(token, chain=token.linked())


def _note(changed: Changes, closed: Sequence[Closed]) -> None:
    """What closes changed."""
    for one in closed:
        if one.wait is not None or one.ended is not None:
            changed.waits[one.contract_id] = None
        if one.wait is None:
            changed.bills[one.contract_id] = None
            changed.late |= {(one.contract_id, late.exception_id): None for late in (*one.accepted, *one.late)}


class RatedSource:
    """Lots of one partition of rated usage, from its cell's position to the end that the topic had at the start."""

    def __init__(self, reader: Reader, cell: InvoicingCell, rows: int) -> None:
        self._reader, self._cell, self._position, self._rows = reader, cell, cell.position, rows
        self._end = reader.refresh()
        self._handed = 0

    @property
    def left(self) -> int:
        """Records still to read."""
        return self._end - self._position

    @property
    def ended(self) -> bool:
        """Whether all is read, folded and closed; not before one lot, be it empty."""
        return 0 < self._handed <= self._cell.lots and self._position >= self._end and not self._cell.unfinished

    def poll(self) -> Lot | None:
        """The next lot; an empty one where there is only something to close, once the last one is folded."""
        if self._position >= self._end and self._cell.lots < self._handed:
            return None
        self._handed += 1
        lot = self._reader.lot(self._position, self._rows, self._end) if self._position < self._end else pause.nothing_at(self._position)
        self._position = lot.end
        return lot


def start_cells(place: Place, partitions: Sequence[int], reference_partitions: int = 1, limits: Limits | None = None) -> dict[int, InvoicingCell]:
    """Fence and restore partitions."""
    return sharing.start_all(partitions, lambda partition: InvoicingCell.start(place, partition, reference_partitions, limits, CLOSES))


def pipeline(cells: Mapping[int, InvoicingCell], *, rows: int = ROWS) -> Pipeline:
    """Cells wired up to read what there is now."""
    decoder = codecs.decoder(topics.SCHEMAS[topics.RATED], {})
    sources = {partition: RatedSource(cell.log.reader(topics.RATED), cell, rows) for partition, cell in cells.items()}
    return Pipeline(FLOW, sources, cells, lambda lot: usage.prepare(decoder, lot))
