"""Numbers of invoices and credit notes: without a gap, in one series for each legal entity.

In: the legal entities of some documents in the order of their log, and the last number of each so far. Out: the place of
each document in its entity's series, from 1, and the last numbers after it. Invoices and credit notes share the series, so
a missing document of either kind shows. Source: docs/semantics.md section 5.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DIGITS: Final = 8
"""Of a printed number at least, so that the first hundred million sort as texts."""


class Numbered(NamedTuple):
    """Places in the series, one a document; and the last place of each entity that any document has had."""

    sequences: npt.NDArray[np.int64]
    last: dict[str, int]


def number(entities: pa.Array, last: Mapping[str, int]) -> Numbered:
    """Number documents by their legal entities, in their order."""
    if not len(entities):
        return Numbered(np.empty(0, np.int64), dict(last))
    words = entities.cast(pa.string()).dictionary_encode()
    names, codes = words.dictionary.to_pylist(), words.indices.to_numpy()
    counts = np.bincount(codes, minlength=len(names))
    order = np.argsort(codes, kind="stable")
    places = np.empty(len(codes), np.int64)
    places[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    before = np.array([last.get(name, 0) for name in names], np.int64)
    after = {name: int(start + count) for name, start, count in zip(names, before, counts, strict=True)}
    return Numbered(before[codes] + places + 1, dict(last) | after)


def printed(legal_entity_id: str, sequence: int) -> str:
    """A number as it stands on the document."""
    return f"{legal_entity_id}-{sequence:0{DIGITS}d}"


def parsed(text: str) -> tuple[str, int]:
    """The legal entity and the place of a printed number; ValueError where it is none."""
    entity, dash, digits = text.rpartition("-")
    if not entity or not dash or not (digits.isascii() and digits.isdigit()) or printed(entity, int(digits)) != text:
        msg = f"{text!r} is no document number; one looks like {printed('us-inc', 17)}: the legal entity, a dash, and the place in its series"
        raise ValueError(msg)
    return entity, int(digits)
