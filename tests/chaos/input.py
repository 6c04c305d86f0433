"""Seeded input of the campaign: usage records in the order in which they are appended, and contracts that come between.

In: a seed, a number of records, of customers and of partitions. Out: ``Sent`` records (poison, duplicates, conflicts,
disorder, late and early ones, corrections and voids among them), and publications of contract versions with the place
in that order before which they must stand. A version that comes during the run may govern usage
long priced: what is charged in the end does not depend on when a cell reads it.
"""

import random
from decimal import Decimal
from typing import NamedTuple

from tests.chaos import oracle, wire
from tieout import ids

DAY, HOUR = oracle.DAY, oracle.HOUR
START = oracle.micros("2025-01-03T00:00:00+00:00")
SPAN = 84 * DAY
METERS = ("tokens", "calls", "gb", "jobs", "payments", "load", "egress")
WEIGHTS = (40, 20, 10, 10, 8, 6, 6)
KEPT_BACK, UNKNOWN, GAP, NO_CHARGE, STARTS_LATE = {3, 11}, {7}, {15}, {19}, {13}
"""Kinds of customers by their number modulo 20; the others have their contract from the start."""
POISON = (
    None, b"", b"\x01garbage", b"\x00\x00\x00\x00\x0b", b"\x00\x00\x00\x27\x0fbody", b"\x00\x00\x00\x00\x0b\x02\xff", b"\x00\x00\x00\x00\x0b\xff",
)


