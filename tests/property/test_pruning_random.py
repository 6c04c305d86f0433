"""An account that is pruned at every close against one that keeps all: the same documents whatever is taken back, each purchase once."""

from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.property.test_invoicing_random import MONEY, Rate, contracts, timeline_of
from tieout.account_text import account_of, text_of
from tieout.invoicing.bill import bill
from tieout.invoicing.credits import grants
from tieout.invoicing.notes import ReleaseRefused, credit_amounts, credit_lines, void
from tieout.invoicing.pruning import dated, pruned, remembering
from tieout.invoicing.records import Account, UsageSum

DAY = 86_400_000_000
KEPT = 70 * DAY
RULES = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def taken_back(account, version, invoice, how, line, amount, all_, at):
    if how == "void":
        done = void(account, version, invoice, all_, at)
    elif how == "lines":
        done = credit_lines(account, version, invoice, [line.line_id], all_, at)
    else:
        done = credit_amounts(account, version, invoice, {line.line_id: amount}, at)
    return dated(done.account, invoice), done.document


def tried(*what):
    try:
        return taken_back(*what)
    except ReleaseRefused:
        return None


@RULES
@given(st.data())
def test_what_is_taken_back_gives_the_same_notes_and_the_account_forgets_it_with_its_period(data):
    grant = {"grant_id": "g", "amount": data.draw(MONEY), "kind": data.draw(st.sampled_from(["granted", "purchased"]))}
    timeline = timeline_of(data.draw(contracts()) | {"credits": [grant]})
    calendar, version, taxes = timeline[0].version.billing.calendar, timeline[0].version, data.draw(st.none() | st.just(Rate("8.875")))
    periods = calendar.spanning(timeline[0].start_us, timeline[0].start_us + 400 * DAY)
    whole, slim, documents = Account("c"), Account("c"), []
    for period in periods:
        usage = [UsageSum("u", None, period.start_us, 1, period.start_us, 10**9, data.draw(st.integers(0, 10**14)), 1, 1, 5)]
        full, less = (bill(one, timeline, period, usage, taxes=taxes, as_of=period.end_us) for one in (whole, slim))
        assert less.invoices == full.invoices
        documents += full.invoices
        whole, slim = full.account, pruned(less.account, timeline, period.end_us - KEPT)
        for _ in range(data.draw(st.integers(0, 2))):
            chosen = data.draw(st.sampled_from(documents))
            line = data.draw(st.sampled_from(chosen.lines))
            what = (version, chosen, data.draw(st.sampled_from(["void", "lines", "amounts", "amounts"])), line, data.draw(st.integers(1, 3000)), grants(timeline), period.end_us)
            notes = [one for one in documents if chosen.invoice_id in (one.voids, one.credits_invoice)]
            of_whole, of_slim = tried(whole, *what), tried(remembering(slim, chosen, notes), *what)
            if of_slim is None:
                assert of_whole is None or min(one.key.period_us for one in chosen.lines) < slim.kept_since_us
                continue
            assert of_whole is not None and of_slim[1] == of_whole[1]
            (whole, _), (slim, document) = of_whole, of_slim
            documents.append(document)
        slim = account_of(text_of(slim))
        kept = {one.key.period_us for one in slim.billed}
        assert all(one.period_us in kept or one.period_us >= slim.kept_since_us for one in slim.released)


@RULES
@given(st.data())
def test_each_purchase_is_billed_once_at_its_last_amount_however_late_it_comes(data):
    contract = data.draw(contracts()) | {"commitments": []}
    begin = contract["effective_from"]
    moments = sorted(data.draw(st.lists(st.integers(0, 13), min_size=1, max_size=3, unique=True)))
    amounts = [data.draw(st.integers(1, 900)) for _ in moments]
    backdated = [data.draw(st.booleans()) for _ in moments]
    started = data.draw(st.sampled_from([begin, "2026-03-05T00:00:00Z", "2026-09-05T00:00:00Z"]))
    base = timeline_of(contract)
    calendar = base[0].version.billing.calendar
    periods = calendar.spanning(base[0].start_us, base[0].start_us + 500 * DAY)
    whole = slim = Account("c")
    billed = [0, 0]
    for place, period in enumerate(periods):
        versions = [contract]
        for number, (moment, amount, back) in enumerate(zip(moments, amounts, backdated, strict=True), 2):
            if moment <= place:
                at = begin if back else datetime.fromtimestamp(periods[moment].start_us / 10**6, UTC).isoformat()
                versions.append(contract | {"version": number, "effective_from": at, "credits": [{"grant_id": "g", "amount": str(amount), "kind": "purchased", "effective_from": started}]})
        timeline = timeline_of(*versions)
        accounts = []
        for number, account in enumerate((whole, slim)):
            done = bill(account, timeline, period, [], taxes=None, as_of=period.end_us)
            billed[number] += sum(line.amount for one in done.invoices for line in one.lines if line.key.kind == "credit")
            accounts.append(done.account)
        whole, slim = accounts[0], pruned(accounts[1], timeline, period.end_us - KEPT)
        assert billed[1] == billed[0]
    assert billed[0] == 100 * amounts[-1]
