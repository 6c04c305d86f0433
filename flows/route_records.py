"""What an interval of the route flow writes: usage in the partition of its contracting customer, and dead letters.

In: a prepared lot of raw usage and what is known of customers' ids. Out: for each partition of ``usage.event.v1`` its
records in the order of the lot, keyed by customer, and the rows that cannot be routed. A record that names its customer
by the customer's own id passes byte for byte; one whose id is an alias, or which leaves to its headers what the event
is, is written anew as a usage event of this release. Every record keeps its headers. Source: docs/semantics.md
section 2 (customer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flows import cloud_events, codecs, topics
from flows.pipeline import Prepared
from schemas import segments
from schemas.codec import Refused
from tieout import ids, usage
from tieout.aliases import Aliases, Resolved
from tieout.stage import DeadLetter
from tieout.usage import Rejected

FLOW: Final = "route"
DEAD: Final = topics.dead_letters(topics.RAW, FLOW)
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Routed:
    """An interval: the routed records in the order of their partitions, how many each has, and what was rejected."""

    records: pa.RecordBatch
    counts: I64
    """By partition of the usage topic."""
    dead_letters: list[DeadLetter]
    received: int
    clock: int

    def outputs(self) -> dict[str, pa.RecordBatch]:
        """The routed records by the names of their partitions."""
        ends = np.cumsum(self.counts)
        chosen = np.nonzero(self.counts)[0].tolist()
        return {
            topics.in_partition(topics.USAGE, partition): self.records.slice(int(ends[partition] - self.counts[partition]), int(self.counts[partition]))
            for partition in chosen
        }


def route(prepared: Prepared, aliases: Aliases, clock: int, partitions: int) -> Routed:
    """Route one lot to so many partitions; ``clock`` is the partition's before it."""
    lot, decoded = prepared.lot, prepared.decoded
    headers = lot.records["headers"]
    found = cloud_events.fill(decoded, headers)
    batch, places = found.batch, decoded.rows
    time = batch["time"].cast(pa.int64()).to_numpy()
    resolved = aliases.resolve(batch["customer_id"], batch["source"], time)
    rejected = _rejected(decoded.rejected, [*found.rejected, *_without_customer(resolved, places)])
    good = ~np.isin(places, [row for row, *_ in rejected])
    changed = np.nonzero(good & (found.filled | resolved.changed))[0]
    homes = ids.partitions_of(pa.array(resolved.customers, pa.string()), partitions)
    kept = np.nonzero(good)[0]
    home = homes[resolved.codes[kept]]
    kept = kept[np.argsort(home, kind="stable")]
    record_time = lot.records["timestamp"].to_numpy()
    clocks = usage.clocks(clock, time, record_time[places], good)
    return Routed(
        segments.records(
            _values(lot.records["value"], batch, changed, resolved).take(pa.array(_chosen(places, changed, kept, len(lot.positions)))),
            pa.array(resolved.customers, pa.string()).take(pa.array(resolved.codes[kept])),
            record_time[places[kept]],
            headers.take(pa.array(places[kept])),
        ),
        np.bincount(home, minlength=partitions),
        [DeadLetter(int(lot.positions[r.row]), r.reason, r.message, r.path, r.schema_id) for r in rejected],
        len(lot.positions),
        int(clocks[-1]) if len(clocks) else clock,
    )


def _rejected(undecodable: Sequence[Refused], others: Sequence[Rejected]) -> list[Refused]:
    """All that is rejected, by row, each row once."""
    first = {each.row: Refused(*each, None) for each in reversed(others)}
    return sorted([*undecodable, *first.values()])


def _without_customer(resolved: Resolved, places: I64) -> list[Rejected]:
    """Rows whose customer is not given, or several."""
    found = []
    if "" in resolved.customers:
        message = "'customer_id' is empty and no header ce_subject names a customer; every usage event needs one"
        missing = np.nonzero(resolved.codes == resolved.customers.index(""))[0]
        found += [Rejected(row, "field_missing", message, "customer_id") for row in places[missing].tolist()]
    for row, customers in resolved.several.items():
        message = f"'customer_id' is an alias of {', '.join(customers)} at the event's time; end all but one of them in the reference data"
        found.append(Rejected(int(places[row]), "customer_ambiguous", message, "customer_id"))
    return found


def _values(values: pa.Array, batch: pa.RecordBatch, changed: I64, resolved: Resolved) -> pa.Array:
    """The lot's values, and behind them the changed ones as they are written anew."""
    if not len(changed):
        return values
    rows = pa.array(changed)
    customers = pa.array(resolved.customers, pa.string()).take(pa.array(resolved.codes[changed]))
    own = batch.take(rows)
    at = own.schema.get_field_index("customer_id")
    anew = codecs.encode("usage_event", own.set_column(at, own.schema.field(at), customers))
    return pa.concat_arrays([values, anew.cast(values.type)])


def _chosen(places: I64, changed: I64, kept: I64, rows: int) -> I64:
    """Where the value of each kept row stands in ``_values``."""
    where = places.copy()
    where[changed] = rows + np.arange(len(changed))
    return where[kept]
