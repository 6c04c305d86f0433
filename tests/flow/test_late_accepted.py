"""Late usage that a contract sends to finance: accepted and billed once, or let be and open for ever, whatever is restarted."""

import shutil

import pytest

from flows import cli, exception_records, invoicing, invoicing_state, local_engine, topics
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from sources.errors import SourceError
from tests import governed as people
from tests.flow import folders, governed_folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import know, reference
from tests.flow.invoicing_folders import contract, event
from tests.flow.test_signed_commands import key_file
from tieout.usage_stage import Limits
from tieout.usage_state import DAY

STRICT = contract("k1", billing={"late_usage": "exception"})
UNIT = 10**10
"""One call, 0.01, in 10^-12."""


@pytest.fixture
def late(tmp_path):
    """January and February are closed; 7 calls came late for January, 3 for February, and March is closed too."""
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-10T00:00:00Z"), event("k1", "c", "2026-03-05T00:00:00Z")], [STRICT], partitions=1)
    run(root)
    folder.append(root, [event("k1", "late 1", "2026-01-31T00:00:00Z", "7"), event("k1", "late 2", "2026-02-11T00:00:00Z", "3")], partitions=1)
    clock(root, "2026-04-05")
    return root


def corrected(name, day, quantity):
    """A correction that came long after what it corrects."""
    return event("k1", f"{name} corrected", f"{day}T00:00:00Z", quantity, corrects={"source": "s", "id": name})


def run(root, **how):
    """Both flows to the end; the control totals of what is committed hold."""
    folder.price(root, [0])
    (token,) = folder.bill(root, partitions=[0], **how)
    assert verify_invoicing(FilePlace(root), 0)["breaks"] == []
    return token


def clock(root, day):
    """One call that moves the clock."""
    folder.append(root, [event("k1", day, f"{day}T00:00:00Z", "1")], partitions=1)
    return run(root)


def queue(root):
    return exception_records.queue(FilePlace(root))


def lots(root):
    """Exceptions about late usage by their billing period."""
    found = [item for item in queue(root).items.values() if item.opened.kind.startswith("late_usage")]
    return {item.opened.evidence[0].removeprefix("period "): item for item in found}


def act(root, what, name, code=0, author="ada", **more):
    arguments = [part for key, value in ({"reason": "agreed"} | more).items() for part in (f"--{key}", str(value))]
    assert cli.main(["exception", what, name, "--dir", str(root), "--author", author, *arguments]) == code


def deltas(root):
    return [[(line.period, line.amount, line.usage_count) for line in one.lines if line.kind == "delta"] for one in folder.invoices(root, 1)]


def open_of(token):
    return int(token.amounts["USD/open"].replace(".", ""))


def test_each_closed_billing_period_has_an_exception_of_its_own(late):
    assert {period: (item.opened.kind, str(item.opened.amount_at_risk), item.opened.currency, item.state) for period, item in lots(late).items()} == {
        "2026-01": ("late_usage", "0.070000000000", "USD", "open"), "2026-02": ("late_usage", "0.030000000000", "USD", "open"),
    }  # fmt: skip
    assert deltas(late) == [[], [], []]


def test_what_is_accepted_is_billed_with_the_next_invoice_once(late):
    january = lots(late)["2026-01"].opened.exception_id
    act(late, "accept", january)
    token = run(late)
    assert (open_of(token), deltas(late)) == ((7 + 3 + 1) * UNIT, [[], [], []])  # nothing is billed before the next close
    assert lots(late)["2026-01"].asked.author == "ada"
    clock(late, "2026-05-05")
    assert deltas(late)[3:] == [[("2026-01", 7, 1)]]
    first, *_, last = folder.invoices(late, 1)
    assert last.lines[0].delta_of == next(line.line_id for line in first.lines if line.kind == "usage")
    item = lots(late)["2026-01"]
    assert (item.state, item.resolution) == ("resolved", f"accepted by ada, billed with {last.invoice_id}")
    token = clock(late, "2026-06-05")
    assert deltas(late)[3:] == [[("2026-01", 7, 1)], []]
    assert open_of(token) == (3 + 1) * UNIT  # February's waits for a decision of its own
    assert lots(late)["2026-02"].state == "open"


