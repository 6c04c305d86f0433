"""The usage flow over a folder, as a user runs it."""

from collections import defaultdict
from decimal import Decimal

import pyarrow as pa
import pytest

from flows import bytewax_engine, codecs, local_engine, topics, usage
from flows.file_place import FilePlace
from flows.pipeline import Pipeline
from flows.replay import replay
from flows.verification import verify
from sinks.errors import Fenced
from sources.files import TopicReader
from tests.flow import folders
from tieout.usage_stage import Limits

ENGINES = {"local": local_engine.run, "bytewax": bytewax_engine.run}


def run(root, engine="local", rows=25_000, partitions=2):
    pipeline = usage.pipeline(FilePlace(root), range(partitions), rows=rows)
    ENGINES[engine](pipeline)
    for cell in pipeline.cells.values():
        cell.close()
    return [cell.token for cell in pipeline.cells.values()]


def totals(root, partitions=2):
    found = defaultdict(Decimal)
    for row in folders.rated(root, partitions):
        found[row["contract_id"], row["charge_id"], str(row["group"]), row["billing_period"]] += row["amount"]
    return {key: amount for key, amount in found.items() if amount}


def event(name, quantity="1", meter="calls", time="2026-01-05T00:00:00Z", customer="k0", **more):
    return {"id": name, "source": "s", "customer_id": customer, "meter": meter, "time": time, "quantity": quantity} | more


def counts(tokens):
    return {name: sum(token.totals[name] for token in tokens) for name in ("priced", "duplicate", "conflict", "rejected", "waiting")}


@pytest.fixture(scope="module")
def disturbed():
    return folders.events(3, 4000, 12), [folders.contract(f"k{i}") for i in range(12)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in range(0, 12, 2)]


def test_both_engines_write_the_same_bytes(tmp_path, disturbed):
    for engine in ENGINES:
        folders.write(tmp_path / engine, *disturbed, poison_every=97)
        run(tmp_path / engine, engine, rows=500)
    for topic in (topics.RATED, topics.HOLDS, topics.EXCEPTIONS, usage.DEAD, usage.TOKEN):
        assert folders.output(tmp_path / "local", topic=topic) == folders.output(tmp_path / "bytewax", topic=topic)


def test_totals_do_not_depend_on_the_split_into_intervals_nor_on_partitions(tmp_path, disturbed):
    found = []
    for rows, partitions in ((25_000, 2), (137, 2), (1000, 1), (25_000, 5)):
        root = tmp_path / f"{rows}-{partitions}"
        folders.write(root, *disturbed, partitions=partitions)
        run(root, rows=rows, partitions=partitions)
        found.append(totals(root, partitions))
    assert all(other == found[0] for other in found)
    assert len(found[0]) > 50


def test_a_restart_in_the_middle_changes_nothing(tmp_path, disturbed):
    for name in ("whole", "restarted"):
        folders.write(tmp_path / name, *disturbed)
    run(tmp_path / "whole", rows=300)
    while True:
        pipeline = usage.pipeline(FilePlace(tmp_path / "restarted"), range(2), rows=300)
        lots = {p: source.poll() for p, source in pipeline.sources.items()}
        for partition, lot in lots.items():
            if lot is not None:
                pipeline.cells[partition].take(pipeline.prepare(lot))
        for cell in pipeline.cells.values():
            cell.close()
        if not any(lot is not None and len(lot.positions) for lot in lots.values()):
            break
    assert folders.output(tmp_path / "whole") == folders.output(tmp_path / "restarted")
    assert folders.output(tmp_path / "whole", topic=usage.TOKEN) == folders.output(tmp_path / "restarted", topic=usage.TOKEN)
    assert all(verify(FilePlace(tmp_path / "restarted"), p)["breaks"] == [] for p in range(2))


def test_each_fate_is_counted_once(tmp_path):
    folders.write(tmp_path, [
        event("a"), event("a"), event("a", quantity="2"), event("b", quantity="-1"), event("c", customer="nobody"),
        event("d", meter="unheard"), event("e", time="2025-11-01T00:00:00Z"), event("f", time="2026-01-06T00:00:00Z"),
    ], [folders.contract("k0")], partitions=1)
    tokens = run(tmp_path, partitions=1)
    assert counts(tokens) == {"priced": 2, "duplicate": 1, "conflict": 1, "rejected": 2, "waiting": 2}
    holds = codecs.own("hold").decode(pa.array(folders.output(tmp_path, 1, topics.HOLDS)[0], pa.large_binary())).batch.to_pylist()
    assert sorted(hold["reason"] for hold in holds) == ["no_charge", "no_customer"]


def test_a_conflict_carries_both_payloads(tmp_path):
    folders.write(tmp_path, [event("a", quantity="1"), event("a", quantity="2")], [folders.contract("k0")], partitions=1)
    run(tmp_path, partitions=1)
    found = codecs.own("exception").decode(pa.array(folders.output(tmp_path, 1, topics.EXCEPTIONS)[0], pa.large_binary())).batch.to_pylist()
    payloads = [line for line in found[0]["evidence"] if "position" in line]
    sent = folders.output(tmp_path, 1, topics.USAGE)[0]
    assert [line.rsplit(" ", 1)[1] for line in payloads] == [value.hex() for value in sent]


