"""Events that wait: held for a reason until what is missing arrives, never lost, never priced twice.

In: an event and why it cannot be priced. Out: the hold records (one when an event is held, one when it leaves) and
the order in which what waits is tried again. Source: docs/semantics.md section 2 (held).
"""

from dataclasses import dataclass, field
from typing import Final

from tieout import ids
from tieout.ids import EventKey
from tieout.usage import UsageEvent

NEEDS_A_PERSON: Final = frozenset({"contract_ambiguous", "no_charge", "no_price", "contract_inactive"})
"""Reasons that open an exception at once; the others do after ``hold_limit``."""

REMEDIES: Final = {
    "no_customer": "no contract names this customer; publish its contract, or correct the customer id",
    "no_contract": "the customer has no contract version in force at the event's time; publish one that covers it",
    "contract_inactive": "the contract is suspended or terminated at the event's time; resume it, or waive the usage",
    "contract_ambiguous": "several contracts meter this; send the event with 'contract_id', or end one of them",
    "no_charge": "no charge of the contract takes this meter with these attributes; amend the contract",
    "no_price": "no price matches these attributes, a dynamic price lacks the event's 'amount', or the amount would exceed 10^18; amend the contract or void the event",
    "original_unknown": "the event that this one corrects or voids has not arrived, or lies further back than anything is corrected; send it, or waive the correction and settle it by hand",
}


@dataclass(slots=True)
class Held:
    """One event that waits. Instants in UTC microseconds; ``value`` are the original bytes."""

    event: UsageEvent
    reason: str
    at: int
    record_time: int
    value: bytes
    escalated: bool = False
    was_priced: bool = False
    """Whether a version took it out of what it had been priced at."""
    taken_back: tuple[int, str] | None = None
    """By how much the customer's total fell then, in 10^-12 of the currency; None where it was of several currencies."""

    @property
    def hold_id(self) -> str:
        """The hold's identity: the event and the reason."""
        return ids.text(("hold", self.event.customer_id, *self.event.key, self.reason))


@dataclass(slots=True)
class HoldRecord:
    """What the hold topic tells: an event was held, or left (``released``, ``waived``)."""

    held: Held
    state: str
    at: int


@dataclass(slots=True)
class Waiting:
    """The held events of a partition: by customer, in the order in which they were held."""

    by_customer: dict[str, dict[EventKey, Held]] = field(default_factory=dict)
    by_original: dict[tuple[str, EventKey], list[Held]] = field(default_factory=dict)
    count: int = 0
    added: list[Held] = field(default_factory=list)
    removed: list[Held] = field(default_factory=list)

    def add(self, held: Held) -> None:
        """Let an event wait."""
        self.by_customer.setdefault(held.event.customer_id, {})[held.event.key] = held
        if held.reason == "original_unknown" and held.event.original:
            self.by_original.setdefault((held.event.customer_id, held.event.original), []).append(held)
        self.count += 1
        self.added.append(held)

    def remove(self, held: Held) -> None:
        """Let it go."""
        customer, key = held.event.customer_id, held.event.key
        del self.by_customer[customer][key]
        if not self.by_customer[customer]:
            del self.by_customer[customer]
        if held.reason == "original_unknown" and held.event.original:
            rest = self.by_original[customer, held.event.original]
            rest.remove(held)
            if not rest:
                del self.by_original[customer, held.event.original]
        self.count -= 1
        self.removed.append(held)

    def replace(self, held: Held, event: UsageEvent) -> None:
        """Change a held event in place: its correction arrived first."""
        held.event = event
        self.added.append(held)

    def of(self, customer_id: str) -> list[Held]:
        """A customer's held events in order."""
        return list(self.by_customer.get(customer_id, {}).values())

    def find(self, customer_id: str, key: EventKey) -> Held | None:
        """The held event of an identity."""
        return self.by_customer.get(customer_id, {}).get(key)

    def customers_waiting_for_originals(self) -> set[str]:
        """Whose corrections wait for their original."""
        return {customer for customer, _ in self.by_original}

    def oldest(self) -> int | None:
        """The clock at which the oldest of them was held."""
        return min((held.at for all_ in self.by_customer.values() for held in all_.values()), default=None)

    def oldest_silent(self) -> int | None:
        """The clock at which the oldest was held that has no exception yet."""
        silent = (held.at for all_ in self.by_customer.values() for held in all_.values() if not held.escalated)
        return min(silent, default=None)

    def all(self) -> list[Held]:
        """Every held event, by the clock at which it was held."""
        return sorted((held for all_ in self.by_customer.values() for held in all_.values()), key=lambda held: held.at)
