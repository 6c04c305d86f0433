"""A restore while the broker dies, or while somebody else still writes: never an empty topic for a full one, never a false alarm."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from flows import topics, usage
from flows.kafka_place import KafkaLog
from sinks.errors import Fenced
from sinks.kafka import TransactionalWriter
from sources.errors import SourceAway
from tests.flow import folders
from tests.kafka import installations

STATE, _, TOKEN = topics.state_topics("usage")


@pytest.fixture
def place(broker, topic_prefix):
    place = installations.make(broker.bootstrap, topic_prefix)
    installations.put(place, folders.events(21, 400, 4), [folders.contract(f"k{i}") for i in range(4)])
    return place


@pytest.fixture
def always_whole(monkeypatch):
    """A full state with every interval, so what came before is deleted each time."""
    commit = usage.UsageCell._commit

    def whole(self, *arguments):
        self._delta_bytes = 1 << 40
        commit(self, *arguments)

    monkeypatch.setattr(usage.UsageCell, "_commit", whole)


@pytest.mark.parametrize("asked", [lambda place: place.ends(TOKEN, 0), lambda place: place.first_at(TOKEN, 0, 0)], ids=["the end", "a time"])
def test_a_broker_that_dies_before_its_answer_has_no_empty_topics(new_broker, topic_prefix, asked):
    broker = new_broker()
    place = installations.make(broker.bootstrap, topic_prefix)
    place.ends(TOKEN, 0)
    broker.pause()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(asked, place)
        time.sleep(1)
        broker.kill()
        with pytest.raises(SourceAway, match="the broker"):
            answer.result()


def test_a_state_that_its_last_holder_trims_while_it_is_read_is_read_again(place, always_whole, monkeypatch):
    installations.drain(place, rows=50)
    found = place.ends(STATE, 0) - 1
    first = KafkaLog._place_of

    def trimmed(self, start, reader, end):
        place.delete_before(STATE, 0, found)
        return first(self, start, reader, end)

    log = place.fence("usage", 0)
    with monkeypatch.context() as meanwhile, pytest.raises(SourceAway, match="read again"):
        meanwhile.setattr(KafkaLog, "_place_of", trimmed)
        list(log.own(STATE, 1))
    log.close()


def test_a_cell_that_is_replaced_while_it_restores_ends_fenced_and_blames_no_topic(place, always_whole, monkeypatch):
    installations.drain(place, rows=50)
    blobs, replaced = usage.UsageCell._blobs, []

    def late(self):
        if self.partition == 0 and not replaced:
            replaced.append(True)
            installations.put(place, folders.events(22, 400, 4))
            installations.drain(place, rows=50)
        return blobs(self)

    monkeypatch.setattr(usage.UsageCell, "_blobs", late)
    with pytest.raises(Fenced, match="another process has taken this partition"):
        installations.drain(place, rows=50)


def test_a_fence_that_strikes_between_the_records_of_a_commit_is_told_as_one(place, monkeypatch):
    cell = installations.cell(place, rows=50)
    produce, fences = TransactionalWriter._produce, []

    def slowly(self, records, **how):
        if not fences:
            fences.append(place.fence("usage", 0))
        produce(self, records, **how)
        time.sleep(0.5)  # the client sends, and learns of the fence

    monkeypatch.setattr(TransactionalWriter, "_produce", slowly)
    with pytest.raises(Fenced, match="another process has taken this partition"):
        cell.attempt()
    fences[0].close()
