"""The rated topic as sorted runs: where an event is priced now, for corrections; a customer's events by time, for re-pricing.

In: one partition of the rated topic. Out: what is known of events that are named, and slices of a customer's events
between two times, an event's records together. A run holds the records of a stretch of the topic (carries left out,
they say nothing of an event) sorted by customer, event time and identity; all but the youngest lie in temporary files
that are mapped into memory and let go after each question, so memory does not grow with the topic. Nothing is read
before somebody asks: it is a cache of what is committed, never the truth.

A slice ends at a (time, identity) that depends on the records alone, not on how they lie in runs, so a replay that
looks at as many intervals' slices makes the same records.
"""

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs
from flows.pipeline import Reader
from schemas import catalog
from sources.lot import Lot
from tieout import ids
from tieout.ids import EventKey
from tieout.rating.history import Known, known
from tieout.repricing_jobs import Job, Jobs, Slice
from tieout.usage import identities

I64 = npt.NDArray[np.int64]
GROWS_BY: Final = 200_000
"""Records read in an interval while jobs wait for the runs to reach the topic's end."""
SLICE_ROWS: Final = 25_000
"""Records looked at in an interval, all jobs together."""
MEMORY_ROWS: Final = 250_000
"""Records in runs that lie in memory."""
_SLICES: Final = 1000
_ROWS: Final = 50_000
_BLOCK: Final = 1024
_LAST: Final = 2**64 - 1
_VALUES: Final = pa.schema([("value", pa.large_binary())])


class Place(NamedTuple):
    """Where a job stands among its customer's records: those at or after this come next."""

    time: int
    identity: int

    @property
    def following(self) -> "Place":
        """The first place after this one."""
        return Place(self.time, self.identity + 1) if self.identity < _LAST else Place(self.time + 1, 0)


class Run:
    """Records sorted by customer, time, identity, then position."""

    def __init__(self, keys: pa.RecordBatch, values: pa.ipc.RecordBatchFileReader, maps: Sequence[mmap.mmap] = ()) -> None:
        self.customer, self.time, self.identity, self.position, self.identities, self.by_identity = (column.to_numpy() for column in keys.columns)
        self._customers, self._times = _marks(self.customer), _marks(self.time)
        self._values, self._maps = values, maps

    @classmethod
    def of(cls, keys: pa.RecordBatch, values: pa.Array) -> "Run":
        """A run in memory; ``keys`` are customer, time, identity and position, in any order."""
        laid, order = _laid(keys)
        return cls(laid, pa.ipc.open_file(_written(pa.BufferOutputStream(), [values.take(pa.array(order))]).getvalue()))

    @classmethod
    def joined(cls, runs: "Sequence[Run]") -> "Run":
        """Runs put together in files."""
        keys = pa.RecordBatch.from_arrays([pa.array(np.concatenate([getattr(run, name) for run in runs])) for name in _KEYS], names=list(_KEYS))
        laid, order = _laid(keys)
        values = pa.concat_arrays([run.values(0, len(run)) for run in runs])
        with tempfile.TemporaryFile() as key_file, tempfile.TemporaryFile() as value_file:
            with pa.ipc.new_file(key_file, laid.schema) as writer:
                writer.write_batch(laid)
            _written(value_file, (values.take(pa.array(order[at : at + _BLOCK])) for at in range(0, len(order), _BLOCK))).flush()
            key_file.flush()
            maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in (key_file, value_file)]  # they outlive the files' names
        opened = [pa.ipc.open_file(pa.py_buffer(mapped)) for mapped in maps]
        return cls(opened[0].get_batch(0), opened[1], maps)

    def __len__(self) -> int:
        return len(self.time)

    def let_go(self) -> None:
        """Give the memory of the mapped files back; what is asked for later is there again."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def values(self, start: int, end: int) -> pa.Array:
        """The records of some rows."""
        parts = [
            self._values.get_batch(block)["value"].slice(max(start - block * _BLOCK, 0), min(end - block * _BLOCK, _BLOCK) - max(start - block * _BLOCK, 0))
            for block in range(start // _BLOCK, -(-end // _BLOCK))
        ]
        return pa.concat_arrays(parts) if parts else pa.array([], pa.large_binary())

    def after(self, customer: np.uint64, place: Place, end_us: int) -> tuple[int, int]:
        """The rows of a customer from a place on, before a time."""
        first, last = (_search(self.customer, self._customers, 0, len(self), customer, side) for side in _SIDES)
        return self._row(first, last, place), _search(self.time, self._times, first, last, end_us, "left")

    def _row(self, first: int, last: int, place: Place) -> int:
        """The first row at or after a place, of a customer's rows."""
        start, end = (_search(self.time, self._times, first, last, place.time, side) for side in _SIDES)
        return start + int(np.searchsorted(self.identity[start:end], np.uint64(place.identity)))

    def until(self, start: int, end: int, place: Place) -> int:
        """The end of the rows at or before a place, of a customer's rows."""
        return self._row(start, end, place.following)

    def of_identities(self, identity: npt.NDArray[np.uint64]) -> list[int]:
        """The rows of events."""
        first, last = (np.searchsorted(self.identities, identity, side) for side in ("left", "right"))
        return [int(row) for start, end in zip(first.tolist(), last.tolist(), strict=True) for row in self.by_identity[start:end]]


