"""A billing calendar that changes, from usage to invoices: whenever the version comes, the documents sum to those of the final facts."""

import random

import pyarrow as pa
import pytest

from flows import contract_records, control, invoice_evidence, topics
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import folders, governed_folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import all_records, exceptions
from tests.flow.invoicing_folders import contract, event
from tests.flow.test_invoicing_late import billed
from tests.governed import decide, propose
from tieout import usage_document
from tieout.contracts import parse_contract
from tieout.period import micros
from tieout.quote import Case, quote

CHARGES = [*folders.CHARGES[:5], folder.SIMPLE[1]]  # without the one that keeps a level
CUSTOMERS = 4
FIRST = [folders.contract(f"k{n}") | {"charges": CHARGES} for n in range(CUSTOMERS)]
CHANGES = [
    ("2026-02-01T00:00:00Z", {"period": "quarter"}), ("2026-01-20T00:00:00Z", {"anchor_day": 15}),
    ("2026-01-15T05:00:00Z", {"time_zone": "America/New_York"}), ("2026-01-15T00:00:00Z", {"period": "week", "anchor_weekday": 3}),
]  # fmt: skip
SECOND = [FIRST[n] | {"version": 2, "effective_from": at, "billing": billing | {"periods_from": at}} for n, (at, billing) in enumerate(CHANGES)]
LATER = "2026-07-20T00:00:00Z"


def quoted(usage_, contracts, labels):
    """By contract, billing period, charge and group the minor units and the rated amount of the final facts, known from the start."""
    documents = [usage_document.parse({name: value for name, value in one.items() if value is not None}) for one in usage_]
    (answer,) = quote([Case([parse_contract(one) for one in contracts], 0, len(documents))], usage_document.columns(documents))
    sums = {}
    for found in answer.contracts:
        for line in found.lines:
            key = (found.contract_id, line.period, line.key.charge_id, line.key.group)
            amount, exact = sums.get(key, (0, 0))
            sums[key] = (amount + line.amount, exact + line.usage_exact)
    return {key: figures for key, figures in sums.items() if any(figures) and key[1] in labels}


@pytest.mark.parametrize("seed", range(6))
def test_documents_sum_to_the_invoice_of_the_final_facts_whenever_the_change_comes(tmp_path, seed):
    rnd = random.Random(seed)
    usage_ = folders.events(seed, 500, CUSTOMERS)
    comes = seed % 3
    lots = [usage_[:200], usage_[200:400], usage_[400:]]
    clocks = [[event(f"k{n}", f"clock {number}", at, "1") for n in range(CUSTOMERS)] for number, at in enumerate(("2026-01-18T00:00:00Z", "2026-01-25T00:00:00Z", LATER))]
    root, everything = tmp_path / "data", []
    for number, (lot, clock) in enumerate(zip(lots, clocks, strict=True)):
        everything += lot + clock
        folder.write(root, lot + clock, (FIRST if number == 0 else []) + (SECOND if number == comes else []))
        folder.price(root, rows=rnd.randrange(50, 400))
        folder.bill(root, rows=rnd.randrange(20, 300), closes=rnd.randrange(1, 6))
    assert [told for told in exceptions(root, folder.PARTITIONS) if told["kind"] == "invoice_held"] == []
    told = quoted(everything, FIRST + SECOND, {label for _, label, _, _ in billed(root)})
    assert billed(root) == told
    assert {label for _, label, _, _ in told} >= {"2026-01", "2026-02-01", "2026-01-20", "2026-01-15", "2026-02", "2026-04-01", "2026-02-15"}
    assert all(verify_invoicing(FilePlace(root), partition)["breaks"] == [] for partition in range(2))
    assert control.once(FilePlace(root)) == ({0: 0, 1: 0}, 0, 0)
    lines = [line.line_id for one in folder.invoices(root) if one.period.label in ("2026-02-01", "2026-01-20", "2026-01-15") for line in one.lines if line.usage_count]
    assert lines and all(len(invoice_evidence.behind(root, 2, name).records) for name in rnd.sample(lines, min(5, len(lines))))


def test_a_change_that_takes_billed_periods_away_waits_with_an_exception(tmp_path):
    root = tmp_path / "data"
    folder.write(root, [event("k1", at, f"{at}T00:00:00Z") for at in ("2026-01-10", "2026-02-10", "2026-03-05")], [contract("k1")])
    folder.run(root)
    assert sorted(folder.by_period(root, "c-k1")) == ["2026-01", "2026-02"]
    at = "2026-01-20T00:00:00Z"
    folder.import_contracts(root, [contract("k1", 2, effective_from=at, billing={"period": "quarter", "periods_from": at})])
    folder.append(root, [event("k1", "later", "2026-07-05T00:00:00Z")])
    folder.run(root)
    assert sorted(folder.by_period(root, "c-k1")) == ["2026-01", "2026-02"]
    (told,) = exceptions(root, folder.PARTITIONS)
    assert told["kind"] == "invoice_held"
    assert "billing period 2026-02 is billed, and by version 2 the contract has no such period any more" in told["message"]
    assert control.once(FilePlace(root)) == ({0: 0, 1: 0}, 0, 0)


def test_a_proposed_change_is_published_with_the_beginning_of_its_periods_and_billed(tmp_path):
    root = tmp_path / "data"
    governed_folders.make(root, partitions=2)
    documents = [contract("k1", change={"kind": "new"}), contract("k1", 2, change={"kind": "amendment"}, effective_from="2026-02-01T00:00:00Z", billing={"period": "quarter"})]
    for document in documents:
        proposal = propose(document)
        governed_folders.send(root, proposal, decide(proposal))
    governed_folders.run(root)
    first, second = contract_records.decode(pa.array([one["value"] for one in all_records(root, topics.CONTRACTS, 2)]))
    assert (first.billing.periods_from, second.billing.calendar.since_us) == (None, micros(second.effective_from))
    folder.append(root, [event("k1", at, f"{at}T00:00:00Z", "100") for at in ("2026-01-10", "2026-02-10", "2026-03-10", "2026-04-05")])
    folder.run(root)
    made = folder.by_period(root, "c-k1")
    assert {label: one[0].total for label, one in made.items()} == {"2026-01": 2100, "2026-02-01": 4200}
