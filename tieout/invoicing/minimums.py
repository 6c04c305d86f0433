"""What a charge's minimum adds to the sum of its rounded lines, by the version that was active last in the period.

Source: docs/semantics.md section 4 (minimum commitment).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

from tieout.contract_book import Interval
from tieout.invoicing import timeline as times
from tieout.invoicing.lines import line, major
from tieout.invoicing.records import Line
from tieout.period import Period


def minimum_lines(timeline: Sequence[Interval], period: Period, lines: Sequence[Line]) -> Iterator[Line]:
    """A line for each charge whose lines do not reach its minimum; it is not prorated."""
    version = times.last_active(timeline, period)
    for charge in version.charges if version is not None else ():
        if version is None or charge.minimum is None:
            continue
        billed = sum(one.amount for one in lines if (one.key.charge_id, one.key.currency) == (charge.charge_id, version.currency))
        missing = Fraction(charge.minimum) - major(billed, version.currency)
        if missing > 0:
            yield line(version, charge, "minimum", period, (period.start_us, period.end_us), missing)
