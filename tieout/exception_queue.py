"""What finance has to settle: financial exceptions as one work queue, and what people may do about them.

In: exceptions as the flows opened them, in any order and any number of times; what people asked for, in log order; and
where each held event stands. Out: each exception as it stands, with its owner, and what was asked for in vain, with why.
An exception about a held event follows the event: it is resolved when the hold is released and waived when the hold is,
whatever people say meanwhile. One about late usage that somebody has accepted is resolved when the usage is billed. Every
other one is settled by a person. What is settled stays so: when the same comes
again the flow opens another exception. Source: docs/exceptions.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final, NamedTuple

ACCEPT: Final = "accept"
"""That late usage is billed."""
ASSIGN: Final = "assign"
RESOLVE: Final = "resolve"
WAIVE: Final = "waive"
EXCEPTION: Final = "exception"
"""The type of a subject that is an exception."""
HOLD: Final = "hold"
"""The type of a subject that is a held event, and how the line of evidence begins that names one."""

OPEN: Final = "open"
ASSIGNED: Final = "assigned"
RESOLVED: Final = "resolved"
WAIVED: Final = "waived"
STATES: Final = (OPEN, ASSIGNED, RESOLVED, WAIVED)
UNSETTLED: Final = (OPEN, ASSIGNED)


class Kind(NamedTuple):
    """Who settles the exceptions of a kind, and what a person may end them with."""

    owner: str
    settled_by: tuple[str, ...]


_HELD: Final = (WAIVE,)
"""It is resolved when its event is released, which nobody can say instead."""

KINDS: Final[Mapping[str, Kind]] = {
    "usage_conflict": Kind("metering", (RESOLVE, WAIVE)),
    "contract_refused": Kind("contracts", (RESOLVE,)),
    "reprice_limit": Kind("contracts", (RESOLVE, WAIVE)),
    "proposal_refused": Kind("contracts", (RESOLVE,)),
    "command_refused": Kind("governance", (RESOLVE,)),
    "invoice_held": Kind("billing", (RESOLVE,)),
    "late_usage": Kind("billing", (ACCEPT, RESOLVE, WAIVE)),
    "late_usage_limit": Kind("billing", (RESOLVE, WAIVE)),
    "control_total": Kind("billing", (RESOLVE, WAIVE)),
    "hold_no_customer": Kind("contracts", _HELD),
    "hold_no_contract": Kind("contracts", _HELD),
    "hold_contract_inactive": Kind("contracts", _HELD),
    "hold_contract_ambiguous": Kind("contracts", _HELD),
    "hold_no_charge": Kind("pricing", _HELD),
    "hold_no_price": Kind("pricing", _HELD),
    "hold_original_unknown": Kind("metering", _HELD),
}
"""Every kind of exception that a flow opens; docs/exceptions.md says what each means."""


class Repair(NamedTuple):
    """That a flow tells of an exception as resolved: when, and by what."""

    at: int
    resolution: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An exception as a flow opened it; ``opened_at`` in UTC microseconds of the partition's clock."""

    exception_id: str
    kind: str
    object_type: str
    object_id: str
    customer_id: str
    owner: str
    opened_at: int
    message: str
    evidence: tuple[str, ...] = ()
    legal_entity_id: str | None = None
    amount_at_risk: Decimal | None = None
    """None where it is not exactly known, as for an event that waits and never had a price."""
    currency: str | None = None
    correlation_id: str | None = None
    repaired: "Repair | None" = None
    """How its flow saw it mended, on a later record of it."""

    @property
    def hold_id(self) -> str | None:
        """The held event that it is about, where it is about one."""
        return next((line.removeprefix(f"{HOLD} ") for line in self.evidence if line.startswith(f"{HOLD} ")), None)


class Act(NamedTuple):
    """What somebody asks for; ``at`` in UTC microseconds."""

    kind: str
    subject_type: str
    subject_id: str
    author: str
    at: int
    reason: str
    to: str | None = None
    """Whom it is assigned to."""
    exception_id: str | None = None
    """Which exception a held event is waived for."""


