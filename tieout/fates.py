"""One event at a time: its fate, its price, and what waits for it.

In: an event in its order, past decoding, time and identity. Out: priced, held, or rejected because the contract waives
it; or its original corrected or voided. What is done one by one goes through here, also when it is tried again or
priced again. Source: docs/semantics.md sections 2 and 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout.holds import NEEDS_A_PERSON, REMEDIES, Held, HoldRecord
from tieout.ids import EventKey
from tieout.rating.history import Known
from tieout.rating.rater import Application, Change
from tieout.rating.tariff import INACTIVE, Tariff
from tieout.repricing_jobs import Slice
from tieout.stage import Counts, DeadLetter, FinancialException
from tieout.usage import NO_CLOCK, Rejected, UsageEvent
from tieout.usage_state import Entry, UsageState

I64 = npt.NDArray[np.int64]
WAIVED: Final = "usage after suspension or end is waived by the contract"
_ORIGINAL_WAIVED: Final = "the event that this one corrects or voids was waived after it had been priced; nothing to do"


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Rows of one partition in log order; ``events`` holds the decodable ones, ``rows`` their places among all."""

    positions: I64
    events: pa.RecordBatch
    rows: I64
    record_time: I64
    values: pa.Array
    undecodable: Sequence[Rejected] = ()
    originals: Mapping[tuple[str, EventKey], Known] = field(default_factory=dict)
    """What was rated before of the events that this batch corrects or voids."""
    waived: frozenset[str] = frozenset()
    """Holds that somebody has waived, by their ids; those of other partitions among them."""
    slices: Sequence[Slice] = ()
    """What the first re-pricing jobs look at, before the rows."""
    tick: int = NO_CLOCK
    """The instant of a tick that counts before the first row."""
    ends_interval: bool = True
    """Whether what falls due by the clock alone (overdue holds, levels that open a period) is looked at after it."""

    @property
    def size(self) -> int:
        """How many rows there are, decodable or not."""
        return len(self.positions)


@dataclass(slots=True)
class Work:
    """One call of ``step``: the state with what the batch has come to so far."""

    state: UsageState
    batch: UsageBatch
    counts: Counts
    clock: I64
    dead: list[DeadLetter] = field(default_factory=list)
    holds: list[HoldRecord] = field(default_factory=list)
    exceptions: list[FinancialException] = field(default_factory=list)
    met: dict[tuple[str, EventKey], list[Application]] = field(default_factory=dict)
    journal: list[Entry] = field(default_factory=list)

    def clock_at(self, row: int) -> int:
        """The partition's clock at a row; what belongs to no row sees the state's."""
        return int(self.clock[row]) if 0 <= row < len(self.clock) else self.state.clock


def decide(work: Work, event: UsageEvent, row: int) -> None:
    """Hold an event, or price it, or apply it to its original; then let corrections go that waited for it."""
    state = work.state
    if event.original is not None:
        _correct(work, event, row)
        return
    reason, tariffs = judged(state, event)
    if reason == "waived":
        _waive(work, event, "the contract is suspended or terminated and waives such usage; nothing to do")
        return
    if reason is not None:
        hold(work, event, reason, row)
    else:
        enter(work, event, tariffs, row)
    _release_corrections(work, event, row)


def judged(state: UsageState, event: UsageEvent) -> tuple[str | None, tuple[Tariff, ...]]:
    """Why an event cannot be priced (or ``waived``), or the tariffs that it meets."""
    contracts = state.book.contracts_of(event.customer_id)
    if not contracts:
        return "no_customer", ()
    if event.contract_id is not None:
        contracts = tuple(c for c in contracts if c == event.contract_id)
    governing = [v for c in contracts if (v := state.book.governing(c, event.time)) is not None]
    if not governing:
        return "no_contract", ()
    metering = [v for v in governing if state.tariffs.of_contract(v, event.meter)]
    if len(metering) > 1:
        return "contract_ambiguous", ()
    if not metering:
        return ("contract_inactive" if all(v.status in INACTIVE for v in governing) else "no_charge"), ()
    version = metering[0]
    if version.status in INACTIVE and version.billing.inactive_usage != "price":
        return ("waived" if version.billing.inactive_usage == "waive" else "contract_inactive"), ()
    met = tuple(t for t in state.tariffs.of_contract(version, event.meter) if t.matches(event.attributes))
    if not met:
        return "no_charge", ()
    if not all(t.prices(event.attributes, event.quantity or 0, event.amount) for t in met):
        return "no_price", ()
    return None, met