_KEYS: Final = ("customer", "time", "identity", "position")
_Side = Literal["left", "right"]
_SIDES: Final[tuple[_Side, _Side]] = ("left", "right")


def _marks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every so many-th value, in memory: halving a mapped column would touch a page of it at each step."""
    return values[::_BLOCK].copy()


def _search(values: npt.NDArray[Any], marks: npt.NDArray[Any], first: int, last: int, wanted: int | np.uint64, side: _Side) -> int:
    """The place of a value among those from ``first`` to ``last``, which are sorted; one block of them is touched."""
    low, high = -(-first // _BLOCK), -(-last // _BLOCK)
    block = low + int(np.searchsorted(marks[low:high], wanted, side))
    start = max(first, (block - 1) * _BLOCK)
    return start + int(np.searchsorted(values[start : min(last, block * _BLOCK)], wanted, side))


def _laid(keys: pa.RecordBatch) -> tuple[pa.RecordBatch, I64]:
    """Keys in a run's order, with their identities sorted beside and the row of each; and the order itself."""
    customer, time, identity, position = (column.to_numpy() for column in keys.columns)
    order = np.lexsort((position, identity, time, customer))
    by_identity = np.argsort(identity[order], kind="stable")
    found = keys.take(pa.array(order)).append_column("identities", pa.array(identity[order][by_identity]))
    return found.append_column("by_identity", pa.array(by_identity.astype(np.uint32))), order


