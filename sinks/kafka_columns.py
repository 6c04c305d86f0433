"""Records handed to the Kafka client by columns: one call for all of a topic's, not one each.

The client's Python interface takes a record a call; the C library that it is made of takes an array of them
(``rd_kafka_produce_batch``), and the library lies beside it in the same wheel. In: a producer, and values and keys as
Arrow columns. Out: the same records in the client's queue as one call each would have put there, at a fraction of the
cost (docs/decisions/0009). What is handed over this way has no delivery report of its own: a transaction that lacks
one of them fails as a whole.

Where the library is not found, or is not the very one that the client runs on, ``of`` answers None and the caller
hands records over one by one.
"""

import ctypes
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import confluent_kafka
import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Producer

_MESSAGE: Final = np.dtype([
    ("error", "<i4"), ("_error", "<i4"), ("topic", "<u8"), ("partition", "<i4"), ("_partition", "<i4"), ("value", "<u8"),
    ("length", "<u8"), ("key", "<u8"), ("key_length", "<u8"), ("offset", "<i8"), ("private", "<u8"),
])
"""``rd_kafka_message_t`` of the library's header, on a machine of 64 bits."""
_COPY: Final = 0x2
REQUEST_BYTES: Final = 900_000
REQUEST_RECORDS: Final = 9000
"""Below what the client puts into one request (``batch.size`` of 1,000,000, ``batch.num.messages`` of 10,000), with its frames."""
_NAME: Final = re.compile(rb"#producer-[0-9]+$")
"""How the library names every producer."""


class Columns:
    """A producer's library."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library, self._handle = library, handle

    @classmethod
    def of(cls, producer: Producer) -> "Columns | None":
        """The library that a producer runs on; None where it cannot be had."""
        library = _library()
        if library is None:
            return None
        handle = int(ctypes.c_void_p.from_address(id(producer) + object.__basicsize__).value or 0)  # the first field of the client's object
        return cls(library, handle) if handle and _NAME.search(library.rd_kafka_name(handle)) else None

    def produce(self, topic: str, partition: int, values: pa.LargeBinaryArray, keys: pa.LargeBinaryArray) -> None:
        """Put records into the client's queue; KafkaException with the first reason where one is not taken.

        There must be room for all: a full queue would let later ones overtake.
        """
        found = np.zeros(len(values), _MESSAGE)
        found["value"], found["length"] = _places(values)
        found["key"], found["key_length"] = _places(keys)
        name = self._library.rd_kafka_topic_new(self._handle, topic.encode(), None)
        try:
            taken = self._library.rd_kafka_produce_batch(name, partition, _COPY, found.ctypes.data, len(found))
        finally:
            self._library.rd_kafka_topic_destroy(name)
        if taken < len(found):
            errors = found["error"]
            raise KafkaException(KafkaError(int(errors[np.flatnonzero(errors)[0]])))


def requests(values: pa.LargeBinaryArray) -> Iterator[tuple[int, int]]:
    """Runs of rows after the first that fill one request of the client each: where they begin and end."""
    ends = np.frombuffer(values.buffers()[1], np.int64, len(values) + 1, values.offset * 8)
    start = 1
    while start < len(values):
        full = int(np.searchsorted(ends, ends[start] + REQUEST_BYTES, side="right")) - 1
        end = max(start + 1, min(full, start + REQUEST_RECORDS))
        yield start, end
        start = end


def _places(column: pa.LargeBinaryArray) -> tuple[Any, Any]:
    """Where each row's bytes lie, and how many they are; a null has none."""
    _, ends, data = column.buffers()
    offsets = np.frombuffer(ends, np.int64, len(column) + 1, column.offset * 8).astype(np.uint64)
    start = offsets[:-1] + np.uint64(0 if data is None else data.address)
    if column.null_count:
        start = np.where(column.is_valid().to_numpy(zero_copy_only=False), start, np.uint64(0))
    return start, np.diff(offsets)


@cache
def _library() -> ctypes.CDLL | None:
    """The client's C library, the same copy of it that the client has loaded."""
    beside = Path(confluent_kafka.__file__).parent.with_name("confluent_kafka.libs")
    for path in sorted(beside.glob("librdkafka*.so*")):
        library = ctypes.CDLL(str(path))
        if library.rd_kafka_version() == confluent_kafka.libversion()[1]:
            library.rd_kafka_name.restype, library.rd_kafka_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
            library.rd_kafka_topic_new.restype = ctypes.c_void_p
            library.rd_kafka_topic_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
            library.rd_kafka_topic_destroy.restype = None
            library.rd_kafka_topic_destroy.argtypes = [ctypes.c_void_p]
            library.rd_kafka_produce_batch.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
            return library
    return None
