"""``python -m tests.chaos --seed S --kills 100 --broker-faults 5``: the whole campaign, what ``make chaos`` runs.

Exit code 1 where anything is not as it has to be; then every break, the seed, and one line that does it again.
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from flows.stack import loopback
from flows.stack.broker import Broker, Listener
from tests.chaos.campaign import Campaign, Plan
from tests.kafka.relay import Relay
from tests.kafka.toxiproxy import Proxy, Toxiproxy


class Way(NamedTuple):
    """A process's way to the broker: through the relay, then the proxy."""

    relay: Relay
    proxy: Proxy


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="The usage flow on a broker under faults, judged by an oracle of its own.")
    parser.add_argument("--seed", type=int, default=1)
    for name in ("events", "kills", "broker_faults", "zombies", "take_overs", "freezes", "rescales", "unanswered", "full_disks", "tickers", "rows"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=Plan._field_defaults[name])
    parser.add_argument("--folder", type=Path, help="where logs stay (default: a temporary folder, kept where something broke)")
    options = vars(parser.parse_args(arguments))
    folder = options.pop("folder") or Path(tempfile.mkdtemp(prefix="tieout-chaos-"))
    report = campaign(Plan(**options), folder, told=lambda text: print(text, file=sys.stderr, flush=True))
    print(account(report, folder))
    if not report.breaks:
        shutil.rmtree(folder / "broker", ignore_errors=True)
    return 1 if report.breaks else 0


def campaign(plan, folder, told=print):
    """Run a plan on a broker of its own, each process by a way of its own where the plan asks for a bad network."""
    with ExitStack() as stack:
        broker, ways = stack_of(stack, folder, plan.cells + 1, network=plan.network)
        return Campaign(plan, folder, broker, ways=ways, told=told).run()


def stack_of(stack, folder, processes, *, network):
    """A broker, and a way to it for each process (the cells, and the ticker) where the network is to be bad."""
    ways, listeners = [], []
    if network:
        server = Toxiproxy(folder / "toxiproxy")
        server.start()
        stack.callback(server.kill)
        ports = loopback.free(3 * processes)
        for number, (behind, between, before) in enumerate(zip(ports[::3], ports[1::3], ports[2::3], strict=True)):
            listeners.append(Listener(f"PROCESS{number}", behind, before))
            ways.append(Way(Relay(between, before), server.proxy(f"process-{number}", behind, between)))
            stack.callback(ways[-1].relay.close)
    broker = Broker(folder / "broker", listeners=listeners)
    broker.start()
    stack.callback(broker.kill)
    return broker, ways


def account(report, folder):
    lines = [f"seed {report.plan.seed}: {report.kills} kills in {report.seconds:.0f} s; {'exact' if not report.breaks else 'NOT EXACT'}"]
    lines += [f"  hit: {', '.join(f'{what} {count}' for what, count in sorted(report.hits.items()))}"]
    lines += [f"  {', '.join(f'{what} {count}' for what, count in report.figures.items())}"]
    lines += [f"  {found.check}: {found.detail}" for found in report.breaks]
    if report.breaks:
        lines += [f"  logs: {folder}", f"  again: {report.plan.repeat}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
