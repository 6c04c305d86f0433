"""Seeded telemetry: usage events and contracts that look like a customer base's, the same for the same seed.

In: a seed, sizes, and the shares of duplicates, conflicts, late, out-of-order and poisoned records. Out: framed usage
values with their keys and record times, contract documents, and what the flow must count of them.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flows import codecs
from tieout import wide
from tieout.usage import EVENTS

DAY: Final = 86_400_000_000
START: Final = 1_767_225_600_000_000  # 2026-01-01
SPAN: Final = 45 * DAY
METERS: Final = ("tokens_in", "tokens_out", "api_calls", "storage_gb")
_SCALE: Final = {"tokens_in": 4000, "tokens_out": 800, "api_calls": 20, "storage_gb": 3}
_POISON: Final = (b"", b"\x01garbage", b"\x00\x00\x00\x00\x0b", b"\x00\x00\x00\x27\x0fbody", b"\x00\x00\x00\x00\x0b\x02\xff")


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of the records that are not plain, each 0 to 1."""

    duplicate: float = 0.02
    conflict: float = 0.001
    late: float = 0.0005
    out_of_order: float = 0.05
    poison: float = 0.0005


@dataclass(frozen=True, slots=True)
class Generated:
    """Usage records in log order, and how many of them have each fate."""

    values: pa.Array
    keys: pa.Array
    record_time: npt.NDArray[np.int64]
    expected: dict[str, int]


def customer(number: int) -> str:
    """The id of a customer."""
    return f"customer-{number:04d}"


def contracts(seed: int, customers: int) -> list[dict[str, Any]]:
    """One contract a customer; every third is amended in mid-January."""
    random = np.random.default_rng([seed, 1])
    documents = []
    for number in range(customers):
        factor = int(random.integers(80, 121))
        documents.append(_contract(number, 1, "2025-12-01T00:00:00Z", factor))
        if number % 3 == 0:
            documents.append(_contract(number, 2, "2026-01-16T00:00:00Z", factor - 10))
    return documents


def _contract(number: int, version: int, effective_from: str, factor: int) -> dict[str, Any]:
    def price(micros: int) -> str:
        return f"0.{micros * factor // 100:06d}"

    charges: list[dict[str, Any]] = [
        {"charge_id": "input", "meter": "tokens_in", "price": {"model": "graduated", "tiers": [
            {"up_to": "1000000", "unit_price": price(30)}, {"up_to": None, "unit_price": price(20)}]}},
        {"charge_id": "output", "meter": "tokens_out", "price": {"model": "package", "size": "1000", "price": price(15000)}},
        {"charge_id": "calls", "meter": "api_calls", "included_quantity": "100", "price": {"model": "per_unit", "unit_price": price(2500)}},
        {"charge_id": "storage", "meter": "storage_gb", "price": {"model": "volume", "tiers": [
            {"up_to": "500", "unit_price": price(23000)}, {"up_to": None, "unit_price": price(21000)}]}},
    ]
    return {
        "contract_id": f"contract-{number:04d}", "version": version, "customer_id": customer(number), "legal_entity_id": ("us-inc", "eu-gmbh")[number % 2],
        "currency": ("USD", "EUR")[number % 2], "effective_from": effective_from, "charges": charges,
    }