def test_a_close_that_is_asked_for_bills_at_once_what_was_accepted(late):
    act(late, "accept", lots(late)["2026-02"].opened.exception_id)
    assert cli.main(["close", "--period", "2026-02", "--dir", str(late), "--reason", "now"]) == 0
    run(late)
    *_, last = folder.invoices(late, 1)
    assert (last.period.label, [(line.kind, line.period, line.amount) for line in last.lines]) == ("2026-02", [("delta", "2026-02", 3)])
    assert lots(late)["2026-02"].state == "resolved"
    clock(late, "2026-05-05")
    assert deltas(late)[4:] == [[]]


@pytest.mark.parametrize("what", ["waive", "resolve"])
def test_what_is_waived_or_settled_by_hand_is_never_billed_and_stays_open(late, what):
    january = lots(late)["2026-01"].opened.exception_id
    act(late, what, january)
    act(late, "accept", january, code=1)  # it is settled
    written(late, "accept", january)  # and past the command line as well
    token = clock(late, "2026-05-05")
    assert (deltas(late)[3:], open_of(token)) == ([[]], (7 + 3 + 1) * UNIT)
    assert lots(late)["2026-01"].state == {"waive": "waived", "resolve": "resolved"}[what]
    assert [refused.act.kind for refused in queue(late).refused] == ["accept"]


def test_of_two_decisions_the_first_counts_for_the_queue_and_for_the_flow(late, capsys):
    january = lots(late)["2026-01"].opened.exception_id
    act(late, "accept", january)
    capsys.readouterr()
    for what in ("accept", "waive", "resolve"):
        act(late, what, january, code=1)
        assert "was accepted by ada (agreed)" in capsys.readouterr().err
        written(late, what, january)
    act(late, "accept", "no such exception", code=1)
    assert "there is no exception no such exception" in capsys.readouterr().err
    written(late, "accept", "no such exception")
    clock(late, "2026-05-05")
    clock(late, "2026-06-05")
    assert deltas(late)[3:] == [[("2026-01", 7, 1)], []]
    assert len(queue(late).refused) == 4
    assert cli.main(["exception", "ls", "--dir", str(late)]) == 0
    assert "4 commands about exceptions had no effect; the last one: there is no exception no such exception" in capsys.readouterr().err


def test_what_comes_for_an_accepted_period_afterwards_waits_for_a_decision_of_its_own(late):
    first = lots(late)["2026-01"].opened.exception_id
    act(late, "accept", first)
    folder.append(late, [corrected("late 1", "2026-04-06", "12")], partitions=1)
    clock(late, "2026-05-05")  # bills what was accepted, and sets aside what came beside it
    assert deltas(late)[3:] == [[("2026-01", 7, 1)]]
    january = [item for item in queue(late).items.values() if "period 2026-01" in item.opened.evidence]
    assert sorted((item.state, str(item.opened.amount_at_risk)) for item in january) == [("open", "0.050000000000"), ("resolved", "0.070000000000")]


def test_a_contract_that_is_over_bills_what_is_accepted(tmp_path):
    root = tmp_path / "data"
    over = contract("k1", effective_to="2026-02-01T00:00:00Z", billing={"late_usage": "exception"})
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k2", "b", "2026-03-05T00:00:00Z")], [over, contract("k2")], partitions=1)
    run(root)
    folder.append(root, [event("k1", "late", "2026-01-30T00:00:00Z", "7"), event("k2", "c", "2026-04-05T00:00:00Z")], partitions=1)
    run(root)
    act(root, "accept", lots(root)["2026-01"].opened.exception_id)
    run(root)
    folder.append(root, [event("k2", "d", "2026-05-05T00:00:00Z")], partitions=1)
    run(root)
    assert [[(line.kind, line.amount) for line in one.lines] for one in folder.invoices(root, 1) if one.contract_id == "c-k1"][1:] == [[("delta", 7)]]


