"""The contract flow as a live cell runs it: its input are commands, in their one partition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flows import command_records, topics
from flows.contract import ContractCell
from flows.contract_outputs import FLOW
from flows.flow_metrics import Interval
from flows.kafka_place import KafkaPlace
from flows.usage_live import Live, LiveFlow
from tieout.lifecycle import FATES, Result


def _start(place: KafkaPlace, _: Sequence[int], __: Live) -> dict[int, ContractCell]:
    return {0: ContractCell.start(place, place.partitions(topics.CONTRACTS), place.partitions(topics.REFERENCE))}


def _interval(_: ContractCell, result: Result, seconds: Mapping[str, float]) -> Interval:
    return Interval(Counter(), Counter(refusal.kind for refusal in result.refused), {}, seconds)


CONTRACT: Final = LiveFlow(FLOW, topics.COMMANDS, FATES, _start, _interval, schema=command_records.SCHEMA)
