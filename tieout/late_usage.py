"""Late usage that its contract sends to finance: one lot for each closed billing period, until somebody decides about it.

In: the increments that a bill did not take, and what people asked for about the exceptions that they opened, in log order. Out:
lots with their fate. A lot that is accepted is billed with the contract's next bill, once; one that is resolved or waived is
billed by no invoice and stays open. The first decision about a lot counts, every later one has no effect; what comes for the
same period afterwards is a lot of its own. Source: docs/semantics.md section 5 (after the close), docs/exceptions.md.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Final, NamedTuple

from tieout import ids
from tieout.contract_book import Interval
from tieout.exception_queue import ACCEPT, RESOLVE, WAIVE
from tieout.invoicing import timeline as times
from tieout.invoicing.records import DIGEST, UsageSum
from tieout.period import Calendar

LATE: Final = "late_usage"
LIMIT: Final = "late_usage_limit"
"""The kinds of exceptions: of late usage that may be billed, and of such that lies too far back."""
DECISIONS: Final = frozenset({ACCEPT, RESOLVE, WAIVE})


class Late(NamedTuple):
    """The late usage of one closed billing period and currency that came between two bills; ``fate`` is empty while it waits."""

    contract_id: str
    customer_id: str
    period: str
    period_us: int
    currency: str
    opened_at: int
    sums: tuple[UsageSum, ...]
    kind: str = LATE
    fate: str = ""
    author: str = ""
    """Who decided."""

    @property
    def exception_id(self) -> str:
        """The exception that it opens: contract, billing period and the records behind it."""
        digest = sum(one.digest for one in self.sums) % DIGEST
        return ids.text(("exception", self.kind, self.contract_id, self.period_us, self.currency, self.records, f"{digest:032x}"))

    @property
    def records(self) -> int:
        """How many rated records it is."""
        return sum(one.records for one in self.sums)

    @property
    def amount(self) -> int:
        """Its rated amount in 10^-12."""
        return sum(one.amount for one in self.sums)


Aside = MutableMapping[str, dict[str, Late]]
"""Lots by contract and exception."""


def lots(names: tuple[str, str], timeline: Sequence[Interval], calendar: Calendar, late: Iterable[UsageSum], kept_since_us: int, at: int) -> Iterator[Late]:
    """The lots of what a bill did not take, of a contract and customer (``names``); ``at`` is the clock."""
    found: dict[tuple[int, str], list[UsageSum]] = {}
    for one in late:
        currency = times.numbered(timeline, one.version, one.period_us).currency
        found.setdefault((one.period_us, currency), []).append(one)
    for (start, currency), sums in sorted(found.items(), key=lambda item: item[0]):
        kind = LIMIT if start < kept_since_us else LATE
        yield Late(*names, calendar.containing(start).label, start, currency, at, tuple(sums), kind)


def decide(aside: Aside, exception_id: str, decision: str, author: str) -> Late | None:
    """Take a decision about a lot; None where there is no such lot here, or it has no effect."""
    mine = next((found for found in aside.values() if exception_id in found), None)
    if mine is None or mine[exception_id].fate or (decision == ACCEPT and mine[exception_id].kind != LATE):
        return None
    mine[exception_id] = mine[exception_id]._replace(fate=decision, author=author)
    return mine[exception_id]


def accepted(aside: Mapping[str, dict[str, Late]], contract_id: str, until_us: int | None = None) -> list[Late]:
    """A contract's accepted lots, of the billing periods that begin at or before an instant."""
    return [one for one in aside.get(contract_id, {}).values() if one.fate == ACCEPT and (until_us is None or one.period_us <= until_us)]


def replaced(aside: Aside, contract_id: str, gone: Iterable[Late], new: Iterable[Late]) -> None:
    """Take lots out that were billed, and new ones in."""
    mine = aside.setdefault(contract_id, {})
    for one in gone:
        del mine[one.exception_id]
    mine |= {one.exception_id: one for one in new}
    if not mine:
        del aside[contract_id]