def enter(work: Work, event: UsageEvent, tariffs: tuple[Tariff, ...], row: int, change: Change | None = None) -> None:
    """Price an event under its tariffs; ``change`` where it was priced before and has been held since."""
    state = work.state
    work.counts.priced += 1
    for tariff in tariffs:
        met = state.rater.meet(event, tariff)
        if change is None:
            state.rater.add(met, row, event)
        else:
            state.rater.enter_again(met, change._replace(to_version=tariff.contract.version), row)
        work.met.setdefault((event.customer_id, event.key), []).append(met)
        remember(work, event.customer_id, met)


def remember(work: Work, customer_id: str, met: Application) -> None:
    """Keep an application whose price needs more than running quantities."""
    if met.tariff.kind not in ("sum", "count"):
        work.state.rater.events.setdefault((customer_id, met.key), []).append(met)
        work.journal.append(Entry("add", met, customer_id, met.key))


def forget(work: Work, customer_id: str, met: Application) -> None:
    """Let go of one that has moved away."""
    if met.tariff.kind not in ("sum", "count"):
        work.state.rater.events[customer_id, met.key].remove(met)
        work.journal.append(Entry("left", met, customer_id, met.key))


def hold(work: Work, event: UsageEvent, reason: str, row: int) -> None:
    """Let an event of the batch wait."""
    value = work.batch.values[row].as_py() or b""
    held = Held(event, reason, work.clock_at(row), int(work.batch.record_time[row]), value)
    wait(work, held)


def wait(work: Work, held: Held) -> None:
    """Let an event wait; where a person is needed finance hears of it at once."""
    work.counts.held += 1
    held.escalated = held.reason in NEEDS_A_PERSON
    work.state.waiting.add(held)
    work.holds.append(HoldRecord(held, "held", held.at))
    if held.escalated:
        work.exceptions.append(_hold_exception(held, held.at))


def _hold_exception(held: Held, at: int) -> FinancialException:
    event = held.event
    message = f"event {event.key.event_id!r} of source {event.key.source!r}: {REMEDIES[held.reason]}"
    evidence = (f"source {event.key.source}", f"hold {held.hold_id}")
    return FinancialException(f"hold_{held.reason}", "usage_event", event.key.event_id, event.customer_id, message, at, evidence, (event.position,), held.taken_back)


def leave(work: Work, held: Held, state_name: str) -> None:
    """Let a held event go, ``released`` or ``waived``."""
    work.counts.released += 1
    work.state.waiting.remove(held)
    work.holds.append(HoldRecord(held, state_name, max(work.state.clock, held.at)))


def try_again(work: Work, held: Held, ref: str) -> None:
    """Release a held event when its reason has gone; at its own event time, past dedup and the time checks.

    ``ref`` is the version that came, in words: what brings back an event that was priced before.
    """
    state = work.state
    reason, tariffs = judged(state, held.event)
    if reason == held.reason:
        return
    quantity = held.event.quantity
    if reason is None and quantity is not None and quantity < 0 and not state.tariffs.signed(held.event.customer_id, held.event.meter):
        reason = "no_charge"
        if held.reason == reason:
            return
    leave(work, held, "waived" if reason == "waived" else "released")
    if reason == "waived":
        work.counts.rejected += 1
        work.dead.append(DeadLetter(held.event.position, "waived", WAIVED, value=held.value))
    elif reason is not None:
        wait(work, replace(held, reason=reason, at=max(state.clock, held.at)))
    else:
        enter(work, held.event, tariffs, -1, Change(ref, None, None) if held.was_priced else None)


def waive_held(work: Work, holds: frozenset[str]) -> None:
    """Reject held events that somebody has waived; their ids stay remembered."""
    for held in [held for held in work.state.waiting.all() if held.hold_id in holds] if holds else ():
        leave(work, held, "waived")
        work.counts.rejected += 1
        work.dead.append(DeadLetter(held.event.position, "waived", "somebody has waived this held event; nothing to do", value=held.value))


