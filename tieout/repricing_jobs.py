"""Re-pricing as jobs: a version that governs the past has priced events looked at again, a slice at an interval.

In: versions as they come into force. Out: jobs in the order in which they came, each with how far it is: everything of
its customer before ``(time, identity)`` has been looked at. Events that come meanwhile are priced by today's versions,
so a job ends where it began: at the versions in force, whatever comes between its slices. What a version changes further
back than a limit has no job: it is told instead. Source: docs/semantics.md section 3 (a backdated version).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout.contract_columns import ContractColumns
from tieout.usage import NO_CLOCK

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Job:
    """Events of one customer from ``time`` (and there from ``identity``) to ``end_us``, because of a version."""

    customer_id: str
    contract_id: str
    version: int
    time: int
    end_us: int
    identity: int = 0

    @property
    def ref(self) -> str:
        """The version in words, as records name it."""
        return f"{self.contract_id}/{self.version}"


class Slice(NamedTuple):
    """What a job looks at in one interval: rated records by event, and where it goes on; None where it is done."""

    job: Job
    rows: pa.RecordBatch
    next: tuple[int, int] | None


class Beyond(NamedTuple):
    """What a version changes and nobody prices again, because it lies too far back: half-open, UTC microseconds."""

    customer_id: str
    contract_id: str
    version: int
    start_us: int
    end_us: int


@dataclass(slots=True)
class Jobs:
    """The jobs of a partition, the oldest first."""

    queue: list[Job] = field(default_factory=list)
    began: int = NO_CLOCK
    """Before it no event can have been priced; NO_CLOCK where that is not known."""
    _changed: bool = False

    def begin(self, instant: int) -> None:
        """The first event has come: none will be priced with an earlier time than this."""
        self.began, self._changed = instant, True

    def open(self, columns: ContractColumns, rows: I64, since: int, until: int) -> list[Beyond]:
        """Jobs for what the versions in these rows govern between ``since`` and ``until``, the latest time an event can have.

        Out: what they govern before ``since``, where another version that was known before may have priced events.
        """
        beyond = []
        for row in rows[columns.spans[rows, 0] < until].tolist():
            start, end = columns.spans[row].tolist()
            contract = int(columns.contract[row])
            customer = columns.customers.text(int(columns.customer[contract]))
            place = (customer, columns.contracts.text(contract), int(columns.number[row]))
            if end > since:
                self.queue.append(Job(*place, max(start, since), end))
                self._changed = True
            first, last = max(start, self.began), min(end, since)
            if first < last and _governed(columns, int(columns.customer[contract]), int(rows.min()), first, last):
                beyond.append(Beyond(*place, first, last))
        return beyond

    def due(self) -> Iterator[Job]:
        """The first jobs, each of another customer: two slices of one would look at the same events at once."""
        customers = set()
        for job in self.queue:
            if job.customer_id in customers:
                return
            customers.add(job.customer_id)
            yield job

    def advance(self, slices: list[Slice]) -> None:
        """What these slices looked at is done; they are of the first jobs."""
        rest = [replace(s.job, time=s.next[0], identity=s.next[1]) for s in slices if s.next is not None]
        self.queue = [*rest, *self.queue[len(slices):]]
        self._changed = True

    def take_change(self) -> bool:
        """Whether anything has changed since the last call."""
        changed, self._changed = self._changed, False
        return changed


def _governed(columns: ContractColumns, customer: int, new: int, start: int, end: int) -> bool:
    """Whether a version of a customer was in force at some time of an interval, but for those from row ``new`` on."""
    rows = [row for contract in columns.contracts_of(customer) for row in columns.rows_of(contract) if row < new]
    return any(columns.spans[row, 0] < end and columns.spans[row, 1] > start for row in rows)
