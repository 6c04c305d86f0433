"""Which rated records a line of an invoice was made of: every line of disturbed usage, late usage, a void and what followed it."""

import json

import pytest

from flows import cli, invoice_evidence, topics
from sources.errors import SourceError
from tests.flow import folders
from tests.flow import invoicing_folders as folder
from tests.flow.invoicing_folders import contract, event
from tieout.invoicing import evidence
from tieout.invoicing.records import DIGEST

CUSTOMERS = 8
CONTRACTS = [folders.contract(f"k{i}") for i in range(CUSTOMERS)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in range(0, CUSTOMERS, 2)]


def test_the_records_behind_all_lines_are_all_rated_records_of_closed_periods_each_once(tmp_path):
    """Usage comes in four parts, and what is due is billed after each: so lines have deltas."""
    root = tmp_path / "data"
    usage_ = folders.events(5, 2400, CUSTOMERS)
    folder.write(root, usage_[:600], CONTRACTS)
    for start in (0, 600, 1200, 1800):
        if start:
            folder.append(root, usage_[start : start + 600])
        folder.append(root, [event(f"k{i}", f"clock {start} {i}", f"2026-02-0{2 + start // 600}T00:00:00Z") for i in range(CUSTOMERS)])
        assert cli.main(["close", "--period", "2026-01", "--dir", str(root), "--reason", f"as of {start}"]) == 0
        folder.run(root)
    folder.append(root, [event(f"k{i}", f"clock {i}", "2026-03-10T00:00:00Z") for i in range(CUSTOMERS)])
    folder.run(root)
    found, money = [], 0
    for one in folder.invoices(root):
        for line in one.lines:
            behind = invoice_evidence.behind(root, folder.PARTITIONS, line.line_id)
            assert (behind.line, behind.invoice.invoice_id) == (line, one.invoice_id)
            assert len(behind.records) == abs(line.usage_count)
            assert sum(int(row["amount"].scaleb(12)) for row in behind.records) == line.usage_exact
            found += [row["rated_id"] for row in behind.records]
            money += line.usage_exact
    rated = [row for row in folders.rated(root) if row["billing_period"] < "2026-03"]
    assert sorted(found) == sorted(row["rated_id"] for row in rated)
    assert len(set(found)) == len(found) > 2000
    assert any(line.kind == "delta" and line.usage_count for one in folder.invoices(root) for line in one.lines)
    assert money == sum(int(row["amount"].scaleb(12)) for row in rated)


def test_a_void_takes_back_the_records_of_its_line_and_the_line_that_bills_again_has_them(tmp_path, capsys):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-01-11T00:00:00Z"), event("k1", "c", "2026-02-05T00:00:00Z")], [contract("k1")])
    folder.run(root)
    (january,) = folder.invoices(root)
    assert cli.main(["void", january.invoice_id, "--dir", str(root), "--reason", "wrong address"]) == 0
    folder.bill(root)
    folder.append(root, [event("k1", "late", "2026-01-12T00:00:00Z")])
    folder.price(root)
    assert cli.main(["close", "--period", "2026-01", "--dir", str(root), "--reason", "again"]) == 0
    folder.bill(root)
    events = []
    for one in folder.invoices(root):
        (line,) = [line for line in one.lines if line.usage_count]
        capsys.readouterr()
        assert cli.main(["explain", line.line_id, "--dir", str(root), "--output", "json"]) == 0
        events.append([row["event"] for row in json.loads(capsys.readouterr().out)])
    assert events == [["a", "b"], ["a", "b"], ["a", "b", "late"]]
    fee = next(line for line in january.lines if line.kind == "fee")
    assert cli.main(["explain", fee.line_id, "--dir", str(root)]) == 0
    assert fee.line_id in capsys.readouterr().out
    assert cli.main(["explain", "nothing", "--dir", str(root)]) == 1
    assert "no line of an invoice" in capsys.readouterr().err


def test_records_that_are_not_those_that_were_billed_are_told(tmp_path, monkeypatch):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-01-11T00:00:00Z"), event("k1", "c", "2026-02-05T00:00:00Z")], [contract("k1")])
    folder.run(root)
    (january,) = folder.invoices(root)
    line = next(line for line in january.lines if line.usage_count)
    kept = invoice_evidence._records
    monkeypatch.setattr(invoice_evidence, "_records", lambda *where: list(kept(*where))[1:])
    with pytest.raises(SourceError, match=f"{topics.RATED} no longer holds the 2 records"):
        invoice_evidence.behind(root, folder.PARTITIONS, line.line_id)


def test_digests_prove_records_taken_and_taken_back():
    class Some:
        def __init__(self, count, digest):
            self.usage_count, self.usage_digest = count, digest

    names = [f"{2**127 + n:032x}" for n in (3, 5)]
    assert evidence.proves(Some(2, 8), names)
    assert evidence.proves(Some(-2, DIGEST - 8), names)
    assert not evidence.proves(Some(2, 9), names)
    assert not evidence.proves(Some(1, 8), names)
