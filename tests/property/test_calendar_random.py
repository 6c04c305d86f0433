"""A billing calendar that changes against a dull one that walks day by day and shares no code; in UTC."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction as F

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.invoice_oracle import half_up
from tests.unit.test_quote import ask

DAY = timedelta(days=1)
BEGIN = date(2026, 1, 1)
LENGTHS = {"month": 1, "quarter": 3, "year": 12}


def begins(calendar, day):
    """Whether a period of a calendar begins on a day."""
    if calendar["period"] == "week":
        return day.isoweekday() == calendar["anchor_weekday"]
    step = LENGTHS[calendar["period"]]
    anchor = calendar["anchor_month"] if step > 1 else 1
    return day.day == min(calendar["anchor_day"], monthrange(day.year, day.month)[1]) and (day.month - anchor) % step == 0


def dull(calendars, through):
    """(first day, day after, share of a whole period, number of the calendar, first day as told) of each billing period; the contract's first one is told whole."""
    def in_force(day):
        return max(number for number, (since, _) in enumerate(calendars) if since <= day)

    starts = [BEGIN + n * DAY for n in range((through - BEGIN).days + 800) if n == 0 or BEGIN + n * DAY in [since for since, _ in calendars] or begins(calendars[in_force(BEGIN + n * DAY)][1], BEGIN + n * DAY)]
    found = []
    for start, end in zip(starts, starts[1:], strict=False):
        if end > through:
            break
        number = in_force(start)
        calendar, first, last = calendars[number][1], start, start + DAY
        while not begins(calendar, first):
            first -= DAY
        while not begins(calendar, last):
            last += DAY
        found.append((start, end, F((end - start).days, (last - first).days), number, first if start == BEGIN else start))
    return found


def graduated(quantity):
    return min(quantity, F(50)) + max(quantity - 50, F(0)) / 2


@st.composite
def calendars(draw):
    return {"period": draw(st.sampled_from(["week", "month", "month", "quarter", "year"])), "anchor_day": draw(st.sampled_from([1, 1, 15, 30, 31])), "anchor_month": draw(st.integers(1, 12)), "anchor_weekday": draw(st.integers(1, 7))}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_quote_over_changed_calendars_has_the_periods_and_amounts_of_the_dull_one(data):
    dates = sorted(data.draw(st.lists(st.integers(1, 200), max_size=2, unique=True)))
    given_ = [(BEGIN, data.draw(calendars()))] + [(BEGIN + n * DAY, data.draw(calendars())) for n in dates]
    kept = [given_[0]]
    for since, calendar in given_[1:]:
        if calendar not in [one for _, one in kept]:  # one that comes back is refused
            kept.append((since, calendar))
    amounts, timing = [data.draw(st.integers(1, 500)) for _ in kept], data.draw(st.sampled_from(["arrears", "advance"]))
    versions = [
        {"contract_id": "c", "customer_id": "k", "version": number, "effective_from": f"{since}T00:00:00Z",
         "billing": calendar | ({"periods_from": f"{since}T00:00:00Z"} if number > 1 else {}),
         "charges": [
             {"charge_id": "u", "meter": "m", "price": {"model": "graduated", "tiers": [{"up_to": "50", "unit_price": "1"}, {"up_to": None, "unit_price": "0.5"}]}},
             {"charge_id": "f", "price": {"model": "flat", "amount": str(amount)}, "interval": calendar["period"], "timing": timing, "proration": "day"},
         ]}
        for number, ((since, calendar), amount) in enumerate(zip(kept, amounts, strict=True), 1)
    ]  # fmt: skip
    days = data.draw(st.lists(st.integers(0, 250), max_size=8))
    events = [{"id": str(n), "meter": "m", "quantity": str(30 + n), "time": f"{BEGIN + day * DAY}T12:00:00Z"} for n, day in enumerate(sorted(days))]
    through = date(2026, 12, 1)
    answer = ask(None, events, contracts=versions, as_of=f"{through + DAY}T00:00:00Z")
    got = [(line["service_period"]["start"][:10], line["service_period"]["end"][:10], line["kind"], F(line["amount"])) for line in answer["lines"]]
    periods = dull(kept, through)
    expected = []
    for start, end, share, number, told in periods:
        used = sum(F(event["quantity"]) for event in events if start <= datetime.fromisoformat(event["time"]).astimezone(UTC).date() < end)
        expected += [(f"{told}", f"{end}", "usage", half_up(graduated(used), 2)), (f"{start}", f"{end}", "fee", half_up(amounts[number] * share, 2))]
    last = f"{periods[-1][1]}" if periods else f"{BEGIN}"
    assert [row for row in got if row[1] <= last] == expected
