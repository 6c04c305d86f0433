"""Billing done again as the tokens say: the same bytes, on either engine, however the flow was cut; and what differs shows."""

import json
import random

import pytest

from flows import bytewax_engine, cli, invoicing, local_engine, topics
from flows.file_place import FilePlace
from flows.invoicing_replay import FIGURES, replay
from flows.verification import verify_invoicing
from tests.flow import folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import know, send
from tests.flow.test_invoicing_flow import RATE, TAXED
from tests.flow.test_invoicing_kill import sold
from tieout.governance import Command
from tieout.invoicing.records import Invoice
from tieout.usage_state import DAY, Limits

ENGINES = {"bytewax": bytewax_engine.run, "local": local_engine.run}
CUSTOMERS = 10
CONTRACTS = [folders.contract(f"k{n}") | {"charges": sold(folders.CHARGES)} for n in range(CUSTOMERS)]
CONTRACTS += [folder.contract(f"m{n}", charges=sold(folder.SIMPLE), billing={"thresholds": ["3"], "grace_hours": 12 * n}) for n in range(CUSTOMERS)]
CLOSES = 3


@pytest.fixture(scope="module", params=[("local", 90), ("bytewax", 400)], ids=str)
def billed(request, tmp_path_factory):
    """A quarter that was billed in many sittings: late and held usage, thresholds, taxes that came late, voids, credits, requests."""
    engine, rows = request.param
    root, rnd = tmp_path_factory.mktemp("billed") / "data", random.Random(3)
    names = [f"m{n}" for n in range(CUSTOMERS)]
    months = [[folder.event(k, f"{m} {d}", f"2026-{m:02d}-{d:02d}T00:00:00Z", str(rnd.randrange(1, 99)), rnd.choice(["calls"] * 20 + ["stored"])) for d in range(1, 28, 2) for k in names] for m in (1, 2, 3)]
    months[0] += [*folders.events(5, 900, CUSTOMERS), folder.event("m0", "held", "2026-01-31T00:00:00Z", meter="stored")]
    late = [folder.event(k, "late", "2026-01-30T00:00:00Z") for k in names[::3]]
    bill = {"rows": rows, "engine": {"bytewax": bytewax_engine, "local": local_engine}[engine], "closes": CLOSES}
    folders.write(root, months[0], CONTRACTS)
    know(root, *[{**TAXED[0], "key": one["customer_id"]} for one in CONTRACTS], *TAXED[1:])
    folder.run(root, **bill)
    folder.append(root, months[1][:20])
    folder.run(root, **bill)
    folder.append(root, late + months[1][20:])
    folder.run(root, **bill)
    know(root, RATE)
    folder.bill(root, **bill)
    why = ["--dir", str(root), "--reason", "of a test"]
    asked = [one for one in folder.invoices(root) if one.kind == "invoice" and one.contract_id.startswith("c-m")][:4]
    fee = next(line for one in asked[1:] for line in one.lines if line.amount > 100 and line.kind != "tax")
    of_fee = next(one for one in asked if fee in one.lines)
    for words in (["void", asked[0].invoice_id], ["credit", of_fee.invoice_id, "--amount", f"{fee.line_id}=0.50"], ["close", "--period", "2026-01"]):
        assert cli.main([*words, *why]) == 0
    send(root, Command("correct", "invoice", asked[0].invoice_id, "another program", 2 * 10**15, "of a test"))
    folder.bill(root, **bill)
    folder.append(root, months[2])
    assert cli.main(["close", "--period", "2026-02", *why]) == 0
    tokens = folder.run(root, **bill)
    came = {name for token in tokens for name, count in token.totals.items() if count}
    assert {"early", "credit_notes", "line_delta", "held_usage_held", "held_tax_rate"} <= came, came
    return root


def intervals(root, partition):
    return verify_invoicing(FilePlace(root), partition)["intervals"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replay_by_the_tokens_gives_the_same_bytes(billed, engine):
    for partition in range(folder.PARTITIONS):
        done = replay(billed, partition, Limits(), CLOSES, ENGINES[engine])
        assert [one.different for one in done] == [()] * intervals(billed, partition)
        written = [folders.output(billed, topic=topic)[partition] for topic in (topics.INVOICES, topics.EXCEPTIONS)]
        ours = [value for value in written[1] if b"invoice_held" in value or b"command_refused" in value]
        assert sum(one.records for one in done) >= len(written[0]) + len(ours) > 30


def test_a_replay_shows_the_interval_from_which_on_something_comes_out_otherwise(billed, monkeypatch):
    plain = invoicing.invoicing_outputs.outputs

    def dearer(closed, refused, clock):
        return plain([one._replace(billed=one.billed._replace(invoices=tuple(map(later, one.billed.invoices)))) for one in closed], refused, clock)

    def later(invoice: Invoice) -> Invoice:
        return invoice._replace(due_on="2030-01-01") if invoice.period.label == "2026-02" else invoice

    monkeypatch.setattr(invoicing.invoicing_outputs, "outputs", dearer)
    done = replay(billed, 0, Limits(), CLOSES)
    first = next(at for at, one in enumerate(done) if one.different)
    assert 0 < first < len(done) - 1 and {one.different for one in done} == {(), (topics.INVOICES,)}


def test_a_replay_with_another_setting_of_the_flow_shows(billed):
    assert any(FIGURES in one.different for partition in range(folder.PARTITIONS) for one in replay(billed, partition, Limits(hold_limit=DAY), CLOSES))
    assert any(topics.INVOICES in one.different for one in replay(billed, 0, Limits(), CLOSES + 1))


def test_the_command_replays_both_flows_and_says_from_where_on_they_differ(tmp_path, capsys, monkeypatch):
    folder.write(tmp_path, [folder.event("k1", "a", "2026-01-10T00:00:00Z"), folder.event("k1", "b", "2026-02-05T00:00:00Z")], [folder.contract("k1")], partitions=1)
    asked = ["replay", "--dir", str(tmp_path), "--output", "json"]
    folder.price(tmp_path, [0])
    assert cli.main(asked) == 0
    assert [row["flow"] for row in json.loads(capsys.readouterr().out)] == ["usage"]
    folder.bill(tmp_path, partitions=[0])
    assert cli.main(asked) == 0
    assert json.loads(capsys.readouterr().out)[1] == {"flow": "invoicing", "partition": 0, "intervals": 1, "records": 1, "different": []}
    monkeypatch.setattr(invoicing.InvoicingCell, "_close", lambda *_: [])
    assert cli.main(asked) == 3
    assert json.loads(capsys.readouterr().out)[1]["different"] == ["billing.invoice.v1 from invoicing-0-1 on", "token from invoicing-0-1 on"]
