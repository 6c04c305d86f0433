"""Pricing one event at a time, every model and aggregation, corrections and voids: what the kernel does not do.

In: an event with the tariffs it meets, or a correction with what its original met. Out: rated rows, exact and signed:
the event's own change, and one carry for every other term or event that it moves. Shares the running quantities with
the kernel, so both may price the same chain one after the other.

Source: docs/semantics.md section 4 (telescoping, aggregations) and section 2 (corrections).
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tieout import ids
from tieout.ids import EventKey
from tieout.period import Period
from tieout.rating import matrix
from tieout.rating.adjustments import QUANTITY, Price
from tieout.rating.chains import Chains, Moved
from tieout.rating.kept import Kept, Value
from tieout.rating.levels import Level, LevelEvent
from tieout.rating.lines import Lines
from tieout.rating.tariff import Group, Tariff, Tariffs, period_day_of, version_of
from tieout.rating.walk import Walk, Walked
from tieout.usage import UsageEvent

DAY: Final = 86_400_000_000
GoverningVersion = Callable[[str, int], int | None]
"""The version of a contract in force (and not suspended or terminated) at an instant."""


@dataclass(slots=True)
class Application:
    """One live (event, charge) pair; quantity in 10^-9, amount in 10^-12."""

    key: EventKey
    tariff: Tariff
    group: Group | None
    period: Period
    time: int
    position: int
    quantity: int
    amount: int | None = None  # as given in the event, for dynamic prices
    text: str | None = None  # the property that unique_count counts
    cell: int = -1  # the matrix price that the attributes chose

    @property
    def place(self) -> tuple[str, str, Group | None, int]:
        """The chain it belongs to."""
        return self.tariff.contract.contract_id, self.tariff.charge.charge_id, self.group, self.period.start_us


class Change(NamedTuple):
    """A re-pricing: the version that caused it, in words, and the versions of the event's contract before and after it, if any."""

    ref: str
    from_version: int | None
    to_version: int | None


@dataclass(slots=True)
class Row:
    """A rated record before its ids are derived."""

    row: int
    key: EventKey
    cause: str
    tariff: Tariff
    group: Group | None
    period: Period
    time: int
    quantity: int
    amount: int
    ref: EventKey | None = None  # the correcting event
    parent: "Row | None" = None  # the record that a carry follows from
    change: Change | None = None  # the re-pricing that it is part of
    event: UsageEvent | None = None  # on the record of its usage
    new_quantity: int | None = None  # of the event, on a correction


@dataclass(slots=True)
class Rater:
    """The running state of all that is priced event by event, and the running quantities shared with the kernel."""

    tariffs: Tariffs
    governing: GoverningVersion
    chains: Chains = field(default_factory=Chains)
    lines: Lines = field(default_factory=Lines)
    walks: dict[tuple[object, ...], Walk] = field(default_factory=dict)
    kept: dict[tuple[object, ...], Kept] = field(default_factory=dict)
    levels: dict[tuple[object, ...], Level] = field(default_factory=dict)
    events: dict[tuple[str, EventKey], list[Application]] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    clock: int = 0
    _chain_rows: dict[tuple[object, ...], int] = field(default_factory=dict)
    _touched: set[tuple[object, ...]] = field(default_factory=set)

    def meet(self, event: UsageEvent, tariff: Tariff) -> Application:
        """What an event is to a tariff."""
        charge, attributes = tariff.charge, event.attributes
        quantity = QUANTITY if charge.aggregation.kind == "count" else event.quantity or 0
        text = attributes.get(charge.aggregation.property or "") if charge.aggregation.kind == "unique_count" else None
        cell = matrix.cell(charge.price, attributes) if charge.price.model == "matrix" else None
        period = tariff.calendar.containing(event.time)
        return Application(
            event.key, tariff, tariff.group(attributes), period, event.time, event.position, quantity, event.amount, text,
            -1 if cell is None else cell,
        )

    def add(self, met: Application, row: int, event: UsageEvent | None = None) -> None:
        """Price an event's application; its rows go to ``rows``."""
        own = Row(row, met.key, "usage", met.tariff, met.group, met.period, met.time, met.quantity, 0, event=event)
        self._emit(own, self._enter(met, own))

    def enter_again(self, met: Application, change: Change, row: int) -> None:
        """Price an application of an event that was priced before."""
        own = self._moving(met, change, row, met.quantity)
        self._emit(own, self._enter(met, own))

    def leave(self, met: Application, change: Change, row: int) -> None:
        """Take an application out that a version no longer allows."""
        own = self._moving(met, change, row, -met.quantity)
        self._emit(own, self._leave(met, own))

    def move(self, old: Application, new: Application, change: Change, row: int) -> None:
        """Take an application out of its version's term and put it into another version's: one signed pair.

        In one chain the later terms see one change, not two: what is above both versions does not move.
        """
        if old.tariff.kind != new.tariff.kind or old.tariff.kind not in ("sum", "count", "amount") or self.chain_row(old) != self.chain_row(new):
            self.leave(old, change, row)
            self.enter_again(new, change, row)
            return
        out, own = self._moving(old, change, row, -old.quantity), self._moving(new, change, row, new.quantity)
        ranks = old.tariff.rank(old.period), new.tariff.rank(new.period)
        quantities = (old.amount or 0, new.amount or 0) if old.tariff.kind == "amount" else (old.quantity, new.quantity)
        left, entered, *rest = self.chains.shift(self.chain_row(old), ranks, quantities, self._prices(new.tariff))
        out.amount, own.amount = left.amount, entered.amount
        self.rows.append(out)
        self._emit(own, self._carries(out, old, rest))

    def govern_levels(self, contracts: Mapping[str, str], row: int) -> None:
        """Price the levels of contracts again whose governing versions have changed; by contract the version that did it."""
        for place, level in self.levels.items():
            ref = contracts.get(str(place[0]))
            if ref is None or not level.events:
                continue
            last = level.events[-1]
            group: Group | None = place[2]  # type: ignore[assignment]
            cause = Row(
                row, last.key, "reprice", last.tariff, group, last.tariff.calendar.containing(last.time), last.time, 0, 0,
                change=Change(f"{ref} levels", None, None),
            )
            self._touched.add(place)
            for at, moved, amount in level.move(self._level_governing(last.tariff), self.clock, self._in_version(last.tariff)):
                self.rows.append(Row(row, last.key, "carry", moved, group, at, last.time, 0, amount, parent=cause))

    def alter(self, met: Application, quantity: int, by: EventKey, row: int) -> None:
        """Give an application the quantity of a correction; the amounts of counts and given amounts do not depend on it."""
        if met.tariff.kind == "amount" or met.tariff.charge.aggregation.kind in ("count", "unique_count"):
            told = self._correcting(met, by, row, 0)
            told.new_quantity = quantity
            self.rows.append(told)
            return
        own = self._correcting(met, by, row, quantity - met.quantity)
        own.new_quantity = quantity
        moves: list[Row]
        match met.tariff.kind:
            case "walked":
                walk = self.walks[self._walk_place(met)]
                moves = self._walked(walk.alter(self._walk_event(walk, met), quantity), own)
                met.quantity = quantity
            case "sum":
                moves = self._chained(met, quantity - met.quantity, 0, own)
                met.quantity = quantity
            case _:
                moves = self._leave(met, own)
                first, own.amount = own.amount, 0
                met.quantity = quantity
                moves += self._enter(met, own)
                own.amount += first
        self._emit(own, moves)

    def void(self, met: Application, by: EventKey, row: int) -> None:
        """Take an application out."""
        own = self._correcting(met, by, row, -met.quantity)
        self._emit(own, self._leave(met, own))

    def open_periods(self, row: int) -> None:
        """Let levels open every period that the clock has reached."""
        for place, level in self.levels.items():
            if level.events:
                self._open(place, level, row)

    def take_touched_levels(self) -> set[tuple[object, ...]]:
        """The levels whose terms moved since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def _open(self, place: tuple[object, ...], level: Level, row: int) -> None:
        tariff = level.events[-1].tariff
        reached = max((start for start, _ in level.terms), default=0)
        if tariff.calendar.containing(reached).end_us > self.clock:
            return
        self._touched.add(place)
        last = level.events[-1]
        group: Group | None = place[2]  # type: ignore[assignment]
        period = tariff.calendar.containing(last.time)
        cause = Row(row, last.key, "usage", last.tariff, group, period, last.time, last.quantity, 0)
        for at, moved, amount in level.move(self._level_governing(tariff), self.clock, self._in_version(tariff)):
            self.rows.append(Row(row, last.key, "carry", moved, group, at, last.time, 0, amount, parent=cause))

    def _correcting(self, met: Application, by: EventKey, row: int, quantity: int) -> Row:
        return Row(row, met.key, "correction", met.tariff, met.group, met.period, met.time, quantity, 0, ref=by)

    def _moving(self, met: Application, change: Change, row: int, quantity: int) -> Row:
        return Row(row, met.key, "reprice", met.tariff, met.group, met.period, met.time, quantity, 0, change=change)

    def _emit(self, own: Row, carries: list[Row]) -> None:
        self.rows.append(own)
        self.rows += _merged(carries)

    def _enter(self, met: Application, own: Row) -> list[Row]:
        """Count an application in; the own row takes its amount, the carries are returned."""
        match met.tariff.kind:
            case "sum" | "count":
                return self._chained(met, met.quantity, 1, own)
            case "amount":
                return self._chained(met, met.amount or 0, 1, own)
            case "walked":
                walk = self.walks.setdefault(self._walk_place(met), Walk())
                event = Walked((met.time, *met.key), met.tariff.charge, met.quantity, met.cell, met)
                return self._walked(walk.add(event), own)
            case "kept":
                own.amount += self._keep(met, enter=True)
                return []
            case _:
                level = self.levels.setdefault(met.place[:3], Level())
                insort(level.events, LevelEvent(met.time, met.position, met.key, met.quantity, met.tariff))
                return self._levelled(met, level, own)

    def _leave(self, met: Application, own: Row) -> list[Row]:
        match met.tariff.kind:
            case "sum" | "count":
                return self._chained(met, -met.quantity, -1, own)
            case "amount":
                return self._chained(met, -(met.amount or 0), -1, own)
            case "walked":
                walk = self.walks[self._walk_place(met)]
                return self._walked(walk.remove(self._walk_event(walk, met)), own)
            case "kept":
                own.amount += self._keep(met, enter=False)
                return []
            case _:
                level = self.levels[met.place[:3]]
                at = bisect_left(level.events, (met.time, met.position), key=lambda e: (e.time, e.position))
                del level.events[at]
                return self._levelled(met, level, own)

    def _chained(self, met: Application, quantity: int, live: int, own: Row) -> list[Row]:
        rank = met.tariff.rank(met.period)
        first, *rest = self.chains.change(self.chain_row(met), rank, quantity, live, self._prices(met.tariff))
        own.amount += first.amount
        return self._carries(own, met, rest)

    def _prices(self, tariff: Tariff) -> Callable[[int], Price]:
        """The prices of a chain's terms by their rank."""
        contract, charge = tariff.contract.contract_id, tariff.charge.charge_id

        def price_of(rank: int) -> Price:
            version = version_of(rank) or tariff.contract.version  # a chain of one version does not name it
            found = tariff if version == tariff.contract.version else self.tariffs.find(contract, version, charge)
            if found.price is None:
                msg = f"contract {contract}, charge {charge}: a walked price has no terms"
                raise AssertionError(msg)
            return found.price

        return price_of

    def _carries(self, own: Row, met: Application, moves: list[Moved]) -> list[Row]:
        """The terms that moved with an event's own."""
        tariff, carries = met.tariff, []
        for moved in moves:
            day = period_day_of(moved.rank)
            other = self.tariffs.find(tariff.contract.contract_id, version_of(moved.rank), tariff.charge.charge_id)
            at = met.period if day is None else tariff.calendar.containing(day * DAY + DAY)
            carries.append(_carry(own, other, at, met.key, moved.amount))
        return carries

    def chain_row(self, met: Application) -> int:
        """The chain of an application."""
        reset = met.tariff.charge.reset
        start = 0 if reset == "never" else met.period.start_us
        name = (met.tariff.number, met.group, start)
        row = self._chain_rows.get(name)
        if row is None:
            contract = met.tariff.contract
            own = ids.pair_of(ids.of_text(contract.contract_id), ids.of_text(met.tariff.charge.charge_id))
            own = ids.pair_of(own, ids.of_integer(contract.version)) if reset == "contract_version" else own
            row = self._chain_rows[name] = self.chains.row(*chain_pair(own, met.group, start))
        return row

    def _walk_place(self, met: Application) -> tuple[object, ...]:
        version = met.tariff.contract.version if met.tariff.charge.reset == "contract_version" else 0
        return (*met.place, version)

    def _walk_event(self, walk: Walk, met: Application) -> Walked:
        event = walk.find((met.time, *met.key))
        if event is None:
            msg = f"event {met.key} is missing from its billing period"
            raise AssertionError(msg)
        return event

    def _walked(self, moved: list[tuple[Walked, int]], own: Row) -> list[Row]:
        (_, amount), *rest = moved
        own.amount += amount
        carries = []
        for event, change in rest:
            other: Application = event.tag  # type: ignore[assignment]
            carry = _carry(own, other.tariff, other.period, other.key, change)
            carry.time = other.time
            carries.append(carry)
        return carries

    def _keep(self, met: Application, *, enter: bool) -> int:
        tariff = met.tariff
        kept = self.kept.setdefault((*met.place, tariff.contract.version), Kept())
        price = tariff.price
        if price is None:
            msg = f"charge {tariff.charge.charge_id}: a walked price keeps no values"
            raise AssertionError(msg)
        aggregation = tariff.charge.aggregation
        if aggregation.kind == "unique_count":
            return kept.add_name(met.text or "", price) if enter else kept.remove_name(met.text or "", price)
        size = getattr(aggregation, "bucket", None)
        bucket = tariff.calendar.bucket_start(met.time, size) if size else 0
        value: Value = (met.time, met.position, met.quantity) if aggregation.kind == "latest" else (0, 0, met.quantity)
        return kept.add(bucket, value, price) if enter else kept.remove(bucket, value, price)

    def _levelled(self, met: Application, level: Level, own: Row) -> list[Row]:
        self._touched.add(met.place[:3])
        carries = []
        for period, tariff, amount in level.move(self._level_governing(met.tariff), self.clock, self._in_version(met.tariff)):
            if period == met.period and tariff.contract.version == met.tariff.contract.version:
                own.amount += amount
            else:
                carries.append(_carry(own, tariff, period, met.key, amount))
        return carries

    def _in_version(self, tariff: Tariff) -> Callable[[int], Tariff]:
        return lambda version: self.tariffs.find(tariff.contract.contract_id, version, tariff.charge.charge_id)

    def _level_governing(self, tariff: Tariff) -> Callable[[int], Tariff | None]:
        contract, charge = tariff.contract.contract_id, tariff.charge.charge_id

        def governing(instant: int) -> Tariff | None:
            version = self.governing(contract, instant)
            return None if version is None else self.tariffs.get(contract, version, charge)

        return governing


def _carry(own: Row, tariff: Tariff, period: Period, key: EventKey, amount: int) -> Row:
    return Row(own.row, key, "carry", tariff, own.group, period, own.time, 0, amount, parent=own)


def _merged(carries: list[Row]) -> list[Row]:
    """One carry for each event and term, also when a change was made in two steps."""
    found: dict[tuple[object, ...], Row] = {}
    for carry in carries:
        name = (carry.key, carry.tariff.number, carry.period.start_us)
        if name in found:
            found[name].amount += carry.amount
        else:
            found[name] = carry
    return [carry for carry in found.values() if carry.amount]


def group_lanes(group: Group | None) -> tuple[int, int]:
    """The hash of a group; both lanes zero where the charge does not group."""
    return ids.lanes(("group", *group)) if group is not None else (0, 0)


def chain_pair(chain: ids.Pair, group: Group | None, start_us: int) -> ids.Pair:
    """The key of a chain (also of a correlation, from its own first part)."""
    return ids.pair_of(ids.pair_of(chain, group_lanes(group)), ids.of_integer(start_us))
