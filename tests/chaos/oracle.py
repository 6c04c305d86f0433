"""The campaign's oracle: the fate of every event, and what everything costs, event by event in plain Python.

In: one partition's usage as it lies in the log (position, value, record time), contract version documents in the
order of their topic, and how the two interleave: for each interval, how far contracts and usage had been read. Out:
each row's fate, the holds, the exceptions, the counts of each interval, what waits at the end, and the charge of each
(customer, contract, charge, group, period). Written from docs/semantics.md sections 1 to 4; it shares no rule with the
product and none with ``tests/oracle.py``. Narrower than both: the models and aggregations that ``input`` uses.
"""

import functools
import heapq
import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime
from fractions import Fraction as F
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tests.chaos import wire

HOUR = 3_600_000_000
DAY = 24 * HOUR
HORIZON, FUTURE, HOLD_LIMIT = 35 * DAY, DAY, 7 * DAY
NEVER = -(2**62)
FIELDS = ("received", "released", "withdrawn", "priced", "duplicate", "conflict", "rejected", "held")
OPENS_AT_ONCE = {"no_charge", "contract_ambiguous", "contract_inactive", "no_price"}


class Logged(NamedTuple):
    """One record of the usage topic."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list
    stamp: int
    """Record time, UTC microseconds."""


class Interval(NamedTuple):
    """How far an interval had read: positions of the contract topic and of the usage topic; the newest tick that had counted."""

    contracts: int
    usage: int
    tick: int = NEVER


class Event:
    """An admitted event that is no correction, and what became of it."""

    __slots__ = ("charge", "contract", "customer", "fate", "group", "id", "meter", "offset", "period", "quantity", "region", "source", "time", "version", "voided")

    def __init__(self, offset, row):
        self.offset, self.source, self.id, self.customer, self.meter = offset, row["source"], row["id"], row["customer_id"], row["meter"]
        self.time, self.quantity, self.region = row["time"], row["quantity"], row["attributes"].get("region")
        self.voided, self.fate, self.version, self.charge = False, None, None, None
        self.contract = self.group = self.period = None


class Held:
    __slots__ = ("at", "event", "opened", "reason", "row", "target")

    def __init__(self, reason, at, row, event=None, target=None):
        self.reason, self.at, self.row, self.event, self.target = reason, at, row, event, target
        self.opened = False


@functools.cache
def micros(text):
    return round(datetime.fromisoformat(text).timestamp()) * 1_000_000


class Partition:
    """One partition, folded interval by interval."""

    def __init__(self, contracts):
        self.documents = contracts
        self.taken = 0
        self.versions = defaultdict(dict)
        """Those in force by contract; a number above a gap is not among them yet."""
        self.known = defaultdict(dict)
        self.contract_of = {}
        self.clock = NEVER
        self.seen = {}
        self.events = {}
        self.waiting = defaultdict(dict)
        self.for_original = defaultdict(list)
        self.silent = []
        self.fates, self.dead, self.conflicts = {}, {}, []
        self.holds, self.exceptions = Counter(), Counter()
        self.intervals, self.clocks, self.oldest = [], [], []
        self.ats = []
        self._number = itertools.count()

    def follow(self, log, intervals):
        """Fold all intervals; the log lists ``Logged`` by offset."""
        at = 0
        for interval in intervals:
            end = at
            while end < len(log) and log[end].offset < interval.usage:
                end += 1
            self.clock = max(self.clock, interval.tick)
            self.interval(log[at:end], self.documents[self.taken : interval.contracts])
            self.taken = max(self.taken, interval.contracts)
            at = end
        return self

    def interval(self, records, documents):
        self.counts = dict.fromkeys(FIELDS, 0)
        self.counts["received"] = len(records)
        self._contracts(documents)
        for record in records:
            self._record(record)
        self._overdue()
        self.intervals.append(self.counts)
        self.clocks.append(self.clock)
        while self.ats and not self._waits(self.ats[0]):
            heapq.heappop(self.ats)
        self.oldest.append(self.ats[0][0] if self.ats else None)

    @property
    def totals(self):
        totals = {name: sum(counts[name] for counts in self.intervals) for name in FIELDS}
        return totals | {"waiting": totals["held"] - totals["released"]}

    # contracts

    def _contracts(self, documents):
        touched = {}
        for document in documents:
            contract, customer = document["contract_id"], document["customer_id"]
            self.known[contract][document["version"]] = document
            following = len(self.versions[contract]) + 1
            while following in self.known[contract]:
                self.versions[contract][following] = self.known[contract][following]
                self.contract_of[customer] = contract
                touched[customer] = None
                following += 1
        for customer in touched:
            for held in list(self.waiting[customer].values()):
                if held.event is not None:
                    self._try_again(held)

    def _governing(self, contract, time):
        found = None
        for number, document in self.versions[contract].items():
            ends = document.get("effective_to")
            if micros(document["effective_from"]) <= time and (ends is None or time < micros(ends)) and (found is None or number > found["version"]):
                found = document
        return found

    def _missing(self, event):
        """Why it cannot be priced, None where it can; then its version and charge are set."""
        contract = self.contract_of.get(event.customer)
        if contract is None:
            return "no_customer"
        document = self._governing(contract, event.time)
        if document is None:
            return "no_contract"
        charge = next((charge for charge in document["charges"] if charge["meter"] == event.meter), None)
        if charge is None:
            return "no_charge"
        event.contract, event.version, event.charge = contract, document, charge
        event.group = (event.region,) if charge.get("group_by") else None
        event.period = month(event.time, document)
        return None

    # rows

    def _record(self, record):
        row, reason = self._admitted(record)
        if reason is not None:
            self.counts["rejected"] += 1
            self.fates[record.offset] = ("rejected", reason)
            self.dead[record.offset] = reason
            return
        self.clock = max(self.clock, min(row["time"], record.stamp))
        name = (row["customer_id"], row["source"], row["id"])
        content = content_of(row)
        first = self.seen.get(name)
        if first is not None and first[1] >= self.clock - HORIZON:
            fate = "duplicate" if first[0] == content else "conflict"
            self.counts[fate] += 1
            self.fates[record.offset] = (fate, None)
            if fate == "conflict":
                self.conflicts.append((first[2], record.offset))
                self.exceptions["usage_conflict", name[0], name[2]] += 1
            return
        self.seen[name] = (content, max(row["time"], self.clock), record.offset)
        target = row["corrects"] or row["voids"]
        if target is None:
            event = Event(record.offset, row)
            self.events[name] = event
            self._decide(event, row)
            self._corrections_of(name)
        else:
            name = (row["customer_id"], target["source"], target["id"])
            if self._apply(row, name):
                self.counts["priced"] += 1
                self.fates[record.offset] = ("priced", None)
            else:
                held = self._hold(Held("original_unknown", self.clock, row, None, name), record.offset)
                self.for_original[name].append(held)

    def _admitted(self, record):
        try:
            row = wire.decode("usage_event", record.value)
        except wire.Undecodable as error:
            return None, error.reason
        if not all(row[name] for name in ("id", "source", "customer_id", "meter")):
            return row, "field_missing"
        if row["quantity"] is None and row["voids"] is None:
            return row, "field_missing"
        if row["corrects"] and row["voids"]:
            return row, "field_invalid"
        if row["quantity"] is not None and row["quantity"] < 0:
            return row, "quantity_negative"
        if row["time"] > record.stamp + FUTURE:
            return row, "too_early"
        if row["time"] < max(self.clock, min(row["time"], record.stamp)) - HORIZON:
            return row, "too_late"
        return row, None

    def _decide(self, event, row):
        reason = self._missing(event)
        if reason is None:
            event.fate = "priced"
            self.counts["priced"] += 1
            self.fates[event.offset] = ("priced", None)
        else:
            event.fate = "held"
            self._hold(Held(reason, self.clock, row, event), event.offset)

    def _hold(self, held, offset):
        row = held.row
        self.counts["held"] += 1
        self.fates[offset] = ("waiting", held.reason)
        self.waiting[row["customer_id"]][row["source"], row["id"]] = held
        self._tell(held, "held")
        entry = (held.at, next(self._number), held)
        heapq.heappush(self.ats, entry)
        if held.reason in OPENS_AT_ONCE:
            self._open(held)
        else:
            heapq.heappush(self.silent, entry)
        return held

    def _open(self, held):
        held.opened = True
        self.exceptions[f"hold_{held.reason}", held.row["customer_id"], held.row["id"]] += 1

    def _tell(self, held, state):
        self.holds[held.row["customer_id"], held.row["source"], held.row["id"], held.reason, state] += 1

    def _leave(self, held):
        self.counts["released"] += 1
        self._tell(held, "released")
        del self.waiting[held.row["customer_id"]][held.row["source"], held.row["id"]]

    def _waits(self, entry):
        row = entry[2].row
        return self.waiting[row["customer_id"]].get((row["source"], row["id"])) is entry[2]

    def _try_again(self, held):
        reason = self._missing(held.event)
        if reason == held.reason:
            return
        self._leave(held)
        if reason is None:
            held.event.fate = "priced"
            self.counts["priced"] += 1
            self.fates[held.event.offset] = ("priced", None)
        else:
            self._hold(Held(reason, max(self.clock, held.at), held.row, held.event), held.event.offset)

    # corrections and voids

    def _apply(self, row, name):
        """Whether the original is known, and so changed."""
        event = self.events.get(name)
        if event is None:
            return False
        if event.voided:
            return True
        if row["corrects"]:
            event.quantity = row["quantity"]
            return True
        event.voided = True
        if event.fate == "held":
            self._leave(self.waiting[event.customer][event.source, event.id])
            self.counts["priced"] += 1
            self.fates[event.offset] = ("priced", None)
            event.charge = None
        event.fate = "voided"
        return True

    def _corrections_of(self, name):
        for held in self.for_original.pop(name, ()):
            self._apply(held.row, name)
            self._leave(held)
            self.counts["priced"] += 1
            offset = self.seen[held.row["customer_id"], held.row["source"], held.row["id"]][2]
            self.fates[offset] = ("priced", None)

    def _overdue(self):
        while self.silent and self.clock - self.silent[0][0] >= HOLD_LIMIT:
            entry = heapq.heappop(self.silent)
            if self._waits(entry):
                self._open(entry[2])

    # prices

    def live(self):
        """The priced events that are not voided."""
        return [event for event in self.events.values() if event.fate == "priced"]

    def with_final_facts(self):
        """Every priced event under the version that governs it when all are known; the campaign's versions all price all meters."""
        for event in self.live():
            missing = self._missing(event)
            assert missing is None, missing
        return self

    def charges(self):
        """What each (customer, contract, charge, group, period) costs, and in which currency."""
        places = defaultdict(list)
        for event in self.live():
            places[event.customer, event.contract, event.charge["charge_id"], event.group, event.period].append(event)
        return {place: (charge_of(events), events[0].version["currency"]) for place, events in places.items()}


