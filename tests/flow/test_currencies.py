"""Currencies without decimals, with three, and without any exchange rate: all are invoiced, each by itself, to the last minor unit."""

from fractions import Fraction

from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import exceptions, know, reference
from tests.flow.invoicing_folders import event
from tests.unit.test_quote import ask
from tieout import money
from tieout.invoicing.statement import statements

CURRENCIES = ("USD", "JPY", "BHD", "ISK")
"""Books are in USD; nobody has recorded a rate of ISK."""
RATES = [
    reference("exchange_rate", name, {"from_currency": name, "to_currency": "USD", "rate": rate}) for name, rate in (("JPY", "0.0067"), ("BHD", "2.65"))
]  # fmt: skip
TAXES = [
    reference("legal_entity", "us-inc", {"name": "US Inc", "currency": "USD"}), reference("customer", "k1", {"tax_jurisdiction": "DE"}), reference("product", "llm", {"name": "llm", "tax_code": "digital"}),
    reference("product", "new", {"name": "new", "tax_code": "ai"}), reference("tax_rate", "DE/digital", {"jurisdiction": "DE", "tax_code": "digital", "rate_percent": "8.875"}),
]  # fmt: skip


def contract(currency, product="llm"):
    tiers = [{"up_to": "100", "unit_price": "0.3333"}, {"up_to": None, "unit_price": "0.12345"}]
    usage = {"charge_id": "calls", "product_id": product, "meter": "calls", "price": {"model": "graduated", "tiers": tiers}, "minimum": "50.5055"}
    fee = {"charge_id": "base", "product_id": product, "price": {"model": "flat", "amount": "33.3375"}}
    return {
        "contract_id": f"c-{currency}", "customer_id": "k1", "legal_entity_id": "us-inc", "currency": currency, "effective_from": "2026-01-11T00:00:00Z", "charges": [usage, fee],
        "coupons": [{"coupon_id": "x", "percent": "7.5"}, {"coupon_id": "y", "amount": "1.4995"}],
    }  # fmt: skip


def calls(name, time, quantity, currency):
    return event("k1", f"{name} {currency}", time, quantity, contract_id=f"c-{currency}")


def explained(invoice):
    """Every minor unit: a line is its exact amount rounded, a coupon its rounded whole, tax the rate of the rounded base."""
    scale = 10 ** money.minor_unit(invoice.currency)
    base = 0
    for line in invoice.lines:
        if line.kind in ("usage", "fee", "minimum"):
            assert line.amount == rounded(line.exact * scale), line
            base += line.amount
    percent = rounded(Fraction(base * 75, 1000))
    fixed = rounded(Fraction("1.4995") * scale)
    assert [-sum(line.amount for line in invoice.lines if line.key.ref[:1] == (name,)) for name in ("x", "y")] == [percent, fixed]
    assert invoice.tax == rounded(Fraction((base - percent - fixed) * 8875, 100_000))
    assert sum(line.amount for line in invoice.lines) == invoice.total == base - percent - fixed + invoice.tax == invoice.amount_due


def rounded(exact):
    return money.round_ratio(exact.numerator, exact.denominator)


def test_each_currency_is_invoiced_by_itself_and_one_without_an_exchange_rate_like_any_other(tmp_path):
    root = tmp_path / "data"
    contracts = [contract("USD"), contract("JPY"), contract("BHD"), contract("ISK")]
    usage_ = [calls("a", "2026-01-12T00:00:00Z", "123.456789", name) for name in CURRENCIES] + [calls("b", "2026-02-05T00:00:00Z", "7", name) for name in CURRENCIES]
    folder.write(root, usage_, contracts, partitions=1)
    know(root, *TAXES, *RATES)
    folder.price(root, [0])
    (token,) = folder.bill(root, partitions=[0])
    found = {one.currency: one for one in folder.invoices(root, 1)}
    assert sorted(found) == sorted(CURRENCIES)
    for one in found.values():
        explained(one)
    # USD 36.23 + 14.28 (to 50.5055) + 22.58 (21/31 of the fee) - 5.48 - 1.50 + 5.87; JPY and ISK 36 + 15 + 23 - 6 - 1 + 6;
    # BHD 36.226 + 14.280 + 22.583 - 5.482 - 1.500 + 5.867
    assert {name: one.total for name, one in found.items()} == {"USD": 7198, "JPY": 73, "BHD": 71_974, "ISK": 73}
    for name in CURRENCIES:
        taken, billed, left = (int(token.amounts[f"{name}/{kind}"].replace(".", "")) for kind in ("taken", "billed", "open"))
        assert taken == billed + left and billed == sum(line.usage_exact for line in found[name].lines) > 0
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []
    told = statements(found.values())
    assert [(one.customer_id, one.currency, len(one.entries), one.total) for one in told] == [("k1", name, 1, found[name].total) for name in sorted(CURRENCIES)]


