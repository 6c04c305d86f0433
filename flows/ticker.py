"""The ticker: one record each minute that a minute of time has begun, for partitions to which nobody sends usage.

In: a wall clock and a place. Out: ticks on ``governance.command.v1``, one a minute. On a broker one ticker writes at a time:
it is fenced like a flow's partition, and after the fence it looks which minute was written last, so one that was killed in
the middle of a commit leaves its minute written or not, and its successor does not write it again. A folder has no process
that runs on: it is given the minute's tick once, however often it is asked. A minute in which no ticker ran gets no tick
later; nothing is lost by it, clocks follow the newest one. Source: docs/semantics.md section 1 (the clock).
"""

from collections.abc import Callable
from typing import Final

from flows import command_records, governed_ingress, tick_topic, topics
from flows.file_place import FilePlace
from flows.kafka_place import KafkaPlace
from flows.pipeline import Place, let_go
from tieout import ticks

NAME: Final = "ticker"
_SECOND: Final = 1_000_000


def once(place: FilePlace, now: int) -> bool:
    """Write the tick of the minute of an instant into a folder; whether it was not there yet."""
    command = ticks.command(ticks.minute_of(now))
    return bool(governed_ingress.append(place, topics.COMMANDS, command_records.record(command), command.command_id))


def keep_ticking(place: KafkaPlace, now: Callable[[], int], stopped: Callable[[float], bool], told: Callable[[int], None]) -> None:
    """Fence, then write each minute's tick when it has begun, until told to stop; SinkError or SourceAway where a broker does not take it.

    ``now`` is the wall clock in UTC microseconds; ``stopped`` waits so many seconds and says whether to stop; ``told``
    hears each minute that stands.
    """
    log = place.fence(NAME, 0)
    try:
        last = written(place)
        while True:
            minute = ticks.minute_of(now())
            if minute != last:
                log.commit(0, {topics.COMMANDS: command_records.record(ticks.command(minute))}, {}, None)
                last = minute
            told(minute)
            if stopped(max(0, minute + ticks.MINUTE - now()) / _SECOND):
                return
    finally:
        log.close()


def written(place: Place) -> int | None:
    """The minute of the last tick; None where there is none."""
    reader = place.written(topics.COMMANDS, 0)
    try:
        end = reader.refresh()
        found = tick_topic.newest(reader, reader.start, end)
        return None if found is None else found.at
    finally:
        let_go(reader)
