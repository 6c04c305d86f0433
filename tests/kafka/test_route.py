"""The route flow on a real broker: any usage to its customer's partition, once, and the usage flow behind it."""

import json
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from itertools import pairwise
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Producer

from flows import bytewax_engine, codecs, local_engine, route, route_records, route_topics, topics
from flows import token as tokens
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.rescale import rescale
from flows.route_live import ROUTE
from flows.usage_live import Live, LiveCell
from schemas import catalog, segments
from sinks.errors import Fenced
from sources.errors import SourceError
from tests.flow import folders
from tests.kafka import installations
from tieout import ids, usage_document
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]
RAW, PARTITIONS = 3, 2
DAY = 86_400_000_000
JANUARY = 1_767_225_600_000_000


def make(broker, prefix):
    installations.make(broker.bootstrap, prefix, PARTITIONS)
    place = KafkaPlace({"bootstrap.servers": broker.bootstrap}, prefix, prefix + ".", flow="route")
    route_topics.create(place.admin, place.prefix, RAW, 1, Limits())
    assert route_topics.check(place.admin, place.prefix, Limits()) == RAW
    return place


def event(number, customer="k1", time="2026-01-02T00:00:00Z", **more):
    return {"id": f"e{number}", "source": "s", "customer_id": customer, "meter": "calls", "time": time, "quantity": "1"} | more


def encoded(*events):
    given = [usage_document.parse({name: value for name, value in each.items() if value is not None}) for each in events]
    return codecs.encode("usage_event", usage_document.columns(given)).to_pylist()


def put(place, values, partition=0, keys=None, headers=None, topic=topics.RAW):
    """Records into one partition of raw usage."""
    ingress = KafkaIngress(place)
    stamps = np.full(len(values), JANUARY + DAY)
    given = None if headers is None else pa.array([None if each is None else [{"key": k, "value": v} for k, v in each] for each in headers], segments.HEADERS)
    records = segments.records(pa.array(values, pa.large_binary()), None if keys is None else pa.array(keys, pa.string()), stamps, given)
    ingress.append(topic, {partition: records}, "test")
    ingress.close()
    seen(place, topic, partition)


def seen(place, topic, partition):
    """Wait until what was committed to a partition can be read: a commit's answer comes before its marks are set."""
    reader = place.reader(topic, partition)
    until(lambda: reader.refresh() == place.ends(topic, partition))


def know(place, *customers):
    """Customers into the reference data: (id, aliases, valid from, valid to, recorded at) in microseconds."""
    rows = [
        {"kind": "customer", "key": name, "valid_from": start, "valid_to": end, "recorded_at": recorded, "author": "test",
         "customer": {"aliases": list(aliases.items()), "erp_ids": []}}
        for name, aliases, start, end, recorded in customers
    ]
    batch = pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema("reference_record"))
    put(place, codecs.encode("reference_record", batch).to_pylist(), topic=topics.REFERENCE)


def cell(place, share=None, engine=local_engine, **live):
    mine = (share or Share()).partitions(RAW)
    metrics = FlowMetrics("route", mine, fates=route.FATES)
    return LiveCell(place, mine, Live(share or Share(), drain=True, **live), metrics, engine.run, lambda: False, print, flow=ROUTE)


def drain(place, **live):
    run = cell(place, **live)
    run.attempt()
    return run.tokens


def routed(place):
    """Records of the usage topic by partition."""
    return read(place, topics.USAGE, PARTITIONS)


def read(place, topic, partitions=RAW):
    """Records of a topic by partition, all that were committed."""
    for partition in range(partitions):
        seen(place, topic, partition)
    return installations.read(place, topic, partitions)


def dead(place):
    """The dead letters' headers as text, over all partitions."""
    letters = [letter for letters in read(place, route_records.DEAD) for letter in letters]
    return [(letter["value"], {header["key"]: header["value"].decode(errors="replace") for header in letter["headers"]}) for letter in letters]


def home(customer):
    return ids.partition_of(customer, PARTITIONS)


