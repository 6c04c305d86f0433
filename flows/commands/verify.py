"""``tieout verify``: prove what a folder or a broker holds; a break is shown with its interval, exit code 3."""

import argparse

from flows import output
from flows.cli import DIFFERENCES, DONE
from flows.commands import places
from flows.verification import verify


def run(options: argparse.Namespace) -> int:
    """Verify all partitions and print the chain's heads."""
    place = places.place(options)
    rows = [row for partition in range(place.partitions()) if (row := verify(place, partition)) is not None]
    output.show(rows, options.output, "proof by partition; keep the chain's heads elsewhere as evidence")
    return DIFFERENCES if any(row["breaks"] for row in rows) else DONE
