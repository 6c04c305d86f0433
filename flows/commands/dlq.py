"""``tieout dlq``: what a flow has rejected, counted by reason, shown whole, put back, or settled as it is.

A letter that is replayed or discarded is settled and listed no more. Replaying puts the original record back to its
topic and partition; where it is rejected again, that is a new letter with one replay more.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flows import dead_letter_queue, dead_letters, output
from flows.cli import CommandError
from flows.commands import governed, moments, payloads, places
from flows.dead_letter_queue import AT_ONCE, DISCARDED, REPLAYED, Letter, Queue, Settled
from schemas.catalog import Avro
from schemas.registry import Registry

_SHOWN_BYTES: Final = 200


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which letters: by name (partition and position), or by what they are."""

    named: frozenset[tuple[int, int]]
    reason: str | None
    partition: int | None
    since: int | None

    def takes(self, letter: Letter) -> bool:
        return (self.reason is None or letter.said.get("reason") == self.reason) and (self.since is None or letter.record["timestamp"] >= self.since)

    def partitions(self, count: int) -> list[int]:
        wanted = {partition for partition, _ in self.named} if self.partition is None else {self.partition}
        outside = [partition for partition in wanted if partition >= count]
        if outside:
            msg = f"dlq: there is no partition {outside[0]}, the last one is {count - 1}"
            raise CommandError(msg, 2)
        return [partition for partition in range(count) if not wanted or partition in wanted]

    def letters(self, queue: Queue, partition: int) -> Iterator[Letter]:
        """The letters of a partition that are chosen, settled or not."""
        if not self.named:
            yield from (letter for letter in queue.letters(partition) if self.takes(letter))
            return
        for position in sorted(position for at, position in self.named if at == partition):
            found = next(queue.letters(partition, position), None)
            if found is None:
                msg = f"dlq: there is no dead letter {partition}:{position}; 'tieout dlq show' shows some with their names"
                raise CommandError(msg)
            if self.takes(found):
                yield found


