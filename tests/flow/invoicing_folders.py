"""Folders run from usage to invoices, and what they come to."""

import pyarrow as pa

from flows import invoice_records, invoicing, local_engine, topics, usage
from flows.file_place import FilePlace
from tests.flow import folders
from tests.flow.governed_folders import import_contracts
from tieout import usage_document
from tieout.contracts import parse_contract
from tieout.invoice_case import invoices as offline

PARTITIONS = 2
SIMPLE = [
    {"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}},
    {"charge_id": "base", "price": {"model": "flat", "amount": "20.00"}, "interval": "month", "timing": "arrears", "proration": "day"},
]


def contract(customer, version=1, **more):
    return {
        "contract_id": f"c-{customer}", "version": version, "customer_id": customer, "effective_from": "2026-01-01T00:00:00Z", "charges": SIMPLE,
    } | more  # fmt: skip


def event(customer, name, time, quantity="10", meter="calls", **more):
    return {"id": name, "source": "s", "customer_id": customer, "meter": meter, "time": time, "quantity": quantity} | more


def write(root, usage_, contracts=(), partitions=PARTITIONS):
    if contracts:
        folders.write(root, usage_, list(contracts), partitions)
    else:
        append(root, usage_, partitions)


def append(root, usage_, partitions=PARTITIONS):
    """More usage for a folder that has its contracts."""
    folders.write(root, usage_, [], partitions)


def price(root, partitions=range(PARTITIONS), rows=1000):
    """The usage flow to the end of some partitions."""
    pipeline = usage.pipeline(FilePlace(root), partitions, rows=rows)
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()


def bill(root, rows=1000, engine=local_engine, partitions=range(PARTITIONS), closes=invoicing.CLOSES):
    """The invoicing flow to the end of what is rated; its last tokens."""
    cells = {n: invoicing.InvoicingCell.start(FilePlace(root), n, closes=closes) for n in partitions}
    try:
        engine.run(invoicing.pipeline(cells, rows=rows))
        assert all(cell.fold.closing.recount() == cell.fold.closing.open for cell in cells.values())
        return [cell.token for cell in cells.values()]
    finally:
        for cell in cells.values():
            cell.close()


def run(root, **how):
    price(root)
    return bill(root, **how)


def invoices(root, partitions=PARTITIONS):
    values = [value for part in folders.output(root, partitions, topics.INVOICES) for value in part]
    return invoice_records.decode(pa.array(values, pa.large_binary())) if values else []


def by_period(root, contract_id):
    """A contract's documents by the label of their billing period."""
    found = {}
    for one in invoices(root):
        if one.contract_id == contract_id:
            found.setdefault(one.period.label, []).append(one)
    return found


def expected(customer, usage_, contracts, label, taxes=None):
    """What ``tieout invoice`` makes of the same facts."""
    mine = [usage_document.parse({name: value for name, value in one.items() if value is not None}) for one in usage_ if one["customer_id"] == customer]
    versions = [parse_contract(one) for one in contracts if one["customer_id"] == customer]
    return offline(versions, usage_document.columns(mine), label, taxes).invoices


__all__ = ["append", "bill", "by_period", "contract", "event", "expected", "import_contracts", "invoices", "price", "run", "write"]
