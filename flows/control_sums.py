"""What a partition's topics come to, by contract, currency and billing period: rated, billed, and open.

In: a partition as of the invoicing flow's last interval. Out: three sums, each read by columns from a topic of its own: rated
usage up to what the interval counts, documents, and the interval's state with the terms of the contracts that it names. What
stands in a topic beyond what its flow says to have written counts as another's: rated records are left out, documents are not.
Source: docs/decisions/0013-control-totals.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, timedelta
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, contract_records, invoicing, invoicing_state, topics, usage
from flows import token as tokens
from flows.invoicing_state import PackedAccounts
from flows.pipeline import Place, Reader
from flows.token import Token
from sources.errors import SourceAway
from sources.lot import Lot
from tieout import control_totals
from tieout.closing import Closing
from tieout.control_totals import Break, Total, Totals
from tieout.held_usage import HeldUsage
from tieout.invoicing.records import Account
from tieout.period import EPOCH, Calendar

_ROWS: Final = 20_000
EARLY: Final = timedelta(hours=24)
"""How much earlier than its event a record may stand in a topic (docs/semantics.md section 1, too early)."""


class Cut(NamedTuple):
    """The last intervals of a partition: of the invoicing flow, and of the usage flow that it follows."""

    invoicing: Token
    usage: Token | None


class Terms(NamedTuple):
    """What a contract version says of the sums that are made under it."""

    customer_id: str
    currency: str
    calendar: Calendar


@dataclass(frozen=True, slots=True)
class Sums:
    """A partition's totals, and from which day on billing periods are proved by them."""

    rated: Totals
    billed: Totals
    open: Totals
    since: date

    def proves(self, period: str) -> bool:
        """Whether all records of a billing period are there."""
        return date.fromisoformat(period if len(period) > len("2026-01") else f"{period}-01") >= self.since

    def breaks(self) -> list[Break]:
        """What does not tie out."""
        return [one for one in control_totals.breaks(self.rated, self.billed, self.open) if self.proves(one.key.period)]


def cut(place: Place, partition: int) -> Cut | None:
    """The last intervals now; None where the invoicing flow has not been here."""
    last = _last(place, invoicing.TOKEN, partition)
    return None if last is None else Cut(last, _last(place, usage.TOKEN, partition))


def sums(place: Place, at: Cut, told: Callable[[], None] = lambda: None) -> Sums:
    """The totals as of an interval; ``told`` hears of each lot that is read."""
    partition, last = at.invoicing.partition, at.invoicing
    received = last.totals.get("received", 0)
    ours = received if at.usage is None else min(received, at.usage.written.get(topics.RATED, 0))
    rated, kept = _rated(place, last, ours, told)
    moved = cut(place, partition)
    alone = moved is not None and moved.invoicing == last
    billed, kept_too = _billed(place, partition, None if alone else last.written.get(topics.INVOICES, 0), told)
    return Sums(rated, billed, open_by_key(place, last), max(kept, kept_too))


def _last(place: Place, topic: str, partition: int) -> Token | None:
    reader = place.written(topic, partition)
    end = reader.refresh()
    for back in (1, 2, 64, end):  # on a broker a mark stands after each transaction
        start = max(reader.start, end - back)
        if start < end:
            records = reader.lot(start, end - start, end).records
            if records.num_rows:
                return tokens.decode(records["value"].slice(records.num_rows - 1))[0]
    return None


def lots(reader: Reader, count: int | None, until: int | None = None) -> Iterator[Lot]:
    """The first records that are kept, so many; None for all, or all before a position."""
    end, at = reader.refresh(), reader.start
    end = end if until is None else min(until, end)
    left = end if count is None else count
    while at < end and left > 0:
        lot = reader.lot(at, min(_ROWS, left), end)
        at, left = lot.end, left - lot.records.num_rows
        yield lot


def _rated(place: Place, last: Token, count: int, told: Callable[[], None]) -> tuple[Totals, date]:
    """The sums of the first ``count`` records, as far as they are kept; the interval says how many stand before its position."""
    reader = place.written(topics.RATED, last.partition)
    reader.refresh()
    position = last.positions.get(topics.RATED, 0)
    lost = 0
    if reader.start:
        kept = sum(lot.records.num_rows for lot in lots(reader, None, position))
        lost = max(last.totals.get("received", 0) - kept, 0)
    found: Totals = {}
    for lot in lots(reader, count - lost):
        rows = readable(topics.RATED, lot).rows
        made = control_totals.columns(rows["contract_id"], rows["currency"], rows["billing_period"], rows["amount"], None, rows["rated_id"])
        control_totals.add(found, made.items())
        told()
    return found, _kept_since(reader)


