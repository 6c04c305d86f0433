"""Control totals over a folder whose topics somebody has changed: one exception with the right amount, and the records."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from flows import cli, codecs, control, invoice_records, topics, usage
from flows import token as tokens
from flows.file_place import FilePlace
from flows.verification import verify_invoicing
from schemas import segments
from tests.flow import folders
from tests.flow import invoicing_folders as folder
from tests.flow.governed_folders import exceptions
from tests.flow.invoicing_folders import contract, event

USAGE = [
    event("k1", "a", "2026-01-10T00:00:00Z", "100"), event("k1", "b", "2026-01-11T00:00:00Z", "7"), event("k1", "c", "2026-02-05T00:00:00Z", "5"),
    event("k2", "d", "2026-01-12T00:00:00Z", "30"), event("k2", "e", "2026-03-05T00:00:00Z", "1"),
]  # fmt: skip


@pytest.fixture
def root(tmp_path):
    """January and February are billed, of March a cent is open; one partition."""
    root = tmp_path / "data"
    folder.write(root, USAGE, [contract("k1"), contract("k2")], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    return root


def check(root):
    return control.once(FilePlace(root))


def change(root, topic, change_):
    """Rewrite the one segment of a topic."""
    (path,) = [path for path in root.glob(f"*/*/*/{topic}.arrow") if segments.count(path)]
    changed = change_(pa.Table.from_pylist(segments.read(path).to_pylist(), segments.RECORDS))  # a copy: the file is mapped
    segments.write(path, changed.combine_chunks(), topic, segments.first_position(path))


def rated(root):
    values = [value for part in folders.output(root, 1, topics.RATED) for value in part]
    return codecs.own("rated_usage").decode(pa.array(values, pa.large_binary())).batch.to_pylist()


def told(root):
    return exceptions(root, 1)


def without(position):
    return lambda table: pa.concat_tables([table.slice(0, position), table.slice(position + 1)])


def altered(position, **fields):
    """A rated record with other content under its id."""

    def change_(table):
        rows = codecs.own("rated_usage").decode(table["value"].combine_chunks()).batch
        row = rows.slice(position, 1).to_pylist()[0] | fields
        value = codecs.encode("rated_usage", pa.RecordBatch.from_pylist([row], schema=rows.schema))
        values = table["value"].to_pylist()
        values[position] = value[0].as_py()
        return table.set_column(1, segments.RECORDS.field("value"), pa.array(values, pa.large_binary()))

    return change_


def test_on_topics_as_the_flows_wrote_them_nothing_is_opened(root):
    assert check(root) == ({0: 0}, 0, 0)
    assert told(root) == []


@pytest.mark.parametrize("seed", range(3))
def test_disturbed_usage_with_late_corrections_ties_out_at_every_stage(tmp_path, seed):
    root, usage_ = tmp_path / "data", folders.events(seed, 900, 4)
    contracts = [folders.contract(f"k{n}") for n in range(4)]
    again = [folders.contract(f"k{n}", 2, "2026-01-15T00:00:00Z") for n in range(2)]
    for number, (lot, new) in enumerate(((usage_[:500], contracts), (usage_[500:], again), ([event("k0", "march", "2026-03-10T00:00:00Z")], []))):
        folders.write(root, lot, new)
        folder.price(root, rows=100 + number)
        folder.bill(root, rows=90)
        assert check(root) == ({0: 0, 1: 0}, 0, 0)


def test_a_rated_record_that_is_gone_opens_one_exception_with_its_amount_and_its_name(root):
    gone = next(number for number, row in enumerate(rated(root)) if row["usage"]["id"] == "b")
    name = rated(root)[gone]["rated_id"]
    change(root, topics.RATED, without(gone))
    assert check(root) == ({0: 1}, 1, 0)
    (one,) = told(root)
    assert (one["kind"], one["object"], one["customer_id"], one["owner"]) == ("control_total", {"type": "contract", "id": "c-k1"}, "k1", "billing")
    assert (str(one["amount_at_risk"]), one["currency"], one["state"]) == ("-0.070000000000", "USD", "open")
    assert one["evidence"][:3] == [
        "period 2026-01", "rated 1.000000000000 in 1 records, billed 1.070000000000 in 2 records, open 0.000000000000 in 0 records",
        f"usage.rated.v1 no longer has rated record {name}",
    ]  # fmt: skip
    assert check(root) == ({0: 1}, 0, 0)
    assert len(told(root)) == 1


def test_a_rated_record_with_another_amount_is_told_with_the_interval_that_does_not_have_its_digest_any_more(root):
    at = next(number for number, row in enumerate(rated(root)) if row["usage"]["id"] == "d")
    row = rated(root)[at]
    change(root, topics.RATED, altered(at, amount=row["amount"] + 1))
    check(root)
    (one,) = told(root)
    assert (one["object"]["id"], str(one["amount_at_risk"]), one["evidence"][0]) == ("c-k2", "1.000000000000", "period 2026-01")
    assert "usage-0-1: usage.rated.v1 records 0 to 4 are not those that were committed" in one["evidence"]
    assert f"usage.rated.v1 position {at}: rated record {row['rated_id']}, 1.300000000000" in one["evidence"]


def test_a_rated_record_by_other_hands_is_told_although_it_was_billed_like_any_other(root):
    foreign = rated(root)[0] | {"rated_id": "f" * 32, "amount": rated(root)[0]["amount"] * 4}
    change(root, topics.RATED, lambda table: pa.concat_tables([table, altered(0, rated_id=foreign["rated_id"], amount=foreign["amount"])(table.slice(0, 1))]))
    folder.bill(root, partitions=[0])
    assert check(root) == ({0: 1}, 1, 0)
    (one,) = told(root)
    assert (str(one["amount_at_risk"]), one["evidence"][0]) == ("-4.000000000000", "period 2026-01")
    assert one["evidence"][2] == f"the usage flow did not write usage.rated.v1 position 5: rated record {'f' * 32}, 4.000000000000"


def test_an_invoice_by_other_hands_is_told_by_its_position(root):
    copied = next(one for one in folder.invoices(root, 1) if (one.contract_id, one.period.label) == ("c-k1", "2026-01"))
    value = invoice_records.encode([copied._replace(invoice_id="forged")])

    def forge(table):
        last = table.slice(table.num_rows - 1).set_column(1, segments.RECORDS.field("value"), value)
        return pa.concat_tables([table, last])

    end = len(folder.invoices(root, 1))
    change(root, topics.INVOICES, forge)
    check(root)
    (one,) = told(root)
    assert (one["object"]["id"], str(one["amount_at_risk"])) == ("c-k1", "-1.070000000000")
    assert one["evidence"][2] == f"no interval of the invoicing flow counts billing.invoice.v1 position {end}: document forged, 1.070000000000"


def test_a_rated_record_that_cannot_be_read_any_more_is_missed(root):
    name = rated(root)[0]["rated_id"]
    spoilt = lambda table: table.set_column(1, segments.RECORDS.field("value"), pa.array([folders.POISON, *table["value"].to_pylist()[1:]], pa.large_binary()))
    change(root, topics.RATED, spoilt)
    assert check(root) == ({0: 1}, 1, 0)
    (one,) = told(root)
    assert (str(one["amount_at_risk"]), one["evidence"][2]) == ("-1.000000000000", f"usage.rated.v1 no longer has rated record {name}")


def test_what_is_open_counts(root):
    at = next(number for number, row in enumerate(rated(root)) if row["usage"]["id"] == "e")
    change(root, topics.RATED, without(at))
    check(root)
    (one,) = told(root)
    assert (one["object"]["id"], str(one["amount_at_risk"]), one["evidence"][0]) == ("c-k2", "-0.010000000000", "period 2026-03")


def test_it_is_over_when_it_ties_out_again_and_another_when_it_comes_back(root):
    gone = next(number for number, row in enumerate(rated(root)) if row["usage"]["id"] == "b")
    kept = {}

    def remove(table):
        kept["table"] = table
        return without(gone)(table)

    for opened in (1, 2):
        change(root, topics.RATED, remove)
        assert check(root) == ({0: 1}, 1, 0)
        change(root, topics.RATED, lambda _: kept["table"])
        assert check(root) == ({0: 0}, 0, 1)
        assert len({one["exception_id"] for one in told(root)}) == opened
    assert [(one["state"], one["resolution"]) for one in told(root)] == [("open", None), ("resolved", "it ties out again")] * 2


def test_the_queue_shows_it_and_what_a_person_has_settled_is_not_opened_again_until_its_amount_moves(root, capsys):
    change(root, topics.RATED, without(0))
    assert cli.main(["run", "control", "--dir", str(root)]) == 3
    capsys.readouterr()
    where = ["--dir", str(root), "--output", "json"]
    assert cli.main(["exception", "ls", *where]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["kind"], row["amount_at_risk"], row["currency"], row["object"]["id"]) == ("control_total", "-1.000000000000", "USD", "c-k1")
    assert cli.main(["exception", "resolve", row["exception_id"], "--reason", "written off", *where]) == 0
    assert check(root) == ({0: 1}, 0, 0)
    change(root, topics.RATED, without(0))
    assert check(root) == ({0: 1}, 1, 0)
    assert str(told(root)[-1]["amount_at_risk"]) == "-1.070000000000"


def test_an_amount_that_moves_on_gives_one_exception_after_the_other(root):
    change(root, topics.RATED, without(0))
    check(root)
    change(root, topics.RATED, without(0))
    assert check(root) == ({0: 1}, 1, 1)
    assert sorted((str(one["amount_at_risk"]), one["state"]) for one in told(root)) == [("-1.000000000000", "open"), ("-1.000000000000", "resolved"), ("-1.070000000000", "open")]
    assert check(root) == ({0: 1}, 0, 0)


def test_an_interval_of_the_usage_flow_that_does_not_add_up_is_told_once(root):
    def lose(table):
        (token,) = tokens.decode(table["value"].combine_chunks())
        counts = token.counts | {"priced": token.counts["priced"] - 1}
        return table.set_column(1, segments.RECORDS.field("value"), pa.array([tokens.encode(replace(token, counts=counts))], pa.large_binary()))

    change(root, usage.TOKEN, lose)
    assert check(root) == ({0: 1}, 1, 0)
    assert check(root) == ({0: 1}, 0, 0)
    (one,) = told(root)
    assert (one["object"], one["amount_at_risk"]) == ({"type": "interval", "id": "usage-0-1"}, None)
    assert "usage-0-1" in one["message"] and "the totals are not the sum of the intervals" in one["message"]


def test_verify_says_the_same_by_contract_and_billing_period(root):
    change(root, topics.RATED, without(0))
    assert "contract c-k1: of billing period 2026-01, 0.070000000000 USD is rated, 1.070000000000 is billed, 0.000000000000 is open" in verify_invoicing(FilePlace(root), 0)["breaks"]


def test_a_folder_without_invoices_has_nothing_to_check(tmp_path):
    folder.write(tmp_path / "data", USAGE, [contract("k1"), contract("k2")])
    assert check(tmp_path / "data") == ({0: 0, 1: 0}, 0, 0)
    assert cli.main(["run", "control"]) == 2


def test_a_topic_that_is_trimmed_while_invoicing_is_behind_breaks_nothing(tmp_path):
    root = tmp_path / "data"
    folder.write(root, [event("k1", f"a{day}", f"2026-01-{day}T00:00:00Z") for day in range(10, 15)], [contract("k1")], partitions=1)
    for month in ("03", "04"):
        folder.price(root, [0])
        folder.bill(root, partitions=[0])
        folder.append(root, [event("k1", f"{month} {day}", f"2026-{month}-{day}T00:00:00Z") for day in range(10, 15)], partitions=1)
    folder.price(root, [0])
    folder.bill(root, partitions=[0])
    min(root.glob(f"*/*/*/{topics.RATED}.arrow")).unlink()
    reader = FilePlace(root).reader(topics.RATED, 0)
    assert (reader.refresh(), reader.start) == (15, 5)
    assert check(root) == ({0: 0}, 0, 0)
    folder.append(root, [event("k1", f"more {day}", f"2026-04-{day}T00:00:00Z") for day in range(20, 23)], partitions=1)
    folder.price(root, [0])
    assert check(root) == ({0: 0}, 0, 0)
    folder.bill(root, partitions=[0])
    assert check(root) == ({0: 0}, 0, 0)
