"""The reference data as the route flow sees it: customers' ids in other systems, read whole and always to the end.

In: the partitions of ``reference.data.v1``. Out: what is known of customers' ids, and the positions up to which. It is
a side input: it is read at the start of an interval, and what it says holds for that interval and those after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from flows.side_input import SideInput
from sources import kafka
from sources.errors import SourceError
from sources.lot import Lot
from tieout.aliases import Aliases, CustomerRecord


@dataclass(slots=True)
class Reference:
    """Reference data up to some positions."""

    readers: Sequence[kafka.TopicReader]
    """By partition."""
    aliases: Aliases = field(default_factory=Aliases)
    _read: SideInput = field(init=False)

    def __post_init__(self) -> None:
        self._read = SideInput(topics.REFERENCE, self.readers, lambda lot, partition: self.aliases.learn(_customers(lot, partition)))

    @property
    def positions(self) -> dict[str, int]:
        """The next position of each partition, by its name."""
        return self._read.positions

    def advance(self) -> None:
        """Read on to the end; SourceError where a record cannot be read."""
        self._read.advance()

    def covers(self, positions: Mapping[str, int]) -> None:
        """SourceError where an interval has read further than the topic reaches now."""
        for name, position in positions.items():
            topic, partition = topics.placed(name, 0)
            if topic == topics.REFERENCE and position > self.positions.get(name, 0):
                msg = (
                    f"{topic}, partition {partition}: ends at {self.positions.get(name, 0)}, usage was routed with records up to "
                    f"{position}; restore the topic from a backup"
                )
                raise SourceError(msg)

    def close(self) -> None:
        """Let the readers go."""
        for reader in self.readers:
            reader.close()


def _customers(lot: Lot, partition: int) -> Iterator[CustomerRecord]:
    """The records of customers in a lot."""
    decoded = codecs.own("reference_record").decode(lot.records["value"])
    if decoded.rejected:
        first = decoded.rejected[0]
        msg = f"{topics.REFERENCE}, partition {partition}: record at position {lot.positions[first.row]}: {first.message}"
        raise SourceError(msg)
    given = pc.and_(pc.equal(decoded.batch["kind"].cast(pa.string()), "customer"), decoded.batch["customer"].is_valid())
    chosen = decoded.batch.filter(given)
    times = [chosen[name].cast(pa.int64()).to_pylist() for name in ("valid_from", "valid_to", "recorded_at")]
    aliases = chosen["customer"].field("aliases").to_pylist()
    offsets = lot.positions[decoded.rows][given.to_numpy(zero_copy_only=False)].tolist()
    for key, named, offset, valid_from, valid_to, recorded_at in zip(chosen["key"].to_pylist(), aliases, offsets, *times, strict=True):
        yield CustomerRecord(key, dict(named), valid_from, valid_to, recorded_at, (partition, offset))
