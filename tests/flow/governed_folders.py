"""Folders with reference data and commands, and the contract flow run over them."""

import base64

import pyarrow as pa

from flows import codecs, command_records, contract, governed_ingress, local_engine, publish, reference_records, topics
from flows.contract import ContractCell
from flows.contract_records import decode
from flows.file_place import FilePlace
from sinks.ingress import Ingress
from sources.files import TopicReader
from tests import governed
from tieout.reference_document import parse

PARTITIONS = 3
BEGIN = "2025-01-01T00:00:00Z"


def reference(kind, key, value, **more):
    return {"kind": kind, "key": key, "valid_from": BEGIN, "recorded_at": BEGIN, "author": "root", kind: value} | more


def user(name):
    return reference("user", name, {"name": name, "public_key": base64.b64encode(governed.public(name)).decode()})


USERS = [user(name) for name in ("una", "ben", "cid")]


def make(root, *documents, partitions=PARTITIONS):
    """A new folder with users and other reference data."""
    Ingress.open(root, partitions).close()
    know(root, *USERS, *documents)
    return FilePlace(root)


def know(root, *documents):
    governed_ingress.append(FilePlace(root), topics.REFERENCE, reference_records.records([parse(document) for document in documents]), repr(documents))


def send(root, *commands):
    """Commands, one after the other."""
    ingress = Ingress.open(root, FilePlace(root).partitions())
    try:
        for command in commands:
            ingress.append(topics.COMMANDS, {0: command_records.record(command)}, repr(command))
    finally:
        ingress.close()


def run(root, rows=1000, engine=local_engine):
    """The flow to the end of its input; its last token."""
    cell = ContractCell.start(FilePlace(root), FilePlace(root).partitions())
    try:
        engine.run(contract.pipeline(cell, rows=rows))
        return cell.token
    finally:
        cell.close()


def records(root, topic, partition):
    reader = TopicReader(root, topic, partition)
    end = reader.refresh()
    return reader.read(reader.start, end).to_pylist()


def all_records(root, topic, partitions=PARTITIONS):
    return [record for partition in range(partitions) for record in records(root, topic, partition)]


def published(root, partitions=PARTITIONS):
    values = [record["value"] for record in all_records(root, topics.CONTRACTS, partitions)]
    return decode(pa.array(values, pa.large_binary())) if values else []


def exceptions(root, partitions=PARTITIONS):
    values = [record["value"] for record in all_records(root, topics.EXCEPTIONS, partitions)]
    return codecs.own("exception").decode(pa.array(values, pa.large_binary())).batch.to_pylist() if values else []


def import_contracts(root, documents):
    ingress = Ingress.open(root, FilePlace(root).partitions())
    try:
        publish.contracts(ingress, documents, FilePlace(root).partitions(), repr(documents))
    finally:
        ingress.close()