def customers(place):
    """(id, customer) of what has been routed, over all partitions."""
    values = [record["value"] for records in routed(place) for record in records]
    batch = codecs.own("usage_event").decode(pa.array(values, pa.large_binary())).batch
    return dict(zip(batch["id"].to_pylist(), batch["customer_id"].to_pylist(), strict=True))


@pytest.mark.parametrize("engine", [local_engine, bytewax_engine])
def test_usage_reaches_its_customers_partition_byte_for_byte_in_order_and_counted(broker, topic_prefix, engine):
    place = make(broker, topic_prefix)
    names = [f"k{number % 7}" for number in range(900)]
    values = encoded(*(event(number, name) for number, name in enumerate(names)))
    for partition in range(RAW):
        put(place, values[partition::RAW], partition, [f"wrong{number}" for number in range(partition, 900, RAW)])
    tokens_ = drain(place, engine=engine, rows=70)
    found = routed(place)
    for partition, records in enumerate(found):
        here = [(value, name) for value, name in zip(values, names, strict=True) if home(name) == partition]
        assert Counter((record["value"], record["key"].decode()) for record in records) == Counter(here)
        assert all(record["headers"] is None for record in records)
        for raw in range(RAW):
            mine = set(values[raw::RAW])
            assert [record["value"] for record in records if record["value"] in mine] == [v for v, name in zip(values, names, strict=True) if v in mine and home(name) == partition]
    written = Counter()
    for token in tokens_.values():
        assert token.totals == {"received": 300, "routed": 300, "rejected": 0}
        assert token.sequence >= 5
        written.update(token.written)
    assert written == {topics.in_partition(topics.USAGE, partition): len(records) for partition, records in enumerate(found)}
    assert tokens_[0].clock == JANUARY + DAY


def test_an_alias_is_resolved_as_of_the_events_time_and_a_later_one_moves_nothing(broker, topic_prefix):
    place = make(broker, topic_prefix)
    know(place, ("acme", {"crm": "0017"}, 0, JANUARY + 10 * DAY, 0), ("globex", {"crm": "0017", "shop": "g"}, JANUARY + 10 * DAY, None, 0))
    values = encoded(event(1, "0017"), event(2, "0017", "2026-01-11T00:00:00Z"), event(3, "g", "2026-01-12T00:00:00Z"), event(4, "acme"), event(5, "9"))
    put(place, values, 1, headers=[[("trace", b"1"), ("trace", None)], None, None, None, [("b", b"")]])
    first = drain(place)
    assert customers(place) == {"e1": "acme", "e2": "globex", "e3": "globex", "e4": "acme", "e5": "9"}
    records = [record for records in routed(place) for record in records]
    anew = encoded(event(1, "acme"), event(2, "globex", "2026-01-11T00:00:00Z"), event(3, "globex", "2026-01-12T00:00:00Z"))
    assert {record["value"] for record in records} == {*anew, *values[3:]}
    assert {record["key"] for record in records if record["headers"]} == {b"acme", b"9"}
    assert {tuple((h["key"], h["value"]) for h in record["headers"]) for record in records if record["headers"]} == {(("trace", b"1"), ("trace", None)), (("b", b""),)}
    assert first[1].positions == {topics.in_partition(topics.REFERENCE, 0): 2 + 1, topics.RAW: first[1].positions[topics.RAW]}
    know(place, ("initech", {"crm": "9"}, 0, None, 1))
    put(place, encoded(event(6, "9")), 1)
    second = drain(place)
    assert customers(place) == {"e1": "acme", "e2": "globex", "e3": "globex", "e4": "acme", "e5": "9", "e6": "initech"}
    assert second[1].previous_chain == first[1].chain
    assert second[1].totals == {"received": 6, "routed": 6, "rejected": 0}


