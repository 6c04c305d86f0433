"""The route flow as a live cell runs it: its input is raw usage, its partitions share one view of the reference data."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flows import route, topics
from flows.flow_metrics import Interval
from flows.kafka_place import KafkaPlace
from flows.route import RouteCell
from flows.route_records import FLOW, Routed
from flows.route_reference import Reference
from flows.usage_live import Live, LiveFlow


def _start(place: KafkaPlace, partitions: Sequence[int], _: Live) -> dict[int, RouteCell]:
    reference = Reference([place.reader(topics.REFERENCE, partition) for partition in range(place.partitions(topics.REFERENCE))])
    return route.start_cells(place, partitions, reference, place.partitions())


def _interval(_: RouteCell, routed: Routed, seconds: Mapping[str, float]) -> Interval:
    return Interval(Counter(letter.reason for letter in routed.dead_letters), {}, {}, seconds)


def _unfinished(cell: RouteCell) -> bool:
    return cell.unfinished


ROUTE: Final = LiveFlow(FLOW, topics.RAW, route.FATES, _start, _interval, unfinished=_unfinished, headers=True)
