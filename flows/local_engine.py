"""The local engine: one deterministic loop over the partitions, for replays, what-ifs and tests."""

from flows.pipeline import Pipeline


def run(pipeline: Pipeline) -> None:
    """Run until every source has ended: a lot of each partition in turn."""
    open_ = list(pipeline.sources)
    while open_:
        for partition in list(open_):
            lot = pipeline.sources[partition].poll()
            if lot is None:
                open_.remove(partition)
            else:
                pipeline.cells[partition].take(pipeline.prepare(lot))
