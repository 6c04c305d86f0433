"""The invoicing flow on folders, from usage to invoices: complete, equal to the offline answer, once."""

import shutil
from dataclasses import replace

import pytest

from flows import bytewax_engine, cli, invoicing, invoicing_proof, local_engine, topics, usage
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from tests.flow import folders, governed_folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import exceptions, know, reference
from tests.flow.invoicing_folders import contract, event
from tieout.governance import Command
from tieout.usage_state import DAY, Limits

CUSTOMERS = 12
CONTRACTS = [folders.contract(f"k{i}") for i in range(CUSTOMERS)] + [folders.contract(f"k{i}", 2, "2026-01-15T00:00:00Z") for i in range(0, CUSTOMERS, 2)]
MARCH = [event(f"k{i}", f"march {i}", "2026-03-10T00:00:00Z") for i in range(CUSTOMERS)]


@pytest.fixture(scope="module")
def priced(tmp_path_factory):
    """Usage of every kind of charge, disturbed, corrected and voided, and a clock in March."""
    root, usage_ = tmp_path_factory.mktemp("priced") / "data", folders.events(11, 4000, CUSTOMERS) + MARCH
    folders.write(root, usage_, CONTRACTS)
    folder.price(root)
    return root, usage_


def copy(priced, path):
    shutil.copytree(priced[0], path)
    return path


def test_invoices_equal_those_that_are_made_offline_from_the_same_facts(priced, tmp_path):
    root = copy(priced, tmp_path / "data")
    folder.bill(root)
    for number in range(CUSTOMERS):
        made = folder.by_period(root, f"c-k{number}")
        assert set(made) >= {"2026-01", "2026-02"}
        for label in ("2025-12", "2026-01", "2026-02"):
            assert tuple(made.get(label, ())) == folder.expected(f"k{number}", priced[1], CONTRACTS, label)


@pytest.mark.parametrize(("engine", "rows", "closes"), [(bytewax_engine, 1000, 500), (local_engine, 130, 500), (local_engine, 1000, 5)])
def test_any_engine_any_size_of_an_interval_any_slice_makes_the_same_documents(priced, tmp_path, engine, rows, closes):
    whole, other = copy(priced, tmp_path / "whole"), copy(priced, tmp_path / "other")
    tokens = folder.bill(whole), folder.bill(other, rows=rows, engine=engine, closes=closes)
    assert folders.output(other, topic=topics.INVOICES) == folders.output(whole, topic=topics.INVOICES)
    assert [token.amounts for token in tokens[1]] == [token.amounts for token in tokens[0]]
    if engine is bytewax_engine:
        assert folders.output(other, topic=invoicing.TOKEN) == folders.output(whole, topic=invoicing.TOKEN)
        assert folders.output(other, topic=invoicing.STATE) == folders.output(whole, topic=invoicing.STATE)


def test_what_was_rated_is_billed_or_open_by_currency(priced, tmp_path):
    root = copy(priced, tmp_path / "data")
    billed = {}
    for token in folder.bill(root):
        taken, done, left = (token.amounts[f"USD/{kind}"] for kind in ("taken", "billed", "open"))
        billed[token.partition] = done
        assert folder_money(taken) == folder_money(done) + folder_money(left)
    rated = sum(row["amount"] for row in folders.rated(root))
    lines = sum(line.usage_exact for one in folder.invoices(root) for line in one.lines)
    assert folder_money(billed[0]) + folder_money(billed[1]) == lines
    late = sum(row["amount"] for row in folders.rated(root) if row["billing_period"] == "2026-03")
    assert int((rated - late).scaleb(12)) == lines


def test_the_proof_names_the_contract_whose_money_does_not_tie_out(priced, tmp_path):
    root = copy(priced, tmp_path / "data")
    token, _ = folder.bill(root)
    place = FilePlace(root)
    assert invoicing_proof.broken(place, token) == []
    last = [one for one in folder.invoices(root, 1) if one.period.label == "2026-01"][-1]
    fewer = replace(token, written=token.written | {topics.INVOICES: folder.invoices(root, 1).index(last)})
    named = [found for found in invoicing_proof.broken(place, fewer) if found.startswith("contract")]
    assert any(found.startswith(f"contract {last.contract_id}: ") for found in named)
    for kind in ("taken", "billed", "open"):
        told = invoicing_proof.broken(place, replace(token, amounts=token.amounts | {f"USD/{kind}": "1"}))
        assert any(f"1.000000000000 USD is {kind}" in found for found in told)


