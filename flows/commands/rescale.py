"""``tieout rescale``: begin the next generation of a flow's cells, with another number of them."""

import argparse

from flows import output, topics
from flows.cells import Share
from flows.commands import places
from flows.commands.run_kafka import FLOWS
from flows.rescale import rescale


def run(options: argparse.Namespace) -> int:
    """Fence all partitions, tell them the new generation, and say how to start its cells."""
    place = places.broker(options)
    partitions = 1 if options.flow in topics.WHOLE_FLOWS else place.partitions(FLOWS[options.flow].topic)
    shares = [Share(ordinal, options.cells).partitions(partitions) for ordinal in range(options.cells)]
    generation = rescale(place, options.flow, partitions, options.cells)
    rows = [
        {"cell": ordinal, "partitions": " ".join(map(str, mine)), "start with": f"tieout run {options.flow} --cells {options.cells} --cell {ordinal} --generation {generation}"}
        for ordinal, mine in enumerate(shares)
    ]
    output.show(rows, options.output, f"generation {generation}; older cells have ended and may not start again")
    place.close()
    return 0
