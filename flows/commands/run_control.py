"""``tieout run control``: check control totals again and again on a broker until SIGTERM or SIGINT, or once in a folder."""

import argparse
import time

from flows import control, output, rights
from flows.cli import DIFFERENCES, DONE, CommandError
from flows.commands import files, places
from flows.commands.stopping import Stopping
from flows.control import Checked
from flows.file_place import FilePlace
from flows.flow_metrics import FlowMetrics
from schemas.registry import Registry


def run(options: argparse.Namespace) -> int:
    """Check, and say what was found; exit code 3 where something does not tie out."""
    if options.bootstrap is not None:
        return _on_a_broker(options)
    if options.dir is None:
        msg = "run control: say where the topics are, with --dir FOLDER or --bootstrap HOST:PORT"
        raise CommandError(msg, 2)
    root, _ = files.folder(options.dir)
    return _shown(control.once(FilePlace(root)), options)


def _on_a_broker(options: argparse.Namespace) -> int:
    place, metrics = places.broker(options), FlowMetrics(control.NAME, [])
    registry = None if options.registry is None else Registry(options.registry)
    stopping, last = Stopping(metrics), list[Checked]()

    def told(checked: Checked) -> None:
        last[:] = [checked]
        metrics.checked(checked.breaks, time.time())

    def attempt() -> None:
        try:
            with places.pinned(registry, options.schema_lock):
                with place.asking():
                    rights.check(place.admin, place.prefix, place.flow)
                control.keep_checking(place, options.every, (lambda _: True) if options.drain else stopping.stopped, told, metrics.turned)
        finally:
            place.close()

    stopping.keep_going(attempt, options.health_address)
    return _shown(last[0], options) if last else DONE


def _shown(checked: Checked, options: argparse.Namespace) -> int:
    rows = [{"partition": partition, "breaks": breaks} for partition, breaks in sorted(checked.breaks.items())]
    output.show(rows, options.output, "control totals by partition, as of the last check")
    output.say(f"{checked.opened} exceptions opened, {checked.over} are over; 'tieout exception ls' lists those that stand")
    return DIFFERENCES if any(checked.breaks.values()) else DONE