def folder_money(text):
    units, _, cents = text.partition(".")
    return int(units + cents)


def test_a_run_with_nothing_new_writes_nothing(priced, tmp_path):
    root = copy(priced, tmp_path / "data")
    first = folder.bill(root)
    assert [token.sequence for token in folder.bill(root)] == [token.sequence for token in first]


def test_a_period_closes_at_its_end_plus_grace_and_not_before(tmp_path):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-01T23:59:59Z")], [contract("k1")])
    folder.run(root)
    assert folder.invoices(root) == []
    folder.append(root, [event("k1", "c", "2026-02-02T00:00:00Z")])
    folder.run(root)
    (january,) = folder.invoices(root)
    assert (january.period.label, january.issued_on, january.total) == ("2026-01", "2026-02-02", 2010)


def test_a_quiet_month_is_closed_without_a_document_and_late_usage_finds_it(tmp_path):
    root = tmp_path / "data"
    usage_only = contract("k1", charges=folder.SIMPLE[:1])
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-03-03T00:00:00Z")], [usage_only], partitions=1)
    folder.price(root, [0])
    (token,) = folder.bill(root, partitions=[0])
    assert (token.totals["closed"], token.totals["quiet"], [one.period.label for one in folder.invoices(root, 1)]) == (2, 1, ["2026-01"])
    folder.append(root, [event("k1", "late", "2026-02-20T00:00:00Z", "7"), event("k1", "c", "2026-04-03T00:00:00Z")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    _, march = folder.invoices(root, 1)
    assert [(line.kind, line.period, line.amount) for line in march.lines] == [("usage", "2026-02", 7), ("usage", "2026-03", 10)]
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []


def test_no_period_closes_while_rated_usage_that_the_clock_stands_for_has_not_been_read(tmp_path):
    """The usage flow's clock is in March; of its records only the first three have reached this flow."""
    root = tmp_path / "data"
    usage_ = [event("k1", f"{day}", f"2026-01-{day:02d}T00:00:00Z") for day in range(1, 29)] + [event("k1", "march", "2026-03-10T00:00:00Z")]
    folder.write(root, usage_, [contract("k1")], partitions=1)
    folder.price(root, [0])
    cell = invoicing.InvoicingCell.start(FilePlace(root), 0)
    pipeline = invoicing.pipeline({0: cell}, rows=3)
    for read in range(3, 31, 3):
        cell.take(pipeline.prepare(pipeline.sources[0].poll()))
        assert (cell.token.totals["received"], cell.token.totals.get("closed", 0)) == (min(read, 29), 2 * (read == 30))
    cell.close()


def test_customers_of_an_upstream_partition_that_stands_still_are_not_billed(tmp_path):
    root = tmp_path / "data"
    customers = [f"k{n}" for n in range(6)]
    usage_ = [event(customer, f"{at}", at) for at in ("2026-01-10T00:00:00Z", "2026-03-10T00:00:00Z") for customer in customers]
    folder.write(root, usage_, [contract(customer) for customer in customers])
    folder.price(root, [0])
    folder.bill(root)
    billed = {one.customer_id for one in folder.invoices(root)}
    assert 0 < len(billed) < len(customers)
    folder.run(root)
    assert sorted(one.customer_id for one in folder.invoices(root)) == sorted(2 * customers)


def test_late_usage_after_a_close_becomes_a_delta_line_of_the_next_invoice(tmp_path):
    root = tmp_path / "data"
    facts = [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-05T00:00:00Z")]
    late = [event("k1", "late", "2026-01-11T00:00:00Z", "7"), event("k1", "c", "2026-03-10T00:00:00Z")]
    folder.write(root, facts, [contract("k1")])
    folder.run(root)
    folder.append(root, late)
    folder.run(root)
    february = folder.by_period(root, "c-k1")["2026-02"]
    (delta,) = [line for line in february[0].lines if line.kind == "delta"]
    (january,) = folder.by_period(root, "c-k1")["2026-01"]
    assert (delta.period, delta.amount, delta.usage_count) == ("2026-01", 7, 1)
    assert delta.delta_of == next(line.line_id for line in january.lines if line.kind == "usage")
    assert sum(line.usage_exact for one in folder.invoices(root) for line in one.lines) == 27 * 10**10


def test_late_usage_of_a_contract_that_bills_none_is_an_exception_and_stays_open(tmp_path):
    root = tmp_path / "data"
    strict = contract("k1", billing={"late_usage": "exception"})
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-05T00:00:00Z")], [strict])
    folder.run(root)
    folder.append(root, [event("k1", "late", "2026-01-11T00:00:00Z", "7"), event("k1", "c", "2026-03-10T00:00:00Z")])
    folder.run(root)
    (told,) = exceptions(root, folder.PARTITIONS)
    assert (told["kind"], str(told["amount_at_risk"]), told["currency"], told["object"]["id"]) == ("late_usage", "0.070000000000", "USD", "c-k1")
    folder.append(root, [event("k1", "d", "2026-04-10T00:00:00Z")])
    tokens = folder.run(root)
    assert len(exceptions(root, folder.PARTITIONS)) == 1  # told once
    assert sum(folder_money(token.amounts["USD/open"]) for token in tokens if token.amounts) == (7 + 10) * 10**10
    assert not [line for one in folder.invoices(root) for line in one.lines if line.kind == "delta"]


def test_a_period_waits_for_held_usage_until_it_is_released(tmp_path):
    root = tmp_path / "data"
    usage_ = [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-01-31T00:00:00Z", meter="stored"), event("k1", "c", "2026-02-02T00:00:00Z")]
    folder.write(root, usage_, [contract("k1")])
    tokens = folder.run(root)
    assert folder.invoices(root) == []
    assert sum(token.counts.get("waits_usage_held", 0) for token in tokens) == 1
    both = [*folder.SIMPLE, {"charge_id": "stored", "meter": "stored", "price": {"model": "per_unit", "unit_price": "1"}}]
    folder.import_contracts(root, [contract("k1", 2, charges=both)])
    folder.run(root)
    (january,) = folder.invoices(root)
    assert january.total == 10 + 1000 + 2000
    assert exceptions(root, folder.PARTITIONS)[-1]["kind"] == "hold_no_charge"  # the hold's own


def test_a_period_closes_without_usage_that_has_been_held_for_the_limit(tmp_path):
    root = tmp_path / "data"
    usage_ = [event("k1", "b", "2026-01-31T00:00:00Z", meter="stored"), event("k1", "c", "2026-02-06T23:59:59Z")]
    folder.write(root, usage_, [contract("k1")])
    folder.run(root)
    assert folder.invoices(root) == []
    folder.append(root, [event("k1", "d", "2026-02-07T00:00:00Z")])
    folder.run(root)
    (january,) = folder.invoices(root)
    assert (january.total, january.issued_on) == (2000, "2026-02-07")  # issued when it was made, not when it was due


TAXED = [
    reference("customer", "k1", {"tax_jurisdiction": "DE"}),
    reference("product", "llm", {"name": "llm", "tax_code": "digital"}),
    reference("tax_rate", "DE/other", {"jurisdiction": "DE", "tax_code": "other", "rate_percent": "7"}),
]
RATE = reference("tax_rate", "DE/digital", {"jurisdiction": "DE", "tax_code": "digital", "rate_percent": "19"})


def test_missing_tax_data_holds_the_invoice_with_an_exception_and_its_record_makes_it(tmp_path):
    root = tmp_path / "data"
    charges = [charge | {"product_id": "llm"} for charge in folder.SIMPLE]
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-05T00:00:00Z")], [contract("k1", charges=charges)])
    know(root, *TAXED)
    tokens = folder.run(root)
    assert folder.invoices(root) == []
    assert sum(token.counts.get("waits_tax_rate", 0) for token in tokens) == 1
    folder.bill(root)
    (told,) = exceptions(root, folder.PARTITIONS)
    assert (told["kind"], told["state"], told["object"]["id"], str(told["amount_at_risk"])) == ("invoice_held", "open", "c-k1", "0.100000000000")
    know(root, RATE)
    folder.bill(root)
    (january,) = folder.invoices(root)
    assert (january.subtotal, january.tax) == (2010, 382)
    assert [one["state"] for one in exceptions(root, folder.PARTITIONS)] == ["open", "resolved"]
    assert len({one["exception_id"] for one in exceptions(root, folder.PARTITIONS)}) == 1


def test_usage_that_reaches_a_threshold_is_invoiced_early_once_and_the_close_bills_the_rest(tmp_path):
    root = tmp_path / "data"
    early = contract("k1", billing={"thresholds": ["5"]})
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z", "499")], [early])
    folder.run(root)
    assert folder.invoices(root) == []
    for day, quantity in ((11, "1"), (12, "100")):
        folder.append(root, [event("k1", f"{day}", f"2026-01-{day}T00:00:00Z", quantity)])
        folder.run(root)
    (first,) = folder.invoices(root)
    assert (first.issued_on, first.total) == ("2026-01-11", 500)
    folder.append(root, [event("k1", "c", "2026-02-05T00:00:00Z")])
    folder.run(root)
    _, close = folder.invoices(root)
    assert [(line.kind, line.amount) for line in close.lines] == [("delta", 100), ("fee", 2000)]


def test_a_request_bills_a_closed_period_again_for_what_came_late(tmp_path, capsys):
    root = tmp_path / "data"
    customers = ("k1", "k2", "k3")
    folder.write(root, [event(k, at, f"{at}T00:00:00Z") for at in ("2026-01-10", "2026-02-05") for k in customers], [contract(k) for k in customers], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    folder.append(root, [event(k, "late", "2026-01-11T00:00:00Z", "7") for k in customers], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    assert len(folder.invoices(root, 1)) == 3
    assert cli.main(["close", "--period", "2026-01", "--contract", "c-k2", "--dir", str(root), "--reason", "logs"]) == 0
    folder.bill(root, partitions=[0])
    again = folder.invoices(root, 1)[3:]
    assert [(one.contract_id, one.period.label, [(line.kind, line.amount) for line in one.lines]) for one in again] == [("c-k2", "2026-01", [("delta", 7)])]
    for period in ("2026-01", "2026-02"):
        assert cli.main(["close", "--period", period, "--dir", str(root), "--reason", "all logs"]) == 0
    (token,) = folder.bill(root, partitions=[0], closes=1)
    assert sorted(one.contract_id for one in folder.invoices(root, 1)[4:]) == ["c-k1", "c-k3"]  # each once, and no period that is not complete
    assert token.totals["invoices"] == 6
    know(root, *governed_folders.USERS)
    folder.append(root, [event("k1", "later", "2026-01-12T00:00:00Z", "7")], partitions=1)
    folder.price(root, [0])
    assert cli.main(["close", "--period", "2026-01", "--dir", str(root), "--reason", "unsigned", "--author", "una"]) == 1
    governed_folders.send(root, Command("close", "period", "2026-01", "una", 2 * 10**15, "by another program, unsigned"))
    folder.bill(root, partitions=[0])
    assert len(folder.invoices(root, 1)) == 6
    (told,) = exceptions(root, 1)
    assert (told["kind"], told["object"]) == ("command_refused", {"type": "period", "id": "2026-01"})


def test_a_voided_invoice_is_billed_again_once_and_the_money_ties_out(tmp_path, capsys):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z", "700"), event("k1", "b", "2026-02-05T00:00:00Z")], [contract("k1")])
    folder.run(root)
    (january,) = folder.invoices(root)
    where = ["--dir", str(root), "--reason", "wrong address"]
    assert cli.main(["void", january.invoice_id, *where]) == 0
    assert cli.main(["void", january.invoice_id, *where, "--author", "again"]) == 1
    governed_folders.send(root, Command("correct", "invoice", january.invoice_id, "again", 2 * 10**15, "by another program"))
    tokens = folder.bill(root)
    _, back = folder.invoices(root)
    assert (back.kind, back.voids, back.total, sum(line.usage_exact for line in back.lines)) == ("credit_note", january.invoice_id, -2700, -7 * 10**12)
    assert sum(folder_money(token.amounts["USD/billed"]) for token in tokens if token.amounts) == 0
    (told,) = exceptions(root, folder.PARTITIONS)  # the second request
    assert (told["kind"], told["object"]) == ("command_refused", {"type": "invoice", "id": january.invoice_id})
    assert cli.main(["close", "--period", "2026-01", "--dir", str(root), "--reason", "new address"]) == 0
    folder.bill(root)
    *_, again = folder.invoices(root)
    assert (again.period.label, again.total, [line.kind for line in again.lines]) == ("2026-01", 2700, ["usage", "fee"])
    usage_line = next(line for line in again.lines if line.kind == "usage")
    assert cli.main(["credit", again.invoice_id, "--amount", f"{usage_line.line_id}=1.50", *where]) == 0
    assert cli.main(["credit", again.invoice_id, *where]) == 2
    assert cli.main(["credit", "nothing", "--line", "x", *where]) == 1
    folder.bill(root)
    *_, note = folder.invoices(root)
    assert (note.credits_invoice, note.total) == (again.invoice_id, -150)
    assert all(verify_invoicing(FilePlace(root), partition)["breaks"] == [] for partition in range(2))


def test_an_amount_off_a_line_whose_usage_is_voided_afterwards_is_not_credited_twice(tmp_path, capsys):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-30T00:00:00Z", "700"), event("k1", "b", "2026-02-05T00:00:00Z")], [contract("k1", charges=folder.SIMPLE[:1])], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    (january,) = folder.invoices(root, 1)
    amount = f"{january.lines[0].line_id}=2.50"
    assert cli.main(["credit", january.invoice_id, "--amount", amount, "--dir", str(root), "--reason", "an outage"]) == 0
    folder.bill(root, partitions=[0])
    folder.append(root, [event("k1", "v", "2026-02-06T00:00:00Z", None, voids={"source": "s", "id": "a"}), event("k1", "c", "2026-03-05T00:00:00Z")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    _, note, february = folder.invoices(root, 1)
    assert [(line.kind, line.period, line.amount) for line in february.lines] == [("delta", "2026-01", -700), ("delta", "2026-01", 250), ("usage", "2026-02", 10)]
    assert january.total + note.total + february.total == 10
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []


def test_a_contract_that_is_over_bills_what_comes_late_for_it(tmp_path):
    root = tmp_path / "data"
    over = contract("k1", effective_to="2026-02-01T00:00:00Z")
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k2", "b", "2026-03-05T00:00:00Z")], [over, contract("k2")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    folder.append(root, [event("k1", "late", "2026-01-30T00:00:00Z", "7"), event("k2", "c", "2026-05-10T00:00:00Z")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    found = [one for one in folder.invoices(root, 1) if one.contract_id == "c-k1"]
    assert [[(line.kind, line.amount) for line in one.lines] for one in found] == [[("usage", 10), ("fee", 2000)], [("delta", 7)]]


def test_a_contract_whose_billing_calendar_changes_is_held_and_says_why(tmp_path):
    root = tmp_path / "data"
    changed = contract("k1", 2, effective_from="2026-02-01T00:00:00Z", billing={"anchor_day": 15})
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-03-10T00:00:00Z")], [contract("k1"), changed])
    folder.run(root)
    assert folder.invoices(root) == []
    (told,) = exceptions(root, folder.PARTITIONS)
    assert told["kind"] == "invoice_held"
    assert "billing.anchor_day" in told["message"] and "a contract keeps its billing periods" in told["message"]


def test_what_nothing_can_change_any_more_leaves_the_account_and_no_document_differs(tmp_path):
    months = [f"2026-{month:02d}-10T00:00:00Z" for month in range(1, 10)]
    roots = [tmp_path / "whole", tmp_path / "pruned"]
    for root in roots:
        folder.write(root, [event("k1", at, at) for at in months], [contract("k1")], partitions=1)
        folder.price(root, [0])
    periods = []
    for root, limits in zip(roots, (Limits(), Limits(reprice_limit=60 * DAY)), strict=True):
        cell = invoicing.InvoicingCell.start(FilePlace(root), 0, limits=limits)
        local_engine.run(invoicing.pipeline({0: cell}, rows=1000))
        account = cell.fold.closing.account("c-k1")
        periods.append(len({one.key.period_us for one in account.billed}))
        cell.close()
        again = invoicing.InvoicingCell.start(FilePlace(root), 0, limits=limits)
        assert again.fold.closing.account("c-k1") == account
        again.close()
    assert periods == [8, 2]  # 60 days before the end of August lie in July
    assert folder.invoices(roots[0], 1) == folder.invoices(roots[1], 1) != []


def test_a_folder_where_the_usage_flow_never_was_bills_nothing(tmp_path):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-03-10T00:00:00Z")], [contract("k1")])
    assert [token.counts.get("closed", 0) for token in folder.bill(root)] == [0, 0]
    assert not (root / usage.FLOW).exists()
