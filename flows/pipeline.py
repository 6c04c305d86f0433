"""A pipeline: what an engine runs, whichever engine it is.

A partition's input is read in lots, prepared without state (decode), and folded and committed by the partition's
cell. Fence and restore have happened when a pipeline exists: its sources begin where the cells' tokens say.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from schemas.decode import Decoded


@dataclass(frozen=True, slots=True)
class Lot:
    """Records of one partition as they were read, from ``position`` on."""

    position: int
    records: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lot with its decoded values."""

    lot: Lot
    decoded: Decoded


class Source(Protocol):
    """Reads one partition."""

    def poll(self) -> Lot | None:
        """The next lot; None at the end."""


class Cell(Protocol):
    """Folds and commits one partition."""

    def take(self, prepared: Prepared) -> None:
        """Fold one prepared lot and commit what it came to, as one interval."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Sources and cells by partition, and the stateless step between."""

    name: str
    sources: Mapping[int, Source]
    cells: Mapping[int, Cell]
    prepare: Callable[[Lot], Prepared]
