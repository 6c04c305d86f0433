"""Identity of usage: each (source, id) counts once within the horizon, and a conflict is told from a duplicate.

In: for each row of a batch its identity (128-bit hash of source and id), its content digest (64 bits), its event
time, the partition's clock at the row (UTC microseconds) and its position. Out: new, duplicate or conflict, row by
row, and the entries to write with the commit.

An id is remembered while ``max(its event time, the clock at its row) >= clock - horizon``; the same id with other
content is a conflict whatever its event time, and the first delivery stands. Source: docs/semantics.md section 2.

Identities lie in parts by the order in which they came. Only the youngest part takes new ones; a part is closed when
it is full or spans a quarter of the horizon, and dropped whole when the horizon has passed all that is in it. A table
is never rehashed. Its memory is bounded by what is remembered (10.7 bytes an identity at a table's capacity, twice
that while a new table is still empty); where the rows themselves lie is the store's business.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout.ids import Lanes
from tieout.seen_part import Hashed, Part, hashed
from tieout.seen_rows import ROW, MemoryRows, Rows, RowStore

I64 = npt.NDArray[np.int64]
NEW: Final = 0
DUPLICATE: Final = 1
CONFLICT: Final = 2
PARTS: Final = 4
"""A part spans at most the horizon divided by this."""
LEAST: Final = 1 << 18
MOST: Final = 1 << 25
"""Identities that a part takes. A table of the most is 358 MB."""
_CHUNK: Final = 1 << 16
_WARM_SLOTS: Final = 16  # for each row entered, from three quarters on: enough for a next part of twice the size


class Entries(NamedTuple):
    """Identities to remember, one row each: key, content digest, the instant it is remembered by, position."""

    keys: Lanes
    digest: npt.NDArray[np.uint64]
    remembered_at: I64
    position: I64

    def slice(self, start: int, end: int) -> "Entries":
        """Some of them."""
        return Entries(self.keys[start:end], self.digest[start:end], self.remembered_at[start:end], self.position[start:end])

    def take(self, rows: I64) -> "Entries":
        """Those of some rows."""
        return Entries(self.keys.take(rows, axis=0), self.digest.take(rows), self.remembered_at.take(rows), self.position.take(rows))

    def rows(self) -> Rows:
        """As rows to store."""
        rows = np.empty(len(self.position), ROW)
        rows["high"], rows["low"] = self.keys[:, 0], self.keys[:, 1]
        rows["digest"], rows["remembered_at"], rows["position"] = self.digest, self.remembered_at, self.position
        return rows


class Verdicts(NamedTuple):
    """One verdict a row; for a conflict or duplicate the position of the delivery that stands."""

    kind: npt.NDArray[np.int8]
    first_position: I64
    entries: Entries


def few(horizon: int, names: Sequence[Hashable], digests: Sequence[int], remembered: Sequence[int], clock: Sequence[int], rows: Sequence[int]) -> list[int]:
    """The same verdicts for the chosen rows of a few events, one by one and by name: a case of a quote has no past and needs no table."""
    met: dict[Hashable, int] = {}
    kinds = []
    for row in rows:
        first = met.get(names[row])
        if first is None or remembered[first] < clock[row] - horizon:
            met[names[row]] = row
            kinds.append(NEW)
        else:
            kinds.append(DUPLICATE if digests[first] == digests[row] else CONFLICT)
    return kinds


class Seen:
    """The identities of one partition within the horizon; what the store holds already is remembered."""

    def __init__(self, horizon: int, store: RowStore | None = None, *, least: int = LEAST, most: int = MOST) -> None:
        """``least`` and ``most``: the identities that a part takes."""
        self.horizon, self._least, self._most = horizon, least, most
        self._store = MemoryRows() if store is None else store
        held, start = self._store.end - self._store.first, self._store.first
        self._parts: list[Part] = []
        for table in self._store.tables():
            part = Part.of(table)
            if part is None:
                break
            self._parts.append(part)
            start = int(table.facts[2])
        self._parts.append(Part(min(max(held // PARTS, least), most)))
        self._next: Part | None = None
        for number, rows in self._store.scan(start):
            keys = np.stack([rows["high"], rows["low"]], axis=1)
            self._enter(hashed(keys), number, rows["remembered_at"])

    def __len__(self) -> int:
        """Identities held, of which some may be forgotten already."""
        return sum(part.count for part in self._parts)

    def judge(self, keys: Lanes, digest: npt.NDArray[np.uint64], time: I64, clock: I64, position: I64) -> Verdicts:
        """Tell new rows from duplicates and conflicts, in row order, and remember the new ones.

        Two arrays of instants: ``time`` is each row's event time, ``clock`` the partition's clock at it (never falls).
        """
        remembered = np.maximum(time, clock)
        given = Entries(keys, digest, remembered, position)
        batch = hashed(keys)
        again, earlier = _repeats(keys, batch)
        known, stored = self._find(keys, batch)
        kind, first, forgotten = np.full(len(keys), NEW, np.int8), position.copy(), np.zeros(len(keys), np.bool_)
        for rows, stands in ((again, given.take(earlier).rows()), (known, stored)):  # what is stored stands before what the batch has
            kind[rows] = np.where(stands["digest"] == digest[rows], DUPLICATE, CONFLICT)
            first[rows] = stands["position"]
            forgotten[rows] = stands["remembered_at"] < clock[rows] - self.horizon
        if forgotten.any():
            chosen = np.isin(batch.spread, batch.spread[forgotten[batch.order]])
            held = dict(zip(known.tolist(), stored, strict=True))
            self._judge_forgotten(np.sort(batch.order[chosen]), held, given, clock, kind, first)
        new = kind == NEW
        entries = given.take(np.flatnonzero(new))
        self._remember(entries, batch.of(new), np.cumsum(new) - 1)
        return Verdicts(kind, first, entries)

    def _judge_forgotten(self, rows: I64, held: Mapping[int, np.void], given: Entries, clock: I64, kind: npt.NDArray[np.int8], position: I64) -> None:
        """All rows of ids that were forgotten before one of them: seldom, so one by one in row order."""
        own = given.rows()
        met: dict[bytes, np.void] = {}
        for row in rows.tolist():
            name = given.keys[row].tobytes()
            if row in held:
                met.setdefault(name, held[row])
            first = met.get(name)
            if first is None or first["remembered_at"] < clock[row] - self.horizon:
                first = met[name] = own[row]
                kind[row] = NEW
            else:
                kind[row] = DUPLICATE if first["digest"] == own[row]["digest"] else CONFLICT
            position[row] = first["position"]

    def restore(self, entries: Entries) -> None:
        """Remember what earlier commits wrote; of several entries of a key the last counts."""
        for at in range(0, len(entries.position), _CHUNK):
            some = entries.slice(at, at + _CHUNK)
            self._remember(some, hashed(some.keys), np.arange(len(some.position)))

    def sweep(self, clock: int) -> None:
        """Drop the parts that the horizon has passed."""
        alive = [part for part in self._parts if not part.count or part.newest >= clock - self.horizon]
        if len(alive) < len(self._parts):
            if self._parts[-1] not in alive:
                alive.append(Part(self._least))  # the others take no more
            self._store.drop_before(alive[0].first if alive[0].count else self._store.end)
            self._parts = alive

    def _find(self, keys: Lanes, batch: Hashed) -> tuple[I64, Rows]:
        """The rows of the batch whose id is held, and what is held for each: its last entry."""
        pairs = [part.candidates(batch) for part in self._parts]
        numbers = np.concatenate([numbers for _, numbers in pairs])
        if not len(numbers):
            return numbers, np.empty(0, ROW)
        ascending = np.argsort(numbers)
        rows = batch.order[np.concatenate([places for places, _ in pairs])[ascending]]
        held = self._store.take(numbers[ascending])
        right = (held["high"] == keys[rows, 0]) & (held["low"] == keys[rows, 1])
        rows, held = rows[right], held[right]
        last = np.full(len(keys), -1)
        np.maximum.at(last, rows, np.arange(len(rows)))
        known = np.flatnonzero(last >= 0)
        return known, held[last[known]]

    def _remember(self, entries: Entries, batch: Hashed, place: I64) -> None:
        """Store entries and enter them; ``place`` is that of each row of the batch among them."""
        if len(entries.position):
            number = self._store.append(entries.rows())
            self._enter(Hashed(place[batch.order], batch.spread, batch.prints), number, entries.remembered_at)

    def _enter(self, batch: Hashed, number: int, remembered_at: I64) -> None:
        at = int(remembered_at.min())  # close to the clock: few events come from the future
        part = self._part_for(len(remembered_at), number, at)
        part.enter(batch, number + batch.order)
        part.newest = max(part.newest, int(remembered_at.max()))

    def _part_for(self, rows: int, number: int, at: int) -> Part:
        """The youngest part, a new one where it is full or old; the next is made ready in time."""
        part = self._parts[-1]
        span = max(self.horizon // PARTS, 1)
        if part.count and (part.count + rows > part.capacity or at - part.opened_at >= span):
            self._store.keep(part.table(number))
            ready, self._next = self._next, None
            part = Part(max(self._wanted(part, at, span), rows)) if ready is None or ready.capacity < rows else ready
            self._parts.append(part)
        elif rows > part.capacity:
            part = self._parts[-1] = Part(rows)
        if not part.count:
            part.open(number, at)
        elif self._next is not None:
            self._next.warm(_WARM_SLOTS * rows)
        elif 4 * part.count >= 3 * part.capacity or 4 * (at - part.opened_at) >= 3 * span:
            self._next = Part(self._wanted(part, at, span))
        return part

    def _wanted(self, part: Part, at: int, span: int) -> int:
        """What the next part should take: the rows of one span at this part's rate and a quarter more, at most twice its own."""
        expected = 5 * part.count * span // (4 * max(at - part.opened_at, 1))
        return min(max(expected, self._least), 2 * part.capacity, self._most)


def _repeats(keys: Lanes, batch: Hashed) -> tuple[I64, I64]:
    """The rows whose identity has come in the batch before, and for each the first row with it."""
    alike = batch.spread[1:] == batch.spread[:-1]
    if not alike.any():
        return batch.order[:0], batch.order[:0]
    either = np.concatenate([[False], alike]) | np.concatenate([alike, [False]])
    rows = batch.order[either]
    rows = rows[np.lexsort((rows, keys[rows, 1], keys[rows, 0]))]
    fresh = np.concatenate([[True], (keys[rows[1:]] != keys[rows[:-1]]).any(axis=1)])
    first = rows[np.maximum.accumulate(np.where(fresh, np.arange(len(rows)), 0))]
    return rows[~fresh], first[~fresh]
