"""``tieout key``: a key pair to sign commands with; its public half goes into the reference data."""

import argparse
import base64
from pathlib import Path

from flows import output, signing


def run(options: argparse.Namespace) -> int:
    """Make a pair, or show the public half of one."""
    path = Path(options.file)
    public = signing.make(path) if options.what == "make" else signing.public_of(signing.load(path))
    text = base64.b64encode(public).decode()
    output.show([{"key_file": str(path), "public_key": text}], options.output)
    if options.what == "make":
        output.say(f"keep {path} to yourself; put public_key into a reference record of kind 'user' with 'tieout reference put'")
    return 0
