"""A contract whose billing calendar changes: which changes can be billed, and from when on the new periods count.

In: a contract's governing intervals. Out: problems with their paths; and a new version with ``billing.periods_from`` filled in. A
version with another period, anchor or zone than the one in force before it ends the running billing period where it comes into
force, and its own periods begin there: ``periods_from`` says so in the version itself, so that usage is placed by it without
the versions before. Versions after it that keep its calendar keep that instant. Refused are changes for what lives across billing periods:
meters with a level, and commitments whose interval changes with the calendar. Source: docs/semantics.md section 5 (calendar).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from tieout import billing_periods
from tieout.contract_book import Interval
from tieout.contracts import Charge, Commitment, ContractVersion, Problem
from tieout.period import ALWAYS, EPOCH, Calendar, local, micros, midnight

FOREVER: Final = 2**62
_WAY_OUT: Final = "end this contract and open a new one with the new calendar"


def begun(version: ContractVersion, timeline: Sequence[Interval]) -> ContractVersion:
    """A version that is to be published after those of a timeline, with the beginning of its billing periods where it says none."""
    start = micros(version.effective_from)
    before = next((i.version.billing for i in reversed(timeline) if i.start_us < start), None)
    if before is None or version.billing.periods_from is not None:
        return version
    same = before.calendar.plain == version.billing.calendar
    return replace(version, billing=replace(version.billing, periods_from=before.periods_from if same else version.effective_from))


def followed(timeline: Sequence[Interval], version: ContractVersion) -> list[Interval]:
    """The intervals of a contract once a version of a higher number is known."""
    start, end = micros(version.effective_from), FOREVER if version.effective_to is None else micros(version.effective_to)
    found = [Interval(start, end, version)]
    found += [i._replace(end_us=min(i.end_us, start)) for i in timeline if i.start_us < start]
    found += [i._replace(start_us=max(i.start_us, end)) for i in timeline if i.end_us > end]
    return sorted(found, key=lambda i: i.start_us)


def calendar_problems(timeline: Sequence[Interval]) -> list[Problem]:
    """Why a contract's calendars, one after the other, cannot be billed; empty where they can."""
    parts = billing_periods.parts(timeline)
    found = [one for number, part in enumerate(parts[1:], 1) for one in _beginning(timeline, part, parts[:number])]
    if len(parts) > 1 and not found:
        found = [one for interval in timeline for one in _across(interval.version, [part.calendar for part in parts])]
    return found


def _beginning(timeline: Sequence[Interval], part: billing_periods.Part, before: Sequence[billing_periods.Part]) -> Iterator[Problem]:
    version = next(i.version for i in timeline if i.start_us == part.since_us)
    since = EPOCH + timedelta(microseconds=part.since_us)
    name = f"version {version.version} of contract {version.contract_id}"
    if part.calendar in [one.calendar for one in before]:
        yield Problem("billing.periods_from", "calendar_changed", f"the billing calendar of {name} would come back at {since.isoformat()}, where a version with another one ends; publish a version that carries on with one of them from there")
    elif part.calendar.since_us != part.since_us:
        yield Problem("billing.periods_from", "calendar_changed", f"{name} has another billing calendar than the one in force before it, so its periods begin where it comes into force; give 'periods_from': {since.isoformat()!r}")
    elif midnight(local(part.since_us, part.calendar.time_zone).date(), part.calendar.time_zone) != part.since_us:
        yield Problem("effective_from", "calendar_changed", f"{name} has another billing calendar, and its periods begin with a day in {part.calendar.time_zone}; let it come into force at midnight there")


def _across(version: ContractVersion, calendars: Sequence[Calendar]) -> Iterator[Problem]:
    """What of a version lives across billing periods and would not survive another calendar."""
    for place, charge in enumerate(version.charges):
        if _lasting(charge):
            message = f"charge {charge.charge_id} of version {version.version} carries its quantity from one billing period into the next, which a changed billing calendar cannot divide; {_WAY_OUT}"
            yield Problem(f"charges.{place}", "calendar_changed", message)
    for place, one in enumerate(version.commitments):
        if len({_interval(one, calendar) for calendar in calendars}) > 1:
            message = f"the interval of commitment {one.commitment_id} of version {version.version} would change with the billing calendar; {_WAY_OUT}"
            yield Problem(f"commitments.{place}", "calendar_changed", message)


def _lasting(charge: Charge) -> bool:
    return charge.reset == "never" or charge.aggregation.kind == "weighted_sum" or charge.aggregation.carry_over


def _interval(one: Commitment, calendar: Calendar) -> Calendar:
    """The calendar of a commitment's intervals; those of a term do not hang on it."""
    return Calendar() if one.interval == "term" else replace(calendar, period=one.interval, since_us=ALWAYS)
