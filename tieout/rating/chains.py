"""Running quantities: what section 4's formula needs to know, kept by chain.

A **chain** is one (contract, charge, group, billing period); with ``reset: contract_version`` one for each version,
with ``reset: never`` one for all periods. A **term** of a chain is the events of one version (and period): its rank
orders the terms, and ``B`` of a term is the sum of the terms of lower rank. The charge of a chain is the sum over the
live terms of ``P(B + S) - P(B)``; where ``B`` covers no live event, nothing is subtracted.

In: quantities (units of 10^-9) by chain and rank. Out: what each event changes, exact and signed. While events come
in order of rank, ``B + S`` is the chain's total, so the columns hold only the top term and the total and the kernel
prices a whole batch; lower terms stand beside, and whatever is out of order or too large for ``int64`` is done one by
one by ``change``. Source: docs/semantics.md section 4 (the running quantity, telescoping).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import wide
from tieout.column import Column
from tieout.ids import Lanes, combine, of_integers
from tieout.key_index import KeyIndex
from tieout.rating.adjustments import Price
from tieout.rating.kernel import PriceTable

I64 = npt.NDArray[np.int64]
Ints = npt.NDArray[np.signedinteger[Any]]
_NONE: Final = -(2**63)
_SAFE: Final = 2**62
_WIDE: Final = 2**29
"""A sum of the upper 32 bits of quantities, one for each of them added: below it the quantities' sum is surely safe."""


@dataclass(slots=True)
class Term:
    """The events of one version (and period) in a chain: their sum and how many are live."""

    rank: int
    quantity: int
    live: int


class Terms(NamedTuple):
    """Terms as columns, one row each: the chain's key, the rank, the sum as decimal(38, 9), the live events."""

    keys: Lanes
    rank: I64
    quantity: pa.Array
    live: I64


class Moved(NamedTuple):
    """One term whose price moved."""

    rank: int
    amount: int


class Priced(NamedTuple):
    """The kernel's answer for a batch: amounts of the rows it priced, and the rows left to ``change``."""

    done: npt.NDArray[np.bool_]
    high: wide.U64
    low: wide.U64


class _Held(NamedTuple):
    """What is held of distinct chains, one a row."""

    chain: I64
    top: I64
    total: I64
    live: I64
    top_quantity: I64
    top_live: I64


