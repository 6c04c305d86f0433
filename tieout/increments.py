"""Rated records, by columns, as increments of what invoicing bills: one for each charge, group, billing period, version, stretch.

In: rated records of any contracts, in log order, and for each contract how it divides time. Out: the increments in the order
in which the records first meet them. Sums are exact whatever their size: columns of 128-bit figures are added in limbs of 32
bits, and put together as Python's own integers. Counts and digests (the sum of the ``rated_id``, modulo 2^128) do not depend
on the order of the records. Source: docs/semantics.md section 5, ``tieout.invoicing.records.UsageSum``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import wide
from tieout.invoicing.records import DIGEST, UsageSum
from tieout.period import Calendar, midnight

I64 = npt.NDArray[np.int64]
COLUMNS: Final = (
    "rated_id", "correlation_id", "cause", "contract_id", "contract_version", "charge_id", "group", "billing_period", "time", "quantity", "amount", "currency", "event",
)  # fmt: skip
"""What is looked at. ``correlation_id`` stands for contract, charge, group and billing period; ``time`` in UTC microseconds."""


class Increment(NamedTuple):
    """What some records add to a contract's sums, in the currency of their version."""

    contract_id: str
    currency: str
    sum: UsageSum


@dataclass(frozen=True, slots=True)
class Divided:
    """How a contract divides time: its calendar, and the instants at which a prepaid grant begins or ends."""

    calendar: Calendar
    cuts: tuple[int, ...] = ()


def increments(rows: pa.RecordBatch, divided: Callable[[str], Divided]) -> list[Increment]:
    """The increments of some records; ``divided`` is asked once for each contract in them."""
    if not rows.num_rows:
        return []
    contract = pc.dictionary_encode(rows["contract_id"])
    codes, names = contract.indices.to_numpy(), contract.dictionary.to_pylist()
    times = {name: divided(name) for name in names}
    starts = _starts(codes, names, rows["billing_period"], times)
    since = _since(codes, names, starts, rows["time"].cast(pa.int64()).to_numpy(), times)
    version = rows["contract_version"].to_numpy().astype(np.int64)
    chain = wide.hexadecimal(rows["correlation_id"])
    order = np.lexsort((since, version, chain[1], chain[0]))  # stable: rows of a key stay in log order
    first = _bounds([column[order] for column in (chain[0], chain[1], version, since)])
    return _made(rows, order, first, starts, since)


def _made(rows: pa.RecordBatch, order: I64, first: I64, starts: I64, since: I64) -> list[Increment]:
    at = order[first]  # the first record of each key
    head = rows.take(pa.array(at))
    quantity, amount = (wide.signed_sums(wide.lanes_of(rows[name]), order, first) for name in ("quantity", "amount"))
    live = np.add.reduceat(live_of(rows)[order], first).tolist()
    records = np.diff(np.append(first, len(order))).tolist()
    digest = [value % DIGEST for value in wide.unsigned_sums(wide.hexadecimal(rows["rated_id"]), order, first)]
    charges, groups, versions = head["charge_id"].to_pylist(), head["group"].to_pylist(), head["contract_version"].to_pylist()
    found = [
        Increment(contract, currency, UsageSum(charge, None if group is None else tuple(group), start, version, since_us, q, a, alive, count, name))
        for contract, currency, charge, group, start, version, since_us, q, a, alive, count, name in zip(
            head["contract_id"].to_pylist(), head["currency"].to_pylist(), charges, groups, starts[at].tolist(), versions, since[at].tolist(),
            quantity, amount, live, records, digest, strict=True,
        )
    ]  # fmt: skip
    return [found[place] for place in np.argsort(at, kind="stable").tolist()]


def live_of(rows: pa.RecordBatch) -> I64:
    """By record, the change of the number of live events: +1 where one comes in, -1 where one is voided or moves away, else 0."""
    cause = rows["cause"]
    kind = cause.field("kind").cast(pa.string())
    moved = np.asarray(pc.equal(kind, "reprice"))
    leaves = moved & (cause.field("from_version").fill_null(-1).to_numpy(zero_copy_only=False) == rows["contract_version"].to_numpy())
    told = pc.struct_field(rows["event"], "quantity").is_valid()  # a correction tells the new quantity, a void has none
    voids = np.asarray(pc.equal(kind, "correction")) & ~np.asarray(told)
    comes = np.asarray(pc.equal(kind, "usage")) | (moved & ~leaves)
    return comes.astype(np.int64) - (voids | leaves).astype(np.int64)


def _starts(codes: npt.NDArray[Any], names: Sequence[str], labels: pa.Array, times: Mapping[str, Divided]) -> I64:
    """Where each record's billing period begins."""
    label = pc.dictionary_encode(labels)
    words = label.dictionary.to_pylist()
    pairs, place = np.unique(codes.astype(np.int64) * len(words) + label.indices.to_numpy(), return_inverse=True)
    found = [period_start(times[names[pair // len(words)]].calendar.time_zone, words[pair % len(words)]) for pair in pairs.tolist()]
    return np.array(found, np.int64)[place]


@lru_cache(maxsize=65536)
def period_start(time_zone: str, label: str) -> int:
    """The instant at which the billing period of a label begins."""
    return midnight(date.fromisoformat(label if len(label) > len("2026-01") else f"{label}-01"), time_zone)


def _since(codes: npt.NDArray[Any], names: Sequence[str], starts: I64, time: I64, times: Mapping[str, Divided]) -> I64:
    """Where each record's stretch begins: at the last cut at or before its time, but not before its billing period."""
    since = starts.copy()
    for code, name in enumerate(names):
        cuts = np.array(times[name].cuts, np.int64)
        if len(cuts):
            rows = np.nonzero(codes == code)[0]
            place = np.searchsorted(cuts, time[rows], side="right")
            bound = cuts[np.maximum(place - 1, 0)]
            since[rows] = np.where(place > 0, np.maximum(bound, starts[rows]), starts[rows])
    return since


def _bounds(columns: Sequence[npt.NDArray[Any]]) -> I64:
    """Where sorted rows change."""
    fresh = np.ones(len(columns[0]), np.bool_)
    fresh[1:] = False
    for column in columns:
        fresh[1:] |= column[1:] != column[:-1]
    return np.nonzero(fresh)[0]
