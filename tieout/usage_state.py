"""What the usage stage remembers between batches of a partition, and its settings.

In: contract versions. Out: the state, and how one of its journal entries is put back after a restart.
Source: docs/semantics.md sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout.contract_batch import ContractBatch, Taken
from tieout.contract_book import ContractBook
from tieout.contract_intake import bring_in
from tieout.dedup import Seen
from tieout.holds import Waiting
from tieout.ids import EventKey
from tieout.rating.rater import Application, Change, Rater
from tieout.rating.tariff import INACTIVE, Tariffs
from tieout.rejection import Rejects
from tieout.repricing_jobs import Beyond, Jobs
from tieout.stage import Counts
from tieout.usage import NO_CLOCK

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

I64 = npt.NDArray[np.int64]
DAY: Final = 86_400_000_000
HOUR: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The stage's settings, in microseconds."""

    horizon: int = 35 * DAY
    future_limit: int = 24 * HOUR
    hold_limit: int = 7 * DAY
    reprice_limit: int = 400 * DAY
    """How far back of the clock the time of an event may lie that is corrected, voided or priced again."""


@dataclass(slots=True)
class UsageState:
    """The fold's state: everything that the stage remembers between batches of a partition."""

    limits: Limits = field(default_factory=Limits)
    clock: int = NO_CLOCK
    seen: Seen = field(init=False)
    book: ContractBook = field(default_factory=lambda: ContractBook(first_number=1))
    tariffs: Tariffs = field(init=False)
    rater: Rater = field(init=False)
    waiting: Waiting = field(default_factory=Waiting)
    voided: set[tuple[str, EventKey]] = field(default_factory=set)
    totals: Counts = field(default_factory=Counts)
    amounts: dict[str, int] = field(default_factory=dict)
    jobs: Jobs = field(default_factory=Jobs)
    rejects: Rejects | None = None
    """What may pause the partition; None in a replay or a quote, which take what they are given."""

    def __post_init__(self) -> None:
        self.seen, self.tariffs = Seen(self.limits.horizon), Tariffs(self.book)
        self.rater = Rater(self.tariffs, self.governing_version)

    def take(self, versions: Iterable[ContractVersion | ContractBatch]) -> Taken:
        """Bring versions into force; after a restart, those that were: what was refused then is refused again."""
        return bring_in(self.book, self.tariffs, versions)

    def open_jobs(self, rows: I64) -> list[Beyond]:
        """Look again at events priced before that versions in force now may govern; what lies too far back for it."""
        if self.clock == NO_CLOCK:
            return []
        return self.jobs.open(self.book.columns, rows, self.clock - self.limits.reprice_limit, self.clock + self.limits.future_limit)

    def governing_version(self, contract_id: str, instant: int) -> int | None:
        """The version in force at an instant, unless it is suspended or terminated."""
        version = self.book.governing(contract_id, instant)
        return None if version is None or version.status in INACTIVE else version.version


class Entry(NamedTuple):
    """One change of what is priced event by event: an application entered, changed, left or moved away, or an event voided."""

    op: Literal["add", "alter", "void", "left", "voided"]
    met: Application | None
    customer_id: str
    key: EventKey


def restore_entry(state: UsageState, entry: Entry) -> None:
    """Apply one journal entry to a state that is being restored; what it emits is thrown away by the caller."""
    name = (entry.customer_id, entry.key)
    if entry.op == "voided":
        state.voided.add(name)
        state.rater.events.pop(name, None)
        return
    met = entry.met
    if met is None:
        msg = f"journal entry {entry.op} of {entry.key} names no application"
        raise AssertionError(msg)
    if entry.op == "add":
        state.rater.add(met, 0)
        state.rater.events.setdefault(name, []).append(met)
        return
    known = next(m for m in state.rater.events[name] if m.place == met.place and m.tariff.number == met.tariff.number)
    if entry.op == "left":
        state.rater.leave(known, Change("", None, None), 0)
        state.rater.events[name].remove(known)
    elif entry.op == "alter":
        state.rater.alter(known, met.quantity, entry.key, 0)
    else:
        state.rater.void(known, entry.key, 0)
