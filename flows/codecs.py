"""The codecs of the catalogue's schemas, compiled once, under the ids that the values of an installation carry.

In a folder these are the catalogue's own (``schemas/lock.json``). On Kafka they are the registry's, which a lock file
pins: a command reads it, has the registry confirm it, and runs the flow within ``pinned``. Ids that come from outside
are learnt by ``learn``, before a batch is decoded. Source: docs/decisions/0004-schema-ids.md.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import pyarrow as pa

from schemas import catalog
from schemas.catalog import Avro, Schema
from schemas.codec import Decoder, Encoder
from schemas.errors import UnusableSchema
from schemas.lock import Lock


class _Codecs:
    """Encoders and decoders under one choice of ids."""

    def __init__(self, load: Callable[[str], Schema], earlier: Callable[[str], Mapping[int, Avro]], refused: Mapping[int, str]) -> None:
        self._load, self._earlier, self._refused = load, earlier, refused
        self._encoders: dict[str, Encoder] = {}
        self._own: dict[str, Decoder] = {}

    def encoder(self, name: str) -> Encoder:
        if name not in self._encoders:
            schema = self._load(name)
            self._encoders[name] = Encoder(schema.avro, schema.id)
        return self._encoders[name]

    def own(self, name: str) -> Decoder:
        if name not in self._own:
            self._own[name] = self.decoder(name, {})
        return self._own[name]

    def decoder(self, name: str, writers: Mapping[int, Avro]) -> Decoder:
        schema = self._load(name)
        made = Decoder(schema.avro, {**self._earlier(name), schema.id: schema.avro, **writers})
        for schema_id, why in self._refused.items():
            made.refuse_writer(schema_id, f"schema id {schema_id} is refused by the lock file: {why}")
        return made


_pinned: Final[list[_Codecs]] = []
"""The choices in force, the last one counts; empty: the catalogue's."""


@cache
def _catalogue() -> _Codecs:
    return _Codecs(catalog.load, catalog.past, {})


def _current() -> _Codecs:
    return _pinned[-1] if _pinned else _catalogue()


@contextmanager
def pinned(lock: Lock, earlier: Mapping[str, Mapping[int, Avro]]) -> Iterator[None]:
    """Within it, values carry a lock file's ids; ``earlier`` are other versions of each schema by id, by schema name.

    It holds for the whole process, because a process serves one installation; enter it before anything is compiled.
    """
    _pinned.append(_Codecs(lock.schemas.__getitem__, lambda name: earlier.get(name, {}), lock.refused))
    try:
        yield
    finally:
        _pinned.pop()


def encode(name: str, table: pa.Table | pa.RecordBatch) -> pa.Array:
    """Records as framed values of a catalogue's schema."""
    if isinstance(table, pa.Table):
        batches = table.combine_chunks().to_batches()
        table = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)
    return _current().encoder(name).encode(table)


def documents(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Array:
    """The same of a few records that are no columns."""
    return _current().encoder(name).documents(rows)


def own(name: str) -> Decoder:
    """The decoder of a schema that only this product writes, this release or an earlier one."""
    return _current().own(name)


def decoder(name: str, writers: Mapping[int, Avro]) -> Decoder:
    """A decoder into a catalogue's schema, of its own versions and of other writers' by id."""
    return _current().decoder(name, writers)


def learn(usage: Decoder, values: pa.Array, writer: Callable[[int], Avro]) -> None:
    """Fetch the writers' schemas that a batch needs and the decoder does not know yet.

    RegistryError where one cannot be had now: nothing is lost, wait and call it again with the same batch. An id whose
    schema is no Avro record is known, and its values are rejected.
    """
    for schema_id in usage.unknown_ids(values):
        try:
            usage.add_writer(schema_id, writer(schema_id))
        except UnusableSchema as error:
            usage.refuse_writer(schema_id, str(error))
