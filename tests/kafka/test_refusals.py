"""What a cell refuses to start with on a broker, each with what to do about it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from flows import kafka_topics, topics, usage
from flows.cells import CellError, Share, generation_of
from flows.rescale import rescale
from flows.verification import verify
from sinks.errors import Fenced
from sources.errors import RetentionGap, SourceError
from tests.flow import folders
from tests.kafka import installations
from tieout.usage_stage import Limits

ROOT = Path(__file__).parents[2]


def command(*arguments):
    return [sys.executable, "-m", "flows.cli", *map(str, arguments)]


def tieout(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120)


@pytest.fixture
def place(broker, topic_prefix):
    return installations.make(broker.bootstrap, topic_prefix)


def alter(place, topic, **settings):
    entries = [ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET) for name, value in settings.items()]
    resource = ConfigResource(ResourceType.TOPIC, place.physical(topic), incremental_configs=entries)
    place.admin.incremental_alter_configs([resource])[resource].result()


def where(place):
    return ("--bootstrap", place.settings["bootstrap.servers"], "--installation", place.installation, "--topic-prefix", place.prefix)


def test_missing_topics_are_named_with_the_command_that_makes_them(broker, topic_prefix):
    answer = tieout("run", "usage", "--bootstrap", broker.bootstrap, "--topic-prefix", topic_prefix, "--drain")
    assert answer.returncode == 1
    assert f"{topic_prefix}{topics.USAGE}" in answer.stderr
    assert "tieout topic create" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_topics_made_by_the_command_are_accepted_and_a_drain_of_nothing_ends(broker, topic_prefix):
    options = ("--bootstrap", broker.bootstrap, "--topic-prefix", topic_prefix, "--installation", topic_prefix)
    made = tieout("topic", "create", *options, "--partitions", 2, "--replication-factor", 1)
    assert made.returncode == 0, made.stderr
    ran = tieout("run", "usage", *options, "--drain")
    assert ran.returncode == 0, ran.stderr


def test_unequal_numbers_of_partitions_are_refused(place):
    place.admin.delete_topics([place.physical(topics.HOLDS)])[place.physical(topics.HOLDS)].result()
    until(lambda: topics.HOLDS not in place.topics())
    place.admin.create_topics([NewTopic(place.physical(topics.HOLDS), 3, 1)])[place.physical(topics.HOLDS)].result()
    until(lambda: topics.HOLDS in place.topics())
    assert "same number of partitions" in refusal(place)
    assert f"{place.physical(topics.HOLDS)} 3" in refusal(place)


@pytest.mark.parametrize(
    ("topic", "settings", "words"),
    [
        (topics.RATED, {"retention_ms": "86400000"}, "retention.ms is 86400000, set 34560000000 or more"),
        (topics.USAGE, {"retention_ms": "604800000"}, "retention.ms is 604800000, set 3628800000 or more"),
        (topics.CONTRACTS, {"cleanup_policy": "compact"}, "cleanup.policy is 'compact', set 'delete'"),
        (usage.STATE, {"retention_bytes": "1000000"}, "retention.bytes is 1000000, set -1"),
        (topics.USAGE, {"message_timestamp_type": "CreateTime"}, "message.timestamp.type is CreateTime, set LogAppendTime"),
        (usage.DEAD, {"max_message_bytes": "1000"}, "max.message.bytes is 1000, set 8388608 or more"),
    ],
)
def test_a_setting_that_could_lose_something_is_refused_with_what_to_set(place, topic, settings, words):
    assert refusal(place) is None
    alter(place, topic, **settings)
    until(lambda: refusal(place))  # a broker applies a setting a little later
    assert f"{place.physical(topic)}: {words}" in refusal(place)


def test_a_position_below_retention_is_a_refusal_that_names_the_gap(place):
    installations.put(place, folders.events(3, 400, 4), [folders.contract(f"k{i}") for i in range(4)])
    installations.drain(place, rows=50)
    installations.put(place, folders.events(4, 400, 4))
    cut = TopicPartition(place.physical(topics.USAGE), 0, place.ends(topics.USAGE, 0))
    place.admin.delete_records([cut])[cut].result()
    with pytest.raises(RetentionGap, match=rf"position \d+ is below retention, records \d+ to {cut.offset - 1} are gone"):
        installations.drain(place)
    answer = tieout("run", "usage", *where(place), "--drain")
    assert answer.returncode == 4, answer.stderr


def test_a_token_topic_that_was_emptied_is_no_new_installation(place):
    installations.put(place, folders.events(3, 400, 4), [folders.contract(f"k{i}") for i in range(4)])
    tokens = installations.drain(place)
    rated = installations.values(place, topics.RATED)
    cuts = [TopicPartition(place.physical(usage.TOKEN), partition, place.ends(usage.TOKEN, partition)) for partition in range(2)]
    for done in place.admin.delete_records(cuts).values():
        done.result()
    with pytest.raises(SourceError, match=rf"{usage.TOKEN}, partition \d: is empty, although there were records; restore"):
        installations.drain(place)
    assert installations.values(place, topics.RATED) == rated
    assert all(token.totals["received"] for token in tokens.values())


def test_an_older_generation_and_another_number_of_cells_are_refused():
    with pytest.raises(CellError, match="generation 2 is over, 3 with 4 cells has begun"):
        generation_of([(3, 4), (2, 1)], Share(0, 4), 2)
    with pytest.raises(CellError, match=r"generation 3 has 4 cells, this process was told 1.*tieout rescale"):
        generation_of([(3, 4)], Share(0, 1), None)
    assert generation_of([(3, 4)], Share(1, 4), None) == 3
    assert generation_of([], Share(0, 2), None) == 1


def test_rescaling_ends_the_old_generation_and_loses_nothing(place):
    usage_, contracts = folders.events(5, 2000, 6), [folders.contract(f"k{i}") for i in range(6)]
    installations.put(place, usage_[:1000], contracts)
    installations.drain(place, rows=200)
    answer = tieout("rescale", "usage", *where(place), "--cells", 2, "--output", "json")
    assert answer.returncode == 0, answer.stderr
    with pytest.raises(CellError, match="generation 2 has 2 cells, this process was told 1"):
        installations.drain(place)
    installations.put(place, usage_[1000:])
    tokens = {}
    for ordinal in range(2):
        tokens |= installations.drain(place, share=Share(ordinal, 2), rows=200)
    assert {token.generation for token in tokens.values()} == {2}
    assert sum(token.totals["received"] for token in tokens.values()) == 2000
    assert all(verify(place, partition)["breaks"] == [] for partition in range(2))


def test_a_cell_whose_partition_was_taken_ends_fenced(place):
    installations.put(place, folders.events(6, 600, 4), [folders.contract(f"k{i}") for i in range(4)])
    cell = installations.cell(place, rows=50)
    taken = []

    def take_over(pipeline):
        taken.append(place.fence("usage", 0))
        from flows import local_engine
        local_engine.run(pipeline)

    cell.engine = take_over
    with pytest.raises(Fenced, match="another process has taken this partition"):
        cell.attempt()
    taken[0].close()
    installations.drain(place, rows=50)
    assert all(verify(place, partition)["breaks"] == [] for partition in range(2))


def test_rescaling_moves_partitions_from_a_cell_to_others_and_verify_still_holds(place):
    assert rescale(place, "usage", 2, 2) == 2
    assert rescale(place, "usage", 2, 1) == 3
    assert [verify(place, partition)["breaks"] for partition in range(2)] == [[], []]


def test_sigterm_ends_a_cell_with_code_0_and_the_next_goes_on(place):
    installations.put(place, folders.events(7, 2000, 6), [folders.contract(f"k{i}") for i in range(6)])
    process = subprocess.Popen(
        command("run", "usage", *where(place), "--rows", 100, "--output", "json"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    until(lambda: max(installations.group_positions(place)) > 100, process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "received" in out
    tokens = installations.drain(place)
    assert sum(token.totals["received"] for token in tokens.values()) == 2000
    assert installations.group_positions(place) == [token.positions[topics.USAGE] for _, token in sorted(tokens.items())]
    assert [verify(place, partition)["breaks"] for partition in range(2)] == [[], []]


def refusal(place):
    try:
        kafka_topics.check(place.admin, place.prefix, Limits())
    except SourceError as error:
        return str(error)
    return None


def until(holds, process=None):
    for _ in range(600):
        if holds():
            return
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    raise AssertionError("did not come to pass in a minute")
