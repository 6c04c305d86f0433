"""Re-pricing as jobs: a version that governs the past has priced events looked at again, a slice at an interval.

In: versions as they come into force. Out: jobs in the order in which they came, each with how far it is: everything of
its customer before ``(time, identity)`` has been looked at. Events that come meanwhile are priced by today's versions,
so a job ends where it began: at the versions in force, whatever comes between its slices. Source: docs/semantics.md
section 3 (a backdated version).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout.contract_columns import ContractColumns

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


@dataclass(slots=True)
class Jobs:
    """The jobs of a partition, the oldest first."""

    queue: list[Job] = field(default_factory=list)
    _changed: bool = False

    def open(self, columns: ContractColumns, rows: I64, until: int) -> None:
        """Jobs for the versions in these rows that begin before ``until``, the latest time an event can have."""
        for row in rows[columns.spans[rows, 0] < until].tolist():
            start, end = columns.spans[row].tolist()
            contract = int(columns.contract[row])
            customer = columns.customers.text(int(columns.customer[contract]))
            self.queue.append(Job(customer, columns.contracts.text(contract), int(columns.number[row]), start, end))
            self._changed = True

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
