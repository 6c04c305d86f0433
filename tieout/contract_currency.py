"""One billing period, one currency: where the versions of a contract may change it.

In: a contract's governing intervals, by start. Out: problems with their paths. Coupons, minimums, thresholds and commitments
are sums over a billing period, and amounts of two currencies are never added: so a version with another currency begins with a
billing period, and a commitment (which may run on over many) is in one currency. Refused when the version is proposed or
quoted, and not billed where it was imported. Source: docs/semantics.md section 5 (currencies).
"""

from collections.abc import Sequence
from itertools import pairwise

from tieout.contract_book import Interval
from tieout.period import local
from tieout.problems import Problem


def currency_problems(timeline: Sequence[Interval]) -> list[Problem]:
    """Where a contract would be in two currencies within a billing period, or a commitment of it in two at all."""
    charged = [one for one in timeline if one.version.status != "terminated"]
    if len({one.version.currency for one in charged}) < 2:
        return []
    return [*_periods(charged), *_commitments(charged)]


def _periods(charged: Sequence[Interval]) -> list[Problem]:
    found = []
    calendar = charged[0].version.billing.calendar
    for before, after in pairwise(charged):
        period = calendar.containing(before.end_us - 1)
        if before.version.currency != after.version.currency and after.start_us < period.end_us:
            day = local(after.start_us, calendar.time_zone).date()
            msg = (
                f"version {after.version.version} of contract {after.version.contract_id} would change it from {before.version.currency} to {after.version.currency} on {day}, within the billing period "
                f"{period.label}; let it begin with a billing period ({period.end_on}, in {calendar.time_zone}), or end this contract and open a new one"
            )
            found.append(Problem("currency", "currency_changed", msg))
    return found


def _commitments(charged: Sequence[Interval]) -> list[Problem]:
    found, known = [], dict[str, str]()
    for interval in charged:
        version = interval.version
        for place, one in enumerate(version.commitments):
            currency = known.setdefault(one.commitment_id, version.currency)
            if currency != version.currency:
                msg = f"commitment {one.commitment_id} is in {currency} before, and amounts of two currencies are never added; give the one in {version.currency} an id of its own"
                found.append(Problem(f"commitments.{place}.commitment_id", "currency_changed", msg))
    return found
