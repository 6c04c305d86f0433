"""The past priced again on a real broker while usage flows, and a cell that is killed in the middle of it: exact, and once."""

import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from signal import SIGKILL

import pyarrow as pa
from confluent_kafka import TopicPartition

from flows import codecs, local_engine, topics
from flows.cells import Share, keep_going
from flows.flow_metrics import FlowMetrics
from flows.usage_live import Live, LiveCell
from flows.verification import verify
from tests.flow import folders
from tests.kafka import installations

LIST = [{"up_to": "1000", "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.008"}]
AMENDED = [{"up_to": "500", "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.0055"}]
KILLS = [("folded", 2), ("sent", 1), ("committed", 2), ("sent", 3), ("folded", 1)]
"""Where lives of the cell end, and at which of their intervals that leave jobs open."""
DYING = """
import os, signal, sys
from flows import cli, rated_runs
from flows.usage import UsageCell
from sinks.kafka import TransactionalWriter

where, left = sys.argv[1], int(sys.argv[2])
rated_runs.SLICE_ROWS = 40
commit = UsageCell._commit

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def sent(self, outputs, positions, group):
    self._producer.begin_transaction()
    for records in outputs:
        self._produce(records)
    self._producer.flush(60)
    die()

def counted(self, lot, result, *rest):
    global left
    left -= bool(result.slices) and bool(self.fold.state.jobs.queue)
    last = not left and where != "nowhere"
    if last and where == "folded":
        die()
    if last and where == "sent":
        TransactionalWriter.commit = sent
    commit(self, lot, result, *rest)
    if last:
        die()

UsageCell._commit = counted
sys.exit(cli.main(sys.argv[3:]))
"""


def version(number, tiers, effective_from, customer="acme"):
    charge = {"charge_id": "tokens", "meter": "tokens_out", "price": {"model": "graduated", "tiers": tiers}}
    return {"contract_id": f"c-{customer}", "version": number, "customer_id": customer, "effective_from": effective_from, "charges": [charge]}


def event(name, at, quantity, customer="acme", **more):
    return {"id": name, "source": "gw", "customer_id": customer, "meter": "tokens_out", "time": at, "quantity": quantity} | more


def rows_of(place, topic, schema, partitions):
    values = [value for found in installations.values(place, topic, partitions) for value in found]
    return codecs.own(schema).decode(pa.array(values, pa.large_binary())).batch.to_pylist()


def rated(place, partitions=1):
    return rows_of(place, topics.RATED, "rated_usage", partitions)


def lines(rows):
    """A ledger of records: event, cause, version, quantity, amount; in the order of the topic."""
    return [(row["usage"]["id"], row["cause"]["kind"], row["contract_version"], Decimal(row["quantity"]), Decimal(row["amount"])) for row in rows]


def ledger(*entries):
    return [(name, kind, number, Decimal(quantity), Decimal(amount)) for name, kind, number, quantity, amount in entries]


def totals(rows):
    found = {}
    for row in rows:
        place = (row["contract_id"], row["contract_version"], row["charge_id"], str(row["group"]), row["billing_period"])
        found[place] = found.get(place, 0) + row["amount"]
    return {place: amount for place, amount in found.items() if amount}


def waits(place):
    """What was held and released, and what finance was told of it; not when, which the cut of the intervals decides."""
    holds = [(row["hold_id"], row["state"]) for row in rows_of(place, topics.HOLDS, "hold", 2)]
    return sorted(holds + [(row["object"]["id"], row["kind"]) for row in rows_of(place, topics.EXCEPTIONS, "exception", 2)])


class Traffic:
    """Usage of another customer, some of it whenever somebody waits."""

    def __init__(self, place):
        self.place, self.events = place, 0

    def more(self):
        names = range(self.events, self.events + 5)
        installations.put(self.place, [event(f"t{i}", f"2026-03-{1 + i // 1440 % 28:02}T{i // 60 % 24:02}:{i % 60:02}:00Z", "3", "other") for i in names], partitions=1)
        self.events += 5

    def until(self, done):
        """Until the records of acme are so: what they are then."""
        for _ in range(2000):
            self.more()
            mine = [row for row in rated(self.place) if row["customer_id"] == "acme"]
            if done(mine):
                return mine
            time.sleep(0.05)
        raise AssertionError(lines(mine))


