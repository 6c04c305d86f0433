"""The Bytewax engine: the same pipeline as a dataflow; the only file that knows Bytewax.

Source and sink have partitions of equal names, so a partition's lots stay on one worker without an exchange. The fold
and its commit live together in the sink partition; the engine's own recovery stays off, because a sink cannot commit
with it: restarting is what the cells' tokens are for.
"""

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.testing import run_main

from flows.pipeline import Cell, Lot, Pipeline, Prepared, Source


class _In(StatefulSourcePartition[tuple[str, Lot], None]):
    def __init__(self, name: str, source: Source) -> None:
        self._name, self._source = name, source

    def next_batch(self) -> list[tuple[str, Lot]]:
        lot = self._source.poll()
        if lot is None:
            raise StopIteration
        return [(self._name, lot)]

    def snapshot(self) -> None:
        return None


class _Ins(FixedPartitionedSource[tuple[str, Lot], None]):
    def __init__(self, pipeline: Pipeline) -> None:
        self._sources = {str(partition): source for partition, source in pipeline.sources.items()}

    def list_parts(self) -> list[str]:
        return list(self._sources)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _In:  # noqa: ARG002 - the engine's signature
        return _In(for_part, self._sources[for_part])


class _Out(StatefulSinkPartition[Prepared, None]):
    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def write_batch(self, values: list[Prepared]) -> None:
        for prepared in values:
            self._cell.take(prepared)

    def snapshot(self) -> None:
        return None


class _Outs(FixedPartitionedSink[Prepared, None]):
    def __init__(self, pipeline: Pipeline) -> None:
        self._cells = {str(partition): cell for partition, cell in pipeline.cells.items()}

    def list_parts(self) -> list[str]:
        return list(self._cells)

    def part_fn(self, item_key: str) -> int:
        return list(self._cells).index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _Out:  # noqa: ARG002 - the engine's signature
        return _Out(self._cells[for_part])


def run(pipeline: Pipeline) -> None:
    """Run until every source has ended."""
    flow = Dataflow(pipeline.name)
    lots = op.input("read", flow, _Ins(pipeline))
    prepared = op.map_value("decode", lots, pipeline.prepare)
    op.output("fold_and_commit", prepared, _Outs(pipeline))
    run_main(flow)
