"""The Bytewax engine: the same pipeline as a dataflow; the only file that knows Bytewax.

Source and sink have partitions of equal names, so a partition's lots stay on one worker without an exchange. The fold
and its commit live together in the sink partition; the engine's own recovery stays off, because a sink cannot commit
with it: restarting is what the cells' tokens are for.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import run_main

from flows.pipeline import IDLE_SECONDS, Cell, Pipeline, Prepared, Source
from sources.lot import Lot

IDLE: Final = timedelta(seconds=IDLE_SECONDS)


class _Run:
    """What one run shares: the first failure, after which nothing is read or committed any more, and whose turn it is.

    An exception that crosses the engine ends the process with the engine's own words; this way the caller sees it.

    One lot is on its way at a time, as in the local loop: the engine would read a lot of every partition before it
    commits the first, and memory that is used again soon is cheaper than more of it. Sources that were put off take turns.
    """

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.under_way = False
        self._put_off: dict[str, None] = {}

    def may_read(self, name: str) -> bool:
        """Whether a source may read now; one that may not is the next but those that were put off before it."""
        if self.under_way or next(iter(self._put_off), name) != name:
            self._put_off.setdefault(name)
            return False
        self._put_off.pop(name, None)
        return True

    def leave(self, name: str) -> None:
        """A source that has ended takes no turn."""
        self._put_off.pop(name, None)


class _In(StatefulSourcePartition[tuple[str, Lot], None]):
    def __init__(self, run: _Run, name: str, source: Source) -> None:
        self._run, self._name, self._source = run, name, source
        self._idle = False

    def next_batch(self) -> list[tuple[str, Lot]]:
        if self._run.failure is not None or self._source.ended:
            self._run.leave(self._name)
            raise StopIteration
        lot = None
        reads = self._run.may_read(self._name)
        if reads:
            try:
                lot = self._source.poll()
            except BaseException as failure:  # noqa: BLE001 - raised again by run
                self._run.failure = failure
        self._idle = reads and lot is None
        self._run.under_way |= lot is not None
        return [] if lot is None else [(self._name, lot)]

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE if self._idle else None

    def snapshot(self) -> None:
        return None


class _Ins(FixedPartitionedSource[tuple[str, Lot], None]):
    def __init__(self, run: _Run, pipeline: Pipeline) -> None:
        self._run = run
        self._sources = {str(partition): source for partition, source in pipeline.sources.items()}

    def list_parts(self) -> list[str]:
        return list(self._sources)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _In:  # noqa: ARG002 - the engine's signature
        return _In(self._run, for_part, self._sources[for_part])


class _Out(StatefulSinkPartition[Prepared, None]):
    def __init__(self, run: _Run, cell: Cell) -> None:
        self._run, self._cell = run, cell

    def write_batch(self, values: list[Prepared]) -> None:
        for prepared in values:
            if self._run.failure is None:
                try:
                    self._cell.take(prepared)
                except BaseException as failure:  # noqa: BLE001 - raised again by run
                    self._run.failure = failure
            self._run.under_way = False

    def snapshot(self) -> None:
        return None


class _Outs(FixedPartitionedSink[Prepared, None]):
    def __init__(self, run: _Run, pipeline: Pipeline) -> None:
        self._run = run
        self._cells = {str(partition): cell for partition, cell in pipeline.cells.items()}

    def list_parts(self) -> list[str]:
        return list(self._cells)

    def part_fn(self, item_key: str) -> int:
        return sorted(self._cells).index(item_key)  # the engine sorts the names by itself, as texts

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Out:  # noqa: ARG002 - the engine's signature
        return _Out(self._run, self._cells[for_part])


def run(pipeline: Pipeline) -> None:
    """Run until every source has ended; raises what a source or cell raised."""
    shared = _Run()
    flow = Dataflow(pipeline.name)
    lots = op.input("read", flow, _Ins(shared, pipeline))
    prepared = op.map_value("decode", lots, pipeline.prepare)
    op.output("fold_and_commit", prepared, _Outs(shared, pipeline))
    run_main(flow)
    if shared.failure is not None:
        raise shared.failure
