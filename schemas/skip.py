"""Passing over what the reader does not want, and how few bytes a type may take.

In: a type of the writer. Out: a function that moves a cursor behind a value of it. Text is not looked at, as in other
readers; lengths, counts and branches are, because the next field's place depends on them. Types may contain
themselves; a body that nests them deeper than DEPTH is broken.
"""

from collections.abc import Callable
from typing import Final

import pyarrow as pa

from schemas import readers
from schemas.catalog import Avro
from schemas.cursor import Cursor
from schemas.faults import Fault
from schemas.names import full, kind_of

Skip = Callable[[Cursor, int], None]
"""Passes over a value; the number is how deep it is nested."""

DEPTH: Final = 64


def skip_of(avro: Avro, named: dict[str, Avro]) -> Skip:
    """How a value of a type is passed over."""
    return _skip(avro, named, {})


def least_bytes(
    avro: Avro, named: dict[str, Avro], seen: tuple[str, ...] = ()
) -> int:
    """The fewest bytes that a value of a type takes: 0 for null, fixed(0) and records of nothing else."""
    avro = full(avro, named)
    if isinstance(avro, list):
        return 1
    match kind_of(avro):
        case "null":
            return 0
        case "float":
            return 4
        case "double":
            return 8
        case "fixed":
            return int(avro["size"])
        case "record" | "error":
            if avro["name"] in seen:
                return 0
            return sum(least_bytes(field["type"], named, (*seen, avro["name"])) for field in avro["fields"])
        case _:
            return 1


def _skip(
    avro: Avro, named: dict[str, Avro], known: dict[str, list[Skip]]
) -> Skip:
    """Pass over a field that the reader does not want; types may contain themselves, DEPTH records deep."""
    avro = full(avro, named)
    if isinstance(avro, list):
        return _skip_union([_skip(branch, named, known) for branch in avro])
    match kind_of(avro):
        case "null":
            return lambda _cursor, _depth: None
        case "boolean":
            return lambda cursor, _depth: cursor.advance(1)
        case "int" | "long" | "enum":
            return lambda cursor, _depth: cursor.passed()
        case "float":
            return lambda cursor, _depth: cursor.advance(4)
        case "double":
            return lambda cursor, _depth: cursor.advance(8)
        case "string" | "bytes":
            return lambda cursor, _depth: cursor.skip()
        case "fixed":
            size = avro["size"]
            return lambda cursor, _depth: cursor.advance(size)
        case "array":
            return _skip_items(_skip(avro["items"], named, known), least_bytes(avro["items"], named))
        case "map":
            item = _skip(avro["values"], named, known)
            return _skip_items(_entry(item), 1)
        case _:
            return _skip_record(avro, named, known)


def _skip_union(branches: list[Skip]) -> Skip:
    def skip(cursor: Cursor, depth: int) -> None:
        begin, chosen = cursor.pos, cursor.long()
        cursor.blame((chosen < 0) | (chosen >= len(branches)), Fault.INDEX, begin)
        for number, branch in enumerate(branches):
            mine = (chosen == number) & (cursor.fault == 0)
            if mine.any():
                part = cursor.part(mine)
                branch(part, depth)
                cursor.merge(mine, part)

    return skip


def _skip_items(item: Skip, width: int) -> Skip:
    def skip(cursor: Cursor, depth: int) -> None:
        def each(part: Cursor) -> list[pa.Array]:
            item(part, depth)
            return []

        readers.items(cursor, each, width)

    return skip


def _skip_record(avro: Avro, named: dict[str, Avro], known: dict[str, list[Skip]]) -> Skip:
    steps = known.get(avro["name"])
    if steps is None:
        steps = known[avro["name"]] = []
        steps += [_skip(field["type"], named, known) for field in avro["fields"]]

    def skip(cursor: Cursor, depth: int) -> None:
        if depth >= DEPTH:
            cursor.blame(cursor.fault == 0, Fault.DEPTH)
            return
        for step in steps:
            step(cursor, depth + 1)

    return skip


def _entry(item: Skip) -> Skip:
    def skip(cursor: Cursor, depth: int) -> None:
        cursor.skip()
        item(cursor, depth)

    return skip
