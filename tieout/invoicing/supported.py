"""What a contract may ask of invoicing, and what is refused by name because it cannot be billed.

In: a contract version, or all that govern. Out: problems with their paths. Source: docs/semantics.md section 5.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from tieout.contract_book import Interval
from tieout.contract_calendar import calendar_problems
from tieout.contract_currency import currency_problems
from tieout.contracts import Commitment, ContractVersion, Credit
from tieout.invoicing import timeline as times
from tieout.invoicing.records import Account
from tieout.period import micros
from tieout.problems import Problem

_NEVER: Final = "lies not after 'effective_from': the grant would never pay anything"
_LENGTH: Final = {"week": 0, "month": 1, "quarter": 2, "year": 3, "term": 4}


def problems(version: ContractVersion) -> list[Problem]:
    """Why a version cannot be billed; empty where it can."""
    found = []
    if version.rate_card is not None:
        found.append(Problem("rate_card", "not_supported", "its prices are resolved when it is published; give the charges themselves"))
    for place, one in enumerate(version.commitments):
        found += [Problem(f"commitments.{place}.{field}", "not_supported", message) for field, message in _commitment(version, one)]
    for place, coupon in enumerate(version.coupons):
        if coupon.percent is None and coupon.amount is None:
            found.append(Problem(f"coupons.{place}", "value_error", "give 'percent' or 'amount'"))
    found += [Problem(f"credits.{place}.expires_at", "value_error", _NEVER) for place, credit in enumerate(version.credits) if _is_empty(credit)]
    return found


def unsupported(timeline: Sequence[Interval], account: Account) -> str | None:
    """Why a contract as a whole cannot be billed, by what its account has closed already; None where it can."""
    for interval in timeline:
        found = problems(interval.version)
        if found:
            return f"version {interval.version.version}, {found[0].path}: {found[0].message}"
    changed = calendar_problems(times.versions(timeline)) + currency_problems(timeline) + _dated_back(timeline, account)
    return f"{changed[0].path}: {changed[0].message}" if changed else None


def _dated_back(timeline: Sequence[Interval], account: Account) -> list[Problem]:
    """Grants that a version since the last bill lets begin or end before it, amid a closed billing period whose late usage waits for finance.

    The period's usage is divided at the bound, and what waits beside it cannot be: its sums do not say on which side it lies.
    """
    starts = times.beginnings(timeline)
    found, known = [], dict[tuple[str, str], datetime | None]()
    for version in times.versions(timeline):
        for place, credit in enumerate(version.credits):
            for name in ("effective_from", "expires_at"):
                at = getattr(credit, name)
                new = version.version > account.version and at is not None and known.get((credit.grant_id, name)) != at and micros(at) < starts[version.version]
                known[credit.grant_id, name] = at
                period = version.billing.calendar.containing(micros(at)) if new else None
                if period is not None and micros(at) > period.start_us and period.start_us < account.closed_us and (times.at(timeline, period.start_us) or version).billing.late_usage == "exception":
                    found.append(Problem(f"credits.{place}.{name}", "not_supported", f"version {version.version} brings it and comes into force later, and late usage of {period.label} waits for finance; let it lie where the version or a billing period begins, or let late usage be billed with the next invoice"))
    return found


def _is_empty(credit: Credit) -> bool:
    return credit.effective_from is not None and credit.expires_at is not None and credit.expires_at <= credit.effective_from


def _commitment(version: ContractVersion, one: Commitment) -> list[tuple[str, str]]:
    found = []
    if _LENGTH[one.interval] < _LENGTH[version.billing.period]:
        found.append(("interval", f"is shorter than the billing period, a {version.billing.period}; usage is summed by billing period"))
    if "term" in (one.interval, one.scope) and (version.term is None or version.term.end_on is None):
        found.append(("interval", "needs a term with an end; give the contract's 'term' both days"))
    if one.scope not in ("contract", "term", *(charge.charge_id for charge in version.charges)):
        found.append(("scope", f"{one.scope!r} is neither 'contract', 'term' nor the id of a charge"))
    return found
