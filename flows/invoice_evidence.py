"""The rated records behind a line of an invoice, found in the topics of a folder.

In: a folder and the id of a line. Out: its document, the line, and the records behind it in log order, proved by the line's
own count and digest. Only documents and records of its correlation id are read as such, everything else by columns.
Source: ``tieout.invoicing.evidence``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, invoice_records, topics
from sources.errors import SourceError
from sources.files import TopicReader
from tieout.invoicing.evidence import proves, run_behind
from tieout.invoicing.records import Invoice, Line

_ROWS: Final = 50_000


class Evidence(NamedTuple):
    """A line, the document that it stands in, and the rated records behind it."""

    invoice: Invoice
    line: Line
    records: list[dict[str, Any]]


def behind(root: Path, partitions: int, line_id: str) -> Evidence | None:
    """What is behind a line; None where no line has this id, SourceError where the records are not those that were billed."""
    for partition in range(partitions):
        correlation = _correlation(root, partition, line_id)
        if correlation is not None:
            return _evidence(root, partition, line_id, correlation)
    return None


def _evidence(root: Path, partition: int, line_id: str, correlation: str) -> Evidence:
    documents = list(_documents(root, partition, correlation))
    invoice, line = next((one, line) for one in documents for line in one.lines if line.line_id == line_id)
    if not line.usage_count:
        return Evidence(invoice, line, [])
    same = [other for one in documents for other in one.lines if other.key == line.key]
    records = list(_records(root, partition, line, correlation))[run_behind(same, line_id)]
    if not proves(line, [row["rated_id"] for row in records]):
        msg = f"line {line_id}: {topics.RATED} no longer holds the {abs(line.usage_count)} records that it was made of; restore the topic from a backup"
        raise SourceError(msg)
    return Evidence(invoice, line, records)


def _lots(root: Path, topic: str, partition: int) -> Iterator[tuple[int, pa.Array]]:
    reader = TopicReader(root, topic, partition)
    end = reader.refresh()
    for position in range(reader.start, end, _ROWS):
        yield position, reader.read(position, _ROWS)["value"]


def _correlation(root: Path, partition: int, line_id: str) -> str | None:
    """The correlation id of a line."""
    for _, values in _lots(root, topics.INVOICES, partition):
        lines = invoice_records.columns(values, invoice_records.SCHEMA)["lines"].flatten()
        row = pc.index(lines.field("line_id"), line_id).as_py()
        if row >= 0:
            return str(lines.field("correlation_id")[row].as_py())
    return None


def _documents(root: Path, partition: int, correlation: str) -> Iterator[Invoice]:
    """The documents with a line of a correlation id, in their order."""
    for _, values in _lots(root, topics.INVOICES, partition):
        lines = invoice_records.columns(values, invoice_records.SCHEMA)["lines"]
        hits = pc.list_parent_indices(lines).filter(pc.equal(lines.flatten().field("correlation_id"), correlation))
        yield from invoice_records.decode(values.take(hits.unique()))


def _records(root: Path, partition: int, line: Line, correlation: str) -> Iterator[dict[str, Any]]:
    """The rated records of a line's charge, group and billing period, of its legal entity and currency, in log order."""
    for position, values in _lots(root, topics.RATED, partition):
        batch = codecs.own("rated_usage").decode(values).batch
        hit = pc.equal(batch["correlation_id"].cast(pa.string()), correlation)
        for name, wanted in (("legal_entity_id", line.key.legal_entity_id), ("currency", line.key.currency)):
            hit = pc.and_(hit, pc.equal(batch[name].cast(pa.string()), wanted))
        places = pc.indices_nonzero(hit).to_pylist()
        for place, row in zip(places, batch.take(pa.array(places, pa.int64())).to_pylist(), strict=True):
            yield {"partition": partition, "offset": position + place, **row}
