"""An invoice survives its record: every line, every ratio, every minor unit, in any currency."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from flows import invoice_records
from tieout.invoicing.records import DIGEST, CreditUse, Invoice, Line, LineKey, TierUse
from tieout.period import Period

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=4)
instants = st.integers(-(2**55), 2**55)
minor = st.integers(-(10**26) + 1, 10**26 - 1)
whole = st.integers(-(10**38) + 1, 10**38 - 1)
exact = st.builds(Fraction, whole, st.integers(1, 10**50))
pairs = exact.map(Fraction.as_integer_ratio)
dates = st.dates()
texts = st.one_of(st.none(), names)
tiers = st.builds(TierUse, st.one_of(st.none(), whole), pairs, pairs)
kinds = st.sampled_from(["usage", "fee", "minimum", "commitment", "overage", "coupon", "credit", "delta", "tax"])


@st.composite
def lines(draw, entity, currency):
    group = draw(st.one_of(st.none(), st.lists(texts, max_size=2).map(tuple)))
    key = LineKey(draw(instants), draw(st.one_of(st.just(""), names)), group, draw(kinds), tuple(draw(st.lists(names, max_size=2))), draw(instants), entity, currency)
    return Line(
        key, draw(instants), draw(names), tuple(draw(st.lists(st.integers(1, 2**31 - 1), max_size=2))), draw(whole), draw(whole), draw(exact), draw(minor), draw(texts), draw(texts),
        tuple(draw(st.lists(tiers, max_size=2))), draw(texts), draw(st.integers(-(2**62), 2**62)), draw(st.integers(0, DIGEST - 1)), draw(kinds), draw(instants), draw(texts), draw(names),
    )  # fmt: skip


@st.composite
def invoices(draw):
    entity, currency = draw(names), draw(st.sampled_from(["USD", "JPY", "BHD", "CLF"]))
    period = Period(draw(instants), draw(instants), draw(dates), draw(dates), draw(names))
    return Invoice(
        draw(names), draw(st.sampled_from(["invoice", "credit_note"])), draw(st.sampled_from(["draft", "final", "voided"])), draw(names), draw(names), entity, currency, period,
        draw(dates).isoformat(), draw(dates).isoformat(), tuple(draw(st.lists(lines(entity, currency), max_size=3))), draw(minor), draw(minor), draw(minor),
        tuple(draw(st.lists(st.builds(CreditUse, names, minor, minor), max_size=2))), draw(minor), draw(texts), draw(names), draw(texts), draw(texts),
    )  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(st.lists(invoices(), max_size=4))
def test_invoices_come_back_from_their_records_equal_in_every_field(made):
    assert invoice_records.decode(invoice_records.encode(made)) == made
