"""The verdict: what consumers see of an installation, held against the oracle.

In: a reader of the installation, what was sent and which contracts were published. Out: every break, with the check
that found it. Nothing here depends on time: counts, equality and order only.
"""

import hashlib
import json
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from flows import topics
from flows.usage_records import DEAD, FLOW
from schemas import segments
from tests.chaos import oracle, wire
from tieout import ids

STATE, SEEN, TOKEN = topics.state_topics(FLOW)
TICKS = f"{topics.COMMANDS}/0#tick"
"""How a token names the ticks that have counted."""
OUTPUTS = (topics.RATED, topics.HOLDS, topics.EXCEPTIONS, DEAD)
MOST = 5
"""Examples told of each check."""


class Break(NamedTuple):
    """Something that is not as it has to be."""

    check: str
    detail: str


class Verdict(NamedTuple):
    breaks: list
    figures: dict


class _Breaks:
    def __init__(self):
        self.found, self.counts = [], Counter()

    def add(self, check, detail):
        self.counts[check] += 1
        if self.counts[check] <= MOST:
            self.found.append(Break(check, detail))

    def same(self, check, what, ours, theirs):
        if ours != theirs:
            self.add(check, f"{what}: {_short(ours)}, the oracle has {_short(theirs)}")

    def counters(self, check, ours, theirs):
        for name in (ours - theirs) or ():
            self.add(check, f"{name}: {ours[name]} times, the oracle has {theirs[name]}")
        for name in (theirs - ours) or ():
            self.add(check, f"{name}: {ours[name]} times, the oracle has {theirs[name]}")

    def all(self):
        return [*self.found, *(Break(check, f"and {count - MOST} more") for check, count in self.counts.items() if count > MOST)]


def _short(value):
    text = str(value)
    return text if len(text) < 300 else f"{text[:300]}..."


def judge(reader, group, records, documents):
    """Everything: input, transactions, tokens, fates, rated usage, dead letters, holds, exceptions, positions."""
    breaks, partitions = _Breaks(), range(reader.partitions)
    topics_ = {topic: reader.topic(topic) for topic in (topics.USAGE, *OUTPUTS, STATE, SEEN, TOKEN)}
    ticked = ticks(reader)
    contracts = [[d for d in documents if ids.partition_of(d["customer_id"], reader.partitions) == p] for p in partitions]
    _input(breaks, topics_[topics.USAGE], records)
    _closed(breaks, reader, topics_)
    tokens = [[wire.decode("state_token", record.value) for record in found] for found in topics_[TOKEN]]
    followed, final = [], []
    for p in partitions:
        log = [oracle.Logged(r.offset, r.key, r.value, r.headers, r.stamp * 1000) for r in topics_[topics.USAGE][p]]
        whole = oracle.Interval(len(contracts[p]), log[-1].offset + 1 if log else 0)
        final.append(oracle.Partition(contracts[p]).follow(log, [whole]).with_final_facts())
        _tokens(breaks, p, tokens[p], {topic: found[p] for topic, found in topics_.items()})
        _deleted(breaks, p, tokens[p], topics_[STATE][p], topics_[SEEN][p])
        intervals = [oracle.Interval(t["positions"].get(topics.CONTRACTS, 0), t["positions"].get(topics.USAGE, 0), _tick(ticked, t)) for t in tokens[p]]
        if any(a.usage > b.usage or a.contracts > b.contracts or a.tick > b.tick for a, b in pairwise(intervals)):
            breaks.add("tokens", f"partition {p}: positions go back")
            intervals = [whole]
        followed.append(oracle.Partition(contracts[p]).follow(log, intervals))
        if len(intervals) == len(tokens[p]):
            _intervals(breaks, p, tokens[p], followed[p])
        ends = {topics.USAGE: whole.usage, topics.CONTRACTS: whole.contracts}
        read = {name: position for name, position in (tokens[p][-1]["positions"] if tokens[p] else {}).items() if "#" not in name}
        breaks.same("positions", f"partition {p}, last token", dict.fromkeys(ends, 0) | read, ends)
    for topic, ends in ((topics.USAGE, [log[-1].offset + 1 if log else 0 for log in topics_[topics.USAGE]]), (topics.CONTRACTS, list(map(len, contracts)))):
        at = [max(position, 0) for position in reader.positions(group, topic)]
        breaks.same("positions", f"group of {topic}", at, ends)
    rated = [wire.decode("rated_usage", r.value) | {"key": r.key, "partition": p} for p in partitions for r in topics_[topics.RATED][p]]
    _rated(breaks, rated, followed, final)
    _money(breaks, rated, final, tokens)
    _ticks(breaks, ticked, tokens)
    _dead(breaks, topics_[DEAD], topics_[topics.USAGE], followed)
    _holds(breaks, topics_[topics.HOLDS], followed)
    _exceptions(breaks, topics_[topics.EXCEPTIONS], topics_[topics.USAGE], followed)
    totals = Counter()
    for part in followed:
        totals.update(part.totals)
    figures = dict(totals) | {"rated": len(rated), "intervals": sum(map(len, tokens)), "charges": sum(len(part.charges()) for part in final)}
    counted = sum(a["positions"].get(TICKS, 0) != b["positions"].get(TICKS, 0) for found in tokens for a, b in pairwise(found))
    figures |= {"ticks": len(ticked), "intervals that a tick moved": counted}
    return Verdict(breaks.all(), figures | {"full states": sum(r.key == b"full" for found in topics_[STATE] for r in found)})


