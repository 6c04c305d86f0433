"""A billing calendar that changes in mid-term, as ledgers to check by hand: the old period ends at the change, a new one begins there."""

import pytest

from tests.property.test_invoicing_random import timeline_of
from tests.unit.test_invoicing import Book, fee
from tests.unit.test_quote import ask
from tieout import billing_periods, usage_document
from tieout.contract_calendar import begun, calendar_problems, followed
from tieout.contracts import parse_contract
from tieout.invoice_case import invoices
from tieout.period import Calendar

TIERS = {"charge_id": "u", "product_id": "p", "meter": "m", "price": {"model": "graduated", "tiers": [{"up_to": "50", "unit_price": "1"}, {"up_to": None, "unit_price": "0.5"}]}}
BASE = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z", "charges": [TIERS, fee("31", interval="month", timing="arrears")]}


def changed(at, **billing):
    """The second version, whose periods begin where it comes into force."""
    return BASE | {"version": 2, "effective_from": at, "billing": {"periods_from": at, **billing}}


def event(time, quantity):
    return {"quantity": quantity, "time": time, "meter": "m"}


def ledger(versions, events, as_of):
    answer = ask(None, events, contracts=versions, as_of=as_of)
    return [(line["period"], line["kind"], line["service_period"]["start"][:10], line["service_period"]["end"][:10], line["amount"]) for line in answer["lines"]]


def test_from_months_to_quarters_at_the_end_of_a_month_the_first_quarter_has_two_months():
    quarter = changed("2026-02-01T00:00:00Z", period="quarter") | {"charges": [TIERS, fee("90", interval="quarter", timing="arrears")]}
    events = [event("2026-01-10T00:00:00Z", "80"), event("2026-02-10T00:00:00Z", "80"), event("2026-03-10T00:00:00Z", "20"), event("2026-04-10T00:00:00Z", "10")]
    assert ledger([BASE, quarter], events, "2026-07-02T00:00:00Z") == [
        ("2026-01", "usage", "2026-01-01", "2026-02-01", "65.00"), ("2026-01", "fee", "2026-01-01", "2026-02-01", "31.00"),
        ("2026-02-01", "usage", "2026-02-01", "2026-04-01", "75.00"),  # 50 at 1 and 50 at 0.5: the tiers begin anew
        ("2026-02-01", "fee", "2026-02-01", "2026-04-01", "59.00"),  # 59 of 90 days
        ("2026-04-01", "usage", "2026-04-01", "2026-07-01", "10.00"), ("2026-04-01", "fee", "2026-04-01", "2026-07-01", "90.00"),
    ]  # fmt: skip


def test_another_anchor_day_in_mid_month_makes_two_short_periods():
    fifteenth = changed("2026-01-20T00:00:00Z", anchor_day=15)
    events = [event("2026-01-19T23:59:59.999999Z", "60"), event("2026-01-20T00:00:00Z", "60"), event("2026-02-15T00:00:00Z", "1")]
    assert ledger([BASE, fifteenth], events, "2026-03-16T00:00:00Z") == [
        ("2026-01", "usage", "2026-01-01", "2026-01-20", "55.00"), ("2026-01", "fee", "2026-01-01", "2026-01-20", "19.00"),  # 19 of 31 days of January
        ("2026-01-20", "usage", "2026-01-20", "2026-02-15", "55.00"), ("2026-01-20", "fee", "2026-01-20", "2026-02-15", "26.00"),  # 26 of the 31 days from the 15th
        ("2026-02-15", "usage", "2026-02-15", "2026-03-15", "1.00"), ("2026-02-15", "fee", "2026-02-15", "2026-03-15", "31.00"),
    ]  # fmt: skip


def test_another_zone_between_two_clock_changes_ends_the_old_period_at_midnight_of_the_new_zone():
    """New York has its summer time since the 8th, Berlin from the 29th: March has 743 hours in both."""
    second = fee("74.30", interval="month", timing="arrears", proration="second")
    berlin = BASE | {"billing": {"time_zone": "Europe/Berlin"}, "charges": [TIERS, second], "effective_from": "2026-02-28T23:00:00Z"}
    york = changed("2026-03-20T04:00:00Z", time_zone="America/New_York") | {"charges": [TIERS, second]}
    events = [event("2026-03-20T03:59:59Z", "60"), event("2026-03-20T04:00:00Z", "60")]
    answer = ask(None, events, contracts=[berlin, york], as_of="2026-04-02T04:00:00Z")
    assert [(line["period"], line["service_period"]["start"], line["service_period"]["end"], line["amount"]) for line in answer["lines"] if line["kind"] == "fee"] == [
        ("2026-03", "2026-02-28T23:00:00.000000Z", "2026-03-20T04:00:00.000000Z", "46.10"),  # 461 of 743 hours
        ("2026-03-20", "2026-03-20T04:00:00.000000Z", "2026-04-01T04:00:00.000000Z", "28.80"),  # 288 of 743
    ]  # fmt: skip
    assert [line["amount"] for line in answer["lines"] if line["kind"] == "usage"] == ["55.00", "55.00"]