def test_what_lacks_a_tax_rate_is_held_with_its_reason_and_everything_else_is_invoiced(tmp_path):
    root = tmp_path / "data"
    usage_ = [calls("a", "2026-01-12T00:00:00Z", "10", name) for name in CURRENCIES] + [calls("b", "2026-02-05T00:00:00Z", "7", name) for name in CURRENCIES]
    folder.write(root, usage_, [contract(name, "new" if name == "ISK" else "llm") for name in CURRENCIES], partitions=1)
    know(root, *TAXES, *RATES)
    folder.price(root, [0])
    (token,) = folder.bill(root, partitions=[0])
    assert [one.currency for one in folder.invoices(root, 1)] == ["BHD", "JPY", "USD"]
    (told,) = exceptions(root, 1)
    assert (told["kind"], told["object"]["id"], told["currency"], str(told["amount_at_risk"])) == ("invoice_held", "c-ISK", "ISK", "3.333000000000")
    assert "no rate of tax code ai in DE" in told["message"]
    assert (token.counts["waits_tax_rate"], token.amounts["ISK/billed"]) == (1, "0.000000000000")
    know(root, reference("tax_rate", "DE/ai", {"jurisdiction": "DE", "tax_code": "ai", "rate_percent": "8.875"}))
    folder.bill(root, partitions=[0])
    *_, last = folder.invoices(root, 1)
    assert last.currency == "ISK"
    explained(last)


def test_a_quote_of_several_currencies_adds_none_of_them_to_another():
    plain = {"charge_id": "u", "meter": "m", "price": {"model": "per_unit", "unit_price": "1"}}

    def of(currency, credits_=()):
        return {"contract_id": currency, "customer_id": "k", "currency": currency, "effective_from": "2026-01-01T00:00:00Z", "charges": [plain], "credits": list(credits_)}

    grant = {"grant_id": "g", "amount": "40", "kind": "granted"}
    events = [{"quantity": "100.5", "contract_id": name, "customer_id": "k", "meter": "m", "time": "2026-01-05T00:00:00Z"} for name in ("USD", "JPY")]
    answer = ask(None, events, contracts=[of("USD"), of("JPY", [grant])])
    assert (answer["total_exact"], answer["total"], answer["amount_due"]) == (None, None, None)
    assert answer["totals"] == [
        {"currency": "USD", "total_exact": "100.5", "total": "100.50", "amount_due": "100.50"}, {"currency": "JPY", "total_exact": "100.5", "total": "101", "amount_due": "61"},
    ]  # fmt: skip
    assert answer["credits"] == [{"grant_id": "g", "applied": "40", "balance": "0"}]


def test_an_imported_version_that_changes_the_currency_in_mid_period_is_held_until_another_mends_it(tmp_path):
    root = tmp_path / "data"
    first = folder.contract("k1")
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-03-05T00:00:00Z")], [first, folder.contract("k1", 2, effective_from="2026-02-10T00:00:00Z", currency="EUR")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    (told,) = exceptions(root, 1)
    assert (told["kind"], folder.invoices(root, 1)) == ("invoice_held", [])
    assert "currency: version 2 of contract c-k1 would change it from USD to EUR on 2026-02-10, within the billing period 2026-02; let it begin with a billing period (2026-03-01, in UTC)" in told["message"]
    folder.import_contracts(root, [folder.contract("k1", 3, effective_from="2026-02-10T00:00:00Z", effective_to="2026-03-01T00:00:00Z")])
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    assert [(one.period.label, one.currency, one.total) for one in folder.invoices(root, 1)] == [("2026-01", "USD", 2010), ("2026-02", "USD", 2000)]
    assert [one["state"] for one in exceptions(root, 1)] == ["open", "resolved"]
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []
