"""What rated records say of the events behind them: where each is priced now, and all it takes to price it again.

In: rated records of some events, each event's in log order. Out: the events as they stand today, with
the charges under which each is live. An event is live under a charge of a version where it came in more often than it
went out; a correction changes its quantity only. Source: docs/interfaces.md (rated usage: cause, event).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa

from tieout import wide
from tieout.ids import EventKey
from tieout.usage import UsageEvent

Place = tuple[str, int, str]
"""A charge of a contract version: contract, version, charge."""


class Known(NamedTuple):
    """An event as it stands, and where it is live, in the order in which it came there."""

    event: UsageEvent
    live: tuple[Place, ...]


def known(rows: pa.RecordBatch) -> list[Known]:
    """The events of rated records, in the order of their first ones; each with all of its records but carries.

    An event whose own record is no longer kept (it is the oldest) is left out: what is left does not say what it was.
    """
    events: dict[tuple[str, EventKey], list[dict[str, Any]]] = {}
    for row in _plain(rows):
        events.setdefault(row["name"], []).append(row)
    return [found for own in events.values() if (found := _known(own)) is not None]


def _known(rows: list[dict[str, Any]]) -> Known | None:
    live: dict[Place, int] = {}
    facts = next((row for row in rows if row["kind"] == "usage"), None)
    if facts is None:
        return None
    quantity = facts["own_quantity"]
    for row in rows:
        if row["kind"] == "correction":
            quantity = quantity if row["own_quantity"] is None else row["own_quantity"]
            continue
        leaves = row["kind"] == "reprice" and row["from_version"] == row["place"][1]
        live[row["place"]] = live.get(row["place"], 0) + (-1 if leaves else 1)
    customer, key = facts["name"]
    event = UsageEvent(
        key, customer, facts["meter"], facts["time"], quantity, facts["attributes"], facts["named"], facts["given"], None, None, facts["position"]
    )
    return Known(event, tuple(place for place, count in live.items() if count > 0))


def _plain(rows: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """The records but carries, as far as they are asked about; figures in their units."""
    event, cause = rows["event"], rows["cause"]
    given = event.is_valid().to_pylist()
    columns = zip(
        rows["customer_id"].to_pylist(), rows["usage"].field("source").to_pylist(), rows["usage"].field("id").to_pylist(),
        cause.field("kind").to_pylist(), cause.field("from_version").to_pylist(),
        rows["contract_id"].to_pylist(), rows["contract_version"].to_pylist(), rows["charge_id"].to_pylist(), rows["meter"].to_pylist(),
        rows["time"].cast(pa.int64()).to_pylist(), wide.integers(rows["quantity"]), given, event.field("position").to_pylist(),
        wide.integers(event.field("quantity")), event.field("attributes").to_pylist(), event.field("contract_id").to_pylist(),
        wide.integers(event.field("amount")), strict=True,
    )
    for customer, source, name, kind, leaves, contract, version, charge, meter, time, quantity, has, position, own, attributes, named, amount in columns:
        if kind != "carry":
            told = own if own is not None else quantity if kind == "usage" else None
            yield {
                "name": (customer, EventKey(source, name)), "kind": kind, "from_version": leaves, "place": (contract, version, charge),
                "meter": meter, "time": time, "own_quantity": told, "position": position if has else None,
                "attributes": dict(attributes or ()) if has else {}, "named": named if has else None, "given": amount if has else None,
            }