def test_a_yearly_fee_and_commitment_do_not_notice_that_months_become_quarters():
    yearly = {"charges": [TIERS, fee("365", interval="year", timing="advance")], "commitments": [{"commitment_id": "m", "amount": "1000", "interval": "year"}]}
    answer = ledger([BASE | yearly, changed("2026-02-01T00:00:00Z", period="quarter") | yearly], [event("2026-02-10T00:00:00Z", "80")], "2027-01-02T00:00:00Z")
    assert [row for row in answer if row[1] in ("fee", "commitment")] == [
        ("2026-01", "fee", "2026-01-01", "2026-02-01", "31.00"), ("2026-01", "fee", "2026-02-01", "2027-01-01", "334.00"),  # each version's stretch
        ("2026-10-01", "commitment", "2026-10-01", "2027-01-01", "935.00"),
    ]  # fmt: skip


def test_a_change_that_comes_when_its_month_is_billed_gives_back_what_the_short_period_does_not_have():
    book = Book({"charges": BASE["charges"]})
    book.close("2026-01-01", book.used("2026-01-01", "10"))
    book.close("2026-02-01", book.used("2026-02-01", "28"))
    assert book.account.closed_us == book.month("2026-03-01").start_us
    book.learn(book.documents[0], changed("2026-02-15T00:00:00Z", period="quarter"))
    calendar = billing_periods.of(book.timeline)
    quarter = calendar.containing(book.account.closed_us)
    assert (quarter.label, quarter.start_on.isoformat(), quarter.end_on.isoformat()) == ("2026-02-15", "2026-02-15", "2026-04-01")
    book.month = lambda start: calendar.containing(Calendar().start_of(start))
    moved = [book.used("2026-02-01", "-18"), book.used("2026-02-15", "18", version=2)]  # what re-pricing says of the usage since the 15th
    invoice = book.close("2026-02-15", *moved).invoices[0]
    assert [(line.kind, line.key.charge_id, line.period, line.amount) for line in invoice.lines] == [
        ("delta", "u", "2026-02", -1800), ("delta", "f", "2026-02", -3100),  # the month that the fee is for ends later now
        ("usage", "u", "2026-02-15", 1800), ("fee", "f", "2026-02-15", 1550), ("fee", "f", "2026-02-15", 1550), ("fee", "f", "2026-02-15", 3100),
    ]  # fmt: skip
    assert book.account.open_amount == 0


def test_a_threshold_that_usage_reaches_in_the_short_period_makes_its_invoice_early():
    early = {"thresholds": ["40"]}
    versions = [parse_contract(BASE | {"billing": early}), parse_contract(changed("2026-01-20T00:00:00Z", anchor_day=15, **early))]
    events = usage_document.columns([usage_document.parse({"id": day, "source": "s", "customer_id": "k"} | event(f"{day}T00:00:00Z", "30")) for day in ("2026-01-10", "2026-01-12", "2026-01-21", "2026-01-22")])
    found = {label: [(one.issued_on, one.total) for one in invoices(versions, events, label, None).invoices] for label in ("2026-01", "2026-01-20")}
    assert found == {
        "2026-01": [("2026-01-12", 5500), ("2026-01-21", 1900)],  # 50 at 1 and 10 at 0.5; at the end its fee
        "2026-01-20": [("2026-01-22", 5500), ("2026-02-16", 2600)],
    }


def test_an_open_short_period_is_quoted_as_it_will_be():
    quarter = changed("2026-02-10T00:00:00Z", period="quarter")
    answer = ask(None, [event("2026-02-03T00:00:00Z", "10")], contracts=[BASE, quarter], as_of="2026-02-10T12:00:00Z")
    assert [(line["period"], line["kind"], line["service_period"]["end"][:10], line["amount"]) for line in answer["lines"]][-1] == ("2026-02", "usage", "2026-02-10", "10.00")


def test_what_is_billed_in_periods_that_a_version_takes_away_holds_the_next_bill():
    book = Book({"charges": BASE["charges"]})
    for month in ("2026-01-01", "2026-02-01"):
        book.close(month)
    book.learn(book.documents[0], changed("2026-01-20T00:00:00Z", period="quarter"))
    calendar = billing_periods.of(book.timeline)
    book.month = lambda start: calendar.containing(Calendar().start_of(start))
    held = book.close("2026-03-01", expect_held=True).held
    assert held.reason == "contract_unsupported"
    assert held.message.startswith("billing period 2026-02 is billed, and by version 2 the contract has no such period any more")


PROBLEMS = [
    ({"billing": {"period": "quarter"}}, "billing.periods_from", "give 'periods_from': '2026-02-01T00:00:00+00:00'"),
    ({"billing": {"period": "quarter", "periods_from": "2026-01-15T00:00:00Z"}}, "billing.periods_from", "its periods begin where it comes into force"),
    ({"billing": {"time_zone": "Europe/Berlin", "periods_from": "2026-02-01T00:00:00Z"}}, "effective_from", "at midnight there"),
    ({"effective_to": "2026-03-01T00:00:00Z", "billing": {"period": "quarter", "periods_from": "2026-02-01T00:00:00Z"}}, "billing.periods_from", "would come back at 2026-03-01"),
    ({"billing": {"anchor_day": 5, "periods_from": "2026-02-01T00:00:00Z"}, "commitments": [{"commitment_id": "m", "amount": "5", "interval": "year"}]}, "commitments.0", "the interval of commitment m"),
    ({"billing": {"anchor_day": 5, "periods_from": "2026-02-01T00:00:00Z"}, "charges": [TIERS | {"aggregation": {"kind": "weighted_sum"}}]}, "charges.0", "carries its quantity"),
    ({"billing": {"anchor_day": 5, "periods_from": "2026-02-01T00:00:00Z"}, "charges": [TIERS | {"reset": "never"}]}, "charges.0", "carries its quantity"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "path", "message"), PROBLEMS)
def test_a_change_that_cannot_be_billed_is_refused_with_its_path(more, path, message):
    second = BASE | {"version": 2, "effective_from": "2026-02-01T00:00:00Z"} | more
    (problem,) = calendar_problems(timeline_of(BASE, second))
    assert (problem.path, problem.code) == (path, "calendar_changed")
    assert message in problem.message
    with pytest.raises(AssertionError, match="calendar_changed"):
        assert "error" not in ask(None, [event("2026-01-10T00:00:00Z", "1")], contracts=[BASE, second]), "calendar_changed"


def test_a_version_that_is_published_says_from_when_on_its_periods_count_and_those_after_it_keep_that():
    given = [BASE | {"billing": {"anchor_day": 3}}, BASE | {"version": 2, "effective_from": "2026-02-10T00:00:00Z", "billing": {"anchor_day": 5}}, BASE | {"version": 3, "effective_from": "2026-03-10T00:00:00Z", "billing": {"anchor_day": 5}}]
    timeline = []
    for document in map(parse_contract, given):
        timeline = followed(timeline, begun(document, timeline))
    assert [i.version.billing.periods_from and i.version.billing.periods_from.isoformat() for i in timeline] == [None, "2026-02-10T00:00:00+00:00", "2026-02-10T00:00:00+00:00"]
    assert calendar_problems(timeline) == []
    assert [period.label for period in billing_periods.of(timeline).spanning(timeline[0].start_us, timeline[2].start_us)] == ["2025-12-03", "2026-01-03", "2026-02-03", "2026-02-10", "2026-03-05"]


def test_every_label_of_a_changed_calendar_is_found_again():
    timeline = timeline_of(BASE, changed("2026-02-10T00:00:00Z", period="quarter"))
    calendar = billing_periods.of(timeline)
    periods = calendar.spanning(timeline[0].start_us, timeline[1].start_us + 400 * 86_400_000_000)
    assert [calendar.start_of(period.label) for period in periods] == [period.start_us for period in periods]
    assert all(after.start_us == before.end_us for before, after in zip(periods, periods[1:], strict=False))
    assert len({period.label for period in periods}) == len(periods)
