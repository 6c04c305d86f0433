"""Prepaid credits: which grants a contract has, and where they cut time.

A grant pays only for usage whose event time lies in its validity, so sums of usage are kept apart at the bounds of
grants. Source: docs/semantics.md section 4 (prepaid credits).
"""

from collections.abc import Sequence

from tieout.contract_book import Interval
from tieout.period import micros


def cuts(timeline: Sequence[Interval]) -> tuple[int, ...]:
    """The instants at which a grant begins or ends, in order: ``UsageSum.since_us`` is one of them or the period's start."""
    found = set()
    for interval in timeline:
        for grant in interval.version.credits:
            found.update(micros(at) for at in (grant.effective_from, grant.expires_at) if at is not None)
    return tuple(sorted(found))
