"""The local engine: one deterministic loop over the partitions, for replays, what-ifs and tests."""

import time

from flows.pipeline import IDLE_SECONDS, Pipeline


def run(pipeline: Pipeline) -> None:
    """Run until every source has ended: a lot of each partition in turn."""
    while open_ := [partition for partition, source in pipeline.sources.items() if not source.ended]:
        idle = True
        for partition in open_:
            lot = pipeline.sources[partition].poll()
            if lot is not None:
                pipeline.cells[partition].take(pipeline.prepare(lot))
                idle = False
        if idle:
            time.sleep(IDLE_SECONDS)
