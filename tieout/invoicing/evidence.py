"""Which rated records are behind a line.

In: all lines ever made for one line key, in the order of their documents, and the rated records of that charge, group and
billing period in log order. Out: the run of records behind one of the lines. A bill takes what has come since the bill
before, in log order; so counts alone say where a line's records begin and end, and the digest proves that it is these.
Source: docs/semantics.md section 5.
"""

from collections.abc import Iterable, Sequence

from tieout.invoicing.records import DIGEST, Line


def run_behind(lines: Iterable[Line], line_id: str) -> slice:
    """The places of the records that a line bills, or takes back; LookupError where it is none of these lines."""
    taken = 0
    for line in lines:
        after = taken + line.usage_count
        if line.line_id == line_id:
            return slice(min(taken, after), max(taken, after))
        taken = after
    raise LookupError(line_id)


def proves(line: Line, rated_ids: Sequence[str]) -> bool:
    """Whether these are the records that a line's count and digest tell of."""
    digest = sum(int(name, 16) for name in rated_ids) % DIGEST
    return len(rated_ids) == abs(line.usage_count) and digest == (line.usage_digest if line.usage_count >= 0 else -line.usage_digest % DIGEST)