def test_cloud_events_become_usage_events(broker, topic_prefix):
    place = make(broker, topic_prefix)
    know(place, ("acme", {"crm": "0017"}, 0, None, 0))
    rest = {"id": "", "source": "", "customer_id": "", "meter": "", "time": "1970-01-01T00:00:00Z", "quantity": "7.5", "attributes": {"region": "eu"}}
    head = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/gateway"), ("ce_subject", b"0017"), ("ce_type", b"calls"), ("ce_time", b"2026-01-02T03:04:05.123456Z")]
    full = encoded(event(2, "globex"))[0]
    put(place, [*encoded(rest), full], headers=[head, [(name, b"other") for name, _ in head]])
    tokens_ = drain(place)
    event_ = rest | {"id": "e1", "source": "/gateway", "customer_id": "acme", "meter": "calls", "time": "2026-01-02T03:04:05.123456Z"}
    found = {record["key"]: record for records in routed(place) for record in records}
    assert found[b"acme"]["value"] == encoded(event_)[0]
    assert [(header["key"], header["value"]) for header in found[b"acme"]["headers"]] == head
    assert found[b"globex"]["value"] == full
    assert tokens_[0].counts == {"received": 2, "routed": 2, "rejected": 0}


def test_what_cannot_be_routed_is_a_dead_letter_with_its_reason(broker, topic_prefix):
    place = make(broker, topic_prefix)
    know(place, ("acme", {"crm": "1"}, 0, None, 0), ("globex", {"shop": "1"}, 0, None, 0))
    nobody = encoded(event(1, ""))[0]
    timeless = encoded(event(2, time="1970-01-01T00:00:00Z"))[0]
    values = [folders.POISON, nobody, timeless, timeless, timeless, *encoded(event(3, "1"), event(4, "acme")), b"", b"\x00\x00\x00\x03\xe7body"]
    headers = [[("a", b"1")], None, [("ce_time", b"yesterday")], [("ce_time", b"2026-01-01T00:00:00.0000001Z")], [("ce_time", b"\xff")], None, None, None, None]
    put(place, values, 2, headers=headers, keys=[str(row) for row in range(len(values))])
    tokens_ = drain(place)
    letters = dead(place)
    assert [value for value, _ in letters] == [value for row, value in enumerate(values) if row != 6]
    assert [said["dlq.reason"] for _, said in letters] == ["undecodable", "field_missing", "field_invalid", "field_invalid", "field_invalid", "customer_ambiguous", "undecodable", "schema_unknown"]
    assert [said.get("dlq.path") for _, said in letters][1:6] == ["customer_id", "time", "time", "time", "customer_id"]
    assert "acme, globex" in letters[5][1]["dlq.message"]
    assert letters[0][1] | {"dlq.message": ""} == {
        "a": "1", "dlq.reason": "undecodable", "dlq.message": "", "dlq.path": "id", "dlq.topic": topics.RAW, "dlq.partition": "2", "dlq.offset": "0",
        "dlq.stage": "decode", "dlq.flow": "route", "dlq.version": "0.1.0", "dlq.schema_id": "11", "dlq.replay_count": "0",
        "dlq.first_failed_at": letters[0][1]["dlq.first_failed_at"],
    }
    assert letters[-1][1]["dlq.schema_id"] == "999"
    assert tokens_[2].counts == {"received": 9, "routed": 1, "rejected": 8}
    assert tokens_[2].written == {topics.in_partition(topics.USAGE, home("acme")): 1, route_records.DEAD: 8}


def test_a_cell_whose_partition_was_taken_over_ends(broker, topic_prefix):
    place = make(broker, topic_prefix)
    put(place, encoded(event(1)))
    first = cell(place, engine=_engine(lambda: drain(place)))
    with pytest.raises(Fenced):
        first.attempt()
    assert customers(place) == {"e1": "k1"}
    assert [len(letters) for letters in read(place, route.TOKEN)] == [1, 0, 0]


def _engine(before):
    """The local engine after something has happened: the cell is fenced and restored by then."""
    class Engine:
        @staticmethod
        def run(pipeline):
            before()
            local_engine.run(pipeline)
    return Engine


