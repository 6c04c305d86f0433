"""Requests to the invoicing flow: what would not count is said before it is written, in the flow's own words."""

import pytest

from flows import cli, control_sums, invoicing, local_engine, topics
from flows.file_place import FilePlace
from sources.files import TopicReader
from tests.flow import governed_folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import exceptions, know
from tests.flow.invoicing_folders import contract, event
from tieout.governance import Command
from tieout.usage_state import DAY, Limits


@pytest.fixture
def root(tmp_path):
    """January is billed for k1; k2 is due and waits for a held event; k3 began in February."""
    root = tmp_path / "data"
    held = event("k2", "held", "2026-01-31T00:00:00Z", meter="stored")
    usage_ = [event("k1", "a", "2026-01-10T00:00:00Z", "700"), event("k1", "b", "2026-02-05T00:00:00Z"), held, event("k2", "c", "2026-02-05T00:00:00Z"), event("k3", "d", "2026-02-05T00:00:00Z")]
    folder.write(root, usage_, [contract("k1"), contract("k2"), contract("k3", effective_from="2026-02-01T00:00:00Z")])
    folder.run(root)
    return root


@pytest.fixture
def ask(root, capsys):
    """A command on the folder; its exit code, what it says, and whether it wrote a request."""

    def answer(*words):
        before = requests(root)
        capsys.readouterr()
        code = cli.main([*words, "--dir", str(root), "--reason", "r"])
        return code, capsys.readouterr().err, requests(root) > before

    return answer


def requests(root):
    return TopicReader(root, topics.COMMANDS, 0).refresh()


def january(root):
    return next(one for one in folder.invoices(root) if one.customer_id == "k1")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--period", "january"], 2, "names no billing period"),
        (["--period", "2026-13"], 2, "names no billing period"),
        (["--period", "2026-01", "--contract", "c-k9"], 1, "there is no contract c-k9"),
        (["--period", "2026-02", "--contract", "c-k1"], 1, "contract c-k1 has closed no billing period 2026-02; it closes by itself"),
        (["--period", "2026-01", "--contract", "c-k3"], 1, "contract c-k3 has closed no billing period 2026-01"),
        (["--period", "2026-01", "--contract", "c-k2"], 1, "contract c-k2 is due and waits: usage 'held' of source 's' is held (no_charge)"),
    ],
)
def test_a_close_that_would_not_count_says_why_and_writes_nothing(ask, words, code, said):
    got, told, wrote = ask("close", *words)
    assert (got, said in told, wrote) == (code, True, False), told


def test_a_close_of_a_closed_period_is_written_and_says_where_there_is_nothing_to_bill_yet(ask, root):
    code, told, wrote = ask("close", "--period", "2026-01", "--contract", "c-k1")
    assert (code, "nothing has come for it since it closed" in told, wrote) == (0, True, True)
    folder.bill(root)
    folder.append(root, [event("k1", "late", "2026-01-11T00:00:00Z", "7")])
    folder.run(root)
    code, told, wrote = ask("close", "--period", "2026-01", "--contract", "c-k1")
    assert (code, "nothing has come" in told, wrote) == (0, False, True)


def test_a_close_where_the_flow_never_was_says_so(tmp_path, capsys):
    folder.write(tmp_path / "data", [event("k1", "a", "2026-01-10T00:00:00Z")], [contract("k1")])
    assert cli.main(["close", "--period", "2026-01", "--contract", "c-k1", "--dir", str(tmp_path / "data"), "--reason", "r"]) == 1
    assert "the invoicing flow has not been here" in capsys.readouterr().err


def test_what_is_taken_back_twice_or_beyond_what_is_left_is_refused_before_it_is_written(ask, root):
    invoice = january(root)
    usage_, fee = invoice.lines
    assert ask("credit", invoice.invoice_id, "--amount", f"{usage_.line_id}=5.00") == (0, MARK, True)
    code, told, wrote = ask("credit", invoice.invoice_id, "--amount", f"{usage_.line_id}=2.01")
    assert (code, "has 200 minor units left" in told, wrote) == (1, True, False)  # the first one stands in the log, unread
    code, told, wrote = ask("credit", invoice.invoice_id, "--amount", f"{usage_.line_id}=0.001")
    assert (code, "an amount is no number of USD with at most 2 decimals" in told, wrote) == (1, True, False)
    code, told, wrote = ask("credit", invoice.invoice_id, "--line", "unknown")
    assert (code, "no line unknown but for tax" in told, wrote) == (1, True, False)
    folder.bill(root)
    assert ask("credit", invoice.invoice_id, "--line", fee.line_id)[0] == 0
    assert ask("void", invoice.invoice_id)[0] == 0
    code, told, wrote = ask("void", invoice.invoice_id)
    assert (code, "is taken back already" in told, wrote) == (1, True, False)
    folder.bill(root)
    assert sum(one.total for one in folder.invoices(root) if one.customer_id == "k1") == 0
    note = folder.invoices(root)[-1]
    code, told, wrote = ask("void", next(one.invoice_id for one in folder.invoices(root) if one.voids))
    assert (code, "takes another document back" in told, wrote) == (1, True, False), note
    assert exceptions(root, folder.PARTITIONS)[-1]["kind"] == "hold_no_charge"  # nothing was refused by the flow


