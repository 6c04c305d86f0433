"""The command line: what it takes, which module answers, and which exit code a failure has.

Exit codes: 0 done, 1 error, 2 usage, 3 differences found, 4 gap in retention. A command's module is loaded only when
it is asked for, so that ``tieout --help`` costs nothing; this is the one place where a module is loaded by name.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from flows import machine

DONE: Final = 0
ERROR: Final = 1
DIFFERENCES: Final = 3
GAP: Final = 4
FLOWS: Final = ("contract", "document", "invoicing", "route", "usage")
REJECTING: Final = ("contract", "route", "usage")
"""Flows that leave aside what they cannot read."""


class CommandError(Exception):
    """A command that cannot go on: the message says what, where and what to do."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message)
        self.code = code


def parser() -> argparse.ArgumentParser:
    """All commands with their options and an example each."""
    root = argparse.ArgumentParser(prog="tieout", description="From the usage event to exact, provable money.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(commands)
    _dev(commands)
    _run(commands)
    _generate(commands)
    _import(commands)
    _quote(commands)
    _invoice(commands)
    _document(commands)
    _explain(commands)
    _topic(commands)
    _verify(commands)
    _replay(commands)
    _rescale(commands)
    _schema(commands)
    _dlq(commands)
    _exception(commands)
    _release(commands)
    _close(commands)
    _void(commands)
    _credit(commands)
    _reference(commands)
    _contract(commands)
    _decision(commands, "approve", "approve a proposed contract version; never one's own", "'checked with sales'")
    _decision(commands, "reject", "reject a proposed contract version, or take one's own back", "'the price is last year'")
    _key(commands)
    return root


Commands = Any
"""What ``add_subparsers`` gives; argparse does not name its type."""


def _add(commands: Commands, name: str, text: str, example: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.add_argument("--output", choices=("table", "json", "ndjson"), default="table", help="how to print (default: table)")
    return added


def _dir(command: argparse.ArgumentParser, default: str | None = None) -> None:
    command.add_argument("--dir", required=default is None, default=default, help="the folder of topics")


def _place(command: argparse.ArgumentParser) -> None:
    """Where topics are: a folder or a broker."""
    command.add_argument("--dir", help="the folder of topics")
    command.add_argument("--bootstrap", metavar="HOST:PORT", help="the broker, instead of a folder")
    command.add_argument("--client-config", metavar="FILE", help="the broker client's settings (TLS, SASL), name=value lines")
    command.add_argument("--installation", default="tieout", help="the name of transactions and of the consumer group (default: tieout)")
    command.add_argument("--topic-prefix", default="", help="stands before the name of every topic (default: none)")


def _registry(command: argparse.ArgumentParser) -> None:
    """Where schemas and their ids come from on a broker."""
    command.add_argument("--registry", metavar="URL", help="the schema registry: writers' schemas come from it, and the lock file pins our own ids (broker)")
    command.add_argument("--schema-lock", metavar="FILE", default="schema-lock.json", help="the lock file of 'tieout schema lock' (broker with registry; default: schema-lock.json)")


def _demo(commands: Commands) -> None:
    demo = _add(commands, "demo", "run the chain on seeded telemetry, with an HTML report", "tieout demo --dir build/demo")
    _dir(demo, "tieout-demo")
    demo.add_argument("--events", type=int, default=200_000, help="usage events to make (default: 200000)")
    demo.add_argument("--seed", type=int, default=1, help="seed of the telemetry (default: 1)")


def _dev(commands: Commands) -> None:
    dev = _add(commands, "dev", "start broker, schema registry, all flows but the route, the ticker and a seeded load, until Ctrl-C", "tieout dev --rate 1000")
    dev.add_argument("--dir", default="tieout-dev", help="the folder of data and logs (default: tieout-dev)")
    dev.add_argument("--rate", type=int, default=500, help="usage events a second (default: 500)")
    dev.add_argument("--customers", type=int, default=200, help="customers (default: 200)")
    dev.add_argument("--seed", type=int, default=1, help="seed of contracts and usage (default: 1)")
    dev.add_argument("--partitions", type=int, default=4, help="partitions of new topics (default: 4)")


def _run(commands: Commands) -> None:
    run = _add(commands, "run", "run one flow: over a folder until its input is read, or as a cell on a broker", "tieout run usage --dir data")
    run.add_argument("flow", choices=(*FLOWS, "ticker", "control"), help="the flow; the ticker writes a tick each minute, into a folder one; the control checks that all ties out")
    _place(run)
    run.add_argument("--engine", choices=("bytewax", "local"), default="bytewax", help="what runs it (default: bytewax)")
    run.add_argument("--report", metavar="FILE", help="write an HTML report with pictures (folder)")
    run.add_argument("--cells", type=int, default=1, help="how many cells share the partitions (broker; default: 1)")
    run.add_argument("--cell", type=int, default=0, help="which of them this process is, from 0 (broker; default: 0)")
    run.add_argument("--generation", type=int, help="the deployment's number; an older one than the broker knows is refused (broker)")
    run.add_argument("--rows", type=int, default=25_000, help="records of an interval at most (broker; default: 25000)")
    run.add_argument("--seconds", type=float, default=0.5, help="seconds of an interval at most (broker; default: 0.5)")
    run.add_argument("--every", type=float, default=3600.0, metavar="SECONDS", help="how long the control rests between two checks (broker; default: 3600)")
    run.add_argument("--drain", action="store_true", help="end where the input ends now instead of waiting for more (broker)")
    _registry(run)
    run.add_argument("--health-address", metavar="HOST:PORT", help="serve /live, /ready, /health and /metrics there (broker)")
    run.add_argument("--cache", metavar="DIR", help="where files lie that spare a restart some reading; never the truth (broker)")


def _generate(commands: Commands) -> None:
    generate = _add(commands, "generate", "write seeded contracts or usage into a folder", "tieout generate usage --dir data --events 100000 --seed 7")
    generate.add_argument("what", choices=("usage", "contracts"), help="what to make")
    _dir(generate)
    generate.add_argument("--events", type=int, default=100_000, help="usage events (default: 100000)")
    generate.add_argument("--customers", type=int, default=200, help="customers (default: 200)")
    generate.add_argument("--seed", type=int, default=1, help="the same seed gives the same records (default: 1)")
    generate.add_argument("--partitions", type=int, default=4, help="partitions of a new folder (default: 4)")
    shares = {"duplicate": 0.02, "conflict": 0.001, "late": 0.0005, "out-of-order": 0.05, "poison": 0.0005}
    for name, share in shares.items():
        generate.add_argument(f"--{name}", type=float, default=share, help=f"share of such events (default: {share})")


def _import(commands: Commands) -> None:
    import_ = _add(
        commands, "import", "bring usage or contracts from a file into a folder or a broker",
        "tieout import csv requests.csv --dir data --map time=TIMESTAMP --map customer_id=:code --map meter=:tokens_in --map quantity=ContextTokens",
    )
    import_.add_argument("format", choices=("csv", "jsonl", "parquet", "contracts"), help="the file's format; contracts is JSON")
    import_.add_argument("file", help="the file (.gz too)")
    _place(import_)
    import_.add_argument(
        "--map", action="append", default=[], metavar="FIELD=COLUMN",
        help="a usage field from a column, or from a fixed text with ':' in front; attributes.NAME=COLUMN too; repeat it",
    )
    import_.add_argument("--partitions", type=int, default=4, help="partitions of a new folder (default: 4)")


def _quote(commands: Commands) -> None:
    quote = _add(commands, "quote", "price usage against contracts offline", "tieout quote --contract contract.json --usage usage.jsonl")
    quote.add_argument("--contract", metavar="FILE", help="a contract version, or a list of them, as JSON")
    quote.add_argument("--usage", metavar="FILE", help="usage events as JSON lines")
    quote.add_argument("--batch", metavar="FILE", help="cases as JSON lines, answers as JSON lines; - for standard input")
    quote.add_argument("--as-of", metavar="TIME", help="the moment of knowledge and of period close")


def _invoice(commands: Commands) -> None:
    invoice = _add(commands, "invoice", "the invoices that a billing period's close would make, offline", "tieout invoice --contract contract.json --usage usage.jsonl --period 2026-10")
    invoice.add_argument("--contract", metavar="FILE", help="a contract version, or a list of them, as JSON")
    invoice.add_argument("--usage", metavar="FILE", help="usage events as JSON lines")
    invoice.add_argument("--period", metavar="PERIOD", help="the billing period that closes: 2026-10, or its first day")
    invoice.add_argument("--reference", metavar="FILE", help="customers, products and tax rates as JSON lines: taxes and payment terms; without it no tax is made")
    invoice.add_argument("--batch", metavar="FILE", help="cases as JSON lines, answers as JSON lines; - for standard input")
    invoice.add_argument("--statement", action="store_true", help="also the statement of each customer over its contracts and legal entities, by currency")
    invoice.add_argument("--html", metavar="FILE", help="also write the documents as a page to print")


def _document(commands: Commands) -> None:
    document = _add(commands, "document", "list numbered invoices and credit notes, or show one whole", "tieout document show us-inc-00000017 --dir data --html invoice.html")
    document.add_argument("what", choices=("ls", "show"), help="list them; show one")
    document.add_argument("number", nargs="?", metavar="NUMBER", help="the document's number (show)")
    _place(document)
    _registry(document)
    document.add_argument("--html", metavar="FILE", help="also write it as a page to print (show)")


def _explain(commands: Commands) -> None:
    explain = _add(commands, "explain", "derive a rated record, an event or a line of an invoice", "tieout explain evt-1 --dir data")
    explain.add_argument("id", help="a rated_id, a usage event's id, or the line_id of an invoice")
    _dir(explain)


def _topic(commands: Commands) -> None:
    topic = _add(commands, "topic", "look into the topics of a folder or a broker, or make a broker's", "tieout topic peek usage.rated.v1 --dir data --limit 3")
    topic.add_argument("what", choices=("ls", "peek", "count", "create"), help="list topics, show records, count records, make a broker's topics")
    topic.add_argument("topic", nargs="?", help="the topic, for peek and count")
    _place(topic)
    topic.add_argument("--partition", type=int, help="one partition (default: all)")
    topic.add_argument("--offset", type=int, help="from this position (default: the first kept)")
    topic.add_argument("--limit", type=int, default=10, help="records to show (default: 10)")
    topic.add_argument("--flow", choices=FLOWS, default="usage", help="whose topics (create; default: usage)")
    topic.add_argument("--partitions", type=int, default=64, help="partitions of new topics, fixed for life (create; default: 64)")
    topic.add_argument("--replication-factor", type=int, default=3, help="copies of new topics (create; default: 3)")


def _verify(commands: Commands) -> None:
    verify = _add(commands, "verify", "prove a folder or a broker: fate equations, digests, the chain of tokens", "tieout verify --dir data")
    _place(verify)


def _replay(commands: Commands) -> None:
    replay = _add(commands, "replay", "price and bill a folder again as its tokens say and compare; nothing is written", "tieout replay --dir data")
    _dir(replay)
    replay.add_argument("--rows", type=int, default=25_000, help="usage records a batch; the result does not depend on it (default: 25000)")


def _rescale(commands: Commands) -> None:
    rescale = _add(commands, "rescale", "run a flow on a broker with another number of cells", "tieout rescale usage --bootstrap localhost:9092 --cells 4")
    rescale.add_argument("flow", choices=FLOWS, help="the flow")
    _place(rescale)
    rescale.add_argument("--cells", type=int, required=True, help="how many cells the next generation has")


def _schema(commands: Commands) -> None:
    schema = _add(commands, "schema", "lint, compare, register and pin the Avro schemas", "tieout schema check --registry http://127.0.0.1:8080/apis/ccompat/v7 --against v0.1.0")
    schema.add_argument("what", choices=("lint", "check", "register", "lock"), help="look at schemas alone; compare them; register them; write the registry's ids down")
    schema.add_argument("files", nargs="*", metavar="FILE", help=".avsc files or folders, named as a schema of the catalogue or as their topic (default: the catalogue; lock takes none)")
    schema.add_argument("--registry", metavar="URL", help="the schema registry")
    schema.add_argument("--against", metavar="REV_OR_DIR", help="an earlier release: a git revision, or a folder of .avsc files (check)")
    schema.add_argument("--lock", metavar="FILE", default="schema-lock.json", help="the lock file (default: schema-lock.json)")


def _dlq(commands: Commands) -> None:
    dlq = _add(commands, "dlq", "list, show, replay or discard dead letters: what a flow has rejected", "tieout dlq replay --dir data --reason too_early --dry-run")
    dlq.add_argument("what", choices=("ls", "show", "replay", "discard"), help="count them by reason, show some whole, put them back, or settle them as they are")
    dlq.add_argument("letters", nargs="*", metavar="PARTITION:OFFSET", help="these ones (default: all that the options choose)")
    _place(dlq)
    _registry(dlq)
    dlq.add_argument("--flow", choices=REJECTING, default="usage", help="the flow that rejected them (default: usage)")
    dlq.add_argument("--reason", metavar="CODE", help="rejected for this reason")
    dlq.add_argument("--partition", type=int, help="in this partition")
    dlq.add_argument("--since", metavar="TIME", help="with a record time from this on: RFC 3339, a month as in 2026-10, or back from now as in --since=-2h")
    dlq.add_argument("--all", action="store_true", help="settled ones too (ls, show)")
    dlq.add_argument("--limit", type=int, default=10, help="how many to show (show; default: 10)")
    dlq.add_argument("--dry-run", action="store_true", help="say what would be done, do nothing (replay, discard)")
    dlq.add_argument("--because", metavar="TEXT", help="why they are settled without being mended (discard)")
    dlq.add_argument("--author", metavar="NAME", help="who does it (default: the user of this process)")


def _exception(commands: Commands) -> None:
    exception = _add(
        commands, "exception", "list, show, assign, accept, resolve or waive what finance has to settle",
        "tieout exception resolve 4f1c... --dir data --reason 'the gateway sent 12 by mistake, 7 stands'",
    )
    exception.add_argument("what", choices=("ls", "show", "assign", "accept", "resolve", "waive"), help="list them by age, show some whole, give them to somebody, have late usage billed, or settle them")
    exception.add_argument("exceptions", nargs="*", metavar="ID", help="these ones (show, assign, accept, resolve, waive)")
    _place(exception)
    _registry(exception)
    exception.add_argument("--state", choices=("open", "assigned", "resolved", "waived", "all"), help="in this state (ls; default: open and assigned)")
    exception.add_argument("--kind", metavar="KIND", help="of this kind, as in docs/exceptions.md (ls)")
    exception.add_argument("--owner", metavar="NAME", help="of this owner (ls)")
    exception.add_argument("--customer", metavar="ID", help="of this customer (ls)")
    exception.add_argument("--older-than", metavar="TIME", help="older than this, as in 7d (s, m, h, d) (ls)")
    exception.add_argument("--to", metavar="NAME", help="who settles them from now on (assign)")
    exception.add_argument("--reason", metavar="TEXT", help="how they were settled, or why they are let be or billed (accept, resolve, waive)")
    exception.add_argument("--author", metavar="NAME", help="who does it (default: the user of this process)")
    _signs(exception, " (assign, accept, resolve, waive)")


def _release(commands: Commands) -> None:
    release = _add(
        commands, "release", "let a partition go on that is paused because too much of it was rejected",
        "tieout release usage-3 --bootstrap kafka:9092 --reason 'gateway 2.1 rolled back'",
    )
    release.add_argument("subject", help="the partition, as in usage-3")
    _place(release)
    _registry(release)
    release.add_argument("--reason", required=True, metavar="TEXT", help="why it may go on")
    release.add_argument("--author", metavar="NAME", help="who releases it (default: the user of this process)")
    _signs(release, "")


def _close(commands: Commands) -> None:
    close = _add(
        commands, "close", "ask that a billing period is closed, or billed again for what came since it closed",
        "tieout close --period 2026-10 --contract c-acme --dir data --reason 'late logs of the gateway are in'",
    )
    close.add_argument("--period", required=True, metavar="PERIOD", help="the billing period, as in 2026-10, or by its first day")
    close.add_argument("--contract", metavar="ID", help="one contract (default: all)")
    _place(close)
    _registry(close)
    _asking(close)


def _void(commands: Commands) -> None:
    void = _add(commands, "void", "take an invoice back as a whole; what it billed is billable again, once", "tieout void 5f0c... --dir data --reason 'wrong customer'")
    void.add_argument("invoice", help="the invoice_id")
    _place(void)
    _registry(void)
    _asking(void)


def _credit(commands: Commands) -> None:
    credit = _add(commands, "credit", "take lines of an invoice back, or amounts off them", "tieout credit 5f0c... --amount 77ab...=12.50 --dir data --reason 'goodwill'")
    credit.add_argument("invoice", help="the invoice_id")
    credit.add_argument("--line", action="append", default=[], metavar="ID", help="a line that is taken back and billable again; repeat it")
    credit.add_argument("--amount", action="append", default=[], metavar="LINE=AMOUNT", help="an amount off a line, which stays billed; repeat it")
    _place(credit)
    _registry(credit)
    _asking(credit)


def _asking(command: argparse.ArgumentParser) -> None:
    """Who asks something of the invoicing flow, and why."""
    command.add_argument("--key", metavar="FILE", help="the private key that signs it; needed once the reference data knows users")
    command.add_argument("--author", metavar="NAME", help="who asks (default: the user of this process)")
    command.add_argument("--reason", required=True, metavar="TEXT", help="why")


def _reference(commands: Commands) -> None:
    reference = _add(
        commands, "reference", "put reference data in, list it, or show its history",
        "tieout reference put customers.jsonl --dir data --reason 'new customers of March'",
    )
    reference.add_argument("what", choices=("put", "ls", "show"), help="record JSON lines; what is there, of some kinds; all records of one thing")
    reference.add_argument("names", nargs="*", metavar="NAME", help="a file (put), kinds (ls), a kind and a key (show)")
    _place(reference)
    _registry(reference)
    reference.add_argument("--author", metavar="NAME", help="who records it, where the file does not say (put; default: the user of this process)")
    reference.add_argument("--reason", metavar="TEXT", help="why, where the file does not say (put)")
    reference.add_argument("--partitions", type=int, default=4, help="partitions of a new folder (put; default: 4)")


def _contract(commands: Commands) -> None:
    contract = _add(
        commands, "contract", "propose contract versions, look at them, compare them, check a file",
        "tieout contract propose acme-2.json --dir data --key una.pem --author una --reason 'volume step-up'",
    )
    contract.add_argument("what", choices=("propose", "show", "timeline", "diff", "validate"), help="propose a file; list contracts, one, or one version; which version governs when; two versions field by field; check a file")
    contract.add_argument("names", nargs="*", metavar="NAME", help="a file (propose, validate), a contract (show, timeline), one or two versions as c-acme/2 (show, diff)")
    _place(contract)
    _registry(contract)
    _signer(contract, required=False)


def _decision(commands: Commands, name: str, text: str, reason: str) -> None:
    decision = _add(commands, name, text, f"tieout {name} c-acme/2 --dir data --key ben.pem --author ben --reason {reason}")
    decision.add_argument("subject", help="the version, as in c-acme/2")
    _place(decision)
    _registry(decision)
    _signer(decision, required=True)


def _signer(command: argparse.ArgumentParser, *, required: bool) -> None:
    """Who signs, with what, and why."""
    where = "" if required else " (propose)"
    command.add_argument("--key", metavar="FILE", required=required, help=f"the private key that signs it, as 'tieout key make' wrote it{where}")
    command.add_argument("--author", metavar="NAME", help=f"who signs it: the key of a user in the reference data{where} (default: the user of this process)")
    command.add_argument("--reason", metavar="TEXT", required=required, help=f"why{where}")


def _signs(command: argparse.ArgumentParser, where: str) -> None:
    """A signature that is needed once the reference data has users."""
    command.add_argument("--key", metavar="FILE", help=f"the author's private key, needed once the reference data has users{where}")


def _key(commands: Commands) -> None:
    key = _add(commands, "key", "make a key pair to sign commands with, or show its public half", "tieout key make una.pem")
    key.add_argument("what", choices=("make", "show"), help="write a new private key to a file; read one")
    key.add_argument("file", help="the key file")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = parser().parse_args(arguments)
    machine.settle()
    module = importlib.import_module(f"flows.commands.{options.command.replace('import', 'import_')}")
    expected = importlib.import_module("flows.commands.failures")
    try:
        return int(module.run(options))
    except BrokenPipeError:
        sys.stderr.close()
        return DONE
    except KeyboardInterrupt:
        print("tieout: interrupted; what was committed stands, run the command again to go on", file=sys.stderr)
        return ERROR
    except expected.EXPECTED as error:
        print(f"tieout: {error}", file=sys.stderr)
        return int(expected.code_of(error))


def process() -> None:
    """A command as a process, which ends as soon as it is done: Arrow's threads, torn down while they work, may abort it (apache/arrow#34314)."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        if not stream.closed:
            with suppress(BrokenPipeError):
                stream.flush()
    os._exit(code)


if __name__ == "__main__":
    process()