def test_reference_data_that_was_cut_off_is_a_refusal_to_start(broker, topic_prefix):
    place = make(broker, topic_prefix)
    know(place, ("acme", {"crm": "0017"}, 0, None, 0))
    put(place, encoded(event(1)))
    drain(place)
    for future in place.admin.delete_topics([place.physical(topics.REFERENCE)]).values():
        future.result()
    until(lambda: topics.REFERENCE not in place.topics())
    route_topics.create(place.admin, place.prefix, RAW, 1, Limits())
    with pytest.raises(SourceError, match="ends at 0, usage was routed with records up to 2; restore the topic"):
        drain(place)


def test_rescaled_cells_go_on_where_the_others_were(broker, topic_prefix):
    place = make(broker, topic_prefix)
    for partition in range(RAW):
        put(place, encoded(event(partition)), partition)
    drain(place)
    assert rescale(place, "route", RAW, 2) == 2
    for partition in range(RAW):
        put(place, encoded(event(RAW + partition)), partition)
    found = [cell(place, Share(ordinal, 2)) for ordinal in range(2)]
    for each in found:
        each.attempt()
    assert customers(place) == {f"e{number}": "k1" for number in range(2 * RAW)}
    assert {(token.generation, token.cells) for each in found for token in each.tokens.values()} == {(2, 2)}


def until(holds):
    """Wait for what the broker does in its own time."""
    for _ in range(600):
        if holds():
            return
        time.sleep(0.05)
    pytest.fail("30 s have not been enough")


START = "import sys; from flows.cli import main; sys.exit(main(sys.argv[1:]))"


