"""Billing periods by the contract's calendar."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tieout.period import Calendar, local, micros, midnight


def instant(text):
    return micros(datetime.fromisoformat(text).astimezone(UTC))


def shown(period):
    return period.label, str(period.start_on), str(period.end_on)


@pytest.mark.parametrize(
    ("calendar", "moment", "expected"),
    [
        (Calendar(), "2026-03-01T00:00:00Z", ("2026-03", "2026-03-01", "2026-04-01")),
        (Calendar(), "2026-02-28T23:59:59.999999Z", ("2026-02", "2026-02-01", "2026-03-01")),
        (Calendar(time_zone="America/New_York"), "2026-03-01T04:59:59Z", ("2026-02", "2026-02-01", "2026-03-01")),
        (Calendar(time_zone="America/New_York"), "2026-03-01T05:00:00Z", ("2026-03", "2026-03-01", "2026-04-01")),
        (Calendar(anchor_day=31), "2026-02-10T00:00:00Z", ("2026-01-31", "2026-01-31", "2026-02-28")),
        (Calendar(anchor_day=31), "2026-02-28T00:00:00Z", ("2026-02-28", "2026-02-28", "2026-03-31")),
        (Calendar(anchor_day=31), "2026-03-31T00:00:00Z", ("2026-03-31", "2026-03-31", "2026-04-30")),
        (Calendar(anchor_day=31), "2028-02-29T00:00:00Z", ("2028-02-29", "2028-02-29", "2028-03-31")),
        (Calendar(anchor_day=15), "2026-01-14T00:00:00Z", ("2025-12-15", "2025-12-15", "2026-01-15")),
        (Calendar("week"), "2026-03-01T12:00:00Z", ("2026-02-23", "2026-02-23", "2026-03-02")),
        (Calendar("week", anchor_weekday=7), "2026-03-01T12:00:00Z", ("2026-03-01", "2026-03-01", "2026-03-08")),
        (Calendar("quarter", anchor_month=2), "2026-01-31T00:00:00Z", ("2025-11-01", "2025-11-01", "2026-02-01")),
        (Calendar("year", anchor_month=4, anchor_day=6), "2026-04-05T23:00:00Z", ("2025-04-06", "2025-04-06", "2026-04-06")),
        (Calendar("year", anchor_month=2, anchor_day=29), "2027-06-01T00:00:00Z", ("2027-02-28", "2027-02-28", "2028-02-29")),
    ],
)
def test_the_period_that_holds_an_instant(calendar, moment, expected):
    assert shown(calendar.containing(instant(moment))) == expected


def test_a_midnight_that_a_clock_change_skips_is_the_first_instant_after_it():
    first = midnight(datetime(2026, 9, 6, tzinfo=UTC).date(), "America/Santiago")
    assert local(first, "America/Santiago").isoformat() == "2026-09-06T01:00:00-03:00"
    assert local(first - 1, "America/Santiago").date().isoformat() == "2026-09-05"


def test_a_month_with_a_clock_change_is_an_hour_shorter():
    march = Calendar(time_zone="America/New_York").containing(instant("2026-03-10T00:00:00Z"))
    assert march.end_us - march.start_us == (31 * 24 - 1) * 3_600_000_000
    assert len(Calendar(time_zone="America/New_York").days(march)) == 32


def test_buckets_begin_at_the_local_hour_and_day():
    calendar = Calendar(time_zone="Asia/Kolkata")
    moment = instant("2026-03-10T00:10:00Z")  # 05:40 in Kolkata
    assert calendar.bucket_start(moment, "hour") == instant("2026-03-09T23:30:00Z")
    assert calendar.bucket_start(moment, "day") == instant("2026-03-09T18:30:00Z")


calendars = st.builds(
    Calendar, st.sampled_from(["week", "month", "quarter", "year"]), st.integers(1, 31), st.integers(1, 12), st.integers(1, 7),
    st.sampled_from(["UTC", "America/New_York", "America/Santiago", "Asia/Kolkata", "Pacific/Apia"]),
)


@given(calendars, st.integers(instant("1990-01-01T00:00:00Z"), instant("2060-01-01T00:00:00Z")))
def test_periods_touch_and_each_instant_lies_in_one(calendar, moment):
    period = calendar.containing(moment)
    following = calendar.next(period)
    assert period.start_us <= moment < period.end_us == following.start_us
    assert calendar.containing(period.start_us) == calendar.containing(period.end_us - 1) == period
    assert calendar.spanning(period.start_us, period.end_us) == [period, following]