def test_a_dead_letter_is_the_original_with_its_reason(tmp_path):
    folders.write(tmp_path, [event("a"), event("b"), event("c")], [folders.contract("k0")], partitions=1, poison_every=2)
    assert counts(run(tmp_path, partitions=1))["rejected"] == 1
    reader = TopicReader(tmp_path, usage.DEAD, 0)
    reader.refresh()
    record = reader.read(0, 10).to_pylist()[0]
    headers = {header["key"]: header["value"].decode() for header in record["headers"]}
    assert record["value"] == b"\x00\x00\x00\x00\x0b\xff"
    assert (headers["dlq.reason"], headers["dlq.offset"], headers["dlq.flow"]) == ("undecodable", "1", "usage")
    assert len(folders.rated(tmp_path, 1)) == 2


def test_usage_before_its_contract_waits_and_is_released_in_order(tmp_path):
    folders.write(tmp_path, [event("a", quantity="5"), event("b", quantity="7")], [], partitions=1)
    assert counts(run(tmp_path, partitions=1))["waiting"] == 2
    folders.write(tmp_path, [event("c", quantity="1", time="2026-01-07T00:00:00Z")], [folders.contract("k0")], partitions=1)
    assert counts(run(tmp_path, partitions=1)) == {"priced": 3, "duplicate": 0, "conflict": 0, "rejected": 0, "waiting": 0}
    assert [row["usage"]["id"] for row in folders.rated(tmp_path, 1)] == ["a", "b", "c"]
    assert totals(tmp_path, 1) == {("c-k0", "units", "None", "2026-01"): Decimal("0.13")}


def test_a_correction_downwards_and_a_void_take_money_back_across_a_restart(tmp_path):
    folders.write(tmp_path, [event("a", "30", "gb"), event("b", "30", "gb"), event("p", "10", "calls")], [folders.contract("k0")], partitions=1)
    run(tmp_path, partitions=1)
    assert totals(tmp_path, 1)["c-k0", "volume", "None", "2026-01"] == 60
    later = "2026-01-08T00:00:00Z"
    folders.write(tmp_path, [
        event("x", "5", "gb", later, corrects={"source": "s", "id": "b"}),
        event("y", None, "calls", later, voids={"source": "s", "id": "p"}),
    ], [folders.contract("k0")], partitions=1)
    assert counts(run(tmp_path, partitions=1))["priced"] == 5
    assert totals(tmp_path, 1) == {("c-k0", "volume", "None", "2026-01"): Decimal(70)}
    causes = [row["cause"] for row in folders.rated(tmp_path, 1) if row["cause"]["kind"] == "correction"]
    assert [cause["ref"] for cause in causes] == ["x", "y"]


def test_two_processes_on_one_folder_the_second_is_refused(tmp_path):
    folders.write(tmp_path, [event("a")], [folders.contract("k0")], partitions=1)
    first = usage.pipeline(FilePlace(tmp_path), range(1))
    with pytest.raises(Fenced, match="is writing this partition"):
        usage.pipeline(FilePlace(tmp_path), range(1))
    for cell in first.cells.values():
        cell.close()


def test_a_changed_byte_in_a_committed_segment_is_found_by_verify(tmp_path):
    folders.write(tmp_path, [event(f"e{i}") for i in range(50)], [folders.contract("k0")], partitions=1)
    run(tmp_path, partitions=1)
    path = next(tmp_path.glob(f"usage/0000/*/{topics.RATED}.arrow"))
    raw = bytearray(path.read_bytes())
    at = raw.find(b"2026-01")
    raw[at + 6 : at + 7] = b"9"
    path.write_bytes(raw)
    assert "not those that were committed" in verify(FilePlace(tmp_path), 0)["breaks"][0]


@pytest.mark.parametrize("rows", [1, 137, 5000])
def test_a_replay_by_the_tokens_gives_the_same_bytes_at_any_batch_size(tmp_path, disturbed, rows):
    folders.write(tmp_path, *disturbed, poison_every=97)
    run(tmp_path, rows=1000)
    replayed = [done for partition in range(2) for done in replay(tmp_path, partition, Limits(), rows)]
    assert [done.different for done in replayed] == [()] * len(replayed)
    written = [values for topic in (topics.RATED, topics.HOLDS, topics.EXCEPTIONS, usage.DEAD) for values in folders.output(tmp_path, topic=topic)]
    assert sum(done.records for done in replayed) == sum(map(len, written)) > 3500


def test_a_replay_shows_what_was_committed_otherwise(tmp_path, disturbed):
    folders.write(tmp_path, *disturbed)
    run(tmp_path, rows=1000)
    lenient = Limits(horizon=Limits().horizon // 400)
    assert any(done.different for done in replay(tmp_path, 0, lenient, 1000))


def test_every_lot_reaches_the_cell_of_its_own_partition_also_where_names_sort_as_texts():
    class Source:
        def __init__(self, partition):
            self.partition, self.lots = partition, 3

        @property
        def ended(self):
            return not self.lots

        def poll(self):
            self.lots -= 1
            return self.partition

    class Cell:
        def __init__(self):
            self.taken = []

        def take(self, prepared):
            self.taken.append(prepared)

    for engine in ENGINES.values():
        partitions = [2, 5, 8, 11, 100]
        cells = {partition: Cell() for partition in partitions}
        engine(Pipeline("test", {partition: Source(partition) for partition in partitions}, cells, lambda lot: lot))
        assert {partition: cell.taken for partition, cell in cells.items()} == {partition: [partition] * 3 for partition in partitions}