class Sent(NamedTuple):
    """One record of the usage topic to append."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple


class Publication(NamedTuple):
    """Contract versions to publish, one after the other, before the record of this number is appended."""

    before: int
    documents: list


class Input(NamedTuple):
    records: list
    publications: list


class Shares(NamedTuple):
    """Shares of the records that are not plain."""

    duplicate: float = 0.05
    conflict: float = 0.01
    out_of_order: float = 0.10
    late: float = 0.002
    early: float = 0.0003
    poison: float = 0.001
    bad: float = 0.0005
    correction: float = 0.004
    void: float = 0.004
    correction_first: float = 0.001


def instant(micros):
    return oracle.datetime.fromtimestamp(micros // 1_000_000, oracle.UTC).isoformat()


def charges(number, version):
    """Every model and aggregation of the oracle; figures that need all twelve decimals."""
    factor = 100 + 7 * (number % 13) - 3 * version
    price = lambda nano: f"0.{nano * factor // 100:09d}"
    reset = {"reset": "contract_version"} if number % 3 == 0 else {}
    tiers = [{"up_to": "2500.5", "unit_price": price(1_234_567), "flat_fee": "0.25"}, {"up_to": "90000", "unit_price": price(987_654), "flat_fee": "1"}, {"up_to": None, "unit_price": price(456_789), "flat_fee": "0"}]
    found = [
        {"charge_id": "tokens", "meter": "tokens", "price": {"model": "graduated", "tiers": tiers}, **reset},
        {"charge_id": "calls", "meter": "calls", "aggregation": {"kind": "count"}, "included_quantity": "10", "price": {"model": "per_unit", "unit_price": price(2_500_003)}, **reset},
        {"charge_id": "storage", "meter": "gb", "price": {"model": "volume", "tiers": [{"up_to": "400", "unit_price": price(23_000_001)}, {"up_to": None, "unit_price": price(19_000_009)}]}, **reset},
        {"charge_id": "jobs", "meter": "jobs", "price": {"model": "package", "size": "100", "price": f"4915{price(123_456_789)[1:]}", "free_units": "50"}, **reset},
        {"charge_id": "fees", "meter": "payments", "price": {"model": "percentage", "rate_percent": "1.2345", "fixed_per_event": price(90_000_000), "free_amount": "300", "maximum_per_event": "5"}, **reset},
        {"charge_id": "peak", "meter": "load", "aggregation": {"kind": "max"}, "price": {"model": "graduated", "tiers": [{"up_to": "20", "unit_price": price(310_000_003)}, {"up_to": None, "unit_price": price(170_000_007)}]}},
    ]
    if number % 20 not in NO_CHARGE:
        found.append({"charge_id": "regions", "meter": "egress", "group_by": ["region"], "discount_percent": "7.5", "price": {"model": "graduated", "tiers": tiers}, **reset})
    return found


def document(number, version, effective_from):
    zone = ("UTC", "America/New_York", "Asia/Tokyo")[number % 7 % 3]
    return {
        "contract_id": f"contract-{number}", "version": version, "customer_id": customer(number), "currency": ("USD", "EUR", "JPY")[number % 3],
        "effective_from": instant(effective_from), "billing": {"time_zone": zone}, "charges": charges(number, version),
    }


def customer(number):
    return f"customer-{number}"


class _Maker:
    def __init__(self, seed, rows, customers, partitions, shares):
        self.rnd = random.Random(f"input {seed}")
        self.rows, self.customers, self.partitions, self.shares = rows, customers, partitions, shares
        self.weights = [1 / (number + 5) for number in range(customers)]
        self.homes = [ids.partition_of(customer(number), partitions) for number in range(customers)]
        self.records, self.events, self.later = [], [], []

    def make(self):
        numbers = self.rnd.choices(range(self.customers), self.weights, k=self.rows)
        meters = self.rnd.choices(METERS, WEIGHTS, k=self.rows)
        while (at := len(self.records)) < self.rows:
            now = START + SPAN * at // self.rows
            if self.later and self.later[0][0] <= at:
                self._append(*self.later.pop(0)[1:])
            else:
                self._one(at, now, numbers[at], meters[at])
        return Input(self.records, self._publications())

    def _one(self, at, now, number, meter):
        rnd, shares = self.rnd, self.shares
        draw = rnd.random()
        for kind in shares._fields:
            share = getattr(shares, kind)
            if draw < share:
                break
            draw -= share
        else:
            kind = "plain"
        if kind in ("duplicate", "conflict", "correction", "void") and not self.events:
            kind = "plain"
        row = {
            "id": f"evt-{at}", "source": f"gateway-{number % 4}", "customer_id": customer(number), "meter": meter, "time": now - rnd.randrange(60_000_000),
            "quantity": self._quantity(meter), "attributes": {"region": rnd.choice(("eu", "us")), "model": "large"}, "contract_id": None, "amount": None,
            "corrects": None, "voids": None,
        }
        match kind:
            case "duplicate":
                number, row = self._earlier(now)
                row = dict(row, attributes=dict(reversed(row["attributes"].items())))
            case "conflict":
                number, row = self._earlier(now)
                row = dict(row, **rnd.choice(({"quantity": row["quantity"] + 1}, {"time": row["time"] - rnd.randrange(1, 3) * DAY}, {"meter": "calls"})))
            case "out_of_order":
                row["time"] -= rnd.randrange(rnd.choice((HOUR, DAY, 20 * DAY)))
            case "late":
                row["time"] -= rnd.randrange(36 * DAY, 60 * DAY)
            case "early":
                row["time"] = oracle.micros("2100-01-01T00:00:00+00:00") + at
            case "poison":
                headers = (("traceparent", f"00-{at:032x}".encode()),) if rnd.random() < 0.5 else ()
                key = None if rnd.random() < 0.2 else row["customer_id"].encode()
                self.records.append(Sent(self.homes[number], key, rnd.choice(POISON), headers))
                return
            case "bad":
                row |= rnd.choice(({"quantity": -row["quantity"]}, {"meter": ""}, {"quantity": None}))
            case "correction" | "void":
                number, original = self._earlier(now)
                row |= self._change(kind, original)
            case "correction_first":
                first = dict(row, id=f"first-{at}", **self._change(rnd.choice(("correction", "void")), row))
                if rnd.random() < 0.9:
                    self.later.append((at + rnd.randrange(1, 3000), number, row))
                    self.later.sort(key=lambda item: item[0])
                row = first
        if kind in ("plain", "out_of_order"):
            self.events.append((number, row))
        self._append(number, row)

    def _append(self, number, row):
        headers = (("ce_id", row["id"].encode()), ("empty", b"")) if len(self.records) % 50 == 0 else ()
        self.records.append(Sent(self.homes[number], row["customer_id"].encode(), wire.encode("usage_event", row), headers))

    def _quantity(self, meter):
        rnd = self.rnd
        thousandths = {"tokens": 4_000_000, "calls": 1000, "gb": 9000, "jobs": 30_000, "payments": 90_000, "load": 40_000, "egress": 700_000}[meter]
        return wire_decimal(rnd.randrange(1, thousandths), 3) if meter != "payments" else wire_decimal(rnd.randrange(1, thousandths * 10), 4)

    def _earlier(self, now):
        """A plain event that was appended before: mostly of late, sometimes of long ago."""
        back = self.rnd.choice((30, 300, 3000)) if self.rnd.random() < 0.9 else len(self.events)
        return self.events[-self.rnd.randrange(1, min(back, len(self.events)) + 1)]

    def _change(self, kind, original):
        key = {"source": original["source"], "id": original["id"]}
        change = {"voids": key, "quantity": None} if kind == "void" else {"corrects": key, "quantity": self._quantity(original["meter"])}
        return {"customer_id": original["customer_id"], "meter": original["meter"]} | change

    def _publications(self):
        rnd, found = self.rnd, []
        at_start = []
        for number in range(self.customers):
            kind = number % 20
            first = START + 40 * DAY if kind in STARTS_LATE else START - 400 * DAY
            if kind in UNKNOWN:
                continue
            if kind in KEPT_BACK:
                found.append(Publication(rnd.randrange(self.rows // 5, self.rows * 9 // 10), [document(number, 1, first)]))
            elif kind in GAP:
                both = [document(number, 2, START + 30 * DAY), document(number, 1, first)]
                found.append(Publication(self.rows // 10, both[:1]))
                found.append(Publication(rnd.randrange(self.rows // 5, self.rows * 9 // 10), both[1:]))
            else:
                at_start.append(document(number, 1, first))
                if kind % 2 and kind not in STARTS_LATE:
                    effective = START + rnd.randrange(2 * DAY, 80 * DAY) // (12 * HOUR) * 12 * HOUR
                    row = (effective - START) * self.rows // SPAN
                    later = document(number, 2, effective)
                    if kind in (1, 5):
                        at_start.append(later)
                    else:
                        late = rnd.randrange(self.rows // 5) if rnd.random() < 0.5 else 0  # entered days after it has begun
                        found.append(Publication(min(row + late, self.rows * 9 // 10), [later]))
                    if kind == 5:
                        at_start.append(document(number, 3, min(effective + 9 * DAY, START + SPAN)))
        return [Publication(0, at_start), *sorted(found, key=lambda publication: publication.before)]


def wire_decimal(units, scale):
    return Decimal(units).scaleb(-scale)


def make(seed, rows, customers, partitions, shares=Shares()):
    """The whole input of a campaign; the same for the same arguments."""
    return _Maker(seed, rows, customers, partitions, shares).make()
