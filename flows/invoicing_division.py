"""The sums of billing periods made again from rated records, where bounds of prepaid grants have become known since.

In: the rated records of a partition that have been folded, and billing periods of contracts. Out: their sums by the bounds of
today. Only records that may be of these periods are read: an event is priced when the clock is at most ``future_limit`` before
its time. Source: docs/semantics.md section 5 (prepaid credits).
"""

from collections.abc import Callable, Collection
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs, topics
from flows.pipeline import Reader
from sources.errors import SourceError
from tieout.increments import Divided, increments
from tieout.invoicing.records import UsageSum

_ROWS: Final = 25_000

Sums = dict[tuple[str, int], dict[object, UsageSum]]
"""By contract and start of a billing period; the sums by their keys."""


def sums_again(reader: Reader, until: int, wanted: Collection[tuple[str, int]], divided: Callable[[str], Divided], future_limit: int) -> Sums:
    """The sums of some billing periods from the records before a position; what the topic has let go is missing in them."""
    names = pa.array(sorted({contract for contract, _ in wanted}), pa.string())
    found: Sums = {place: {} for place in sorted(wanted)}
    at = _behind(reader, min(start for _, start in wanted) - future_limit, until)
    while at < until:
        lot = reader.lot(at, _ROWS, until)
        decoded = codecs.own(topics.SCHEMAS[topics.RATED]).decode(lot.records["value"])
        if decoded.rejected or lot.end <= at:
            msg = f"{topics.RATED}: records {at} to {lot.end - 1} cannot be read again; restore the topic from a backup"
            raise SourceError(msg)
        for contract, _, one in increments(decoded.batch.filter(pc.is_in(decoded.batch["contract_id"].cast(pa.string()), names)), divided):
            sums = found.get((contract, one.period_us))
            if sums is not None:
                sums[one.key] = sums[one.key].plus(one) if one.key in sums else one
        at = lot.end
    return found


def _behind(reader: Reader, instant: int, until: int) -> int:
    """A position at or before the first record that was written at or after an instant; where nothing is found counts as later."""
    low, high = reader.start, until
    while low < high:
        middle = (low + high) // 2
        lot = reader.lot(middle, 1, until)
        if lot.records.num_rows and lot.records["timestamp"][0].as_py() < instant:
            low = middle + 1
        else:
            high = middle
    return low
