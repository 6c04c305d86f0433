"""Contracts at scale: what it costs to compile them, to hold them, and to tag and price usage by them.

``python -m benchmarks.contracts --versions 20000,200000,3000000`` compiles so many versions (three a contract, five
graduated charges each) from their records as a start of the usage flow does, each size in a process of its own: once
with the prices of one rate card, once with prices of their own in every version. Then versions come one by one, and
events go through the whole stage in batches of 25,000: first so many (``--before``) that each charge of a million
customers has had one, then a million of random customers (``--events``), whose running quantities are there already.
``--versions 30000,3000000 --prices shared --repeat 3`` tells what an event costs at a million customers next to ten
thousand: the sizes come in turn, since what other processes do on the machine changes from minute to minute. The figure
per event is the fold's; ``benchmarks.contracts_kafka`` has that of the whole flow.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from benchmarks.memory import resident
from flows import codecs, contract_records
from flows.contract_records import KeptRecords
from schemas import catalog
from tieout.contracts import parse_contract
from tieout.dedup import Seen
from tieout.ids import of_strings
from tieout.rating.chains import Chains
from tieout.rating.tariff import Tariffs
from tieout.usage import EVENTS
from tieout.usage_stage import UsageBatch, UsageState, step

LOT = 25_000
CONTRACTS = 8_000
PER_CONTRACT = 3
METERS = ("api.calls", "compute.s", "egress.gb", "seats", "storage.gb")
TIERS = 3
START = 1_767_225_600_000_000
DAY = 86_400_000_000


def main() -> None:
    """Print a row for each size and kind of prices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default="20000,200000,3000000", help="how many versions, several by commas")
    parser.add_argument("--before", type=int, default=5_000_000, help="usage events after them, of each charge of each customer in turn")
    parser.add_argument("--events", type=int, default=1_000_000, help="usage events of random customers after those")
    parser.add_argument("--repeat", type=int, default=1, help="how often, the sizes in turn")
    parser.add_argument("--prices", default="shared,distinct", help="shared, distinct")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        _measure(int(options.one[0]), options.one[1], (options.before, options.events))
        return
    for prices in options.prices.split(","):
        for versions in options.versions.split(",") * options.repeat:
            print(f"load {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
            command = [sys.executable, "-m", "benchmarks.contracts", "--one", versions, prices, "--before", str(options.before), "--events", str(options.events)]
            subprocess.run(command, check=True)


def _measure(versions: int, prices: str, events: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    contracts = versions // PER_CONTRACT
    state, kept = UsageState(), KeptRecords()
    state.take([kept.take(next(records(30, 10, "shared", random)))])
    state, kept = UsageState(), KeptRecords()
    pa.default_memory_pool().release_unused()
    before, codec, compiled = resident("VmRSS"), 0.0, 0.0
    for values in records(versions, contracts, prices, random):
        at = time.process_time()
        codecs.own("contract_version").decode(values)
        middle = time.process_time()
        state.take([kept.take(values)])
        codec, compiled = codec + middle - at, compiled + time.process_time() - middle
    pa.default_memory_pool().release_unused()
    held = resident("VmRSS") - before
    print(
        f"{versions:,} versions of {contracts:,} customers, {prices} prices: compiled in {compiled:.2f} CPU-s, {compiled / versions * 1e6:.1f} us a version "
        f"(of which decoding {codec / versions * 1e6:.1f}); {held:,} MB more, {held * 1048576 / versions:.0f} bytes a version; {len(state.tariffs.table):,} prices; peak {resident('VmHWM'):,} MB",
        flush=True,
    )
    _later(state, kept, contracts, prices, random)
    if sum(events):
        _use(state, contracts, events, random)


def records(versions: int, contracts: int, prices: str, random: np.random.Generator, first: int = 0) -> Iterator[pa.Array]:
    """Framed records of versions, lot by lot: all first versions, then all second ones."""
    charges = [
        {"charge_id": meter, "meter": meter, "reset": "contract_version", "price": {"model": "graduated", "tiers": [
            {"up_to": None if tier == TIERS - 1 else str(1000 * (tier + 1)), "unit_price": "0.5", "flat_fee": "0"} for tier in range(TIERS)]}}
        for meter in METERS
    ]
    document = {"contract_id": "k", "customer_id": "c", "effective_from": "2026-01-01T00:00:00Z", "charges": charges}
    row = contract_records._row(parse_contract(document))  # noqa: SLF001
    template = pa.RecordBatch.from_pylist([row], schema=catalog.arrow_schema("contract_version"))
    for at in range(first, first + versions, CONTRACTS):
        number = np.arange(at, min(at + CONTRACTS, first + versions))
        rows = template.take(pa.array(np.zeros(len(number), np.int64)))
        contract = number % contracts
        version = number // contracts + 1
        columns = dict(zip(rows.schema.names, rows.columns, strict=True))
        columns["contract_id"] = pa.array([f"k{name:07d}" for name in contract])
        columns["customer_id"] = pa.array([f"c{name:07d}" for name in contract])
        columns["version"] = pa.array(version, pa.int32())
        columns["effective_from"] = pa.array(START + (version - 1) * 20 * DAY).cast(pa.timestamp("us", "UTC"))
        if prices == "distinct":
            columns["charges"] = _priced(columns["charges"], random)
        yield codecs.encode("contract_version", pa.RecordBatch.from_arrays(list(columns.values()), schema=rows.schema))


def _priced(charges: pa.ListArray, random: np.random.Generator) -> pa.ListArray:
    """The same charges with bounds and prices of their own."""
    items = charges.flatten()
    price = items.field("price")
    tiers = price.field("tiers")
    parts = tiers.flatten()
    n = len(parts)
    unit = random.integers(1, 5_000_000, n) * 10**6
    bound = np.sort(random.integers(1, 50_000, (n // TIERS, TIERS)), axis=1).cumsum(axis=1).reshape(-1) * 10**9
    up_to = pa.array([None if tier % TIERS == TIERS - 1 else value for tier, value in enumerate(bound.tolist())], pa.int64())
    own = _with(parts, {"up_to": _decimal(up_to, 28, 9), "unit_price": _decimal(pa.array(unit), 24, 12)})
    return pa.ListArray.from_arrays(charges.offsets, _with(items, {"price": _with(price, {"tiers": pa.ListArray.from_arrays(tiers.offsets, own)})}), type=charges.type)


def _with(part: pa.StructArray, given: dict[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays([given.get(field.name, part.field(at)).cast(field.type) for at, field in enumerate(part.type)], fields=list(part.type))


def _decimal(units: pa.Array, precision: int, scale: int) -> pa.Array:
    data = np.zeros((len(units), 2), np.int64)
    data[:, 0] = units.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.Array.from_buffers(pa.decimal128(precision, scale), len(units), [units.buffers()[0], pa.py_buffer(data)])


def _later(state: UsageState, kept: KeptRecords, contracts: int, prices: str, random: np.random.Generator) -> None:
    """Versions that come one by one, as when they are published in the course of a day."""
    first = len(state.book.columns)
    spent = []
    for values in records(50, contracts, prices, random, first):
        for at in range(len(values)):
            before = time.process_time()
            state.take([kept.take(values[at : at + 1])])
            _ = state.tariffs.tag(of_strings(pa.array(["c0000001"])), np.zeros(1, np.int64), np.array([START]))
            spent.append(time.process_time() - before)
    print(f"  one more version, by itself: {np.median(spent) * 1000:.1f} ms, at most {max(spent) * 1000:.1f} ms CPU", flush=True)


def _use(state: UsageState, contracts: int, events: tuple[int, int], random: np.random.Generator) -> None:
    """Events through the stage: those that each charge has in turn, then those of random ones."""
    spent = dict.fromkeys(("whole", "tag", "tariff", "dedup", "chains"), 0.0)
    _timed(spent, "tag", state.tariffs, Tariffs.tag)
    _timed(spent, "tariff", state.tariffs, Tariffs.solo)
    _timed(spent, "dedup", state.seen, Seen.judge)
    chains = state.rater.chains
    _timed(spent, "chains", chains, Chains.rows)
    _timed(spent, "chains", chains, Chains.price)
    charges = contracts * len(METERS)
    order = random.permutation(charges)
    for name, start, end in (("in turn", 0, events[0]), ("at random", events[0], sum(events))):
        spent |= dict.fromkeys(spent, 0.0)
        for first in range(start, end, LOT):
            chosen = order[np.arange(first, first + LOT) % charges] if name == "in turn" else random.integers(0, charges, LOT)
            batch = usage(first, chosen, random)
            before = time.process_time()
            result = step(state, batch)
            spent["whole"] += time.process_time() - before
            assert result.counts.priced == batch.size
        if end > start:
            told = ", ".join(f"{part} {seconds / (end - start) * 1e6:.2f}" for part, seconds in spent.items())
            print(f"  {end - start:,} events {name}: CPU-s a million in the stage: {told}; {len(chains.index):,} chains, resident {resident('VmRSS'):,} MB, peak {resident('VmHWM'):,}; load {os.getloadavg()[0]:.2f}", flush=True)


def _timed(spent: dict[str, float], name: str, owner: object, function) -> None:
    def inner(*arguments):
        before = time.process_time()
        try:
            return function(owner, *arguments)
        finally:
            spent[name] += time.process_time() - before

    setattr(owner, function.__name__, inner)


def usage(first: int, charges: np.ndarray, random: np.random.Generator) -> UsageBatch:
    """An event for each of the charges; the number of the first event. A charge is its customer's number and its meter's place."""
    n = len(charges)
    customer, meter = np.divmod(charges, len(METERS))
    moment = START + np.sort(random.integers(first, first + n, n)) * 2_000
    columns = {
        "id": pa.array([f"0193a1c4-{number:012d}-7b1f-8c9d" for number in range(first, first + n)]),
        "source": pa.array(["gateway"] * n),
        "customer_id": pa.array([f"c{number:07d}" for number in customer]),
        "meter": pa.array(METERS).take(pa.array(meter)),
        "time": pa.array(moment).cast(pa.timestamp("us", "UTC")),
        "quantity": _decimal(pa.array(random.integers(0, 10**6, n) * 10**6), 28, 9),
        "attributes": pa.MapArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), pa.array(["region"] * n), pa.array(["eu"] * n)).cast(EVENTS.field("attributes").type),
    }
    arrays = [columns.get(field.name, pa.nulls(n, field.type)) for field in EVENTS]
    batch = pa.RecordBatch.from_arrays(arrays, schema=EVENTS)
    return UsageBatch(np.arange(first, first + n), batch, np.arange(n), moment, pa.nulls(n, pa.large_binary()))



if __name__ == "__main__":
    main()
