"""What both engines keep: one lot on its way, every partition its turn, the first failure ends the run."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest

from flows import bytewax_engine, local_engine
from flows.pipeline import Pipeline, Prepared
from schemas import segments
from sources.lot import Lot

ENGINES = [local_engine, bytewax_engine]
EMPTY = pa.RecordBatch.from_pylist([], schema=segments.RECORDS)


@dataclass
class Told:
    """What happened, in its order."""

    steps: list = field(default_factory=list)


@dataclass
class Partition:
    """A source of so many lots, which has none at every ``idle``-th look, and its cell."""

    name: int
    lots: int
    told: Told
    idle: int = 0
    breaks_at: int = -1
    looks: int = 0
    given: int = 0

    @property
    def ended(self):
        return self.given == self.lots

    def poll(self):
        self.looks += 1
        if self.idle and self.looks % self.idle:
            return None
        self.given += 1
        self.told.steps.append(("read", self.name, self.given))
        return Lot(np.empty(0, np.int64), EMPTY, self.given)

    def take(self, prepared):
        if prepared.lot.end == self.breaks_at:
            raise ZeroDivisionError
        self.told.steps.append(("commit", self.name, prepared.lot.end))


def run(engine, partitions):
    by_name = {partition.name: partition for partition in partitions}
    engine.run(Pipeline("test", by_name, by_name, lambda lot: Prepared(lot, None)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lot_is_committed_before_the_next_is_read_of_whichever_partition(engine):
    told = Told()
    run(engine, [Partition(0, 7, told), Partition(3, 5, told, idle=3), Partition(11, 9, told)])
    reads, commits = told.steps[::2], told.steps[1::2]
    assert [step for step, *_ in reads] == ["read"] * 21
    assert [("commit", *rest) for _, *rest in reads] == commits


@pytest.mark.parametrize("engine", ENGINES)
def test_a_partition_that_always_has_input_leaves_the_others_their_turn(engine):
    told = Told()
    run(engine, [Partition(number, 20, told) for number in (0, 1, 10, 2)])
    reads = [name for step, name, _ in told.steps if step == "read"]
    assert all(set(reads[at : at + 4]) == {0, 1, 2, 10} for at in range(0, 80, 4))


@pytest.mark.parametrize("engine", ENGINES)
def test_after_a_failure_nothing_is_read_or_committed(engine):
    told = Told()
    with pytest.raises(ZeroDivisionError):
        run(engine, [Partition(0, 20, told), Partition(1, 20, told, breaks_at=3), Partition(2, 20, told)])
    assert ("read", 1, 3) == told.steps[-1]
    assert ("commit", 1, 2) in told.steps
