"""Invoicing against its oracle, and its books over random histories of late usage, closes and documents taken back."""

from collections import defaultdict
from fractions import Fraction as F

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import invoice_oracle
from tests.unit.test_quote import ask
from tieout.contract_book import ContractBook
from tieout.contracts import parse_contract
from tieout.invoicing.bill import bill
from tieout.invoicing.concessions import CONCESSION
from tieout.invoicing.credits import balances, grants
from tieout.invoicing.notes import ReleaseRefused, credit_amounts, credit_lines, void
from tieout.invoicing.pruning import pruned
from tieout.invoicing.records import Account, UsageSum
from tieout.invoicing.tax import TaxPayer
from tieout.invoicing.thresholds import bill_early

MONEY = st.decimals("0", "300", places=3).map(str)
CENTS = st.decimals("0", "300", places=2).map(str)
DAYS = st.integers(1, 28)


@st.composite
def contracts(draw):
    tiers = [{"up_to": "10", "unit_price": draw(MONEY), "flat_fee": draw(st.sampled_from(["0", "2.505"]))}, {"up_to": None, "unit_price": draw(MONEY)}]
    usage = {"charge_id": "u", "product_id": "p", "meter": "m", "price": {"model": "graduated", "tiers": tiers}, "minimum": draw(st.none() | MONEY), "discount_percent": draw(st.sampled_from(["0", "12.5"]))}
    fee = {"charge_id": "f", "product_id": "p", "price": {"model": "flat", "amount": draw(MONEY)}, "interval": draw(st.sampled_from(["month", "year"])), "timing": draw(st.sampled_from(["advance", "arrears"]))}
    coupons = [{"coupon_id": f"c{i}", draw(st.sampled_from(["percent", "amount"])): draw(st.sampled_from(["7.5", "33", "100"])), "until": draw(st.none() | st.just("2026-03-01T00:00:00Z"))} for i in range(draw(st.integers(0, 2)))]
    commitments = [
        {"commitment_id": f"m{i}", "kind": draw(st.sampled_from(["postpaid", "prepaid"])), "scope": draw(st.sampled_from(["contract", "u"])), "amount": draw(MONEY), "interval": draw(st.sampled_from(["month", "year"])),
         "includes_base_fee": draw(st.booleans()), "rollover": draw(st.booleans()), "overage_factor": draw(st.none() | st.just("1.25"))}
        for i in range(draw(st.integers(0, 1)))
    ]
    begin = f"{draw(st.sampled_from(['2025-11', '2026-01']))}-{draw(DAYS):02}T00:00:00Z"
    return {"contract_id": "c", "customer_id": "k", "effective_from": begin, "charges": [usage, fee], "coupons": coupons, "commitments": commitments}