class Chains:
    """Running quantities of one partition."""

    def __init__(self) -> None:
        self.index = KeyIndex()
        self._state = Column(np.int64, 5)  # what is asked of a chain together lies together
        self._lower: dict[int, list[Term]] = {}
        self._exact: dict[int, list[Term]] = {}  # chains too large for int64: all terms, in Python's integers
        self._exact_flags = Column(np.bool_)
        self._changed: list[I64] = []
        self._changed_lower: set[int] = set()

    def rows(self, keys: Lanes) -> I64:
        """The chain of each key, a new one where it was never seen."""
        rows, _ = self.index.upsert(keys)
        self._grow()
        return rows

    def row(self, high: int, low: int) -> int:
        """The chain of one key."""
        row = self.index.enter(high, low)
        self._grow()
        return row

    def price(self, table: PriceTable, chain: I64, rank: I64, number: I64, quantity: I64) -> Priced:
        """Price what the kernel can of a batch's rows, in their order; the chains of the others are left untouched.

        ``number`` is the row's price in the table (-1 where it has none), ``quantity`` 0 or more. A chain is priced
        whole or not at all: one row that the kernel cannot do leaves all rows of its chain to ``change``.
        """
        n = len(chain)
        order, c = sorted_rows(chain)
        r, q, p = rank.take(order), quantity.take(order), number.take(order)
        first = firsts(c)
        held = self._held(c[first])
        able = self._able(held, r, q, p, first)
        if not able.all():
            keep = np.repeat(able, np.diff(first, append=n))
            order, c, r, q, p = order[keep], c[keep], r[keep], q[keep], p[keep]
            first = firsts(c)
            held = self._held(c[first])
        done, high, low = np.zeros(n, np.bool_), np.zeros(n, np.uint64), np.zeros(n, np.uint64)
        if len(c):
            done[order] = True
            high[order], low[order] = self._telescope(table, held, r, q, p, first, np.diff(first, append=len(c)))
        return Priced(done, high, low)

    def _able(self, held: "_Held", r: I64, q: I64, p: I64, first: I64) -> npt.NDArray[np.bool_]:
        """Which chains the kernel can price: rows sorted by chain, each with a price, of rising rank, and no sum too large."""
        bad = (p < 0) | (q < 0)
        falls = r[1:] < r[:-1]
        falls[first[1:] - 1] = False  # between two chains
        bad[1:] |= falls
        bad[first] |= r[first] < held.top
        able, whole = ~self._is_exact[held.chain], q >> 32
        if bad.any() or int(whole.sum()) + len(q) + int(held.total.max(initial=0) >> 32) >= _WIDE:  # else every chain is in order, none too large
            able &= ~np.logical_or.reduceat(bad, first)
            able &= np.add.reduceat(whole, first) + (held.total >> 32) + np.diff(first, append=len(q)) < _WIDE
        return able

    def _telescope(
        self, table: PriceTable, held: "_Held", r: I64, q: I64, p: I64, first: I64, sizes: I64
    ) -> tuple[wide.U64, wide.U64]:
        """Amounts of rows sorted by chain, each chain's ranks rising; the chains move on."""
        running = np.cumsum(q)  # may wrap; the differences within a chain are exact (bound checked by the caller)
        after = running + np.repeat(held.total - (running[first] - q[first]), sizes)
        after_high, after_low = table.at(p, after)
        before_high, before_low = np.empty_like(after_high), np.empty_like(after_low)
        before_high[1:], before_low[1:] = after_high[:-1], after_low[:-1]
        turn = np.zeros(len(q), np.bool_)
        turn[1:] = p[1:] != p[:-1]
        turn[first] = held.live > 0
        at = np.nonzero(turn)[0]
        before_high[at], before_low[at] = table.at(p[at], after[at] - q[at])
        fresh = first[held.live == 0]
        before_high[fresh], before_low[fresh] = 0, 0
        self._advance(held, r, q, after, first, sizes)
        return wide.subtract(after_high, after_low, before_high, before_low)

    def _held(self, chain: I64) -> "_Held":
        """What is held of chains: each is looked up in memory once."""
        return _Held(chain, *self._state.rows.take(chain, axis=0).T)

    def _advance(self, held: "_Held", r: I64, q: I64, after: I64, first: I64, sizes: I64) -> None:
        group, last = held.chain, first + sizes - 1
        stays = (r[last] == held.top) | ((held.top == _NONE) & (r[first] == r[last]))
        for i in np.nonzero(~stays)[0].tolist():  # a version took over: seldom, so one by one
            self._roll(int(group[i]), r[first[i] : last[i] + 1], q[first[i] : last[i] + 1])
        s, g = np.nonzero(stays)[0], group[stays]
        self._top[g] = r[last[s]]
        self._top_quantity[g] = (held.top_quantity + after[last] - held.total)[s]
        self._top_live[g] = (held.top_live + sizes)[s]
        self._total[group] = after[last]
        self._live[group] = held.live + sizes
        self._changed.append(group)

    def _roll(self, chain: int, ranks: I64, quantities: I64) -> None:
        """Move the top term of a chain up through the ranks of its new rows."""
        for rank, quantity in zip(ranks.tolist(), quantities.tolist(), strict=True):
            if rank != self._top[chain]:
                if self._top[chain] != _NONE:
                    self._push(chain)
                self._top[chain], self._top_quantity[chain], self._top_live[chain] = rank, 0, 0
            self._top_quantity[chain] += quantity
            self._top_live[chain] += 1

    def _push(self, chain: int) -> None:
        term = Term(int(self._top[chain]), int(self._top_quantity[chain]), int(self._top_live[chain]))
        self._lower.setdefault(chain, []).append(term)
        self._changed_lower.add(chain)

    def terms(self, chain: int) -> list[Term]:
        """The chain's terms by rank (copies)."""
        if chain in self._exact:
            return [Term(t.rank, t.quantity, t.live) for t in self._exact[chain]]
        if self._top[chain] == _NONE:
            return []
        top = Term(int(self._top[chain]), int(self._top_quantity[chain]), int(self._top_live[chain]))
        return [*(Term(t.rank, t.quantity, t.live) for t in self._lower.get(chain, ())), top]

    def change(self, chain: int, rank: int, quantity: int, live: int, price_of: Callable[[int], Price]) -> list[Moved]:
        """Add a signed quantity (and live events) to one term: its own move first, then every later term that moved.

        ``price_of`` gives the price of a rank. The own term is always answered, also when its price stays.
        """
        terms = self.terms(chain)
        before = {t.rank: v for t, v in zip(terms, values(terms, price_of, rank), strict=True)}
        own = next((t for t in terms if t.rank == rank), None)
        if own is None:
            own = Term(rank, 0, 0)
            terms = sorted([*terms, own], key=lambda t: t.rank)
        own.quantity += quantity
        own.live += live
        after = values(terms, price_of, rank)
        moved = [Moved(t.rank, v - before.get(t.rank, 0)) for t, v in zip(terms, after, strict=True) if t.rank >= rank]
        self.put(chain, terms)
        return [moved[0], *(m for m in moved[1:] if m.amount)]

    def shift(self, chain: int, ranks: tuple[int, int], quantities: tuple[int, int], price_of: Callable[[int], Price]) -> list[Moved]:
        """Take one live event out of a term and put it into another: both moves first, then every other term that moved."""
        terms = self.terms(chain)
        for rank in ranks:
            if all(t.rank != rank for t in terms):
                terms.append(Term(rank, 0, 0))
        terms.sort(key=lambda t: t.rank)
        before = values(terms, price_of, min(ranks))
        for rank, quantity, live in zip(ranks, (-quantities[0], quantities[1]), (-1, 1), strict=True):
            own = next(t for t in terms if t.rank == rank)
            own.quantity += quantity
            own.live += live
        after = values(terms, price_of, min(ranks))
        moved = {t.rank: new - old for t, old, new in zip(terms, before, after, strict=True)}
        self.put(chain, terms)
        return [*(Moved(rank, moved.pop(rank)) for rank in ranks), *(Moved(rank, amount) for rank, amount in moved.items() if amount)]

    def put(self, chain: int, terms: list[Term]) -> None:
        """Let these be a chain's terms, by rank."""
        self._changed.append(np.array([chain], np.int64))
        self._changed_lower.add(chain)
        total = sum(t.quantity for t in terms)
        if any(abs(x) >= _SAFE for x in (total, *(t.quantity for t in terms))):
            self._exact[chain] = terms
            self._is_exact[chain] = True
            return
        self._exact.pop(chain, None)
        self._is_exact[chain] = False
        *lower, top = terms
        if lower:
            self._lower[chain] = lower
        self._top[chain], self._top_quantity[chain], self._top_live[chain] = top.rank, top.quantity, top.live
        self._total[chain], self._live[chain] = total, sum(t.live for t in terms)

    def take_changes(self) -> Terms:
        """The terms changed since the last call, one row each: what a commit writes."""
        rows = self._changed[0] if len(self._changed) == 1 else np.unique(np.concatenate(self._changed)) if self._changed else np.empty(0, np.int64)
        odd = self._changed_lower | self._exact.keys()
        several = [row for row in rows.tolist() if row in odd] if odd else []
        self._changed, self._changed_lower = [], set()
        return self._terms(rows, several)

    def all_terms(self) -> Terms:
        """Every term: what a full state writes."""
        rows = np.arange(len(self.index), dtype=np.int64)
        return self._terms(rows[(self._top[rows] != _NONE) | self._is_exact[rows]], sorted(self._lower.keys() | self._exact.keys()))

    def _terms(self, rows: I64, several: list[int]) -> Terms:
        high = self.index.keys[:, 0]  # in the order of their keys: that of their rows depends on how often the run began anew
        plain = rows[~np.isin(rows, np.array(several, np.int64))] if several else rows
        plain = plain[np.argsort(high[plain])]
        found = [(row, term) for row in sorted(several, key=high.__getitem__) for term in self.terms(row)]
        at = np.concatenate([plain, np.array([row for row, _ in found], np.int64)])
        quantity = self._top_quantity[plain]
        decimals = wide.decimals((quantity >> np.int64(63)).view(np.uint64), quantity.view(np.uint64), 38, 9)
        return Terms(
            self.index.keys.take(at, axis=0),
            np.concatenate([self._top[plain], np.array([t.rank for _, t in found], np.int64)]),
            pa.concat_arrays([decimals, wide.decimals_of([t.quantity for _, t in found], 38, 9)]),
            np.concatenate([self._top_live[plain], np.array([t.live for _, t in found], np.int64)]),
        )

    def restore(self, changes: Terms) -> None:
        """Put back what was taken, in the order in which it was; the last row of a (chain, rank) is the one that counts."""
        rows = self.rows(changes.keys)
        pairs = KeyIndex().upsert(combine(changes.keys, of_integers(changes.rank)))[0]
        last = np.zeros(len(pairs) and int(pairs.max()) + 1, np.int64)
        last[pairs] = np.arange(len(pairs))
        chain, rank, live = rows[last], changes.rank[last], changes.live[last]
        taken = changes.quantity.take(pa.array(last))
        quantity, fits = wide.narrow(taken)
        single = fits & (abs(quantity) < _SAFE) & (np.bincount(chain, minlength=len(self.index))[chain] == 1)
        at = chain[single]
        self._top[at], self._top_quantity[at], self._top_live[at] = rank[single], quantity[single], live[single]
        self._total[at], self._live[at] = quantity[single], live[single]
        for row in self._lower.keys() & set(at.tolist()):
            del self._lower[row]
        others = np.nonzero(~single)[0].tolist()
        exact = wide.integers(taken.take(pa.array(others, pa.int64())))
        by_chain: dict[int, list[Term]] = {}
        for i, units in zip(others, exact, strict=True):
            by_chain.setdefault(int(chain[i]), []).append(Term(int(rank[i]), units or 0, int(live[i])))
        for row, terms in by_chain.items():
            self.put(row, sorted(terms, key=lambda t: t.rank))
        self._changed, self._changed_lower = [], set()

    def _grow(self) -> None:
        more = len(self.index) - len(self._state)
        if more:
            self._state.extend(np.broadcast_to(np.array([_NONE, 0, 0, 0, 0]), (more, 5)))
            self._exact_flags.extend(np.zeros(more, np.bool_))

    @property
    def _top(self) -> I64:
        """The highest rank of each chain."""
        return self._state.rows[:, 0]

    @property
    def _total(self) -> I64:
        """The sum of all terms."""
        return self._state.rows[:, 1]

    @property
    def _live(self) -> I64:
        """The live events of all terms."""
        return self._state.rows[:, 2]

    @property
    def _top_quantity(self) -> I64:
        """The sum of the top term."""
        return self._state.rows[:, 3]

    @property
    def _top_live(self) -> I64:
        """The live events of the top term."""
        return self._state.rows[:, 4]

    @property
    def _is_exact(self) -> npt.NDArray[np.bool_]:
        """Which chains are too large for ``int64``."""
        return self._exact_flags.rows


def sorted_rows(keys: Ints) -> tuple[I64, I64]:
    """The rows in the order of their keys (0 to 2^31), equal ones as they come; and the keys in that order."""
    bits = np.int64(len(keys).bit_length())
    both = np.sort(keys.astype(np.int64) << bits | np.arange(len(keys)))  # a sort of integers that carry their row is faster than one of rows
    return both & ((1 << bits) - 1), both >> bits


def firsts(keys: I64) -> I64:
    """Where each run of equal keys begins."""
    return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)


def values(terms: list[Term], price_of: Callable[[int], Price], from_rank: int) -> list[int]:
    """The price of each term, ``P(B + S) - P(B)`` in 10^-12, 0 below ``from_rank``: those cannot move."""
    out, below, live_below = [], 0, False
    for term in terms:
        value = 0
        if term.live > 0 and term.rank >= from_rank:
            price = price_of(term.rank)
            value = price.at(below + term.quantity) - (price.at(below) if live_below else 0)
        out.append(value)
        below += term.quantity
        live_below = live_below or term.live > 0
    return out
