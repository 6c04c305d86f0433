"""The contracts of a partition: which version governs at which instant.

In: contract versions in the order in which they were recorded. Out: for each contract its governing intervals, where
the highest version number whose ``[effective_from, effective_to)`` holds an instant wins and an earlier one is in
force again after a later one's end. A gap in the numbers waits; a repeated number with other content is refused.
Source: docs/semantics.md section 3.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from tieout.contracts import ContractRefused, ContractVersion, Problem

FOREVER: Final = 2**62


class Interval(NamedTuple):
    """A stretch of time that one version governs, half-open, UTC microseconds."""

    start_us: int
    end_us: int
    version: ContractVersion


class Applied(NamedTuple):
    """What became of a version, and which versions came into force with it."""

    kind: Literal["in_force", "waiting", "repeated", "draft"]
    versions: tuple[ContractVersion, ...] = ()


@dataclass(slots=True)
class _Contract:
    versions: dict[int, ContractVersion] = field(default_factory=dict)
    waiting: dict[int, ContractVersion] = field(default_factory=dict)
    intervals: tuple[Interval, ...] = ()


@dataclass(slots=True)
class ContractBook:
    """All contracts by id and by customer; ``first_number`` None lets a contract start at any number."""

    first_number: int | None = 1
    _contracts: dict[str, _Contract] = field(default_factory=dict)
    _by_customer: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def apply(self, version: ContractVersion) -> Applied:
        """Take a version in; ContractRefused where it contradicts what is known."""
        if version.status == "draft":
            return Applied("draft")
        contract = self._contracts.setdefault(version.contract_id, _Contract())
        known = contract.versions.get(version.version) or contract.waiting.get(version.version)
        if known is not None:
            if known == version:
                return Applied("repeated")
            raise _refuse("version", "version_conflict", f"version {version.version} of contract {version.contract_id} exists with other content; publish the next number")
        self._check_customer(contract, version)
        contract.waiting[version.version] = version
        taken = []
        following = self._following(contract)
        while following in contract.waiting:
            taken.append(contract.waiting.pop(following))
            contract.versions[following] = taken[-1]
            following += 1
        if not taken:
            return Applied("waiting")
        contract.intervals = compile_intervals(list(contract.versions.values()))
        contracts = self._by_customer.get(version.customer_id, ())
        if version.contract_id not in contracts:
            self._by_customer[version.customer_id] = (*contracts, version.contract_id)
        return Applied("in_force", tuple(taken))

    def _following(self, contract: _Contract) -> int:
        if contract.versions:
            return max(contract.versions) + 1
        return min(contract.waiting) if self.first_number is None else self.first_number

    def _check_customer(self, contract: _Contract, version: ContractVersion) -> None:
        for other in (*contract.versions.values(), *contract.waiting.values()):
            if other.customer_id != version.customer_id:
                raise _refuse("customer_id", "customer_changed", f"contract {version.contract_id} belongs to customer {other.customer_id}; open a new contract for {version.customer_id}")

    def governing(self, contract_id: str, instant: int) -> ContractVersion | None:
        """The version in force at an instant, None where there is none."""
        contract = self._contracts.get(contract_id)
        if contract is None:
            return None
        at = bisect_right(contract.intervals, instant, key=lambda i: i.start_us) - 1
        if at < 0 or contract.intervals[at].end_us <= instant:
            return None
        return contract.intervals[at].version

    def intervals(self, contract_id: str) -> tuple[Interval, ...]:
        """The governing intervals of a contract, by start."""
        return self._contracts[contract_id].intervals

    def contracts_of(self, customer_id: str) -> tuple[str, ...]:
        """The contracts that name a customer and have a version in force at some time."""
        return self._by_customer.get(customer_id, ())

    def waiting(self) -> list[ContractVersion]:
        """Versions that wait for a lower number."""
        return [version for contract in self._contracts.values() for version in contract.waiting.values()]


def compile_intervals(versions: list[ContractVersion]) -> tuple[Interval, ...]:
    """Lay versions over each other, lowest number first, so that the highest stays on top."""
    spans = [(v.effective_from_us, FOREVER if v.effective_to_us is None else v.effective_to_us, v) for v in versions]
    spans.sort(key=lambda span: span[2].version)
    edges = sorted({edge for start, end, _ in spans for edge in (start, end)})
    intervals: list[Interval] = []
    for low, high in pairwise(edges):
        top = next((v for start, end, v in reversed(spans) if start <= low < end), None)
        if top is None:
            continue
        if intervals and intervals[-1].end_us == low and intervals[-1].version is top:
            intervals[-1] = Interval(intervals[-1].start_us, high, top)
        else:
            intervals.append(Interval(low, high, top))
    return tuple(intervals)


def _refuse(path: str, code: str, message: str) -> ContractRefused:
    return ContractRefused([Problem(path, code, message)])