def _waive(work: Work, event: UsageEvent, message: str) -> None:
    work.counts.rejected += 1
    work.dead.append(DeadLetter(event.position, "waived", message))


def _correct(work: Work, event: UsageEvent, row: int) -> None:
    """Apply a correction or void to its original, or hold it until the original arrives."""
    if event.original is None:
        msg = "only corrections and voids come here"
        raise AssertionError(msg)
    if _applied(work, event, row):
        work.counts.priced += 1
    elif _original_waived(work, event, row):
        _waive(work, event, _ORIGINAL_WAIVED)
    else:
        hold(work, event, "original_unknown", row)


def _applied(work: Work, event: UsageEvent, row: int) -> bool:
    """Whether the original was found, and so changed."""
    state = work.state
    original = event.original
    name = (event.customer_id, original)
    if name in state.voided:
        return True
    held = state.waiting.find(event.customer_id, original) if original else None
    if held is not None and held.event.original is None:
        if event.voids is not None:
            _void_held(work, held)
        else:
            state.waiting.replace(held, replace(held.event, quantity=event.quantity))
        return True
    found = [met for met in _live(work, event) if _within_limit(work, met.time, row)]
    if not found:
        return False
    for met in found:
        if event.voids is not None:
            state.rater.void(met, event.key, row)
        else:
            state.rater.alter(met, event.quantity or 0, event.key, row)
        if met.tariff.kind not in ("sum", "count"):
            work.journal.append(Entry("void" if event.voids else "alter", met, event.customer_id, met.key))
    if event.voids is not None:
        _forget(work, event.customer_id, event.voids)
    return True


def _within_limit(work: Work, time: int, row: int) -> bool:
    """Whether an event lies no further back than anything is corrected, as the clock is at a row."""
    return time >= work.clock_at(row) - work.state.limits.reprice_limit


def _original_waived(work: Work, event: UsageEvent, row: int) -> bool:
    """Whether the original was priced and is live nowhere: it neither waits nor is voided, so it was waived."""
    known = work.batch.originals.get((event.customer_id, event.original)) if event.original else None
    return known is not None and not _live(work, event) and _within_limit(work, known.event.time, row)


def _void_held(work: Work, held: Held) -> None:
    leave(work, held, "released")
    work.counts.priced += 1
    _forget(work, held.event.customer_id, held.event.key)


def _forget(work: Work, customer_id: str, key: EventKey) -> None:
    work.state.voided.add((customer_id, key))
    work.state.rater.events.pop((customer_id, key), None)
    work.journal.append(Entry("voided", None, customer_id, key))


def _live(work: Work, event: UsageEvent) -> list[Application]:
    """The live applications of an event's original: of this batch, of the kept events, of the rated topic."""
    state = work.state
    original = event.original
    if original is None:
        return []
    name = (event.customer_id, original)
    found = work.met.get(name)
    if found is None:
        found = list(state.rater.events.get(name, ()))
        known = work.batch.originals.get(name)
        if known is not None:
            rated = (state.tariffs.find(*place) for place in known.live)
            found += [state.rater.meet(known.event, tariff) for tariff in rated if tariff.kind in ("sum", "count")]
        work.met[name] = found
    return found


def _release_corrections(work: Work, event: UsageEvent, row: int) -> None:
    """Let go the corrections that waited for this event, in the order in which they were held."""
    for held in list(work.state.waiting.by_original.get((event.customer_id, event.key), ())):
        if _applied(work, held.event, row):
            leave(work, held, "released")
            work.counts.priced += 1


def escalate(work: Work) -> None:
    """Open an exception for what has waited longer than the limit."""
    state = work.state
    oldest = state.waiting.oldest_silent()
    if oldest is None or state.clock - oldest < state.limits.hold_limit:
        return
    for held in state.waiting.all():
        if not held.escalated and state.clock - held.at >= state.limits.hold_limit:
            held.escalated = True
            state.waiting.added.append(held)
            work.exceptions.append(_hold_exception(held, state.clock))