class HoldChange(NamedTuple):
    """The last that is known of a held event: ``held``, ``released`` or ``waived``, and the partition's clock then."""

    state: str
    at: int


class Refused(NamedTuple):
    """What was asked for in vain, about which exception, and what to do instead."""

    act: Act
    exception_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Item:
    """An exception as it stands."""

    opened: Opened
    owner: str
    state: str = OPEN
    settled_at: int | None = None
    resolution: str | None = None
    acts: tuple[Act, ...] = ()
    """What people did about it, in order."""

    @property
    def asked(self) -> Act | None:
        """What was asked of its flow and has not happened: that its event is waived, or its late usage billed."""
        last = next((act for act in reversed(self.acts) if act.kind == ACCEPT or (act.kind == WAIVE and act.subject_type == HOLD)), None)
        return last if self.state in UNSETTLED else None

    def age(self, at: int) -> int:
        """Microseconds from its opening to an instant, of a settled one until then; 0 where the partition's clock was ahead of these."""
        return max((at if self.settled_at is None else self.settled_at) - self.opened.opened_at, 0)


@dataclass(slots=True)
class Queue:
    """All exceptions by their id, and what was asked for in vain."""

    items: dict[str, Item] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)


def fold(opened: Iterable[Opened], acts: Iterable[Act], holds: Mapping[str, HoldChange]) -> Queue:
    """The queue: every exception once, what people asked for in log order, then what became of the held events by their id."""
    queue = Queue()
    latest: dict[str, str] = {}
    repaired: dict[str, Repair] = {}
    for each in opened:
        queue.items.setdefault(each.exception_id, Item(each, each.owner))
        if each.repaired is not None:
            repaired[each.exception_id] = each.repaired
    for item in sorted(queue.items.values(), key=lambda item: (item.opened.opened_at, item.opened.exception_id)):
        if item.opened.hold_id is not None:
            latest[item.opened.hold_id] = item.opened.exception_id
    for act in acts:
        if act.subject_type == EXCEPTION and act.kind in {ACCEPT, ASSIGN, RESOLVE, WAIVE}:
            _apply(queue, act, act.subject_id)
        elif act.subject_type == HOLD and act.kind == WAIVE:
            name = act.exception_id if act.exception_id in queue.items else latest.get(act.subject_id)
            if name is not None:  # a held event without an exception is the flow's matter alone
                _apply(queue, act, name)
    for name, repair in repaired.items():
        if queue.items[name].state in UNSETTLED:
            queue.items[name] = replace(queue.items[name], state=RESOLVED, settled_at=repair.at, resolution=repair.resolution)
    for name, item in queue.items.items():
        change = None if item.opened.hold_id is None else holds.get(item.opened.hold_id)
        if change is not None:
            queue.items[name] = _followed(item, change)
    return queue


def named(queue: Queue, act: Act) -> str:
    """The exception that an act means: of a held event the one that it names, else the latest one."""
    if act.subject_type != HOLD or act.exception_id in queue.items:
        return act.exception_id or act.subject_id
    mine = [item.opened for item in queue.items.values() if item.opened.hold_id == act.subject_id]
    return max(mine, key=lambda opened: (opened.opened_at, opened.exception_id)).exception_id if mine else act.subject_id


def about(item: Item, kind: str, author: str, at: int, reason: str, to: str | None = None) -> Act:
    """What somebody asks for about an exception: its event is waived rather than the exception, where it waits."""
    hold_id = item.opened.hold_id
    if kind == WAIVE and hold_id is not None:
        return Act(kind, HOLD, hold_id, author, at, reason, exception_id=item.opened.exception_id)
    return Act(kind, EXCEPTION, item.opened.exception_id, author, at, reason, to)


