"""An installation on the test broker: topics made, contracts and usage put in, cells run, output read back as a consumer would."""

import json
import time

import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flows import codecs, kafka_topics, local_engine, publish, topics
from flows.cells import Share
from flows.flow_metrics import FlowMetrics
from flows.kafka_ingress import KafkaIngress
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveCell
from sinks.errors import CommitUnknown
from tests.flow import folders
from tieout import usage_document
from tieout.usage_stage import Limits

PARTITIONS = 2


def make(bootstrap, prefix, partitions=PARTITIONS):
    place = KafkaPlace({"bootstrap.servers": bootstrap, "log_level": 2}, prefix, prefix + ".")
    kafka_topics.create(place.admin, place.prefix, partitions, 1, Limits())
    return place


def put(place, usage, contracts=(), partitions=PARTITIONS, poison_every=0):
    """The same records that ``folders.write`` puts into a folder, with record times of whole milliseconds."""
    ingress = _ingress(place)
    if contracts:
        publish.contracts(ingress, contracts, partitions, json.dumps(contracts))
    if usage:
        documents = [usage_document.parse({name: value for name, value in event.items() if value is not None}) for event in usage]
        columns = usage_document.columns(documents)
        values = codecs.encode("usage_event", columns).to_pylist()
        for at in range(poison_every - 1, len(values), poison_every) if poison_every else ():
            values[at] = folders.POISON
        stamps = np.maximum.accumulate(columns["time"].cast(pa.int64()).to_numpy(zero_copy_only=False))
        publish.usage(ingress, pa.array(values, pa.large_binary()), columns["customer_id"], stamps, partitions, "usage")
    ingress.close()


def _ingress(place):
    """The way in; a broker that has just started answers a fence a little later."""
    for left in reversed(range(10)):
        try:
            return KafkaIngress(place)
        except CommitUnknown:
            if not left:
                raise
            time.sleep(1)
    raise AssertionError


def cell(place, share=None, partitions=PARTITIONS, **live):
    share = share or Share()
    mine = share.partitions(partitions)
    return LiveCell(place, mine, Live(share, drain=True, **live), FlowMetrics("usage", mine), local_engine.run, lambda: False, print)


def drain(place, **live):
    """Run one cell to the end of what there is; its last tokens."""
    run = cell(place, **live)
    run.attempt()
    return run.tokens


def read(place, topic, partitions=PARTITIONS):
    """Messages of a topic by partition, as committed."""
    found = []
    for partition in range(partitions):
        reader = place.reader(topic, partition)
        end, at, messages = reader.refresh(), reader.start, []
        while at < end:
            lot = reader.lot(at, 10_000, end)
            messages += [lot.record(row) for row in range(lot.records.num_rows)]
            at = lot.end
        reader.close()
        found.append(messages)
    return found


def values(place, topic, partitions=PARTITIONS):
    return [[message["value"] for message in messages] for messages in read(place, topic, partitions)]


def _answered(ask):
    """An answer of a broker that may just have come up, whose coordinators load their groups first."""
    for _ in range(100):
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE):
                raise
            time.sleep(0.1)
    return ask()


def group_positions(place, partitions=PARTITIONS):
    """What an ordinary lag tool sees."""
    consumer = Consumer(place.settings | {"group.id": place.group_id})
    wanted = [TopicPartition(place.physical(topics.USAGE), partition) for partition in range(partitions)]
    found = [position.offset for position in _answered(lambda: consumer.committed(wanted, 10))]
    consumer.close()
    return found
