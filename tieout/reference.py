"""Reference data: dated records of customers, products, prices and people; which of them holds at an instant.

In: records in any order, each valid for a while and recorded at some time. Out: for a kind, a key and an instant the one
record that holds. Records are only ever added: of those whose validity holds the instant the one recorded last wins, of
two recorded at the same instant the later one in the log. To end something, record what holds from then on. Instants
are UTC microseconds, intervals half-open. Source: docs/contracts.md (reference data).
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

KINDS: Final = ("customer", "product", "legal_entity", "meter", "tax_rate", "exchange_rate", "account_mapping", "rate_card", "user")


class ReferenceRecord(NamedTuple):
    """One record; ``valid_to`` None is for ever, ``value`` what its kind says, ``position`` where it stands in the log."""

    kind: str
    key: str
    valid_from: int
    valid_to: int | None
    recorded_at: int
    author: str
    reason: str | None
    value: Mapping[str, Any]
    position: tuple[int, int]

    def holds(self, instant: int) -> bool:
        """Whether it is valid at an instant."""
        return self.valid_from <= instant and (self.valid_to is None or instant < self.valid_to)


class ReferenceBook:
    """What is known so far."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, list[ReferenceRecord]]] = {kind: {} for kind in KINDS}

    def learn(self, records: Iterable[ReferenceRecord]) -> None:
        """Take note of records; one whose kind a later release has brought is left to that release."""
        for record in records:
            if record.kind in self._records:
                insort(self._records[record.kind].setdefault(record.key, []), record, key=_recorded)

    def has(self, kind: str) -> bool:
        """Whether anything is known of a kind at all."""
        return bool(self._records[kind])

    def known_since(self, kind: str) -> int | None:
        """When the first record of a kind was recorded; None where there is none."""
        return min((records[0].recorded_at for records in self._records[kind].values()), default=None)

    def at(self, kind: str, key: str, instant: int) -> ReferenceRecord | None:
        """The record that holds at an instant."""
        return next((record for record in reversed(self.history(kind, key)) if record.holds(instant)), None)

    def holding(self, kind: str, instant: int) -> Iterator[ReferenceRecord]:
        """The records of a kind that hold at an instant, one a key."""
        for key in self._records[kind]:
            found = self.at(kind, key, instant)
            if found is not None:
                yield found

    def rate_card(self, key: str, version: int, instant: int) -> ReferenceRecord | None:
        """A version of a rate card: versions stand beside each other, so each has records of its own."""
        records = [record for record in self.history("rate_card", key) if record.value["version"] == version]
        return next((record for record in reversed(records) if record.holds(instant)), None)

    def history(self, kind: str, key: str) -> list[ReferenceRecord]:
        """All that was ever recorded of something, in the order in which it was."""
        return self._records[kind].get(key, [])

    def keys(self, kind: str) -> list[str]:
        """All keys of a kind."""
        return sorted(self._records[kind])


def _recorded(record: ReferenceRecord) -> tuple[int, tuple[int, int]]:
    return record.recorded_at, record.position
