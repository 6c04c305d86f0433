"""Whatever comes late: the sum of all documents is what one invoice with the final facts would have been."""

import random

import pytest

from flows import invoicing
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import folders
from tests.flow import invoicing_folders as folder
from tests.flow.invoicing_folders import contract, event
from tieout import usage_document
from tieout.contracts import parse_contract
from tieout.quote import Case, quote

CUSTOMERS = 5
CONTRACTS = [folders.contract(f"k{i}") | {"charges": [*folders.CHARGES, folder.SIMPLE[1]]} for i in range(CUSTOMERS)]


def billed(root):
    """By contract, billing period, charge and group: minor units and the rated amount over all documents."""
    sums = {}
    for one in folder.invoices(root):
        for line in one.lines:
            key = (one.contract_id, line.period, line.key.charge_id, line.key.group)
            amount, exact = sums.get(key, (0, 0))
            sums[key] = (amount + line.amount, exact + line.usage_exact)
    return {key: figures for key, figures in sums.items() if any(figures)}


def quoted(usage_, contracts, labels):
    """The same of the final facts, known from the start."""
    documents = [usage_document.parse({name: value for name, value in one.items() if value is not None}) for one in usage_]
    (answer,) = quote([Case([parse_contract(one) for one in contracts], 0, len(documents))], usage_document.columns(documents))
    sums = {(found.contract_id, line.period, line.key.charge_id, line.key.group): (line.amount, line.usage_exact) for found in answer.contracts for line in found.lines}
    return {key: figures for key, figures in sums.items() if any(figures) and key[1] in labels}


@pytest.mark.parametrize("seed", range(4))
def test_documents_sum_to_the_invoice_of_the_final_facts(tmp_path, seed):
    rnd = random.Random(seed)
    usage_ = folders.events(seed, 600, CUSTOMERS)
    lots = [[], [], []]
    for one in usage_:  # in its order, a correction never before what it corrects came to be known
        lots[min(2, max(0, int(rnd.gauss(0.4, 0.8))))].append(one)
    clocks = [[event(f"k{n}", f"clock {at}", at, "1") for n in range(CUSTOMERS)] for at in ("2026-02-02T00:00:00Z", "2026-02-04T00:00:00Z", "2026-04-10T00:00:00Z")]
    root, everything = tmp_path / "data", []
    for number, (lot, clock) in enumerate(zip(lots, clocks, strict=True)):
        everything += lot + clock
        folder.write(root, lot + clock, CONTRACTS if number == 0 else ())
        folder.price(root, rows=rnd.randrange(50, 400))
        folder.bill(root, rows=rnd.randrange(20, 300), closes=rnd.randrange(1, 6))
    labels = {"2025-12", "2026-01", "2026-02", "2026-03"}
    assert billed(root) == {key: figures for key, figures in quoted(everything, CONTRACTS, labels).items()}
    assert sum(line.kind == "delta" for one in folder.invoices(root) for line in one.lines) > 10
    assert all(verify_invoicing(FilePlace(root), partition)["breaks"] == [] for partition in range(2))


def test_a_hold_that_was_released_after_the_adopted_clock_still_holds_its_period_up(tmp_path):
    """The usage flow has released the event, but of its rated records only those before the release have been read."""
    root = tmp_path / "data"
    usage_ = [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-01-31T00:00:00Z", meter="stored"), event("k1", "c", "2026-02-02T00:00:00Z")]
    folder.write(root, usage_, [contract("k1")], partitions=1)
    folder.price(root, [0])
    both = [*folder.SIMPLE, {"charge_id": "stored", "meter": "stored", "price": {"model": "per_unit", "unit_price": "1"}}]
    folder.import_contracts(root, [contract("k1", 2, charges=both)])
    folder.price(root, [0])
    cell = invoicing.InvoicingCell.start(FilePlace(root), 0)
    pipeline = invoicing.pipeline({0: cell}, rows=2)
    cell.take(pipeline.prepare(pipeline.sources[0].poll()))
    assert (cell.token.totals["received"], cell.token.counts["waits_usage_held"]) == (2, 1)
    cell.take(pipeline.prepare(pipeline.sources[0].poll()))
    cell.close()
    (january,) = folder.invoices(root, 1)
    assert [line.amount for line in january.lines if line.kind == "usage"] == [10, 1000]
