"""``tieout close``: ask that a billing period is closed; what has closed already is billed again for what came since.

A billing period closes by itself when it is complete, and a request waits for the same. Where a period has closed, the
request bills at once what would wait for the next close: late usage as deltas, and what was taken back, once. A request that would not
count is not written: the flow's own state says so before (``flows.invoicing_preview``), and the flow looks again when it comes.
"""

import argparse
import json
import re
import time
from typing import Final

from flows import invoicing_preview, output
from flows.cli import CommandError
from flows.commands import governed, places
from flows.invoicing_inputs import CLOSE, PERIOD
from schemas.registry import Registry
from tieout.governance import Command

_LABEL: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?")


def run(options: argparse.Namespace) -> int:
    """Write the request."""
    if not _LABEL.fullmatch(options.period):
        msg = f"close: {options.period!r} names no billing period; name it as in 2026-10, or by its first day as in 2026-10-15"
        raise CommandError(msg, 2)
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        place = places.place(options)
        payload = None if options.contract is None else json.dumps({"contract_id": options.contract})
        command = Command(CLOSE, PERIOD, options.period, governed.author_of(options), time.time_ns() // 1000, options.reason, payload)
        with governed.writing(place) as write:
            command = governed.signed(command, options, place)
            why, more = (None, None) if options.contract is None else invoicing_preview.closing(place, options.contract, options.period)
            if why is not None:
                msg = f"close: this would not count, nothing was written: {why}"
                raise CommandError(msg)
            write(command)
    row = {"close": options.period, "contract": options.contract or "all", "author": command.author, "reason": command.reason, "command_id": command.command_id}
    output.show([row], options.output)
    if more is not None:
        output.say(more)
    output.say("it counts when the invoicing flow has read it: at once where one runs, else at the next 'tieout run invoicing'")
    return 0