MARK = "it counts when the invoicing flow has read it: at once where one runs, else at the next 'tieout run invoicing'\n"


def test_the_flow_judges_again_when_the_request_comes(ask, root):
    invoice = january(root)
    assert ask("void", invoice.invoice_id)[0] == 0
    governed_folders.send(root, Command("correct", "invoice", invoice.invoice_id, "robot", 2 * 10**15, "by another program"))
    folder.bill(root)
    told = exceptions(root, folder.PARTITIONS)
    assert [(one["kind"], one["object"]["id"]) for one in told if one["kind"] == "command_refused"] == [("command_refused", invoice.invoice_id)]


def test_an_unsigned_request_is_refused_once_there_are_users_and_the_flow_tells_of_one_by_another_program(ask, root):
    know(root, *governed_folders.USERS)
    for words in (["close", "--period", "2026-01"], ["void", january(root).invoice_id]):
        code, told, wrote = ask(*words, "--author", "una")
        assert (code, "the command is not signed" in told, wrote) == (1, True, False)
    governed_folders.send(root, Command("close", "period", "2026-01", "una", 2 * 10**15, "unsigned"))
    folder.bill(root)
    (told,) = [one for one in exceptions(root, folder.PARTITIONS) if one["kind"] == "command_refused"]
    assert (told["object"], told["customer_id"]) == ({"type": "period", "id": "2026-01"}, "")


def test_a_credit_of_an_invoice_whose_period_has_left_its_account_counts_what_its_notes_took_back(tmp_path, capsys):
    root, limits = tmp_path / "data", Limits(reprice_limit=60 * DAY)
    folder.write(root, [event("k1", at, f"2026-{at}-10T00:00:00Z", "100") for at in ("01", "02")], [contract("k1")], partitions=1)

    def run():
        folder.price(root, [0])
        cell = invoicing.InvoicingCell.start(FilePlace(root), 0, limits=limits)
        local_engine.run(invoicing.pipeline({0: cell}, rows=1000))
        account = cell.fold.closing.account("c-k1")
        cell.close()
        return account

    run()
    (first,) = folder.invoices(root, 1)
    line = first.lines[0].line_id
    where = ["--dir", str(root), "--reason", "r"]
    assert cli.main(["credit", first.invoice_id, "--amount", f"{line}=0.60", *where]) == 0
    assert len(run().released) == 1
    folder.append(root, [event("k1", f"{month:02}", f"2026-{month:02}-10T00:00:00Z") for month in range(3, 8)], partitions=1)
    assert run().released == ()
    assert cli.main(["credit", first.invoice_id, "--amount", f"{line}=0.41", *where]) == 1
    assert "has 40 minor units left" in capsys.readouterr().err
    governed_folders.send(root, Command("correct", "invoice", first.invoice_id, "robot", 2 * 10**15, "too much", f'{{"amounts": {{"{line}": "0.41"}}}}'))
    assert cli.main(["credit", first.invoice_id, "--amount", f"{line}=0.40", *where]) == 0
    assert run().released == ()
    assert [one.total for one in folder.invoices(root, 1) if one.credits_invoice] == [-60, -40]
    (told,) = exceptions(root, 1)
    assert "has 40 minor units left" in told["message"]


def test_a_full_state_that_replaces_the_one_that_is_looked_at_makes_nothing_unknown(ask, root, monkeypatch):
    cut, looked = control_sums.cut, []

    def overtaken(place, partition):
        at = cut(place, partition)
        if not looked:
            looked.append(at)
            monkeypatch.setattr(invoicing, "SLACK", -(10**9))
            folder.bill(root)
        return at

    folder.append(root, [event("k1", "later", "2026-02-06T00:00:00Z")])
    folder.price(root)
    monkeypatch.setattr(control_sums, "cut", overtaken)
    assert ask("void", january(root).invoice_id)[0] == 0
    assert looked
