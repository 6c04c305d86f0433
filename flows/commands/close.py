"""``tieout close``: ask that a billing period is closed; what has closed already is billed again for what came since.

A billing period closes by itself when it is complete, and a request waits for the same. Where a period has closed, the
request bills at once what would wait for the next close: late usage as deltas, and what was taken back, once.
"""

import argparse
import json
import time
from pathlib import Path

from flows import output, signing
from flows.commands import governed, places
from flows.invoicing_inputs import CLOSE, PERIOD
from schemas.registry import Registry
from tieout.governance import Command


def run(options: argparse.Namespace) -> int:
    """Write the request."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        place = places.place(options)
        payload = None if options.contract is None else json.dumps({"contract_id": options.contract})
        command = Command(CLOSE, PERIOD, options.period, governed.author_of(options), time.time_ns() // 1000, options.reason, payload)
        if options.key is not None:
            command = signing.signed(command, signing.load(Path(options.key)))
        with governed.writing(place) as write:
            write(command)
    row = {"close": options.period, "contract": options.contract or "all", "author": command.author, "reason": command.reason, "command_id": command.command_id}
    output.show([row], options.output)
    output.say("it counts when the invoicing flow has read it: at once where one runs, else at the next 'tieout run invoicing'")
    return 0
