"""Seeded usage as if it happened now: the generator's telemetry with its times moved to the moment it is sent.

In: a seed, a number of events, the instant of the first and their distance. Out: framed usage values in the order in
which they are sent, with keys and record times. An event keeps its distance to the event that it repeats, to the
others out of order, and to its own lateness; its id gets a prefix, so that loads of other instants do not meet it.
Poison is bytes without a frame: a value that names a schema would wait until the registry has it.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, generate
from flows.generate import Generated, Shares

_NUMBER_AT: Final = len("evt-")
_POISON: Final = pa.array([b"\x01no frame"], pa.large_binary())


def live(seed: int, rows: int, customers: int, first_at: int, every: int) -> Generated:
    """Usage whose event number n is sent at ``first_at + n * every`` (microseconds)."""
    made = generate.usage(seed, rows, customers, Shares())
    sent_at = first_at + np.arange(rows, dtype=np.int64) * every
    decoded = codecs.own("usage_event").decode(made.values)
    batch = _moved(decoded.batch, sent_at - made.record_time, f"{first_at}-")
    values = pa.concat_arrays([_POISON, codecs.encode("usage_event", batch)])
    place = np.zeros(rows, np.int64)
    place[decoded.rows] = 1 + np.arange(len(decoded.rows))
    return Generated(values.take(pa.array(place)), made.keys, sent_at, made.expected)


def _moved(events: pa.RecordBatch, shift: npt.NDArray[np.int64], prefix: str) -> pa.RecordBatch:
    """The events with new ids, at times moved by the shift of the event whose id they carry."""
    ids = events["id"].cast(pa.string())
    number = pc.utf8_slice_codeunits(ids, _NUMBER_AT).cast(pa.int64()).to_numpy()
    time = events["time"].cast(pa.int64()).to_numpy() + shift[number]
    columns = {"id": pc.binary_join_element_wise(prefix, ids, ""), "time": pa.array(time).cast(events.schema.field("time").type)}
    return pa.RecordBatch.from_arrays([columns.get(field.name, events[field.name]) for field in events.schema], schema=events.schema)
