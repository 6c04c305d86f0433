"""When too much is rejected: the window over consecutive rows that pauses a partition.

In: the rejected rows of each batch, by their number since the partition's first row, rising, with their reasons. Out:
the row, if any, with which more than ``most`` of ``rows`` consecutive rows are rejected; the partition is then paused
until somebody releases it, and the window starts anew. It is found at the earliest row that decides it, so it does not
depend on how rows are batched. Source: docs/decisions/0005-pause-on-rejects.md.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
ROWS: Final = 10_000
MOST: Final = 1_000
"""A tenth of them."""


def _none() -> I64:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class Rejects:
    """The rejected rows among the last ones of a partition, and whether they paused it."""

    rows: int = ROWS
    most: int = MOST
    numbers: I64 = field(default_factory=_none)
    reasons: list[str] = field(default_factory=list)
    """The reason of each number."""
    paused: bool = False
    changed: bool = False
    """Whether something is to be written since the last ``take_change``."""

    def take(self, numbers: I64, reasons: Sequence[str], end: int) -> int | None:
        """Add the rejected rows of a batch that ends before row ``end``; the row that pauses, what follows it is not added."""
        known, words = np.concatenate([self.numbers, numbers]), [*self.reasons, *reasons]
        over = np.flatnonzero(known[self.most :] - known[: -self.most] < self.rows)
        self.changed = True
        if len(over):
            first, last = int(over[0]), int(over[0]) + self.most
            self.numbers, self.reasons, self.paused = known[first : last + 1], words[first : last + 1], True
            return int(known[last])
        kept = max(int(np.searchsorted(known, end - self.rows, side="right")), len(known) - self.most)
        self.numbers, self.reasons = known[kept:], words[kept:]
        return None

    def release(self) -> None:
        """Go on, with an empty window."""
        self.numbers, self.reasons, self.paused, self.changed = _none(), [], False, True

    def put_back(self, numbers: I64, reasons: Sequence[str], *, paused: bool) -> None:
        """Be as it was before a restart."""
        self.numbers, self.reasons, self.paused, self.changed = numbers, list(reasons), paused, False

    def take_change(self) -> bool:
        """Whether something changed since the last time."""
        changed, self.changed = self.changed, False
        return changed

    def by_reason(self) -> dict[str, int]:
        """How many rows of the window each reason rejected, the most first."""
        return dict(Counter(self.reasons).most_common())

    @property
    def span(self) -> int:
        """How many consecutive rows the rejected ones lie in."""
        return int(self.numbers[-1] - self.numbers[0]) + 1 if len(self.numbers) else 0
