"""Usage events' original bytes, shown to people.

In: a framed value, as a dead letter or an exception carries it. Out: the event as JSON, or why there is none.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa

from flows import codecs
from flows.pipeline import Place
from schemas.catalog import Avro


class Shown(NamedTuple):
    """An event, or why its bytes are none."""

    event: dict[str, Any] | None
    undecodable: str | None


Show = Callable[[bytes | None], Shown]


def shower(place: Place, writer: Callable[[int], Avro] | None) -> Show:
    """How a value is shown, with the registry's schemas where there is one."""
    decoder = codecs.decoder("usage_event", place.writers())

    def show(value: bytes | None) -> Shown:
        values = pa.array([value], pa.large_binary())
        if writer is not None:
            codecs.learn(decoder, values, writer)
        decoded = decoder.decode(values)
        return Shown(
            _event(decoded.batch.to_pylist()[0]) if decoded.batch.num_rows else None,
            decoded.rejected[0].message if decoded.rejected else None,
        )

    return show


def _event(row: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(value) if isinstance(value, list) else value for name, value in row.items() if value is not None}