def test_only_a_signed_decision_counts_once_there_are_users(late):
    know(late, *governed_folders.USERS)
    january, february = (lots(late)[period].opened.exception_id for period in ("2026-01", "2026-02"))
    act(late, "accept", january, code=1, author="una")
    written(late, "accept", january, author="una")
    act(late, "accept", february, author="una", key=key_file(late.parent, "una"))
    clock(late, "2026-05-05")
    assert deltas(late)[3:] == [[("2026-02", 3, 1)]]
    assert (lots(late)["2026-01"].state, lots(late)["2026-01"].asked) == ("open", None)


def test_usage_that_came_too_late_for_any_bill_cannot_be_accepted(tmp_path):
    root, limits = tmp_path / "data", Limits(reprice_limit=40 * DAY)
    months = [f"2026-{month:02d}-10" for month in range(1, 7)]
    folder.write(root, [event("k1", day, f"{day}T00:00:00Z") for day in months], [contract("k1")], partitions=1)
    bill_with(root, limits)
    folder.append(root, [corrected("2026-01-10", "2026-06-11", "17"), corrected("2026-05-10", "2026-06-11", "13"), event("k1", "july", "2026-07-10T00:00:00Z")], partitions=1)
    bill_with(root, limits)
    (found,) = lots(root).values()
    assert (found.opened.kind, str(found.opened.amount_at_risk)) == ("late_usage_limit", "0.070000000000")
    act(root, "accept", found.opened.exception_id, code=1)
    written(root, "accept", found.opened.exception_id)
    folder.append(root, [event("k1", "august", "2026-08-10T00:00:00Z")], partitions=1)
    bill_with(root, limits)
    assert [line for lines in deltas(root) for line in lines] == [("2026-05", 3, 1)]


def test_what_is_accepted_when_its_period_has_left_the_account_is_told_as_too_late(tmp_path):
    root, limits = tmp_path / "data", Limits(reprice_limit=40 * DAY)
    days = [f"2026-{month:02d}-10" for month in range(1, 4)]
    folder.write(root, [event("k1", day, f"{day}T00:00:00Z") for day in days], [STRICT], partitions=1)
    bill_with(root, limits)
    folder.append(root, [corrected("2026-02-10", "2026-03-11", "17"), event("k1", "april", "2026-04-10T00:00:00Z")], partitions=1)
    bill_with(root, limits)
    waits = lots(root)["2026-02"].opened
    folder.append(root, [event("k1", "may", "2026-05-10T00:00:00Z")], partitions=1)
    bill_with(root, limits)
    act(root, "accept", waits.exception_id)
    folder.append(root, [event("k1", "june", "2026-06-10T00:00:00Z")], partitions=1)
    bill_with(root, limits)
    settled, beyond = sorted(queue(root).items.values(), key=lambda item: item.opened.kind)
    assert (settled.state, settled.resolution) == ("resolved", f"accepted by ada, and lies further back than anything is billed again by now: exception {beyond.opened.exception_id}")
    assert (beyond.opened.kind, beyond.state, beyond.opened.amount_at_risk) == ("late_usage_limit", "open", waits.amount_at_risk)
    assert [line for lines in deltas(root) for line in lines] == []


def test_what_is_accepted_waits_with_its_period_for_a_missing_tax_rate_and_is_billed_once_it_is_there(late):
    january = lots(late)["2026-01"].opened.exception_id
    act(late, "accept", january)
    tax = [reference("customer", "k1", {"tax_jurisdiction": "DE"}), reference("product", "llm", {"name": "llm", "tax_code": "digital"})]
    know(late, *tax, reference("tax_rate", "DE/other", {"jurisdiction": "DE", "tax_code": "other", "rate_percent": "7"}))
    charges = [charge | {"product_id": "llm"} for charge in folder.SIMPLE]
    folder.import_contracts(late, [STRICT | {"version": 2, "charges": charges}])
    clock(late, "2026-05-05")
    held = next(item for item in queue(late).items.values() if item.opened.kind == "invoice_held")
    assert (deltas(late)[3:], str(held.opened.amount_at_risk), queue(late).items[january].state) == ([], "0.080000000000", "open")  # 7 late ones and April's one
    know(late, reference("tax_rate", "DE/digital", {"jurisdiction": "DE", "tax_code": "digital", "rate_percent": "0"}))
    run(late)
    assert [line for line in deltas(late)[3] if line[1]] == [("2026-01", 7, 1)]
    assert queue(late).items[january].state == "resolved"