def _billed(place: Place, partition: int, count: int | None, told: Callable[[], None]) -> tuple[Totals, date]:
    reader = place.written(topics.INVOICES, partition)
    reader.refresh()
    found: Totals = {}
    for lot in lots(reader, None if count is None else count - gone(reader, count)):
        contracts, lines = _lines(readable(topics.INVOICES, lot).rows)
        part = {name: lines.field(name) for name in ("currency", "billing_period", "usage_amount_exact", "usage_count", "usage_digest")}
        made = control_totals.columns(contracts, part["currency"], part["billing_period"], part["usage_amount_exact"], part["usage_count"], part["usage_digest"])
        control_totals.add(found, made.items())
        told()
    return found, _kept_since(reader)


def gone(reader: Reader, count: int) -> int:
    """How many of a topic's first ``count`` records are no longer kept."""
    if not reader.start:
        return 0
    return max(count - sum(lot.records.num_rows for lot in lots(reader, None)), 0)


def _kept_since(reader: Reader) -> date:
    """The first day whose billing periods have all their records."""
    if not reader.start:
        return date.min
    first = next(lots(reader, 1), None)
    if first is None or not first.records.num_rows:
        return date.max
    instant = EPOCH + timedelta(microseconds=int(first.records["timestamp"][0].as_py()))
    return (instant + EARLY + timedelta(days=1)).astimezone(UTC).date()  # and a day for the zone of the contract


class Readable(NamedTuple):
    """The records of a lot that can be read, and the row of each in it; one that cannot be read counts for nothing, and is missed."""

    rows: pa.RecordBatch
    places: npt.NDArray[np.int64]


def readable(topic: str, lot: Lot) -> Readable:
    """The records of a lot of rated usage or of documents."""
    decoded = codecs.own(topics.SCHEMAS[topic]).decode(lot.records["value"])
    return Readable(decoded.batch, decoded.rows)


def _lines(rows: pa.RecordBatch) -> tuple[pa.Array, pa.StructArray]:
    """The contracts of documents' lines, and the lines."""
    return rows["contract_id"].take(pc.list_parent_indices(rows["lines"])), rows["lines"].flatten()


def open_by_key(place: Place, last: Token) -> Totals:
    """What the state of an interval holds as taken and not billed."""
    accounts = PackedAccounts()
    state = Closing(HeldUsage(0), accounts)
    invoicing_state.restore(state, accounts, state_records(place, last))
    names = sorted({*state.pending, *state.aside, *accounts})
    terms = versions(place, last.partition, frozenset(names))
    found: Totals = {}
    for name in names:
        mine = control_totals.open_of(name, state.waiting(name), accounts.get(name) or Account(name), _named(name, terms))
        control_totals.add(found, ((key, total) for key, total in mine.items() if total != Total()))
    return found


def _named(contract: str, terms: Mapping[tuple[str, int], Terms]) -> Callable[[int, int], tuple[str, str]]:
    """Currency and label of a billing period that begins at an instant under a version."""

    def named(version: int, start: int) -> tuple[str, str]:
        mine = terms[contract, version]
        return mine.currency, mine.calendar.containing(start).label

    return named


def versions(place: Place, partition: int, wanted: frozenset[str]) -> dict[tuple[str, int], Terms]:
    """The terms of contracts by version."""
    reader = place.reader(topics.CONTRACTS, partition)
    found: dict[tuple[str, int], Terms] = {}
    calendars: dict[Calendar, Calendar] = {}
    for lot in lots(reader, None):
        rows = codecs.own(contract_records.SCHEMA).decode(lot.records["value"]).batch
        rows = rows.filter(pc.and_(pc.is_in(rows["contract_id"], pa.array(sorted(wanted), pa.string())), pc.not_equal(rows["status"].cast(pa.string()), "draft")))
        columns = (rows[name].to_pylist() for name in ("contract_id", "version", "customer_id", "currency", "billing"))
        for contract, version, customer, currency, billing in zip(*columns, strict=True):
            made = Calendar(billing["period"], billing["anchor_day"], billing["anchor_month"], billing["anchor_weekday"], billing["time_zone"])
            found.setdefault((contract, version), Terms(customer, currency, calendars.setdefault(made, made)))
    return found


def state_records(place: Place, last: Token) -> Iterator[tuple[str, bytes]]:
    """The state's records up to an interval; on a broker a header numbers them. SourceAway where a full state has replaced some meanwhile."""
    written, found, whole = last.written.get(invoicing.STATE, 0), 0, False
    for lot in lots(place.written(invoicing.STATE, last.partition), None):
        for row, position in enumerate(lot.positions.tolist()):
            record = lot.record(row)
            number = next((int(header["value"]) for header in record["headers"] or () if header["key"] == "n"), position)
            if number < written:
                kind = (record["key"] or b"").decode()
                found, whole = found + 1, whole or kind == invoicing_state.FULL
                yield kind, record["value"]
    if found < written and not whole:
        msg = f"{invoicing.STATE}, partition {last.partition}: a full state has replaced what interval {last.batch_id} wrote while it was read; look again"
        raise SourceAway(msg)