@contextmanager
def running(place):
    """A cell that takes what comes, until the test is done with it."""
    stop = threading.Event()
    cell = LiveCell(place, [0], Live(Share(), seconds=0.05), FlowMetrics("usage", [0]), local_engine.run, stop.is_set, print)
    thread = threading.Thread(target=keep_going, args=(cell.attempt, stop.wait, print))
    thread.start()
    try:
        yield cell
    finally:
        stop.set()
        thread.join()


def test_an_amendment_of_the_first_recorded_on_the_fourth_while_usage_flows(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix, 1)
    traffic = Traffic(place)
    with running(place):
        begin = [version(1, LIST, "2026-01-01T00:00:00Z"), version(1, LIST, "2026-01-01T00:00:00Z", "other")]
        first = [event("feb", "2026-02-28T12:00:00Z", "100"), event("a", "2026-03-01T00:00:00Z", "600"), event("b", "2026-03-02T00:00:00Z", "500"), event("c", "2026-03-03T10:00:00Z", "400")]
        installations.put(place, first, begin, 1)
        before = traffic.until(lambda mine: len(mine) == 4)
        assert lines(before) == ledger(
            ("feb", "usage", 1, "100", "1"),  # 100 x 0.01
            ("a", "usage", 1, "600", "6"),  # 600 x 0.01
            ("b", "usage", 1, "500", "4.8"),  # 400 x 0.01 + 100 x 0.008
            ("c", "usage", 1, "400", "3.2"),  # 400 x 0.008; March so far 14
        )
        # the 4th: the amendment of the 1st is recorded
        installations.put(place, [], [version(2, AMENDED, "2026-03-01T00:00:00Z")], 1)
        again = traffic.until(lambda mine: len(mine) == 10)
        assert sorted(lines(again[4:])) == ledger(
            ("a", "reprice", 1, "-600", "-5"),  # 1500 -> 900 of version 1: 14 - 9
            ("a", "reprice", 2, "600", "3.3"),  # 900 to 1500 by version 2: 10.5 - 7.2
            ("b", "reprice", 1, "-500", "-5"),  # 900 -> 400: 9 - 4
            ("b", "reprice", 2, "500", "3.2"),  # 400 to 1500: 10.5 - 4 = 6.5, of which 3.3 are there
            ("c", "reprice", 1, "-400", "-4"),  # 400 -> 0
            ("c", "reprice", 2, "400", "4"),  # 0 to 1500: 10.5, of which 6.5 are there
        )
        assert {(row["cause"]["ref"], row["cause"]["from_version"], row["cause"]["to_version"], row["billing_period"]) for row in again[4:]} == {("c-acme/2", 1, 2, "2026-03")}
        # usage from before the amendment was recorded and from after it, a correction and a void
        late = [
            event("late", "2026-03-03T23:59:59Z", "50"), event("d", "2026-03-04T10:00:00Z", "250"),
            event("fix", "2026-03-04T11:00:00Z", "450", corrects={"source": "gw", "id": "b"}), event("undo", "2026-03-04T12:00:00Z", "0", voids={"source": "gw", "id": "c"}),
        ]
        installations.put(place, late, partitions=1)
        after = traffic.until(lambda mine: len(mine) == 14)
        assert lines(after[10:]) == ledger(
            ("late", "usage", 2, "50", "0.275"),  # 50 x 0.0055
            ("d", "usage", 2, "250", "1.375"),  # 250 x 0.0055
            ("b", "correction", 2, "-50", "-0.275"),  # 50 x 0.0055
            ("c", "correction", 2, "-400", "-2.2"),  # 400 x 0.0055
        )
    # March by the amendment, 600 + 450 + 50 + 250 = 1350: 500 x 0.01 + 850 x 0.0055 = 9.675
    assert {place[1::3]: amount for place, amount in totals(after).items()} == {(1, "2026-02"): Decimal("1"), (2, "2026-03"): Decimal("9.675")}
    installations.drain(place, partitions=1)
    rows = rated(place)
    assert sum(row["quantity"] for row in rows if row["customer_id"] == "other") == 3 * traffic.events
    assert len({row["rated_id"] for row in rows}) == len(rows)
    assert verify(place, 0)["breaks"] == []


