"""``python -m tests.chaos --seed S --kills 100 --broker-faults 5``: the whole campaign, what ``make chaos`` runs.

Exit code 1 where anything is not as it has to be; then every break, the seed, and one line that does it again.
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from flows.stack import loopback
from flows.stack.broker import Broker, Listener
from tests.chaos.campaign import Campaign, Plan
from tests.kafka.toxiproxy import Toxiproxy


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
    """Run a plan on a broker of its own, behind proxies of the cells' own where the plan asks for a bad network."""
    with ExitStack() as stack:
        broker, proxies = stack_of(stack, folder, plan.cells + 1, network=plan.network)
        return Campaign(plan, folder, broker, proxies=proxies, told=told).run()


def stack_of(stack, folder, processes, *, network):
    """A broker, and a proxy before it for each process (the cells, and the ticker) where the network is to be bad."""
    proxies, listeners = [], []
    if network:
        server = Toxiproxy(folder / "toxiproxy")
        server.start()
        stack.callback(server.kill)
        ports = loopback.free(2 * processes)
        for number, (behind, before) in enumerate(zip(ports[::2], ports[1::2], strict=True)):
            listeners.append(Listener(f"PROCESS{number}", behind, before))
            proxies.append(server.proxy(f"process-{number}", behind, before))
    broker = Broker(folder / "broker", listeners=listeners)
    broker.start()
    stack.callback(broker.kill)
    return broker, proxies


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