def ticks(reader):
    """The ticks on the topic of commands: the position after each, and the instant that it stands for."""
    found = []
    for record in reader.topic(topics.COMMANDS, partitions=1)[0]:
        row = wire.decode("command", record.value)
        if row["kind"] == "tick":
            found.append((record.offset + 1, min(row["at"], record.stamp * 1000)))
    return found


def _tick(ticked, token):
    """The newest tick that had counted for an interval, by its token."""
    return max((instant for after, instant in ticked if after <= token["positions"].get(TICKS, 0)), default=oracle.NEVER)


def _ticks(breaks, ticked, tokens):
    """No minute twice, none after a later one: whichever ticker wrote it, and whenever it was killed; a token names ticks that there are."""
    places = {0, *(after for after, _ in ticked)}
    for found in tokens:
        for token in found:
            if (position := token["positions"].get(TICKS, 0)) not in places:
                breaks.add("ticks", f"{token['batch_id']}: ticks up to position {position} have counted, and none ends there")
    for (_, before), (after, instant) in pairwise(ticked):
        if instant <= before:
            breaks.add("ticks", f"the tick before position {after} stands for {instant}, the one before it for {before}")


def _input(breaks, usage, records):
    """The log holds exactly what was appended: the feeder's own proof."""
    sent = defaultdict(list)
    for record in records:
        sent[record.partition].append((record.key, record.value, list(record.headers)))
    for p, found in enumerate(usage):
        breaks.same("input", f"partition {p}", len(found), len(sent[p]))
        if [(r.key, r.value, r.headers) for r in found] != sent[p]:
            breaks.add("input", f"partition {p}: the log does not hold what was sent")


def _closed(breaks, reader, topics_):
    for topic, partitions in [*dict.fromkeys(topics_, None).items(), (topics.COMMANDS, [0])]:
        breaks.same("open transaction", topic, reader.ends(topic, partitions), reader.ends(topic, partitions, committed=False))


def _tokens(breaks, p, tokens, records):
    """The chain of tokens, and that each interval's records are those that its token counts and digests."""
    before = {"sequence": 0, "chain": "", "written": {}, "generation": 1}
    dead = {topic: [*map(_plain, records[topic])] for topic in (*OUTPUTS, STATE, SEEN)}
    for token in tokens:
        name = f"usage-{p}-{token['sequence']}"
        figures = {key: value for key, value in token.items() if key not in ("chain", "batch_id")}
        figures["clock"] = oracle.NEVER if figures["clock"] is None else figures["clock"]
        chain = hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()
        if token["sequence"] != before["sequence"] + 1 or token["previous_chain"] != before["chain"] or token["chain"] != chain:
            breaks.add("chain", f"{name} after {before['sequence']}: the chain is broken")
        if (token["flow"], token["partition"], token["batch_id"]) != ("usage", p, name):
            breaks.add("chain", f"{name}: says it is {token['batch_id']}")
        if token["generation"] < before["generation"]:
            breaks.add("generation", f"{name}: generation {token['generation']} has committed after {before['generation']} had begun")
        for topic, digest in token["digests"].items():
            start, end = before["written"].get(topic, 0), token["written"].get(topic, 0)
            shift = 0
            if topic in (STATE, SEEN):
                shift = _number(records[topic][0]) if records[topic] else end
                if start < shift:
                    continue  # a full state has replaced it
            if segments.digest(_batch(dead[topic][start - shift : end - shift])) != digest:
                breaks.add("digest", f"{name}: {topic} records {start} to {end - 1} are not those that were committed")
        before = token
    for topic in OUTPUTS:
        breaks.same("written", f"partition {p}, {topic}: records", len(records[topic]), before["written"].get(topic, 0))
    for topic in (STATE, SEEN):
        numbers = [_number(record) for record in records[topic]]
        if numbers and numbers != list(range(numbers[0], before["written"].get(topic, 0))):
            breaks.add("written", f"partition {p}, {topic}: numbers {numbers[0]} to {numbers[-1]} are not unbroken to {before['written'].get(topic, 0)}")


