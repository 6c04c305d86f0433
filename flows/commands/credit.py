"""``tieout credit``: take lines of an invoice back, or amounts off them."""

import argparse

from flows.commands import taking_back


def run(options: argparse.Namespace) -> int:
    """Write the request."""
    return taking_back.ask(options)
