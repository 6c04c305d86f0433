"""What a contract's closes need to know of all its versions before any of them is looked at whole.

In: batches of contract versions as columns. Out: for a contract its customer, its calendar, the least and the most grace of
its versions, and whether it has prepaid grants or thresholds: bounds that spare reading the versions of contracts that are not due.
Source: docs/semantics.md section 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa

from tieout.contract_batch import ContractBatch
from tieout.period import Calendar

HOUR: Final = 3_600_000_000
_COLUMNS: Final = ("contract_id", "customer_id", "status", "billing", "credits")


class Terms(NamedTuple):
    """A contract as its closes see it; grace in microseconds. ``calendar`` None where its versions differ in it."""

    customer_id: str
    calendar: Calendar | None
    least_grace: int
    most_grace: int
    granted: bool
    thresholds: bool


@dataclass(slots=True)
class ContractTerms:
    """The terms of all contracts."""

    by_contract: dict[str, Terms] = field(default_factory=dict)
    _calendars: dict[Calendar, Calendar] = field(default_factory=dict)

    def take(self, batch: ContractBatch) -> list[str]:
        """Learn from versions; the contracts that they are of."""
        found: dict[str, None] = {}
        for contract, terms in self._terms(batch.columns):
            known = self.by_contract.get(contract)
            self.by_contract[contract] = terms if known is None else _both(known, terms)
            found[contract] = None
        return list(found)

    def _terms(self, columns: pa.RecordBatch) -> Iterator[tuple[str, Terms]]:
        granted = [bool(grants) for grants in columns["credits"].to_pylist()]
        rows = zip(*(columns[name].to_pylist() for name in _COLUMNS[:4]), granted, strict=True)
        for contract, customer, status, billing, grants in rows:
            if status != "draft":
                grace = billing["grace_hours"] * HOUR
                yield contract, Terms(customer, self._calendar(billing), grace, grace, grants, bool(billing["thresholds"]))

    def _calendar(self, billing: dict[str, Any]) -> Calendar:
        made = Calendar(billing["period"], billing["anchor_day"], billing["anchor_month"], billing["anchor_weekday"], billing["time_zone"])
        return self._calendars.setdefault(made, made)


def _both(known: Terms, new: Terms) -> Terms:
    return Terms(
        known.customer_id, known.calendar if known.calendar == new.calendar else None,
        min(known.least_grace, new.least_grace), max(known.most_grace, new.most_grace), known.granted or new.granted, known.thresholds or new.thresholds,
    )  # fmt: skip