def test_an_event_whose_own_record_is_no_longer_kept_is_not_found_by_what_is_left_of_it(broker, topic_prefix):
    """The topic has lost its oldest segment: of event a only its move to version 2 is there."""
    place = installations.make(broker.bootstrap, topic_prefix, 1)
    installations.put(place, [event("a", "2026-03-01T00:00:00Z", "600")], [version(1, LIST, "2026-01-01T00:00:00Z")], 1)
    installations.drain(place, partitions=1)
    gone = TopicPartition(place.physical(topics.RATED), 0, place.ends(topics.RATED, 0))
    installations.put(place, [event("b", "2026-03-02T00:00:00Z", "500")], [version(2, AMENDED, "2026-03-01T00:00:00Z")], 1)
    installations.drain(place, partitions=1)
    assert place.admin.delete_records([gone])[gone].result().low_watermark == gone.offset
    fix = event("fix", "2026-03-03T00:00:00Z", "1", corrects={"source": "gw", "id": "a"})
    installations.put(place, [fix], [version(3, LIST, "2026-03-01T00:00:00Z")], 1)
    token = installations.drain(place, partitions=1)[0]
    assert (token.totals["waiting"], token.totals["priced"]) == (1, 2)
    kept = [(name, kind, number) for name, kind, number, _, _ in lines(rated(place))]
    assert sorted(kept) == [("a", "reprice", 1), ("a", "reprice", 2), ("b", "reprice", 2), ("b", "reprice", 3), ("b", "usage", 2)]


def drain_process(place, where, number):
    """A cell as a process that ends so, or at the end of what there is."""
    options = ["run", "usage", "--bootstrap", place.settings["bootstrap.servers"], "--topic-prefix", place.prefix, "--installation", place.installation, "--rows", "50", "--drain"]
    command = [sys.executable, "-c", DYING, where, str(number), *options]
    return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)


def test_a_cell_killed_while_it_prices_the_past_again_equals_one_that_was_not(broker, topic_prefix):
    """Every kind of charge under versions 1 and 2, then dearer versions from long ago and an end of a contract."""
    usage = folders.events(5, 1600, 6)
    contracts = [folders.contract(f"k{i}") for i in range(6)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in (0, 2, 4)]
    dearer = [charge | {"discount_percent": "12.5", "included_quantity": "3"} for charge in folders.CHARGES]
    late = [folders.contract(f"k{i}", 2 + (i + 1) % 2, "2026-01-05T00:00:00Z") | {"charges": dearer} for i in range(5)]
    late.append(folders.contract("k5", 2, "2026-01-04T00:00:00Z") | {"status": "terminated"})
    places = [installations.make(broker.bootstrap, topic_prefix + name) for name in ("whole.", "killed.")]
    for place in places:
        installations.put(place, usage[:1400], contracts)
        assert drain_process(place, "nowhere", 0).returncode == 0
        installations.put(place, [one | {"time": "2026-02-01T00:00:00Z"} for one in usage[1400:]], late)
    whole, killed = places
    ended = drain_process(whole, "nowhere", 0)
    assert ended.returncode == 0, ended.stderr
    for where, number in KILLS:
        died = drain_process(killed, where, number)
        assert died.returncode == -SIGKILL, f"{where}: no interval left jobs open: {died.stderr}"
    ended = drain_process(killed, "nowhere", 0)
    assert ended.returncode == 0, ended.stderr
    expected, found = (rated(place, 2) for place in places)
    assert {row["charge_id"] for row in expected if row["cause"]["kind"] == "reprice"} == {charge["charge_id"] for charge in folders.CHARGES}
    assert totals(found) == totals(expected) != {}
    names = [row["rated_id"] for row in found]
    assert len(names) == len(set(names))
    assert set(names) == {row["rated_id"] for row in expected}
    assert waits(killed) == waits(whole) != []
    assert [verify(killed, partition)["breaks"] for partition in range(2)] == [[], []]
