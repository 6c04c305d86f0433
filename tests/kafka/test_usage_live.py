"""The usage flow on a real broker: the same records as on a folder, exactly once, whatever happens in between."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Producer

from flows import local_engine, topics, usage
from flows.file_place import FilePlace
from flows.verification import verify
from tests.flow import folders
from tests.kafka import installations

OUTPUTS = (topics.RATED, topics.HOLDS, usage.DEAD, topics.EXCEPTIONS)


@pytest.fixture(scope="module")
def work():
    contracts = [folders.contract(f"k{i}") for i in range(12)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in range(0, 12, 2)]
    return folders.events(11, 6000, 12), contracts


def test_a_broker_gets_the_same_records_as_a_folder(broker, topic_prefix, tmp_path, work):
    place = installations.make(broker.bootstrap, topic_prefix)
    installations.put(place, *work, poison_every=501)
    tokens = installations.drain(place, rows=500)
    folders.write(tmp_path, *work, poison_every=501)
    local_engine.run(usage.pipeline(FilePlace(tmp_path), range(2), rows=500))
    for topic in (topics.RATED, topics.HOLDS, topics.EXCEPTIONS):
        ours, theirs = installations.values(place, topic), folders.output(tmp_path, topic=topic)
        assert [len(found) for found in ours] == [len(found) for found in theirs]
        assert ours == theirs, topic
    assert installations.values(place, usage.DEAD) == folders.output(tmp_path, topic=usage.DEAD) != [[], []]
    assert sum(token.totals["received"] for token in tokens.values()) == 6000


def test_an_idle_partition_moves_its_position_over_the_marks_of_transactions(broker, topic_prefix, work, monkeypatch):
    place = installations.make(broker.bootstrap, topic_prefix)
    installations.put(place, work[0][:500], work[1])
    before = installations.drain(place)
    aborted = Producer(place.settings | {"transactional.id": f"{topic_prefix}aborted"})
    aborted.init_transactions(30)
    aborted.begin_transaction()
    for partition in range(2):
        aborted.produce(place.physical(topics.USAGE), b"never", partition=partition)
    aborted.flush(30)
    aborted.abort_transaction(30)
    assert installations.drain(place) == before
    monkeypatch.setattr(usage, "IDLE_SECONDS", 0.0)
    after = installations.drain(place)
    assert [after[partition].positions[topics.USAGE] for partition in range(2)] == [place.ends(topics.USAGE, partition) for partition in range(2)]
    assert [after[partition].totals for partition in range(2)] == [before[partition].totals for partition in range(2)]
    assert [verify(place, partition)["breaks"] for partition in range(2)] == [[], []]


def test_partitions_that_start_at_once_share_one_client_of_each_kind(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    for _ in range(20):
        place.close()
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda _: id(place.admin), range(8)))) == 1
            assert len(set(pool.map(lambda _: id(place.queries()), range(8)))) == 1
