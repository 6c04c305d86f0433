"""How long the oldest input that is not committed has waited.

In, from time to time: the position of the next record to commit, the topic's end as last seen, and the wall clock;
where the record at that position was polled from a topic that the broker stamps, also when it was appended. Out: how
many records wait, and since when the oldest of them does.

A record counts from the moment when its partition was first seen to reach beyond it, or from its append time where
that is known and earlier. Instants are unix seconds and arguments: this module reads no clock.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

_TOGETHER_SECONDS: Final = 1.0


@dataclass(slots=True)
class _Stretch:
    """Records up to ``end`` that became known together."""

    end: int
    known_at: float
    appended_at: float | None = None


@dataclass(slots=True)
class Backlog:
    """The input of one partition that is known to be there and not committed."""

    records: int = 0
    _stretches: deque[_Stretch] = field(default_factory=deque)

    def look(self, position: int, end: int, now: float, appended_at: float | None = None) -> None:
        """Take note of the next position to commit, of the end, and of when the record at that position was appended."""
        while self._stretches and self._stretches[0].end <= position:
            self._stretches.popleft()
        known_to = self._stretches[-1].end if self._stretches else position
        if end > known_to:
            if self._stretches and now - self._stretches[-1].known_at < _TOGETHER_SECONDS:
                self._stretches[-1].end = end  # few stretches however often one looks; at worst a second too old
            else:
                self._stretches.append(_Stretch(end, now))
        if self._stretches and appended_at is not None:
            self._stretches[0].appended_at = appended_at
        self.records = max(0, end - position)

    def oldest_at(self) -> float | None:
        """Since when the oldest record waits; None where nothing does."""
        if not self._stretches:
            return None
        first = self._stretches[0]
        return first.known_at if first.appended_at is None else min(first.known_at, first.appended_at)
