"""Contract versions as columns, and what became of them.

In: decoded records of the contract topic in log order, with what it takes to see one whole. Out: the same as a batch
that the book takes in without making an object of a version. Rows that are not surely good have been validated as
documents before, so a batch holds no version that is refused by its content.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout.contract_checks import sound
from tieout.ids import Lanes

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion

I64 = npt.NDArray[np.int64]
FOREVER: Final = 2**62


class Records(Protocol):
    """Where the records of versions are kept."""

    def version(self, place: int) -> ContractVersion:
        """The version of a record."""

    def several(self, places: Sequence[int]) -> Sequence[ContractVersion]:
        """The versions of records, read together."""


@dataclass(frozen=True, slots=True)
class ContractBatch:
    """Versions in log order: columns, the hash of each record, where each is kept, and the rows that had to be parsed."""

    columns: pa.RecordBatch
    digests: Lanes
    places: I64
    records: Records
    whole: Mapping[int, ContractVersion] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.columns.num_rows

    @classmethod
    def of(
        cls, columns: pa.RecordBatch, digests: Lanes, places: I64, records: Records,
        parse: Callable[[pa.RecordBatch], Sequence[ContractVersion]],
    ) -> ContractBatch:
        """Check the columns; the rows that are not surely good are parsed. ContractRefused names the first that is invalid."""
        rest = np.nonzero(~sound(columns))[0]
        parsed = parse(columns.take(pa.array(rest))) if len(rest) else ()
        return cls(columns, digests, places, records, dict(zip(rest.tolist(), parsed, strict=True)))


class Refused(NamedTuple):
    """A version that contradicts what is known."""

    contract_id: str
    version: int
    customer_id: str
    message: str


class Span(NamedTuple):
    """A version and when it is in force, half-open, UTC microseconds; ``effective_to_us`` None for open."""

    contract_id: str
    version: int
    effective_from_us: int
    effective_to_us: int | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of versions, in log order: the rows that came into force, and those refused; ``order`` is their place."""

    rows: I64
    order: I64
    refused: Mapping[int, Refused]