def _process(place, flow, ordinal, cells, rows):
    """A cell of a flow as a process of its own, which ends where its input ends."""
    options = ["--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix]
    options += ["--cells", str(cells), "--cell", str(ordinal), "--rows", str(rows), "--seconds", "0.05", "--drain", "--output", "json"]
    return subprocess.Popen([sys.executable, "-c", START, "run", flow, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _scattered(events):
    """Usage over the raw partitions whatever its customer; what names an event comes after it, in its partition."""
    homes, by_partition = {}, [[] for _ in range(RAW)]
    for each in events:
        about = each.get("voids") or each.get("corrects")
        name = (each["source"], each["id"])
        homes.setdefault(name, homes.get((about["source"], about["id"])) if about else zlib.crc32(repr(name).encode()) % RAW)
        by_partition[homes[name]].append(each)
    return by_partition


def _under_aliases(events):
    """Half of the usage under the ids that two systems have for the customers."""
    return [each | {"customer_id": f"{each['source']}-{each['customer_id'][1:]}"} if zlib.crc32(each["id"].encode()) % 2 and each["source"] != "s0" else each for each in events]


def _amounts(place):
    """Rated amounts by customer, charge and period, of what stands in the rated topic."""
    values = [record["value"] for records in read(place, topics.RATED, PARTITIONS) for record in records]
    rows = codecs.own("rated_usage").decode(pa.array(values, pa.large_binary())).batch.to_pylist()
    assert len({row["rated_id"] for row in rows}) == len(rows) > 0
    sums = Counter()
    for row in rows:
        sums[row["customer_id"], row["charge_id"], row["billing_period"], str(row["group"]), row["currency"]] += row["amount"]
    return {name: amount for name, amount in sums.items() if amount}


def _tokens(place, partition):
    """The tokens of a partition of the route."""
    reader = place.reader(route.TOKEN, partition)
    return list(tokens.all_of(reader))


def _chained(found):
    """The last token of a partition, whose intervals follow each other without a gap."""
    for before, token in pairwise([tokens.Token("route", found[0].partition, 0), *found]):
        assert (token.sequence, token.previous_chain, token.chain) == (before.sequence + 1, before.chain, token.linked())
        assert token.counts["received"] == token.counts["routed"] + token.counts["rejected"] == token.totals["received"] - before.totals.get("received", 0)
    return found[-1]


@pytest.mark.kill
def test_usage_behind_the_route_is_exact_though_a_cell_of_the_route_is_killed(broker, topic_prefix):
    events = folders.events(11, 2400, 12)
    contracts = [folders.contract(f"k{number}") for number in range(12)]
    direct = installations.make(broker.bootstrap, topic_prefix + "direct", PARTITIONS)
    installations.put(direct, events, contracts)
    place = make(broker, topic_prefix)
    installations.put(KafkaPlace(place.settings, place.installation, place.prefix), [], contracts)
    know(place, *((f"k{number}", {f"s{n}": f"s{n}-{number}" for n in (1, 2)}, 0, None, 0) for number in range(12)))
    for partition, mine in enumerate(_scattered(_under_aliases(events))):
        put(place, encoded(*mine), partition)
    first, second = _process(place, "route", 0, 2, 100), _process(place, "route", 1, 2, 20)
    reader = place.reader(route.TOKEN, 1)
    until(lambda: reader.refresh() > 16)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    killed_at = _tokens(place, 1)[-1]
    again = _process(place, "route", 1, 2, 100)
    for process in (first, again):
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert {row["figure"] for row in json.loads(output)} == {"received", "routed", "rejected"}
    last = {partition: _chained(_tokens(place, partition)) for partition in range(RAW)}
    assert 0 < killed_at.totals["received"] < last[1].totals["received"]
    assert sum(token.totals["routed"] for token in last.values()) == len(events)
    found = routed(place)
    assert Counter(record["value"] for records in found for record in records) == Counter(encoded(*events))
    for partition, records in enumerate(found):
        assert sum(token.written.get(topics.in_partition(topics.USAGE, partition), 0) for token in last.values()) == len(records)
        assert all(home(record["key"].decode()) == partition for record in records)
    behind = KafkaPlace(place.settings, place.installation, place.prefix)
    theirs, ours = installations.drain(direct, rows=500), installations.drain(behind, rows=500)
    for name in ("received", "priced", "duplicate", "conflict", "rejected"):
        assert sum(token.totals[name] for token in ours.values()) == sum(token.totals[name] for token in theirs.values())
    assert _amounts(behind) == _amounts(direct)


def test_the_usage_flow_follows_the_route_and_its_lag_ends_at_nothing(broker, topic_prefix):
    place = make(broker, topic_prefix)
    behind = KafkaPlace(place.settings, place.installation, place.prefix)
    installations.put(behind, [], [folders.contract("k1")])
    metrics = FlowMetrics("usage", range(PARTITIONS))
    deadline = time.monotonic() + 60
    lags = []

    def followed():
        lags.append([status.lag_records for status in metrics.statuses()])
        return time.monotonic() > deadline or (sum(token.totals.get("received", 0) for token in run.tokens.values()) == 90 and lags[-1] == [0, 0])

    run = LiveCell(behind, range(PARTITIONS), Live(seconds=0.05), metrics, local_engine.run, followed, print)
    thread = Thread(target=run.attempt)
    thread.start()
    for number in range(3):
        for partition in range(RAW):
            put(place, encoded(*(event(f"{number}-{partition}-{row}", f"k{row}") for row in range(10))), partition)
        drain(place)
    thread.join()
    assert lags[-1] == [0, 0]
    assert sum(token.totals["received"] for token in run.tokens.values()) == 90
    assert sum(token.totals["priced"] for token in run.tokens.values()) == 9
    seen(place, topics.USAGE, home("k1"))
    assert run.tokens[home("k1")].positions[topics.USAGE] > len(routed(place)[home("k1")])  # the marks of transactions count as positions


def test_what_was_committed_is_waited_for_by_who_reads_its_own_topic(broker, topic_prefix):
    place = make(broker, topic_prefix)
    log = place.fence("route", 0)
    producer = Producer({**place.settings, "transactional.id": f"{topic_prefix}late"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(place.physical(topics.RATED), b"late", partition=0)
    producer.flush(30)
    plain, own = log.reader(topics.RATED), log.written(topics.RATED)
    assert plain.refresh() == 0
    looked = []
    thread = Thread(target=lambda: looked.append(own.refresh()))
    thread.start()
    producer.commit_transaction(30)
    thread.join()
    log.close()
    assert looked[0] >= 1