def content_of(row):
    quantity, amount = row["quantity"], row["amount"]
    keys = [None if row[name] is None else (row[name]["source"], row[name]["id"]) for name in ("corrects", "voids")]
    return (
        row["customer_id"], row["meter"], row["time"], quantity, tuple(sorted(row["attributes"].items())),
        row["contract_id"], amount, *keys,
    )


def month(time, document):
    """The calendar month of an instant in the contract's zone; zones here are whole hours from UTC."""
    return _month(time // HOUR, document["billing"]["time_zone"])


@functools.cache
def _month(hour, zone):
    return f"{datetime.fromtimestamp(hour * 3600, UTC).astimezone(ZoneInfo(zone)):%Y-%m}"


def charge_of(events):
    """The charge of one place and period: for each version with live events P(B + S) - P(B)."""
    by_version = defaultdict(list)
    for event in events:
        by_version[event.version["version"]].append(event)
    charge = events[0].charge
    apart = charge.get("reset") == "contract_version"
    if charge["price"]["model"] == "percentage":
        return sum(map(walked, by_version.values()), F(0)) if apart else walked(events)
    kind = charge.get("aggregation", {}).get("kind", "sum")
    total, below, any_below = F(0), F(0), False
    for version in sorted(by_version):
        mine = by_version[version]
        price = lambda q, charge=mine[0].charge: rounded(model_price(charge, q))
        if kind == "max":
            total += price(max(F(event.quantity) for event in mine))
            continue
        own = F(len(mine)) if kind == "count" else sum((F(event.quantity) for event in mine), F(0))
        if apart:
            total += price(own)
        else:
            total += price(below + own) - (price(below) if any_below else 0)
            below, any_below = below + own, True
    return total


def model_price(charge, q):
    q = max(F(0), q - F(charge.get("included_quantity", "0")))
    price = charge["price"]
    match price["model"]:
        case "per_unit":
            amount = q * F(price["unit_price"])
        case "package":
            packages = -(-max(F(0), q - F(price.get("free_units", "0"))) // F(price["size"]))
            amount = packages * F(price["price"])
        case "volume":
            tier = next(tier for tier in price["tiers"] if tier["up_to"] is None or q <= F(tier["up_to"]))
            amount = q * F(tier["unit_price"]) + F(tier.get("flat_fee", "0"))
        case "graduated":
            amount, low = F(0), F(0)
            for number, tier in enumerate(price["tiers"]):
                if number and q <= low:
                    break
                high = q if tier["up_to"] is None else min(q, F(tier["up_to"]))
                amount += (high - low) * F(tier["unit_price"]) + F(tier.get("flat_fee", "0"))
                low = None if tier["up_to"] is None else F(tier["up_to"])
        case other:
            raise AssertionError(other)
    return amount * (100 - F(charge.get("discount_percent", "0"))) / 100


def walked(events):
    """Percentage: event by event in the order of event time, each at its own version's rate."""
    total, value = F(0), F(0)
    for event in sorted(events, key=lambda event: (event.time, event.source, event.id)):
        price, own = event.charge["price"], F(event.quantity)
        free = F(price.get("free_amount", "0"))
        before, value = value, value + own
        if "free_amount" in price and value <= free:
            continue
        amount = (value - max(before, free)) * F(price["rate_percent"]) / 100 + F(price.get("fixed_per_event", "0"))
        amount = max(amount, F(price.get("minimum_per_event", "0")))
        total += min(amount, F(price["maximum_per_event"])) if "maximum_per_event" in price else amount
    return rounded(total)


def rounded(amount):
    """Half up at the twelfth decimal; no amount here is negative."""
    return F((amount * 10**12 + F(1, 2)) // 1, 10**12)
