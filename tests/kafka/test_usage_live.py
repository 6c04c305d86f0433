"""The usage flow on a real broker: the same records as on a folder, exactly once, whatever happens in between."""

import pytest

from flows import local_engine, topics, usage
from flows.file_place import FilePlace
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
