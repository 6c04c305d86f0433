"""``tieout reject``: reject a proposed contract version, or take one's own back; signed."""

import argparse

from flows.commands import sending


def run(options: argparse.Namespace) -> int:
    """Reject the open proposal of a version."""
    return sending.decide(options)