@st.composite
def usage_events(draw, contract):
    days = draw(st.lists(st.integers(0, 55), max_size=6))
    return [{"id": str(i), "source": "s", "customer_id": "k", "meter": "m", "quantity": draw(MONEY), "time": f"2026-{2 + day // 28:02}-{1 + day % 28:02}T12:00:00Z"} for i, day in enumerate(sorted(days))]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_quote_has_the_lines_of_the_oracle(data):
    contract = data.draw(contracts())
    events = data.draw(usage_events(contract))
    answer = ask(None, events, contract=contract, as_of="2026-05-02T00:00:00Z")
    rows, _ = invoice_oracle.bill(contract, events, "2026-04")
    got = sorted((line["period"], line["kind"], line["charge_id"] or "", F(line["amount"])) for line in answer["lines"])
    shown = [row for row in got if row[3] or row[1] not in ("commitment", "overage")]  # an exact change below half a cent has a line of 0
    assert shown == sorted((period, kind, charge or "", amount) for period, kind, charge, amount in rows)
    assert F(answer["total"]) == sum(row[3] for row in rows)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_credits_pay_what_the_oracle_says(data):
    charge = {"charge_id": "u", "meter": "m", "price": {"model": "per_unit", "unit_price": "1"}}
    times = st.none() | st.tuples(st.sampled_from(["2026-02", "2026-03"]), DAYS).map(lambda at: f"{at[0]}-{at[1]:02}T00:00:00Z")
    granted = []
    for i in range(data.draw(st.integers(1, 4))):
        begins, expires = data.draw(times), data.draw(times)
        if begins and expires and expires <= begins:
            expires = None
        granted.append({"grant_id": f"g{i}", "amount": data.draw(CENTS), "priority": data.draw(st.integers(1, 2)), "kind": data.draw(st.sampled_from(["granted", "purchased"])), "effective_from": begins, "expires_at": expires})
    contract = {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-01T00:00:00Z", "charges": [charge], "credits": granted}
    events = [event | {"quantity": event["quantity"]} for event in data.draw(usage_events(contract)) if F(event["quantity"])]
    answer = ask(None, events, contract=contract, as_of="2026-04-02T00:00:00Z")
    _, paid = invoice_oracle.bill(contract, events, "2026-03")
    assert {one["grant_id"]: F(one["applied"]) for one in answer["credits"]} == {name: applied for name, (applied, _) in paid.items()}
    ended = {c["grant_id"] for c in granted if c["expires_at"]}
    assert {one["grant_id"]: F(one["balance"]) for one in answer["credits"] if one["grant_id"] not in ended} == {name: left for name, (_, left) in paid.items() if name not in ended}
    assert F(answer["amount_due"]) == F(answer["total"]) - sum(applied for applied, _ in paid.values())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_books_tie_out_over_any_history(data):
    contract = data.draw(contracts()) | {"credits": [{"grant_id": "g", "amount": "75", "kind": data.draw(st.sampled_from(["granted", "purchased"]))}], "billing": {"thresholds": ["40"]}}
    if data.draw(st.booleans()):  # one that every late amount moves
        contract["commitments"] = [{"commitment_id": "m", "kind": data.draw(st.sampled_from(["prepaid", "postpaid"])), "amount": "60", "interval": "year", "overage_factor": "2"}]
    taxes = data.draw(st.none() | st.sampled_from(["0", "8.875"]).map(Rate))
    timeline = timeline_of(contract)
    calendar, version = timeline[0].version.billing.calendar, timeline[0].version
    account, pending, rated, documents = Account("c"), [], 0, []
    period = calendar.containing(timeline[0].start_us)
    seen = []
    for _ in range(data.draw(st.integers(1, 8))):
        seen.append(period)
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.sampled_from(seen))
            one = UsageSum("u", None, at.start_us, 1, at.start_us, data.draw(st.integers(-5, 20)) * 10**9, data.draw(st.integers(-(10**13), 10**14)), 1, 1, data.draw(st.integers(0, 2**128 - 1)))
            pending.append(one)
            rated += one.amount
        early = [one for one in pending if one.period_us == period.start_us]
        if early and data.draw(st.booleans()):
            done = bill_early(account, timeline, period, early, taxes=taxes, as_of=period.end_us - 1)
            account, documents = done.account, [*documents, *done.invoices]
            pending = [one for one in pending if one not in early] if done.invoices else pending
            check(account, documents, pending, rated)
        done = bill(account, timeline, period, pending, taxes=taxes, as_of=period.end_us)
        account, pending, documents = done.account, [], [*documents, *done.invoices]
        if documents and data.draw(st.booleans()):
            chosen = data.draw(st.sampled_from(documents))
            account, documents = taken_back(data, account, version, chosen, documents, grants(timeline), period)
        check(account, documents, pending, rated)
        period = calendar.next(period)
    done = bill(account, timeline, seen[-1], (), taxes=taxes, as_of=period.end_us)  # what was taken back is billed again, once
    check(done.account, [*documents, *done.invoices], (), rated)
    again = bill(done.account, timeline, seen[-1], (), taxes=taxes, as_of=period.end_us)
    assert again.invoices == ()
    never_more_than_whole(done.account)
    fresh = Account("c")
    for one in seen:
        fresh = bill(fresh, timeline, one, [u for u in done.account.usage if u.period_us == one.start_us], taxes=taxes, as_of=one.end_us).account
    conceded = any(item[0].kind == CONCESSION for item in standing(done.account))
    plain = [{item for item in standing(one) if item[0].kind != CONCESSION and not (conceded and item[0].kind == "tax")} for one in (done.account, fresh)]
    assert plain[0] == plain[1]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_version_that_comes_late_leaves_what_knowing_it_from_the_start_would(data):
    first = data.draw(contracts()) | {"version": 1}
    changes = {"effective_from": f"2026-{data.draw(st.integers(1, 6)):02}-{data.draw(DAYS):02}T00:00:00Z", "version": 2, "status": data.draw(st.sampled_from(["active", "suspended", "terminated"]))}
    fee = first["charges"][1]
    charges = data.draw(st.sampled_from([first["charges"], first["charges"][:1], [first["charges"][0], fee | {"price": {"model": "flat", "amount": "999.99"}}]]))
    second = first | changes | {"charges": charges, "commitments": data.draw(st.sampled_from([first["commitments"], []])), "coupons": []}
    early, late = timeline_of(first), timeline_of(first, second)
    calendar = early[0].version.billing.calendar
    periods = calendar.spanning(early[0].start_us, early[0].start_us + 240 * 86_400_000_000)
    usage = [UsageSum("u", None, one.start_us, 1, one.start_us, 10**9, data.draw(st.integers(0, 10**14)), 1, 1, 5) for one in periods]
    learnt = data.draw(st.integers(0, len(periods) - 1))
    account, fresh = Account("c"), Account("c")
    for place, (period, one) in enumerate(zip(periods, usage, strict=True)):
        account = bill(account, late if place >= learnt else early, period, [one], taxes=None, as_of=period.end_us).account
        fresh = bill(fresh, late, period, [one], taxes=None, as_of=period.end_us).account
    assert {item[:3] for item in standing(account)} == {item[:3] for item in standing(fresh)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_pruned_account_makes_the_documents_of_a_whole_one(data):
    grant = {"grant_id": "g", "amount": data.draw(MONEY), "kind": data.draw(st.sampled_from(["granted", "purchased"]))}
    timeline = timeline_of(data.draw(contracts()) | {"credits": [grant]})
    calendar, taxes = timeline[0].version.billing.calendar, data.draw(st.none() | st.just(Rate("8.875")))
    periods = calendar.spanning(timeline[0].start_us, timeline[0].start_us + 500 * 86_400_000_000)
    whole = slim = Account("c")
    for place, period in enumerate(periods):
        at = periods[max(place - data.draw(st.integers(0, 1)), 0)]
        usage = [UsageSum("u", None, at.start_us, 1, at.start_us, 10**9, data.draw(st.integers(0, 10**14)), 1, 1, 5)]
        full, less = (bill(one, timeline, period, usage, taxes=taxes, as_of=period.end_us) for one in (whole, slim))
        assert (less.invoices, less.broken, less.late) == (full.invoices, full.broken, ())
        assert less.account.open_amount == full.account.open_amount == 0
        whole, slim = full.account, pruned(less.account, timeline, period.end_us - 70 * 86_400_000_000)
        assert balances(grants(timeline), slim.burns, slim.broken) == balances(grants(timeline), whole.burns, whole.broken)


class Rate:
    """One rate for everything."""

    def __init__(self, percent):
        self.rate = F(percent)

    def payer(self, customer_id, instant):
        return TaxPayer("X", "standard")

    def code(self, product_id, instant):
        return "std"

    def percent(self, jurisdiction, tax_code, instant):
        return self.rate


def taken_back(data, account, version, chosen, documents, all_, period):
    how = data.draw(st.sampled_from(["void", "lines", "amounts"]))
    line = data.draw(st.sampled_from(chosen.lines))
    try:
        if how == "void":
            done = void(account, version, chosen, all_, period.end_us)
        elif how == "lines":
            done = credit_lines(account, version, chosen, [line.line_id], all_, period.end_us)
        else:
            done = credit_amounts(account, version, chosen, {line.line_id: data.draw(st.integers(1, max(line.amount, 1)))}, period.end_us)
    except ReleaseRefused:
        return account, documents
    return done.account, [*documents, done.document]


def never_more_than_whole(account):
    """What was taken off a line by amount never comes to more than the line, net of its coupons."""
    lines, off = defaultdict(int), defaultdict(int)
    for one in account.billed:
        if one.key.kind == CONCESSION:
            off[one.key._replace(kind=one.key.ref[1], ref=one.key.ref[2:])] += one.amount
        else:
            key = one.key._replace(kind=one.key.ref[2], ref=one.key.ref[3:]) if one.key.kind == "coupon" else one.key
            lines[key] += one.amount
    for key, amount in off.items():
        assert amount <= 0
        assert lines[key] + amount >= 0 or amount == 0


def check(account, documents, pending, rated):
    for one in documents:
        assert sum(line.amount for line in one.lines) == one.total == one.subtotal + one.tax
        assert one.amount_due == one.total - sum(use.applied for use in one.credits)
    billed = sum(line.usage_exact for one in documents for line in one.lines)
    assert billed + account.open_amount + sum(one.amount for one in pending) == rated
    assert sum(one.total for one in documents) == sum(one.amount for one in account.billed)
    names = [line.line_id for one in documents for line in one.lines]
    assert len(names) == len(set(names))
    assert len({one.invoice_id for one in documents}) == len(documents)
    paid = defaultdict(int)
    for one in documents:
        for use in one.credits:
            paid[use.grant_id] += use.applied
    assert {name: total for name, total in paid.items() if total} == ({"g": sum(b.amount for b in account.burns)} if account.burns else {})
    assert sum(b.amount for b in account.burns) <= 7500


def standing(account):
    return {(one.key, one.amount, one.exact, one.usage_exact, one.quantity, one.usage_count, one.usage_digest) for one in account.billed if one.amount or one.usage_exact}


def timeline_of(*documents):
    book = ContractBook(first_number=None)
    for document in documents:
        book.apply(parse_contract(document))
    return book.intervals(documents[0]["contract_id"])
