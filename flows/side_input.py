"""A small topic that is read whole beside a flow's input: what it says holds from the start of an interval on.

In: readers of all its partitions, and who learns from its lots. Out: positions by partition, for the token; a restart reads
up to just these. Source: docs/architecture.md (recovery).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flows import topics
from flows.pipeline import Reader
from sources.errors import SourceError
from sources.lot import Lot

_ROWS: Final = 10_000


@dataclass(slots=True)
class SideInput:
    """A topic up to some positions."""

    topic: str
    readers: Sequence[Reader]
    """By partition."""
    learn: Callable[[Lot, int], None]
    """Hears each lot, with its partition."""
    positions: dict[str, int] = field(default_factory=dict)
    """The next position of each partition, by its name."""

    def advance(self, until: Mapping[str, int] | None = None) -> None:
        """Read on to the end, or to positions where these are given; SourceError where a record cannot be read."""
        for partition, reader in enumerate(self.readers):
            name = topics.in_partition(self.topic, partition)
            end = reader.refresh()
            at = self.positions.get(name, reader.start)
            if until is not None:
                wanted = until.get(name, at)
                if wanted > end:
                    msg = f"{self.topic}, partition {partition}: ends at {end}, an interval was committed with records up to {wanted}; restore the topic from a backup"
                    raise SourceError(msg)
                end = wanted
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                if lot.end <= at:
                    msg = f"{self.topic}, partition {partition}: records {at} to {end - 1} are missing; restore the topic from a backup"
                    raise SourceError(msg)
                self.learn(lot, partition)
                at = lot.end
            self.positions[name] = at