def _deleted(breaks, p, tokens, state, seen):
    """What the flow has deleted of its own topics: state that a full one has replaced, identities that nobody can ask for any more.

    State may be kept that a full one has replaced: a broker that is killed forgets how far a topic was deleted, and begins it earlier again.
    """
    last = tokens[-1] if tokens else {"written": {}}
    first = _number(state[0]) if state else last["written"].get(STATE, 0)
    if first and not any(record.key == b"full" for record in state):
        breaks.add("deleted", f"partition {p}, {STATE}: {first} records are gone, and no full state has replaced them")
    first = _number(seen[0]) if seen else last["written"].get(SEEN, 0)
    before = 0
    for token in tokens:
        written = token["written"].get(SEEN, 0)
        if before < min(first, written) and (token["clock"] is None or token["clock"] >= last["clock"] - oracle.HORIZON - oracle.FUTURE):
            breaks.add("deleted", f"partition {p}, {SEEN}: records {before} to {min(first, written) - 1} are gone, of {token['batch_id']} with the clock at {token['clock']}; it is {last['clock']} now")
        before = written


def _number(record):
    return int(dict(record.headers)["n"])


def _plain(record):
    headers = [{"key": key, "value": value} for key, value in record.headers if key != "n"] or None
    return record.key, record.value, headers


def _batch(rows):
    keys, values, headers = zip(*rows, strict=True) if rows else ((), (), ())
    return segments.records(pa.array(values, pa.large_binary()), pa.array(keys, pa.large_binary()), np.zeros(len(rows), np.int64), pa.array(headers, segments.HEADERS))


def _intervals(breaks, p, tokens, part):
    """Fates of each interval and in all, the clock and the age of what waits."""
    totals = Counter()
    for number, (token, counts, clock, oldest) in enumerate(zip(tokens, part.intervals, part.clocks, part.oldest, strict=True), 1):
        name = f"interval usage-{p}-{number}"
        breaks.same("fates", name, {fate: count for fate, count in token["counts"].items() if fate != "slices"}, counts)
        c = token["counts"]
        if c["received"] + c["released"] + c["withdrawn"] != sum(c[fate] for fate in ("priced", "duplicate", "conflict", "rejected", "held")):
            breaks.add("fate equation", f"{name}: {c}")
        totals.update(counts)
        breaks.same("fates", f"totals after {name}", token["totals"], dict(totals) | {"waiting": totals["held"] - totals["released"]})
        breaks.same("clock", name, token["clock"], None if clock == oracle.NEVER else clock)
        breaks.same("clock", f"{name}, oldest held", token["oldest_held_at"], oldest)


