"""Contract versions brought into force: the book says which, the tariffs compile them.

In: versions in log order, as objects or as batches of columns. Out: what became of them, and the tariffs and the book
that know them. Batches may come one by one from a generator, so that a million contracts are never held as columns.
Source: docs/semantics.md section 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tieout.contract_batch import ContractBatch, Refused, Taken
from tieout.contract_book import ContractBook
from tieout.problems import ContractRefused
from tieout.rating.tariff import Tariffs

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion


def bring_in(book: ContractBook, tariffs: Tariffs, versions: Iterable[ContractVersion | ContractBatch]) -> Taken:
    """Take versions in, in their order; what is refused has no effect."""
    parts = []
    first = 0
    for given in versions:
        taken = _batch(book, tariffs, given) if isinstance(given, ContractBatch) else _one(book, tariffs, given)
        parts.append(Taken(taken.rows, taken.order + first, {first + at: refused for at, refused in taken.refused.items()}))
        first += len(given) if isinstance(given, ContractBatch) else 1
    refused = {at: found for part in parts for at, found in part.refused.items()}
    empty = np.empty(0, np.int64)
    return Taken(np.concatenate([empty, *(p.rows for p in parts)]), np.concatenate([empty, *(p.order for p in parts)]), refused)


def _batch(book: ContractBook, tariffs: Tariffs, batch: ContractBatch) -> Taken:
    taken = book.take(batch)
    tariffs.take_batch(book, batch, taken)
    return taken


def _one(book: ContractBook, tariffs: Tariffs, version: ContractVersion) -> Taken:
    empty = np.empty(0, np.int64)
    try:
        applied = book.apply(version)
    except ContractRefused as refused:
        return Taken(empty, empty, {0: Refused(version.contract_id, version.version, version.customer_id, str(refused))})
    tariffs.take(book, applied.versions)
    return Taken(np.array(applied.rows, np.int64), np.zeros(len(applied.rows), np.int64), {})