def refusal(queue: Queue, act: Act, exception_id: str) -> str | None:
    """Why something cannot be asked for about an exception as it stands, and what to do; None where it can."""
    item = queue.items.get(exception_id)
    if item is None:
        return unknown(exception_id)
    name = f"exception {exception_id}"
    if item.state not in UNSETTLED:
        return f"{name} is {item.state} ({item.resolution}) and stays so; there is nothing left to do about it"
    if act.kind != ASSIGN and item.asked is not None and item.asked.kind == ACCEPT:
        return f"{name} was accepted by {item.asked.author} ({item.asked.reason}); it is resolved when the next invoice of {item.opened.object_id} has billed the usage"
    match act.kind:
        case "assign":
            return _unassignable(item, act, name)
        case "accept":
            return _unacceptable(item, name)
        case "resolve":
            return _unresolvable(item, name)
        case _:
            return _unwaivable(item, act, name)


def unknown(exception_id: str) -> str:
    """What to say where there is no such exception."""
    return f"there is no exception {exception_id}; 'tieout exception ls --state all' lists all there are"


def _unassignable(item: Item, act: Act, name: str) -> str | None:
    if not act.to:
        return f"{name}: nobody is named whom to assign it to; say whom"
    if item.state == ASSIGNED and item.owner == act.to:
        return f"{name} is assigned to {act.to} already"
    return None


def _unacceptable(item: Item, name: str) -> str | None:
    kind = KINDS.get(item.opened.kind)
    if kind is None or ACCEPT not in kind.settled_by:
        return f"{name} cannot be accepted, because a {item.opened.kind} is no late usage that could be billed; mend what it tells of, then resolve it"
    return None


def _unresolvable(item: Item, name: str) -> str | None:
    if item.opened.hold_id is None:
        return None
    return f"{name} is about an event that still waits and is resolved by itself when the event is released: {item.opened.message}"


def _unwaivable(item: Item, act: Act, name: str) -> str | None:
    kind = KINDS.get(item.opened.kind)
    if kind is None or WAIVE not in kind.settled_by:
        return f"{name} cannot be waived, because nothing that could be given up depends on a {item.opened.kind}; mend what it tells of, then resolve it"
    hold_id = item.opened.hold_id
    if (act.subject_type, act.subject_id) != ((EXCEPTION, item.opened.exception_id) if hold_id is None else (HOLD, hold_id)):
        return f"{name} is not about {act.subject_type} {act.subject_id} alone; waive {f'hold {hold_id}' if hold_id else 'the exception'}"
    if item.asked is not None:
        return f"{name}: that its event is waived was asked for by {item.asked.author} ({item.asked.reason}); it counts when the flow has let the event go"
    return None


def _apply(queue: Queue, act: Act, exception_id: str) -> None:
    why = refusal(queue, act, exception_id)
    if why is not None:
        queue.refused.append(Refused(act, exception_id, why))
        return
    item = queue.items[exception_id]
    item = replace(item, acts=(*item.acts, act))
    if act.kind == ASSIGN:
        item = replace(item, state=ASSIGNED, owner=act.to or item.owner)
    elif act.kind != ACCEPT and act.subject_type == EXCEPTION:
        item = replace(item, state=RESOLVED if act.kind == RESOLVE else WAIVED, settled_at=act.at, resolution=f"{act.author}: {act.reason}")
    queue.items[exception_id] = item


def _followed(item: Item, change: HoldChange) -> Item:
    """An exception about a held event, as the event stands: one that began to wait later is another's."""
    if change.state == WAIVED:
        words = "the contract waives such usage" if item.asked is None else f"{item.asked.author}: {item.asked.reason}"
        return replace(item, state=WAIVED, settled_at=change.at, resolution=words)
    if change.state == "released" or (change.state == "held" and change.at > item.opened.opened_at):
        return replace(item, state=RESOLVED, settled_at=change.at, resolution="the event was released")
    return item


class Load(NamedTuple):
    """What an owner has to settle: how many, and since when the oldest."""

    owner: str
    exceptions: int
    oldest_at: int


def loads(items: Sequence[Item]) -> list[Load]:
    """Those of some exceptions that are not settled, by owner, the most first."""
    found: dict[str, list[int]] = {}
    for item in items:
        if item.state not in UNSETTLED:
            continue
        found.setdefault(item.owner, []).append(item.opened.opened_at)
    return sorted((Load(owner, len(at), min(at)) for owner, at in found.items()), key=lambda load: (-load.exceptions, load.owner))
