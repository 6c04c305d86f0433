"""Whose usage it is: customers by their ids in other systems, as of the time of the usage.

In: records of customers, in any order: their ids in other systems, when these hold, when they became known; and rows
of usage with the id that they carry, their source and their event time. Out: the contracting customer of each row.

Of a customer's records the one recorded last governs each instant for which it is valid, alone: an alias that it does
not have ends there. An id means, in this order, the customer that the usage's own source calls so; the customer whose
id it is; the customer that the other systems call so, where they agree. An id that nobody knows stands for itself; one
that names several customers names none. Instants are UTC microseconds, intervals half-open.
Source: docs/semantics.md section 2 (customer).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_FIRST: Final = -(2**63)
_FOREVER: Final = 2**63 - 1


class CustomerRecord(NamedTuple):
    """What one record of the reference data says of a customer; ``valid_to`` None is for ever."""

    customer_id: str
    aliases: Mapping[str, str]
    """Its id by system."""
    valid_from: int
    valid_to: int | None
    recorded_at: int
    position: tuple[int, int]
    """Where the record stands: of two that were recorded at the same instant the later one counts."""


class Resolved(NamedTuple):
    """The customers of a batch, one code a row."""

    customers: list[str]
    codes: I64
    """Into ``customers``; -1 where the id names several."""
    changed: Mask
    """Rows whose customer is not the id that they carry."""
    several: dict[int, tuple[str, ...]]
    """The customers that a row's id names, where it is not one."""


class _Claim(NamedTuple):
    """An id is a customer's, from one system's view (None: the id is its own), for a while."""

    start: int
    end: int
    system: str | None
    customer_id: str


class _Steps(NamedTuple):
    """Whose an id is over time: from each start on these customers."""

    starts: list[int]
    customers: list[tuple[str, ...]]


class Aliases:
    """What is known of customers' ids so far."""

    def __init__(self) -> None:
        self._records: dict[str, list[CustomerRecord]] = {}
        self._claims: dict[str, list[_Claim]] = {}
        """By id, of the ids that are somebody's alias: the others stand for themselves, whatever is known of them."""
        self._steps: dict[str, dict[str, _Steps]] = {}
        """By id and source, as far as they have been asked for."""

    def learn(self, records: Iterable[CustomerRecord]) -> None:
        """Take note of records; what they say holds for every row that is resolved from now on."""
        touched: dict[str, list[CustomerRecord]] = {}
        for record in records:
            touched.setdefault(record.customer_id, []).append(record)
        for customer_id, new in touched.items():
            known = self._records.setdefault(customer_id, [])
            for name in _aliases(known):
                self._claims[name] = [claim for claim in self._claims.get(name, ()) if claim.customer_id != customer_id]
            known += new
            for start, end, record in _governing(known):
                for system, name in record.aliases.items():
                    self._claims.setdefault(name, []).append(_Claim(start, end, system, customer_id))
            for name in (customer_id, *_aliases(known)):
                self._steps.pop(name, None)

    def resolve(self, carried: pa.Array, source: pa.Array, time: I64) -> Resolved:
        """The customer of each row; by columns, and once for each distinct (source, id) that somebody knows."""
        encoded = pc.dictionary_encode(carried)
        customers: list[str] = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        known = np.fromiter((bool(self._claims.get(name)) for name in customers), np.bool_, len(customers))
        rows = np.nonzero(known[codes])[0]
        changed = np.zeros(len(codes), np.bool_)
        if not len(rows):
            return Resolved(customers, codes, changed, {})
        sources = pc.dictionary_encode(source.take(pa.array(rows)))
        names = sources.dictionary.to_pylist()
        pair = codes[rows] * len(names) + sources.indices.to_numpy(zero_copy_only=False)
        distinct, place = np.unique(pair, return_inverse=True)
        steps = [self._of(names[each % len(names)], customers[each // len(names)]) for each in distinct.tolist()]
        meant = [found for step in steps for found in step.customers]
        at = _as_of(steps, place, time[rows])
        numbers = {name: number for number, name in enumerate(customers)}
        one = np.array([numbers.setdefault(found[0], len(numbers)) if len(found) == 1 else -1 for found in meant], np.int64)
        resolved = codes.copy()
        resolved[rows] = one[at]
        changed[rows] = resolved[rows] != codes[rows]
        unclear = np.nonzero(one[at] < 0)[0]
        return Resolved(list(numbers), resolved, changed, {int(rows[i]): meant[at[i]] for i in unclear.tolist()})

    def _of(self, source: str, name: str) -> _Steps:
        known = self._steps.setdefault(name, {})
        if source not in known:
            own = [_Claim(start, end, None, name) for start, end, _ in _governing(self._records.get(name, []))]
            known[source] = _steps([*self._claims[name], *own], source, name)
        return known[source]


def _aliases(records: Sequence[CustomerRecord]) -> set[str]:
    """All aliases that a customer's records name."""
    return {name for record in records for name in record.aliases.values()}


def _governing(records: Sequence[CustomerRecord]) -> Iterator[tuple[int, int, CustomerRecord]]:
    """Which of one customer's records governs, from when to when."""
    latest = sorted(records, key=lambda record: (record.recorded_at, record.position), reverse=True)
    edges = sorted({edge for record in records for edge in (record.valid_from, _end(record))})
    for start, end in pairwise(edges):
        governing = next((record for record in latest if record.valid_from <= start and end <= _end(record)), None)
        if governing is not None:
            yield start, end, governing


def _end(record: CustomerRecord) -> int:
    return _FOREVER if record.valid_to is None else record.valid_to


def _steps(claims: Sequence[_Claim], source: str, name: str) -> _Steps:
    """Whose an id of a source is, over all time."""
    starts = sorted({_FIRST, *(edge for claim in claims for edge in (claim.start, claim.end))})
    return _Steps(starts, [_meant([c for c in claims if c.start <= start < c.end], source, name) for start in starts])


def _meant(claims: Sequence[_Claim], source: str, name: str) -> tuple[str, ...]:
    """The customers that the claims of one instant give an id."""
    called = {claim.customer_id for claim in claims if claim.system == source}
    if not called and any(claim.system is None for claim in claims):
        return (name,)
    return tuple(sorted(called or {claim.customer_id for claim in claims})) or (name,)


def _as_of(steps: Sequence[_Steps], place: I64, time: I64) -> I64:
    """For each row the step of its place that its time lies in, among the steps of all places one after the other."""
    starts = np.array([start for step in steps for start in step.starts], np.int64)
    owner = np.repeat(np.arange(len(steps)), [len(step.starts) for step in steps])
    edges = np.unique(starts)
    width = len(edges) + 1
    begins = owner * width + np.searchsorted(edges, starts, "left") + 1
    return np.searchsorted(begins, place * width + np.searchsorted(edges, time, "right"), "right") - 1
