"""Which change of a contract may come in which of its states, and the state that it leaves.

In: a proposed version and the intervals that the versions before it govern. Out: the status with which it is published, or
what forbids it. A version is looked at over its own interval: highest number governs, so what it covers it replaces.

| change | finds the contract, over its interval | leaves it |
| new | not there (version 1, and only that) | active |
| amendment, renewal | all active, or all suspended | as it is |
| credit | all active, all suspended, or all terminated | as it is |
| suspension | active | suspended |
| resumption | suspended at its beginning, then suspended or active | active |
| termination | active or suspended at its beginning; it has no end | terminated |

Stretches that no version governs count for nothing. Source: docs/contracts.md (lifecycle).
"""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from tieout.contract_book import Interval
from tieout.contracts import ContractVersion
from tieout.problems import Problem

Status = Literal["draft", "approved", "active", "suspended", "terminated"]
ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"
TERMINATED: Final = "terminated"
_FOREVER: Final = 2**63 - 1
_KEPT: Final[dict[str, tuple[Status, ...]]] = {"amendment": (ACTIVE, SUSPENDED), "renewal": (ACTIVE, SUSPENDED), "credit": (ACTIVE, SUSPENDED, TERMINATED)}
"""Changes that leave the state as it is, and the states in which they may come."""


class Judged(NamedTuple):
    """The status with which a version is published; where it is not, why not: it stays a draft."""

    status: Status
    problem: Problem | None = None


def judge(version: ContractVersion, intervals: Sequence[Interval]) -> Judged:
    """Judge a version by its number and by what governed its interval before."""
    kind = version.change.kind
    if (kind == "new") != (version.version == 1):
        message = f"version 1 of a contract is its beginning; write change kind 'new', not {kind!r}" if version.version == 1 else f"contract {version.contract_id} has begun already; say what version {version.version} changes (amendment, renewal, credit, suspension, resumption, termination)"
        return _refused("change.kind", "change_not_first" if version.version > 1 else "change_not_new", message)
    if kind == "new":
        return Judged(ACTIVE)
    start, end = version.effective_from_us, _FOREVER if version.effective_to_us is None else version.effective_to_us
    found = [interval for interval in intervals if interval.start_us < end and interval.end_us > start]
    at_start = next((interval.version.status for interval in found if interval.start_us <= start), None)
    states: set[Status] = {interval.version.status for interval in found}
    return _judged(version, kind, at_start, states)


def _judged(version: ContractVersion, kind: str, at_start: Status | None, states: set[Status]) -> Judged:
    contract = f"contract {version.contract_id}"
    if kind in _KEPT:
        if TERMINATED in states - {*_KEPT[kind]}:
            return _refused("effective_from", "contract_terminated", f"{contract} is terminated in this version's interval; end the interval before ('effective_to'), or open a new contract")
        if len(states) > 1:
            return _refused("effective_to", "states_mixed", f"{contract} is {' and '.join(sorted(states))} in this version's interval; give one version for each stretch")
        return Judged(next(iter(states), ACTIVE))
    if kind == "suspension":
        if states != {ACTIVE} or at_start is None:
            return _refused("effective_from", "not_active", f"{contract} is not active in all of this version's interval ({_words(states)}); suspend it where it is active")
        return Judged(SUSPENDED)
    if kind == "resumption":
        if at_start != SUSPENDED or TERMINATED in states:
            return _refused("effective_from", "not_suspended", f"{contract} is not suspended where this version begins, or terminated later in its interval ({_words(states)}); resume it where it is suspended")
        return Judged(ACTIVE)
    if version.effective_to is not None:
        return _refused("effective_to", "termination_ends", "a termination has no end; take 'effective_to' out, or suspend the contract for a while")
    if at_start not in (ACTIVE, SUSPENDED):
        return _refused("effective_from", "not_in_force", f"{contract} is not in force where this version begins ({at_start or 'no version governs'}); terminate it where it is")
    return Judged(TERMINATED)


def _words(states: set[Status]) -> str:
    return ", ".join(sorted(states)) or "no version governs"


def _refused(path: str, code: str, message: str) -> Judged:
    return Judged("draft", Problem(path, code, message))
