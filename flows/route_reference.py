"""The reference data as the route flow sees it: customers' ids in other systems, read whole and always to the end.

In: the partitions of ``reference.data.v1``. Out: what is known of customers' ids, and the positions up to which. It is
a side input: it is read at the start of an interval, and what it says holds for that interval and those after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from sources import kafka
from sources.errors import SourceError
from sources.lot import Lot
from tieout.aliases import Aliases, CustomerRecord

_ROWS: Final = 10_000


@dataclass(slots=True)
class Reference:
    """Reference data up to some positions."""

    readers: Sequence[kafka.TopicReader]
    """By partition."""
    aliases: Aliases = field(default_factory=Aliases)
    positions: dict[str, int] = field(default_factory=dict)
    """The next position of each partition, by its name."""

    def advance(self) -> None:
        """Read on to the end; SourceError where a record cannot be read."""
        for partition, reader in enumerate(self.readers):
            name = topics.in_partition(topics.REFERENCE, partition)
            end = reader.refresh()
            at = self.positions.get(name, reader.start)
            while at < end:
                lot = reader.lot(at, _ROWS, end)
                if lot.end <= at:
                    msg = f"{topics.REFERENCE}, partition {partition}: records {at} to {end - 1} are missing; restore the topic from a backup"
                    raise SourceError(msg)
                self.aliases.learn(_customers(lot, partition))
                at = lot.end
            self.positions[name] = at

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
