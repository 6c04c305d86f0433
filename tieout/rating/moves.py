"""Priced events moved from one version's term of their chains to another's, by columns.

In: for some events of one customer the tariffs that they were priced under and those that they meet now, both the
kernel's and of one chain. Out: what each event's leaving and entering changes, exact and signed, and how the terms
between move: the same as ``Rater.move`` gives event by event, a chain at a time. What the kernel cannot hold is left.
Source: docs/semantics.md section 3 (a backdated version) and section 4 (the running quantity).
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from tieout import wide
from tieout.rating.chains import Chains, Term
from tieout.rating.kernel import PriceTable

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_SAFE: Final = 2**61


class Amounts(NamedTuple):
    """Signed amounts in 10^-12, one an event, as lanes."""

    high: wide.U64
    low: wide.U64

    def take(self, rows: I64) -> "Amounts":
        """Those of some events."""
        return Amounts(self.high[rows], self.low[rows])


class Shifted(NamedTuple):
    """What moving the events of one group changed: their own two terms, and by version those between, where they move."""

    out: Amounts
    into: Amounts
    carries: dict[int, Amounts]


def shift(chains: Chains, table: PriceTable, chain: int, versions: tuple[int, int], quantities: tuple[I64, I64], number_of: Callable[[int], int]) -> Shifted | None:
    """Move events of a chain from one version's term to another's, in their order; None, and nothing done, where the kernel cannot.

    ``quantities`` are what each event leaves and enters with, ``number_of`` gives the number of a version's price.
    """
    source, target = versions
    terms = chains.terms(chain)
    for version in versions:
        if all(term.rank != version for term in terms):
            terms.append(Term(version, 0, 0))
    terms.sort(key=lambda term: term.rank)
    n = len(quantities[0])
    if sum(abs(term.quantity) for term in terms) + n * max(int(q.max()) for q in quantities) >= _SAFE:
        return None
    count = np.arange(n + 1)
    left, entered = (np.concatenate([np.zeros(1, np.int64), np.cumsum(q)]) for q in quantities)
    below, live_below = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    found: dict[int, Amounts] = {}
    for term in terms:
        own = term.quantity - (left if term.rank == source else 0) + (entered if term.rank == target else 0) + np.zeros(n + 1, np.int64)
        live = term.live - (count if term.rank == source else 0) + (count if term.rank == target else 0) + np.zeros(n + 1, np.int64)
        if term.rank >= min(versions):
            number = number_of(term.rank)
            if number < 0 or int(below.min()) < 0 or int((below + own).min()) < 0:
                return None
            found[term.rank] = _changes(table, number, below, own, live, live_below)
        below, live_below = below + own, live_below + live
    for term in terms:
        if term.rank == source:
            term.quantity, term.live = term.quantity - int(left[-1]), term.live - n
        elif term.rank == target:
            term.quantity, term.live = term.quantity + int(entered[-1]), term.live + n
    chains.put(chain, terms)
    carries = {version: amounts for version, amounts in found.items() if version not in versions and (amounts.high.any() or amounts.low.any())}
    return Shifted(found[source], found[target], carries)


def _changes(table: PriceTable, number: int, below: I64, own: I64, live: I64, live_below: I64) -> Amounts:
    """How the price of one term changes from event to event."""
    numbers = np.full(len(own), number, np.int64)
    high, low = table.at(numbers, below + own)
    base_high, base_low = table.at(numbers, below)
    alone = live_below == 0
    base_high, base_low = np.where(alone, 0, base_high).astype(np.uint64), np.where(alone, 0, base_low).astype(np.uint64)
    high, low = wide.subtract(high, low, base_high, base_low)
    high, low = np.where(live > 0, high, 0).astype(np.uint64), np.where(live > 0, low, 0).astype(np.uint64)
    return Amounts(*wide.subtract(high[1:], low[1:], high[:-1], low[:-1]))