def usage(seed: int, rows: int, customers: int, shares: Shares) -> Generated:
    """Usage over 45 days with a daily rhythm and a few heavy customers, disturbed by the given shares."""
    random = np.random.default_rng([seed, 2])
    time = START + np.sort(_rhythm(random, rows))
    who = np.minimum((random.pareto(1.2, rows) * customers / 12).astype(np.int64), customers - 1)
    meter = random.choice(len(METERS), rows, p=[0.4, 0.4, 0.15, 0.05])
    scale = np.array([_SCALE[name] for name in METERS])[meter]
    quantity = np.maximum(1, random.gamma(0.8, 1.0, rows) * scale * 1000).astype(np.int64)  # thousandths
    quantity = np.where(meter < 3, quantity // 1000 * 1000 + 1000, quantity)
    draw = random.random(rows)
    edges = np.cumsum([0, shares.duplicate, shares.conflict, shares.late, shares.out_of_order, shares.poison])
    kinds = [(draw >= low) & (draw < high) for low, high in pairwise(edges.tolist())]
    duplicate, conflict, late, shuffled, poison = kinds
    number = np.arange(rows)
    plain = ~(duplicate | conflict | late | poison)
    earlier = _earlier(random, plain)
    duplicate &= earlier >= 0
    conflict &= earlier >= 0
    again = duplicate | conflict
    source = np.where(again, earlier, number)
    event_time = time[source]
    event_time = np.where(shuffled, event_time - random.integers(0, 6 * 3_600_000_000, rows), event_time)
    event_time = event_time[source]
    late &= time > START + 40 * DAY
    event_time = np.where(late, time - 39 * DAY, event_time)
    amount = np.where(conflict, quantity[source] + 1000, quantity[source])
    batch = _events(source, who[source], meter[source], event_time, amount)
    values = codecs.encode("usage_event", batch)
    values = _poisoned(values, np.nonzero(poison)[0])
    keys = pa.array([customer(n) for n in who[source].tolist()])
    expected = {"duplicate": int(duplicate.sum()), "conflict": int(conflict.sum()), "rejected": int(late.sum() + poison.sum())}
    expected["priced"] = rows - sum(expected.values())
    return Generated(values, keys, time, expected)


def _rhythm(random: np.random.Generator, rows: int) -> npt.NDArray[np.int64]:
    """Instants with busy afternoons and quiet nights."""
    day = random.integers(0, SPAN // DAY, rows)
    hour = np.clip(random.normal(14, 4, rows), 0, 23.999)
    return day * DAY + (hour * 3_600).astype(np.int64) * 1_000_000 + random.integers(0, 1_000_000, rows)


def _earlier(random: np.random.Generator, plain: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each row some plain row of the two thousand before it, -1 where there is none."""
    places = np.nonzero(plain)[0]
    before = np.searchsorted(places, np.arange(len(plain)))
    back = random.integers(1, 2001, len(plain))
    at = before - np.minimum(back, before)
    return np.where(before > 0, places[np.minimum(at, len(places) - 1)] if len(places) else -1, -1)


def _events(
    number: npt.NDArray[np.int64], who: npt.NDArray[np.int64], meter: npt.NDArray[np.int64],
    time: npt.NDArray[np.int64], thousandths: npt.NDArray[np.int64],
) -> pa.RecordBatch:
    n = len(number)
    units = thousandths * 1_000_000
    quantity = wide.decimals(np.zeros(n, np.uint64), units.view(np.uint64), 28, 9)
    region = [("eu", "us", "ap")[x] for x in (who % 3).tolist()]
    columns = {
        "id": pa.array([f"evt-{x:09d}" for x in number.tolist()]),
        "source": pa.array([f"gateway-{x}" for x in (who % 4).tolist()]),
        "customer_id": pa.array([customer(x) for x in who.tolist()]),
        "meter": pa.array([METERS[x] for x in meter.tolist()]),
        "time": pa.array(time).cast(pa.timestamp("us", "UTC")),
        "quantity": quantity,
        "attributes": pa.array([[("region", name)] for name in region], EVENTS.field("attributes").type),
    }
    return pa.RecordBatch.from_arrays([columns.get(f.name, pa.nulls(n, f.type)) for f in EVENTS], schema=EVENTS)


def _poisoned(values: pa.Array, rows: npt.NDArray[np.int64]) -> pa.Array:
    raw = values.to_pylist()
    for place, row in enumerate(rows.tolist()):
        raw[row] = _POISON[place % len(_POISON)]
    return pa.array(raw, pa.large_binary())
