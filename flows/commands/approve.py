"""``tieout approve``: approve a proposed contract version; signed, and never one's own."""

import argparse

from flows.commands import sending


def run(options: argparse.Namespace) -> int:
    """Approve the open proposal of a version."""
    return sending.decide(options)
