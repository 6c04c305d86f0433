"""Everything priced again as the tokens say, compared with what was committed; nothing is written.

In: a partition's tokens and the topics that it read. Out: for each interval whether its records come out the same,
byte for byte, at any size of the batches inside it. Contracts count where the tokens say that they were read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flows import codecs, command_records, pause, tick_topic, topics, usage
from flows import token as tokens
from flows.authority import Authority
from flows.file_place import FilePlace
from flows.pipeline import Reader
from flows.rated_runs import RatedRuns
from flows.token import Token
from flows.usage_records import FLOW, outputs
from schemas import segments
from sources.files import TopicReader
from sources.lot import Lot
from tieout.exception_queue import HOLD, WAIVE
from tieout.usage import NO_CLOCK
from tieout.usage_stage import Limits, Result, UsageState


@dataclass(frozen=True, slots=True)
class Replayed:
    """One interval, replayed: its records, and the topics whose records differ from those that were committed."""

    token: Token
    records: int
    different: tuple[str, ...]


@dataclass(slots=True)
class _Until:
    """A topic as it was when ``end`` records had been written: what has been rated again is all that may be known."""

    whole: TopicReader
    end: int = 0

    @property
    def start(self) -> int:
        """The first position kept."""
        return self.whole.start

    def refresh(self) -> int:
        """The end does not move by itself."""
        return self.end

    def lot(self, position: int, rows: int, until: int | None = None) -> Lot:
        """As the topic's own, up to the end."""
        return self.whole.lot(position, rows, self.end if until is None else until)


def replay(root: Path, partition: int, limits: Limits, rows: int) -> Iterator[Replayed]:
    """Replay a partition from its first interval, in batches of at most ``rows``."""
    readers = {topic: TopicReader(root, topic, partition) for topic in (topics.USAGE, topics.CONTRACTS, topics.RATED, usage.TOKEN)}
    for reader in readers.values():
        reader.refresh()
    commands = TopicReader(root, topics.COMMANDS, 0)
    commands.refresh()
    rated = _Until(readers[topics.RATED])
    fold = usage.UsageFold(partition, readers[topics.CONTRACTS], readers[topics.USAGE], RatedRuns(rated), UsageState(limits))
    decoder = codecs.decoder("usage_event", FilePlace(root).writers())
    before, authority = Token(FLOW, partition, 0), Authority(FilePlace(root))
    for token in tokens.all_of(readers[usage.TOKEN]):
        versions = fold.versions(before.positions.get(topics.CONTRACTS, 0), token.positions[topics.CONTRACTS])
        read, until = (at.positions.get(command_records.WAIVERS, 0) for at in (before, token))
        asked = command_records.about(commands, read, until, WAIVE, HOLD)
        waived = pause.waived(authority, asked, token.positions)[0] if asked else frozenset()
        tick = _tick(commands, before, token)
        results: list[Result] = []
        end = token.positions[topics.USAGE]
        for lot in _lots(readers[topics.USAGE], before.positions.get(topics.USAGE, 0), end, rows):
            results.append(fold.step(usage.prepare(decoder, lot), versions, waived, tick, ends_interval=lot.end >= end, slices=token.counts["slices"] > 0 and not results))
            rated.end += results[-1].rated.num_rows
            versions, waived, tick = [], frozenset(), NO_CLOCK
        yield _compared(fold, token, results)
        before = token


def _tick(commands: Reader, before: Token, token: Token) -> int:
    """The tick that counted in an interval, by how far the token says that ticks have."""
    found = tick_topic.newest(commands, before.positions.get(tick_topic.NAME, 0), token.positions.get(tick_topic.NAME, 0))
    return NO_CLOCK if found is None else found.instant


def _compared(fold: usage.UsageFold, token: Token, results: list[Result]) -> Replayed:
    made = outputs(results, fold.partition, token.batch_id, token.clock, lambda position: fold.usage.lot(position, 1))
    digests = {topic: segments.digest(batch) for topic, batch in made.items() if batch.num_rows}
    committed = {topic: digest for topic, digest in token.digests.items() if not topic.startswith("_tieout.")}
    different = sorted(topic for topic in digests.keys() | committed.keys() if digests.get(topic) != committed.get(topic))
    return Replayed(token, sum(batch.num_rows for batch in made.values()), tuple(different))


def _lots(reader: TopicReader, start: int, end: int, rows: int) -> Iterator[Lot]:
    """The records of an interval; one empty lot where it had none."""
    at = start
    while at < end or at == start:
        lot = reader.lot(at, rows, end)
        yield lot
        if lot.end <= at:
            break
        at = lot.end
