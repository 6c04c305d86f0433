"""Late usage that finance decides about, in any order: what is rated is billed, open, or set aside; and only what was accepted is billed."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_invoicing_random import contracts, standing, timeline_of
from tieout import late_usage
from tieout.account_text import late_of, late_text
from tieout.invoicing.bill import bill
from tieout.invoicing.records import Account, UsageSum

DECISIONS = st.sampled_from(["accept", "accept", "waive", "resolve"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_only_what_was_accepted_is_billed_and_all_the_rest_is_open(data):
    timeline = timeline_of(data.draw(contracts()) | {"billing": {"late_usage": "exception"}})
    calendar = timeline[0].version.billing.calendar
    account, aside, documents, seen, rated, wanted = Account("c"), {}, [], [], [], []
    period = calendar.containing(timeline[0].start_us)
    for step in range(data.draw(st.integers(1, 8))):
        seen.append(period)
        usage = [
            UsageSum("u", None, data.draw(st.sampled_from(seen)).start_us, 1, 0, 10**9, data.draw(st.integers(0, 10**14)), 1, 1, len(rated) * 10 + number + 1)
            for number in range(data.draw(st.integers(0, 3)))
        ]
        usage = [one._replace(since_us=one.period_us) for one in usage]
        rated += usage
        wanted += [one for one in usage if one.period_us == period.start_us]
        for name in data.draw(st.lists(st.sampled_from(sorted({name for mine in aside.values() for name in mine} | {"unknown"})), max_size=3)):
            before = {key: lot for mine in aside.values() for key, lot in mine.items()}
            done = late_usage.decide(aside, name, data.draw(DECISIONS), "ada")
            assert (done is None) == (name not in before or bool(before[name].fate))  # the first decision counts
        taken = late_usage.accepted(aside, "c", period.start_us)
        sums = [one for lot in taken for one in lot.sums]
        wanted += sums
        done = bill(account, timeline, period, usage, taxes=None, as_of=period.end_us, accepted=sums)
        new = list(late_usage.lots(("c", "k"), timeline, calendar, done.late, account.kept_since_us, step))
        late_usage.replaced(aside, "c", taken, new)
        account, documents = done.account, [*documents, *done.invoices]
        assert [late_of(late_text(lot)) for lot in new] == new
        waiting = sum(lot.amount for mine in aside.values() for lot in mine.values())
        assert sum(line.usage_exact for one in documents for line in one.lines) + account.open_amount + waiting == sum(one.amount for one in rated)
        assert account.open_amount == 0
        period = calendar.next(period)
    fresh = Account("c")
    for one in seen:
        fresh = bill(fresh, timeline, one, [u for u in wanted if u.period_us == one.start_us], taxes=None, as_of=one.end_us).account
    assert standing(account) == standing(fresh)
