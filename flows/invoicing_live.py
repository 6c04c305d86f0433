"""The invoicing flow as a live cell runs it: its input is rated usage, in the partitions of customers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flows import invoicing, topics
from flows.flow_metrics import Interval
from flows.invoicing import FATES, FLOW, InvoicingCell
from flows.invoicing_outputs import opened
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveFlow
from tieout.closing import Closed


def _start(place: KafkaPlace, partitions: Sequence[int], live: Live) -> dict[int, InvoicingCell]:
    return invoicing.start_cells(place, partitions, place.partitions(topics.REFERENCE), live.limits)


def _interval(_: InvoicingCell, closed: list[Closed], seconds: Mapping[str, float]) -> Interval:
    latencies = [(one.as_of - one.period.end_us) / 1_000_000 for one in closed if one.wait is None and not one.early]
    return Interval(Counter(), Counter(opened(closed)), {}, seconds, latencies=latencies)


def _unfinished(cell: InvoicingCell) -> bool:
    return cell.unfinished


INVOICING: Final = LiveFlow(FLOW, topics.RATED, FATES, _start, _interval, unfinished=_unfinished, schema=topics.SCHEMAS[topics.RATED])


