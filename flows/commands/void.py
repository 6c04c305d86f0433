"""``tieout void``: take an invoice back as a whole."""

import argparse

from flows.commands import taking_back


def run(options: argparse.Namespace) -> int:
    """Write the request."""
    return taking_back.ask(options)
