"""``tieout explain``: how an amount came about, line by line, from a rated record, a usage event, or a line of an invoice.

It reads the rated topic for the records, the contract for the terms that priced them, and tells each step of what a
price holds in its one order. Of a line it lists the rated records behind it.
"""

import argparse
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, contract_records, invoice_evidence, output, topics
from flows.cli import CommandError
from flows.commands import files
from flows.invoice_evidence import Evidence
from sources.files import TopicReader
from tieout.contracts import Charge, ContractVersion
from tieout.invoicing import wire

_ROWS = 50_000


def run(options: argparse.Namespace) -> int:
    """Explain all rated records of an id."""
    root, partitions = files.folder(options.dir)
    found = [row for partition in range(partitions) for row in _records(root, partition, options.id)]
    if not found:
        evidence = invoice_evidence.behind(root, partitions, options.id)
        if evidence is not None:
            _show_line(evidence, options.output)
            return 0
        msg = f"{root}: no rated record has id {options.id!r}, no rated usage event, and no line of an invoice; it may be held or rejected: look with 'tieout topic peek usage.hold.v1 --dir {root}'"
        raise CommandError(msg)
    if options.output != "table":
        output.show(found, options.output)
        return 0
    for row in found:
        output.show(_steps(root, row), "table", f"rated record {row['rated_id']}")
    return 0


def _show_line(evidence: Evidence, how: str) -> None:
    """The line, and the rated records behind it; as JSON the records alone."""
    if how == "table":
        facts = wire.line_document(evidence.line, evidence.invoice.contract_id)
        shown = [{"what": name, "value": value} for name, value in facts.items() if name != "tiers" and value is not None]
        output.show([{"what": "invoice_id", "value": evidence.invoice.invoice_id}, *shown], how, f"invoice line {evidence.line.line_id}")
    rows = [
        {
            "rated_id": row["rated_id"], "source": row["usage"]["source"], "event": row["usage"]["id"], "cause": row["cause"]["kind"], "version": row["contract_version"],
            "time": str(row["time"]), "quantity": f"{row['quantity']:f}", "amount": f"{row['amount']:f}", "partition": row["partition"], "offset": row["offset"],
        }
        for row in evidence.records
    ]
    output.show(rows, how, "rated records behind it, proved by its count and digest")


def _records(root: Path, partition: int, wanted: str) -> list[dict[str, Any]]:
    reader = TopicReader(root, topics.RATED, partition)
    reader.refresh()
    found = []
    for position in range(reader.start, reader.end, _ROWS):
        batch = codecs.own("rated_usage").decode(reader.read(position, _ROWS)["value"]).batch
        hit = pc.or_(pc.equal(batch["rated_id"], wanted), pc.equal(batch["usage"].field("id"), wanted))
        places = pc.indices_nonzero(hit).to_pylist()
        for place, row in zip(places, batch.take(pa.array(places, pa.int64())).to_pylist(), strict=True):
            found.append({"partition": partition, "offset": position + place, **row})
    return found


def _steps(root: Path, row: dict[str, Any]) -> list[dict[str, Any]]:
    version = _version(root, row)
    charge = next(c for c in version.charges if c.charge_id == row["charge_id"])
    steps = [
        ("usage event", f"{row['usage']['id']} of source {row['usage']['source']}, customer {row['customer_id']}, meter {row['meter']}, at {row['time']}"),
        ("cause", " ".join(str(value) for value in row["cause"].values() if value is not None)),
        ("contract version", f"{row['contract_id']} version {row['contract_version']}, in force from {version.effective_from} to {version.effective_to or 'further notice'}"),
        ("billing period", f"{row['billing_period']} in {version.billing.time_zone}"),
        ("charge", f"{row['charge_id']}, group {row['group']}, aggregation {charge.aggregation.kind}"),
        *_terms(charge),
        ("quantity", f"{row['quantity']:f}, the change of the charge's own quantity"),
        ("amount", f"{row['amount']:f} {row['currency']}: P after minus P before, rounded half up to 12 decimals each"),
        ("committed", f"interval {row['batch_id']}, {topics.RATED} partition {row['partition']} offset {row['offset']}"),
        ("correlation id", row["correlation_id"]),
    ]
    return [{"step": step, "what": what} for step, what in steps]


def _terms(charge: Charge) -> list[tuple[str, str]]:
    """What the price holds, in its order."""
    steps = []
    conversion = charge.unit_conversion
    if conversion is not None:
        how = f"divided by {conversion.divide_by}" if conversion.divide_by is not None else f"multiplied by {conversion.multiply_by}"
        steps.append(("unit conversion", f"{how}, rounding {conversion.round}"))
    if charge.included_quantity:
        steps.append(("included quantity", str(charge.included_quantity)))
    steps.append(("price", f"{charge.price.model}: {charge.price}"))
    if charge.discount_percent:
        steps.append(("percent discount", f"{charge.discount_percent} %"))
    if charge.maximum is not None:
        steps.append(("maximum", str(charge.maximum)))
    return steps


def _version(root: Path, row: dict[str, Any]) -> ContractVersion:
    reader = TopicReader(root, topics.CONTRACTS, row["partition"])
    reader.refresh()
    batch = codecs.own("contract_version").decode(reader.read(reader.start, reader.end)["value"]).batch
    mine = pc.and_(pc.equal(batch["contract_id"], row["contract_id"]), pc.equal(batch["version"], row["contract_version"]))
    return contract_records.versions(batch.filter(mine))[0]