@pytest.mark.parametrize("slack", [invoicing.SLACK, -(10**9)])
def test_a_run_that_is_restored_after_each_step_makes_the_bytes_of_one_that_was_not(late, tmp_path, monkeypatch, slack):
    """Set aside, decided, billed: with the changes alone, and with the full state in every commit."""
    decided = lots(late)
    act(late, "accept", decided["2026-01"].opened.exception_id)
    act(late, "waive", decided["2026-02"].opened.exception_id)
    folder.append(late, [corrected("late 2", "2026-04-06", "5"), event("k1", "may", "2026-05-05T00:00:00Z"), event("k1", "june", "2026-06-05T00:00:00Z")], partitions=1)
    folder.price(late, [0])
    once, often = tmp_path / "once", tmp_path / "often"
    for copy in (once, often):
        shutil.copytree(late, copy)
    folder.bill(once, partitions=[0], rows=1)
    monkeypatch.setattr(invoicing, "SLACK", slack)
    while steps(often):
        pass
    for topic in (topics.INVOICES, topics.EXCEPTIONS):
        assert folders.output(often, 1, topic) == folders.output(once, 1, topic)
    assert deltas(often)[3:] == [[("2026-01", 7, 1)], []]
    assert verify_invoicing(FilePlace(often), 0)["breaks"] == []
    states = sorted((item.opened.evidence[0], item.state, str(item.opened.amount_at_risk)) for item in queue(often).items.values())
    assert states == [("period 2026-01", "resolved", "0.070000000000"), ("period 2026-02", "open", "0.020000000000"), ("period 2026-02", "waived", "0.030000000000")]


def steps(root):
    """One interval of a cell that was just restored; whether it committed."""
    cell = invoicing.InvoicingCell.start(FilePlace(root), 0)
    try:
        before = cell.token.sequence
        pipeline = invoicing.pipeline({0: cell}, rows=1)
        cell.take(pipeline.prepare(pipeline.sources[0].poll()))
        return cell.token.sequence > before or cell.unfinished
    finally:
        cell.close()


def test_the_state_of_another_release_is_refused(late, monkeypatch):
    monkeypatch.setattr(invoicing_state, "FORMAT", 1)
    with pytest.raises(SourceError, match="format 2, this build reads 1; run the release that wrote it"):
        invoicing.InvoicingCell.start(FilePlace(late), 0)


def bill_with(root, limits):
    folder.price(root, [0])
    cell = invoicing.InvoicingCell.start(FilePlace(root), 0, limits=limits)
    local_engine.run(invoicing.pipeline({0: cell}, rows=1000))
    cell.close()


def written(root, what, exception_id, author="eve"):
    """A command that somebody wrote past the command line."""
    at = people.START + len(queue(root).refused)
    governed_folders.send(root, exception_records.command(exception_records.Act(what, "exception", exception_id, author, at, "written")))


def test_a_close_that_is_asked_for_takes_nothing_that_finance_has_not_accepted(tmp_path):
    root = tmp_path / "data"
    folder.write(root, [event("k1", "a", "2026-01-10T00:00:00Z"), event("k1", "b", "2026-02-10T00:00:00Z")], [STRICT], partitions=1)
    run(root)
    folder.append(root, [event("k1", "late", "2026-01-20T00:00:00Z", "50")], partitions=1)
    run(root)
    assert cli.main(["close", "--period", "2026-01", "--dir", str(root), "--reason", "now"]) == 0
    run(root)
    assert [one.period.label for one in folder.invoices(root, 1)] == ["2026-01"]
    (item,) = lots(root).values()
    assert item.opened.amount_at_risk * 100 == 50
