"""``tieout generate``: seeded contracts or usage into a folder, with what the flow must count of it."""

import argparse
from pathlib import Path

from flows import generate as seeded
from flows import output, publish
from sinks.ingress import Ingress


def run(options: argparse.Namespace) -> int:
    """Generate and say what was written."""
    root = Path(options.dir)
    if options.what == "contracts":
        rows = write_contracts(root, options.seed, options.customers, options.partitions)
        output.show([{"topic": "contract.version.v1", "written": rows}], options.output)
        return 0
    shares = seeded.Shares(options.duplicate, options.conflict, options.late, options.out_of_order, options.poison)
    expected = write_usage(root, options.seed, options.events, options.customers, options.partitions, shares)
    output.show([{"topic": "usage.event.v1", "written": options.events} | {f"expected {k}": v for k, v in expected.items()}], options.output)
    return 0


def write_contracts(root: Path, seed: int, customers: int, partitions: int) -> int:
    """Contracts of a seed into a folder, once."""
    ingress = Ingress.open(root, partitions)
    try:
        return publish.contracts(ingress, seeded.contracts(seed, customers), partitions, f"generated {seed} {customers}")
    finally:
        ingress.close()


def write_usage(root: Path, seed: int, events: int, customers: int, partitions: int, shares: seeded.Shares) -> dict[str, int]:
    """Usage of a seed into a folder, once; the expected count of each fate."""
    made = seeded.usage(seed, events, customers, shares)
    ingress = Ingress.open(root, partitions)
    try:
        name = f"generated {seed} {events} {customers} {shares}"
        publish.usage(ingress, made.values, made.keys, made.record_time, partitions, name)
    finally:
        ingress.close()
    return made.expected
