"""Late usage in a period whose sums are divided anew at the same time: finance gets what came, the grant pays by the new division."""

import pytest

from tests.unit.test_invoicing import USAGE, Book

STRICT = {"charges": [USAGE], "billing": {"late_usage": "exception"}}
GRANT = {"grant_id": "g", "amount": "100", "effective_from": "2026-01-16T00:00:00Z"}
DIGEST = 2**128


@pytest.mark.parametrize("came", [0, 1, 5])
def test_what_is_divided_anew_is_taken_and_what_came_with_it_goes_to_finance(came):
    book = Book(STRICT)
    book.close("2026-01-01", book.used("2026-01-01", "100"))  # 40 before the 16th, 60 from then on
    book.learn(book.documents[0], book.documents[0] | {"version": 2, "effective_from": "2026-02-20T00:00:00Z", "credits": [GRANT]})
    since = book.month("2026-01-01").start_us + 15 * 86_400 * 10**6
    leaves = book.used("2026-01-01", "-60")._replace(records=-3, live=-3, digest=-7 % DIGEST)
    enters = book.used("2026-01-01", "60", since=since)._replace(records=3, live=3, digest=7)
    late = [book.used("2026-01-01", str(came), since=since)._replace(digest=9)] if came else []
    done = book.close("2026-02-01", leaves, *(enters.plus(one) for one in late), *([] if late else [enters]))
    assert [(one.since_us, one.amount, one.records, one.digest) for one in done.late] == [(since, came * 10**12, 1, 9)] * len(late)
    assert [(one.grant_id, one.amount) for one in book.account.burns] == [("g", 6000)]
    assert sum(one.amount for one in book.account.usage) == 100 * 10**12
