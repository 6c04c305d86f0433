"""The control of an installation: its totals are summed up again from the topics, and what does not tie out opens an exception.

In: for each partition what the flows have committed, read by a process that is none of them. Out: exceptions of kind
``control_total`` on ``finance.exception.v1``, one for each break however often it is found, and the word that it is over when it
ties out again. Control total 1, the fates, is a matter of the usage flow's tokens; total 2 is of ``flows.control_sums``.

A break counts when it is found the same twice: the flows go on while their topics are read, and a topic that is
trimmed meanwhile is not taken for one that lost its records. One control writes at a time: it is fenced like a flow's partition,
and after the fence it reads which exceptions stand, so one that was killed opens none twice. Source:
docs/decisions/0013-control-totals.md.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from flows import control_outputs, control_sums, exception_records, topics, usage
from flows import token as tokens
from flows.control_outputs import Finding
from flows.control_sums import Cut
from flows.file_place import FileLog, FilePlace
from flows.kafka_place import KafkaPlace
from flows.pipeline import Log
from flows.verification import fates_broken
from tieout import control_totals
from tieout.control_totals import Break, Told

NAME: Final = "control"


class Checked(NamedTuple):
    """What a check found: breaks by partition, exceptions opened, exceptions that are over."""

    breaks: dict[int, int]
    opened: int
    over: int


class _Found(NamedTuple):
    """What a partition comes to: of the fates an interval with what is wrong, of the money what does not tie out."""

    fates: list[tuple[str, str]]
    money: list[Break]
    proves: Callable[[str], bool]
    cut: Cut | None
    clock: int


def keep_checking(
    place: KafkaPlace, seconds: float, stopped: Callable[[float], bool], told: Callable[[Checked], None], turned: Callable[[], None]
) -> None:
    """Fence, then check again and again until told to stop; SinkError or SourceAway where the broker is away."""
    log = place.fence(NAME, 0)
    try:
        while True:
            told(check(place, log, turned))
            if stopped(seconds):
                return
    finally:
        log.close()


def once(place: FilePlace) -> Checked:
    """Check a folder."""
    log = place.fence(NAME, 0)
    try:
        return check(place, log)
    finally:
        log.close()


def check(place: FilePlace | KafkaPlace, log: Log, turned: Callable[[], None] = lambda: None) -> Checked:
    """Look at all partitions, and write what is news."""
    found = {partition: _twice(place, partition, turned) for partition in range(place.partitions())}
    findings = [one for partition, mine in found.items() for one in _findings(place, partition, mine)]
    items = exception_records.queue(place).items.values()
    news = control_totals.news([one.told for one in findings], items, lambda told: _proved(told, found))
    outputs = control_outputs.outputs(news, {one.told: one for one in findings}, place.partitions(), max((mine.clock for mine in found.values()), default=0))
    if outputs:
        log.commit(log.writer.last + 1 if isinstance(log, FileLog) else 0, outputs, {}, None)
    return Checked({partition: len(mine.fates) + len(mine.money) for partition, mine in found.items()}, len(news.opened), len(news.over))


def _twice(place: FilePlace | KafkaPlace, partition: int, turned: Callable[[], None]) -> _Found:
    """What is broken now, and still is when everything is read again."""
    found = _look(place, partition, turned)
    if not found.money and not found.fates:
        return found
    again = _look(place, partition, turned)
    before = {(one.key, one.missing) for one in found.money}
    return again._replace(fates=[one for one in again.fates if one in found.fates], money=[one for one in again.money if (one.key, one.missing) in before])


def _look(place: FilePlace | KafkaPlace, partition: int, turned: Callable[[], None]) -> _Found:
    written = list(tokens.all_of(place.written(usage.TOKEN, partition))) if _there(place, usage.TOKEN) else []
    fates, clock = fates_broken(written), max((token.clock for token in written[-1:]), default=0)
    at = control_sums.cut(place, partition) if _there(place, topics.INVOICES) else None
    if at is None:
        return _Found(fates, [], lambda _: True, None, clock)
    sums = control_sums.sums(place, at, turned)
    return _Found(fates, sums.breaks(), sums.proves, at, max(clock, at.invoicing.clock))


def _there(place: FilePlace | KafkaPlace, topic: str) -> bool:
    return isinstance(place, FilePlace) or topic in place.topics()


def _findings(place: FilePlace | KafkaPlace, partition: int, found: _Found) -> Iterator[Finding]:
    for interval, what in found.fates:
        yield control_outputs.of_fates(partition, interval, what, found.clock)
    if found.money and found.cut is not None:
        yield from control_outputs.of_money(place, found.cut, found.money)


def _proved(told: Told, found: dict[int, _Found]) -> bool:
    """Whether a break that is not found would be, were it there."""
    return told.period is None or all(mine.proves(told.period) for mine in found.values())
