"""The codecs of the catalogue's own schemas, compiled once a process."""

from collections.abc import Mapping
from functools import cache

import pyarrow as pa

from schemas import catalog
from schemas.catalog import Avro
from schemas.codec import Decoder, Encoder


@cache
def _encoder(name: str) -> Encoder:
    schema = catalog.load(name)
    return Encoder(schema.avro, schema.schema_id)


def encode(name: str, table: pa.Table | pa.RecordBatch) -> pa.Array:
    """Records as framed values of a catalogue's schema."""
    if isinstance(table, pa.Table):
        batches = table.combine_chunks().to_batches()
        table = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    return _encoder(name).encode(table)


@cache
def own(name: str) -> Decoder:
    """The decoder of a schema that only this build writes."""
    return decoder(name, {})


def decoder(name: str, writers: Mapping[int, Avro]) -> Decoder:
    """A decoder into a catalogue's schema, of its own version and of other writers' by id."""
    schema = catalog.load(name)
    return Decoder(schema.avro, {schema.schema_id: schema.avro, **writers})
