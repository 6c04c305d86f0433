"""Usage that is held, as invoicing sees it: what a billing period waits for, and until when.

In: the records of ``usage.hold.v1`` in their order. Out: for a contract and a billing period the held event that it waits
for. An event waits from its record ``held`` to ``released`` or ``waived``, and a period waits for it until ``hold_limit`` of
the clock after it was held. An event that names no contract holds up every contract of its customer.
Source: docs/semantics.md section 5 (completeness).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tieout.ids import EventKey
from tieout.period import Period


class HoldChange(NamedTuple):
    """One record of the topic; instants in UTC microseconds."""

    customer_id: str
    usage: EventKey
    contract_id: str | None
    time: int
    reason: str
    state: str
    at: int


@dataclass(slots=True)
class HeldUsage:
    """The events that are held now, by customer, in the order in which they were held."""

    hold_limit: int
    by_customer: dict[str, dict[EventKey, HoldChange]] = field(default_factory=dict)

    def take(self, changes: Iterable[HoldChange]) -> None:
        """Take records in."""
        for change in changes:
            mine = self.by_customer.setdefault(change.customer_id, {})
            mine.pop(change.usage, None)
            if change.state == "held":
                mine[change.usage] = change
            elif not mine:
                del self.by_customer[change.customer_id]

    def holding_up(self, customer_id: str, contract_id: str, period: Period, clock: int) -> HoldChange | None:
        """The first held event of a period that is still waited for."""
        for change in self.by_customer.get(customer_id, {}).values():
            mine = change.contract_id in (None, contract_id) and period.start_us <= change.time < period.end_us
            if mine and clock < change.at + self.hold_limit:
                return change
        return None
