"""One contract, one billing calendar: its period, its anchors and its zone are those of its first version.

In: versions of a contract, the first of them first. Out: problems with their paths. Usage is summed, committed and capped by
billing period; a calendar that changed in between would leave periods that overlap or lack a part, so it is refused when
the version is proposed, or quoted. Source: docs/semantics.md section 5 (calendar).
"""

from collections.abc import Sequence
from dataclasses import fields

from tieout.contracts import ContractVersion
from tieout.period import Calendar
from tieout.problems import Problem


def calendar_problems(versions: Sequence[ContractVersion]) -> list[Problem]:
    """Where a contract's versions, by number, have another billing calendar than its first: one contract has one calendar."""
    found = []
    first = versions[0].billing.calendar if versions else Calendar()
    for version in versions:
        changed = [one.name for one in fields(Calendar) if getattr(version.billing.calendar, one.name) != getattr(first, one.name)]
        for name in changed[:1]:
            old, new = getattr(first, name), getattr(version.billing.calendar, name)
            message = f"version {version.version} of contract {version.contract_id} would change it from {old!r} to {new!r}, but a contract keeps its billing periods; end this one and open a new contract with the new calendar"
            found.append(Problem(f"billing.{name}", "calendar_changed", message))
    return found
