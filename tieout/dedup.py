"""Identity of usage: each (source, id) counts once within the horizon, and a conflict is told from a duplicate.

In: for each row of a batch its identity (128-bit hash of source and id), its content digest (64 bits), its event
time, the partition's clock at the row (UTC microseconds) and its position. Out: new, duplicate or conflict, row by
row, and the entries to write with the commit.

An id is remembered while ``max(its event time, the clock at its row) >= clock - horizon``; the same id with other
content is a conflict whatever its event time, and the first delivery stands. Source: docs/semantics.md section 2.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes
from tieout.key_index import KeyIndex

I64 = npt.NDArray[np.int64]
NEW: Final = 0
DUPLICATE: Final = 1
CONFLICT: Final = 2


class Entries(NamedTuple):
    """Identities to remember, one row each: key, content digest, the instant it is remembered by, position."""

    keys: Lanes
    digest: npt.NDArray[np.uint64]
    remembered_at: I64
    position: I64


class Verdicts(NamedTuple):
    """One verdict a row; for a conflict or duplicate the position of the delivery that stands."""

    kind: npt.NDArray[np.int8]
    first_position: I64
    entries: Entries


class Seen:
    """The identities of one partition within the horizon."""

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._index = KeyIndex()
        self._digest = np.zeros(4096, np.uint64)
        self._remembered_at, self._position = np.zeros(4096, np.int64), np.zeros(4096, np.int64)
        self._swept_at = 4096

    def __len__(self) -> int:
        return len(self._index)

    def judge(self, keys: Lanes, digest: npt.NDArray[np.uint64], time: I64, clock: I64, position: I64) -> Verdicts:
        """Tell new rows from duplicates and conflicts, in row order, and remember the new ones.

        Two arrays of instants: ``time`` is each row's event time, ``clock`` the partition's clock at it (never falls).
        """
        rows, fresh = self._index.upsert(keys)
        self._grow()
        remembered = np.maximum(time, clock)
        self._write(rows[fresh], digest[fresh], remembered[fresh], position[fresh])
        kind = np.where(fresh, NEW, np.where(self._digest[rows] == digest, DUPLICATE, CONFLICT)).astype(np.int8)
        first = self._position[rows]
        again = ~fresh & (self._remembered_at[rows] < clock - self.horizon)
        if again.any():
            self._judge_forgotten(np.isin(rows, rows[again]), rows, fresh, digest, remembered, clock, position, kind, first)
        new = kind == NEW
        return Verdicts(kind, first, Entries(keys[new], digest[new], remembered[new], position[new]))

    def _judge_forgotten(
        self,
        chosen: npt.NDArray[np.bool_],
        rows: I64,
        fresh: npt.NDArray[np.bool_],
        digest: npt.NDArray[np.uint64],
        remembered: I64,
        clock: I64,
        position: I64,
        kind: npt.NDArray[np.int8],
        first: I64,
    ) -> None:
        """Rows whose id was forgotten between two deliveries: seldom, so one by one in row order."""
        for i in np.nonzero(chosen)[0].tolist():
            row = rows[i]
            if fresh[i] or self._remembered_at[row] < clock[i] - self.horizon:
                self._write(row, digest[i], remembered[i], position[i])
                kind[i], first[i] = NEW, position[i]
            else:
                kind[i] = DUPLICATE if self._digest[row] == digest[i] else CONFLICT
                first[i] = self._position[row]

    def restore(self, entries: Entries) -> None:
        """Remember what earlier commits wrote; of several entries of a key the last counts."""
        rows, _ = self._index.upsert(entries.keys)
        self._grow()
        self._write(rows, entries.digest, entries.remembered_at, entries.position)

    def sweep(self, clock: int) -> None:
        """Forget what the horizon has passed, when the table has doubled since the last time."""
        if len(self._index) < 2 * self._swept_at:
            return
        n = len(self._index)
        alive = np.nonzero(self._remembered_at[:n] >= clock - self.horizon)[0]
        if len(alive) < n // 2:
            keys = np.stack([self._index.high[alive], self._index.low[alive]], axis=1)
            kept = Entries(keys, self._digest[alive], self._remembered_at[alive], self._position[alive])
            self._index = KeyIndex()
            self.restore(kept)
        self._swept_at = len(self._index)

    def _write(self, rows: I64, digest: npt.NDArray[np.uint64], remembered: I64, position: I64) -> None:
        self._digest[rows], self._remembered_at[rows], self._position[rows] = digest, remembered, position

    def _grow(self) -> None:
        have, want = len(self._digest), len(self._index)
        if want > have:
            more = max(want, 2 * have) - have
            self._digest = np.concatenate([self._digest, np.zeros(more, np.uint64)])
            self._remembered_at = np.concatenate([self._remembered_at, np.zeros(more, np.int64)])
            self._position = np.concatenate([self._position, np.zeros(more, np.int64)])