def _written(sink: Any, values: Iterable[pa.Array]) -> Any:
    """Values as an Arrow file of compressed blocks."""
    with pa.ipc.new_file(sink, _VALUES, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for part in values:
            for at in range(0, len(part), _BLOCK):
                writer.write_batch(pa.record_batch([part.slice(at, _BLOCK)], schema=_VALUES))
    return sink


@dataclass(slots=True)
class RatedRuns:
    """The runs of one partition of the rated topic; they grow with it when somebody asks."""

    reader: Reader
    _position: int = -1
    _runs: list[Run] = field(default_factory=list)
    _young: list[Run] = field(default_factory=list)

    def find(self, wanted: Iterable[tuple[str, EventKey]]) -> Mapping[tuple[str, EventKey], Known]:
        """What is known of events."""
        names = set(wanted)
        self._grow(None)
        keys = identities(pa.array([key.source for _, key in names]), pa.array([key.event_id for _, key in names]))[:, 0]
        values, order = [], []
        for run in self._all():
            for row in run.of_identities(keys):
                values.append(run.values(row, row + 1))
                order.append(int(run.position[row]))
        self._let_go()
        if not values:
            return {}
        rows = _decoded(pa.concat_arrays(values).take(pa.array(np.argsort(order))))
        return {name: found for found in known(rows) if (name := (found.event.customer_id, found.event.key)) in names}

    def slices(self, jobs: Jobs) -> list[Slice]:
        """What the first jobs look at now; nothing while the runs do not reach the topic's end."""
        if not jobs.queue or not self._grow(GROWS_BY):
            return []
        found: list[Slice] = []
        left = SLICE_ROWS
        for job in islice(jobs.due(), _SLICES):
            if left <= 0:
                break
            part = self._slice(job, left)
            found.append(part)
            left -= part.rows.num_rows
        self._let_go()
        return found

    def _slice(self, job: Job, limit: int) -> Slice:
        """A job's next events, at least one and about so many records."""
        customer = ids.of_strings(pa.array([job.customer_id]))[0, 0]
        place = Place(job.time, job.identity)
        spans = [(run, *run.after(customer, place, job.end_us)) for run in self._all()]
        spans = [span for span in spans if span[1] < span[2]]
        if not spans:
            return Slice(job, _nothing(), None)
        last = None
        if sum(end - start for _, start, end in spans) > limit:
            time = np.concatenate([run.time[start : min(end, start + limit)] for run, start, end in spans])
            identity = np.concatenate([run.identity[start : min(end, start + limit)] for run, start, end in spans])
            at = np.lexsort((identity, time))[limit - 1]
            last = Place(int(time[at]), int(identity[at]))
            spans = [(run, start, run.until(start, end, last)) for run, start, end in spans]
        keys = [np.concatenate([getattr(run, name)[start:end] for run, start, end in spans]) for name in ("position", "identity", "time")]
        values = pa.concat_arrays([run.values(start, end) for run, start, end in spans]).take(pa.array(np.lexsort(keys)))
        rows = _decoded(values)
        rows = rows.filter(pc.equal(rows["customer_id"], job.customer_id))
        return Slice(job, rows, None if last is None else last.following)

    def _let_go(self) -> None:
        for run in self._runs:
            run.let_go()

    def _all(self) -> Iterator[Run]:
        yield from self._runs
        yield from self._young

    def _grow(self, limit: int | None) -> bool:
        """Read on, so many records at most; whether the topic's end is reached."""
        end, read = self.reader.refresh(), 0
        self._position = max(self._position, self.reader.start)
        while self._position < end:
            if limit is not None and read >= limit:
                return False
            lot = self.reader.lot(self._position, _ROWS)
            self._take(lot)
            self._position, read = lot.end, read + len(lot.positions)
        return True

    def _take(self, lot: Lot) -> None:
        batch = codecs.own("rated_usage").decode(lot.records["value"]).batch
        kept = np.nonzero(pc.not_equal(batch["cause"].field("kind").cast(pa.string()), "carry").to_numpy(zero_copy_only=False))[0]
        if not len(kept):
            return
        usage = batch["usage"]
        keys = [
            ids.of_strings(pc.dictionary_encode(batch["customer_id"]))[:, 0], batch["time"].cast(pa.int64()).to_numpy(),
            identities(usage.field("source"), usage.field("id"))[:, 0], lot.positions,
        ]
        columns = pa.RecordBatch.from_arrays([pa.array(column[kept]) for column in keys], names=list(_KEYS))
        self._young.append(Run.of(columns, lot.records["value"].take(pa.array(kept))))
        if sum(map(len, self._young)) >= MEMORY_ROWS:
            self._runs.append(Run.joined(self._young))
            self._young = []


def _decoded(values: pa.Array) -> pa.RecordBatch:
    return codecs.own("rated_usage").decode(values).batch


def _nothing() -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=catalog.arrow_schema("rated_usage"))