def run(options: argparse.Namespace) -> int:
    """Answer ``ls``, ``show``, ``replay`` or ``discard``."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        return _answer(options, None if registry is None else registry.writer)


def _answer(options: argparse.Namespace, writer: Callable[[int], Avro] | None) -> int:
    place = places.place(options)
    choice = _choice(options)
    queue = dead_letter_queue.of(place, options.flow)
    try:
        match options.what:
            case "ls":
                output.show(_listed(queue, choice, everything=options.all), options.output)
            case "show":
                _show(payloads.shower(place, writer), queue, choice, options)
            case _:
                _settle(queue, choice, options)
    finally:
        queue.close()
    return 0


def _choice(options: argparse.Namespace) -> _Choice:
    named = set()
    for name in options.letters:
        partition, colon, position = name.partition(":")
        if not (colon and partition.isdecimal() and position.isdecimal()):
            msg = f"dlq: {name!r} names no dead letter; write PARTITION:OFFSET as 'tieout dlq show' does, for example 3:17"
            raise CommandError(msg, 2)
        named.add((int(partition), int(position)))
    since = None if options.since is None else moments.moment(options.since, time.time_ns() // 1000, "dlq: --since")
    return _Choice(frozenset(named), options.reason, options.partition, since)


def _listed(queue: Queue, choice: _Choice, *, everything: bool) -> list[dict[str, Any]]:
    """How many there are by reason and partition, the most first, with the oldest of each."""
    groups: dict[tuple[str, int, str], list[Letter]] = {}
    counts: dict[tuple[str, int, str], int] = {}
    for partition in choice.partitions(queue.partitions()):
        settled = queue.settled(partition)
        for letter in choice.letters(queue, partition):
            how = settled.get(letter.position)
            if how is not None and not everything:
                continue
            key = (letter.said.get("reason", ""), partition, "waiting" if how is None else how.act)
            oldest = groups.setdefault(key, [letter])
            counts[key] = counts.get(key, 0) + 1
            if letter.record["timestamp"] < oldest[0].record["timestamp"]:
                oldest[0] = letter
    rows = []
    for reason, partition, state in sorted(counts, key=lambda key: (-counts[key], key)):
        [oldest_letter] = groups[reason, partition, state]
        row = {"reason": reason, "partition": partition, "count": counts[reason, partition, state]}
        rows.append(row | ({"state": state} if everything else {}) | {
            "oldest": moments.written(oldest_letter.record["timestamp"]), "letter": oldest_letter.name, "message": oldest_letter.said.get("message"),
        })
    return rows


def _show(show: payloads.Show, queue: Queue, choice: _Choice, options: argparse.Namespace) -> None:
    shown: list[dict[str, Any]] = []
    for partition in choice.partitions(queue.partitions()):
        settled = queue.settled(partition)
        for letter in choice.letters(queue, partition):
            how = settled.get(letter.position)
            if how is None or options.all or choice.named:
                shown.append(_whole(show, letter, how))
            if len(shown) >= options.limit and not choice.named:
                break
    shown = shown if choice.named else shown[: options.limit]
    if options.output != "table":
        output.show(shown, options.output)
        return
    for row in shown:
        told = {name: what for name, what in row.items() if what is not None} | {"value": _beginning(row["value"])}
        output.show([{"field": name, "what": what} for name, what in told.items()], "table", f"dead letter {row['letter']}")


def _beginning(value: str | None) -> str:
    """The first bytes of a value, for a table."""
    if value is None:
        return "null"
    return value if len(value) <= 2 * _SHOWN_BYTES else f"{value[: 2 * _SHOWN_BYTES]}... ({len(value) // 2} bytes; --output json has them all)"


def _whole(show: payloads.Show, letter: Letter, how: Settled | None) -> dict[str, Any]:
    """Everything of a letter."""
    value = letter.record["value"]
    shown = show(value)
    return {
        "letter": letter.name, **{name: letter.said.get(name) for name in dead_letters.NAMES},
        "settled": None if how is None else f"{how.act} by {how.author} at {moments.written(how.at)}{'' if how.reason is None else f': {how.reason}'}",
        "timestamp": moments.written(letter.record["timestamp"]), "key": _text(letter.record["key"]),
        "headers": [{"key": header["key"], "value": _text(header["value"])} for header in dead_letters.without_own(letter.record["headers"])],
        **shown._asdict(),
        "value": None if value is None else value.hex(),
    }


def _text(raw: bytes | None) -> str | None:
    """Bytes as text where they are, else in hexadecimal."""
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"hex {raw.hex()}"
    return text if text.isprintable() else f"hex {raw.hex()}"


def _settle(queue: Queue, choice: _Choice, options: argparse.Namespace) -> None:
    how = _how(options, choice)
    chosen: dict[int, list[int]] = {}
    reasons: dict[tuple[int, str], int] = {}
    before = 0
    for partition in choice.partitions(queue.partitions()):
        if not options.dry_run:
            queue.hold(partition)
        settled = queue.settled(partition)
        for letter in choice.letters(queue, partition):
            if letter.position in settled:
                before += 1
                continue
            chosen.setdefault(partition, []).append(letter.position)
            key = (partition, letter.said.get("reason", ""))
            reasons[key] = reasons.get(key, 0) + 1
    if not options.dry_run:
        _carry_out(queue, chosen, how)
    act = f"would be {how.act}" if options.dry_run else how.act
    output.show([{"partition": partition, "reason": reason, act: count} for (partition, reason), count in sorted(reasons.items())], options.output)
    if choice.named and before:
        output.say(f"{before} of these had been settled before and were left alone")


def _how(options: argparse.Namespace, choice: _Choice) -> Settled:
    act = REPLAYED if options.what == "replay" else DISCARDED
    if act == DISCARDED and not options.because:
        msg = "dlq discard: say why with --because TEXT; it is kept with the letters"
        raise CommandError(msg, 2)
    if act == DISCARDED and not (choice.named or choice.reason or choice.partition is not None or choice.since is not None):
        msg = "dlq discard: say which, by name (3:17) or with --reason, --partition or --since"
        raise CommandError(msg, 2)
    return Settled(act, governed.author_of(options), time.time_ns() // 1000, options.because if act == DISCARDED else None)


def _carry_out(queue: Queue, chosen: dict[int, list[int]], how: Settled) -> None:
    """Settle letters in small lots: a kill loses none of those that are done, and hides nothing for long."""
    with output.Bar(how.act, sum(len(positions) for positions in chosen.values())) as bar:
        for partition, positions in chosen.items():
            wanted, lot = set(positions), list[Letter]()
            for letter in queue.letters(partition):
                if letter.position in wanted:
                    lot.append(letter)
                if len(lot) == AT_ONCE or (lot and letter.position == positions[-1]):
                    queue.settle(partition, lot, how)
                    bar.advance(len(lot))
                    lot = []
                if letter.position >= positions[-1]:
                    break
