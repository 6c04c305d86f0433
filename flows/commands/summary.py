"""What a folder came to, aggregated for the report: usage over time, money by customer and meter, fates, proof."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from flows import codecs, invoicing, topics, usage
from flows.file_place import FilePlace
from flows.report import Proof, Report
from flows.token import Token
from flows.verification import verify
from sources.files import TopicReader
from tieout.rating.rated import amounts_by

_ROWS: Final = 50_000
HOUR: Final = 3_600_000_000
DAY: Final = 24 * HOUR


def report_of(root: Path, tokens: Sequence[Token], seconds: float) -> Report:
    """Read the committed topics of a folder and aggregate them."""
    events: Counter[tuple[int, str]] = Counter()
    money: dict[tuple[str, str, str], Decimal] = {}
    for token in tokens:
        for batch in _batches(root, topics.RATED, token.partition):
            for key, units in amounts_by(batch, ("customer_id", "meter", "currency")).items():
                customer, meter, currency = key
                money[customer, meter, currency] = money.get((customer, meter, currency), Decimal(0)) + units
            events.update(_hours(batch))
    span = max((hour for hour, _ in events), default=0) - min((hour for hour, _ in events), default=0)
    step = DAY if span > 3 * DAY else HOUR
    over_time: Counter[tuple[str, str]] = Counter()
    for (hour, meter), count in events.items():
        over_time[_label(hour // step * step, step), meter] += count
    names = ("received", "priced", "duplicate", "conflict", "rejected", "waiting")
    return Report(
        title="tieout usage report",
        folder=root.name,
        events=sum(t.totals.get("received", 0) for t in tokens),
        seconds=seconds,
        over_time=dict(sorted(over_time.items())),
        money=money,
        fates={name: sum(t.totals.get(name, 0) for t in tokens) for name in names},
        rejected=_rejected(root, [t.partition for t in tokens]),
        proofs=[Proof(row["partition"], row["intervals"], row["digests"], row["head"], tuple(row["breaks"])) for t in tokens if (row := verify(FilePlace(root), t.partition)) is not None],
    )


def totals(tokens: list[Token]) -> list[dict[str, Any]]:
    """Fates over all partitions, and rated money by currency."""
    rows = counts(tokens, ("received", "priced", "duplicate", "conflict", "rejected", "waiting"))
    rows += [{"figure": f"rated {currency}", "value": format(amount, "f")} for currency, amount in sorted(usage.amounts_of(tokens).items())]
    return rows


def counts(tokens: list[Token], names: Sequence[str]) -> list[dict[str, Any]]:
    """Some counts over all partitions since the start."""
    return [{"figure": name, "value": sum(t.totals.get(name, 0) for t in tokens)} for name in names]


def balances(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Documents over all partitions, what waits, and rated money by currency: taken, billed, open."""
    rows = counts(list(tokens), ("received", "closed", "invoices", "credit_notes"))
    waits = sorted({name for token in tokens for name in token.counts if name.startswith(invoicing.WAITS)})
    rows += [{"figure": name.replace("_", " ", 1), "value": sum(token.counts.get(name, 0) for token in tokens)} for name in waits]
    amounts = usage.amounts_of(tokens)
    return rows + [{"figure": " ".join(reversed(name.split("/"))), "value": format(amounts[name], "f")} for name in sorted(amounts)]


def _batches(root: Path, topic: str, partition: int) -> Iterator[pa.RecordBatch]:
    reader = TopicReader(root, topic, partition)
    reader.refresh()
    decode = codecs.own(topics.SCHEMAS[topic])
    for position in range(reader.start, reader.end, _ROWS):
        yield decode.decode(reader.read(position, _ROWS)["value"]).batch


def _hours(batch: pa.RecordBatch) -> Counter[tuple[int, str]]:
    """Usage events by hour and meter."""
    kind = batch["cause"].field("kind").cast(pa.string())
    own = np.array(kind.to_pylist()) == "usage"
    hour = batch["time"].cast(pa.int64()).to_numpy(zero_copy_only=False) // HOUR * HOUR
    meter = np.array(batch["meter"].to_pylist())
    return Counter(zip(hour[own].tolist(), meter[own].tolist(), strict=True))


def _label(instant: int, step: int) -> str:
    moment = datetime.fromtimestamp(instant // 1_000_000, UTC)
    return f"{moment:%Y-%m-%d}" if step == DAY else f"{moment:%m-%d %H:00}"


def _rejected(root: Path, partitions: Sequence[int]) -> dict[str, tuple[int, str]]:
    """How many records each reason rejected, with one message."""
    found: dict[str, tuple[int, str]] = {}
    for partition in partitions:
        reader = TopicReader(root, usage.DEAD, partition)
        reader.refresh()
        for headers in reader.read(reader.start, reader.end - reader.start)["headers"].to_pylist():
            said = {header["key"]: header["value"].decode() for header in headers or ()}
            count, message = found.get(said["dlq.reason"], (0, said["dlq.message"]))
            found[said["dlq.reason"]] = (count + 1, message)
    return found