def _rated(breaks, rated, followed, final):
    """No record twice; each priced event once, at its version, with its final quantity."""
    for rated_id, count in Counter(row["rated_id"] for row in rated).items():
        if count > 1:
            breaks.add("doubled", f"rated_id {rated_id}: {count} times")
    usage, quantities = Counter(), defaultdict(Decimal)
    events = {(e.customer, e.source, e.id): e for part in followed for e in part.events.values() if e.charge is not None}
    for row in rated:
        name = (row["customer_id"], row["usage"]["source"], row["usage"]["id"])
        if row["key"] != row["customer_id"].encode() or row["partition"] != ids.partition_of(row["customer_id"], len(followed)):
            breaks.add("placement", f"rated {row['rated_id']}: key {row['key']}, partition {row['partition']}")
        quantities[name] += row["quantity"]
        event = events.get(name)
        if event is None:
            breaks.add("not priced", f"{name}: rated, the oracle does not price it")
        elif row["cause"]["kind"] == "usage":
            usage[name] += 1
            ours = (row["contract_id"], row["contract_version"], row["charge_id"], row["group"] and tuple(row["group"]), row["billing_period"], row["time"], row["meter"], row["currency"])
            theirs = (event.contract, event.version["version"], event.charge["charge_id"], event.group, event.period, event.time, event.meter, event.version["currency"])
            breaks.same("rated", f"{name}", ours, theirs)
    for name, count in usage.items():
        if count > 1:
            breaks.add("doubled", f"event {name}: {count} usage records")
    for name, event in events.items():
        if event.fate in ("priced", "voided") and not usage[name]:
            breaks.add("lost", f"event {name}: no usage record")
    for part in final:
        for event in part.events.values():
            counted = event.charge is not None and event.charge.get("aggregation", {}).get("kind") == "count"
            wanted = (Decimal(1) if counted else event.quantity) if event.fate == "priced" else Decimal(0)
            breaks.same("quantity", f"event {event.customer, event.source, event.id}", quantities[event.customer, event.source, event.id], wanted)


def _money(breaks, rated, final, tokens):
    """The charge of each (customer, contract, charge, group, period) to the last digit, and the tokens' sums."""
    sums, currencies = defaultdict(Fraction), Counter()
    for row in rated:
        place = (row["customer_id"], row["contract_id"], row["charge_id"], row["group"] and tuple(row["group"]), row["billing_period"])
        sums[place, row["currency"]] += Fraction(row["amount"])
        currencies[row["currency"]] += Fraction(row["amount"])
    wanted = defaultdict(Fraction)
    for part in final:
        for place, (amount, currency) in part.charges().items():
            wanted[place, currency] = amount
    for place in sums.keys() | wanted.keys():
        breaks.same("mispriced", f"{place}", sums[place], wanted[place])
    said = Counter()
    for found in tokens:
        for currency, amount in (found[-1]["amounts"] if found else {}).items():
            said[currency] += Fraction(amount)
    breaks.same("amounts", "the tokens' sums by currency", {name: value for name, value in said.items() if value}, {name: value for name, value in currencies.items() if value})


def _dead(breaks, dead, usage, followed):
    """Every rejected record once, with its bytes, key, headers, time and partition untouched."""
    for p, found in enumerate(dead):
        originals = {record.offset: record for record in usage[p]}
        breaks.counters("dead letters", Counter(_source(r) for r in found), Counter((p, offset, reason) for offset, reason in followed[p].dead.items()))
        for record in found:
            original = originals.get(_source(record)[1])
            own = [header for header in record.headers if not header[0].startswith("dlq.")]
            if original is None or (record.key, record.value, own, record.stamp) != (original.key, original.value, original.headers, original.stamp):
                breaks.add("dead letters", f"partition {p}, position {_source(record)[1]}: not the original: {_short(record)} for {_short(original)}")


def _source(record):
    headers = dict(record.headers)
    return int(headers["dlq.partition"]), int(headers["dlq.offset"]), headers["dlq.reason"].decode()


def _holds(breaks, holds, followed):
    rows = [wire.decode("hold", record.value) for found in holds for record in found]
    ours = Counter((row["customer_id"], row["usage"]["source"], row["usage"]["id"], row["reason"], row["state"]) for row in rows)
    breaks.counters("holds", ours, sum((part.holds for part in followed), Counter()))


def _exceptions(breaks, exceptions, usage, followed):
    rows = [wire.decode("exception", record.value) for found in exceptions for record in found]
    ours = Counter((row["kind"], row["customer_id"], row["object"]["id"]) for row in rows)
    breaks.counters("exceptions", ours, sum((part.exceptions for part in followed), Counter()))
    for exception_id, count in Counter(row["exception_id"] for row in rows).items():
        if count > 1:
            breaks.add("doubled", f"exception {exception_id}: {count} times")
    payloads = {(p, r.offset): r.value for p, found in enumerate(usage) for r in found}
    evidence = {text for row in rows if row["kind"] == "usage_conflict" for text in row["evidence"]}
    for p, part in enumerate(followed):
        for pair in part.conflicts:
            for offset in pair:
                if f"{topics.USAGE} partition {p} position {offset}: {payloads[p, offset].hex()}" not in evidence:
                    breaks.add("exceptions", f"conflict in partition {p}: no payload of position {offset}")
