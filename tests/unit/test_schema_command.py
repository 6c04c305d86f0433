"""``tieout schema lint`` and ``check`` without a registry: against a folder, and against a git revision."""

import argparse
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from flows.cli import CommandError
from flows.commands import released, schema
from schemas import catalog

AVRO = Path(catalog.__file__).parent / "avro"


def options(what, *files, **more):
    return argparse.Namespace(**{"what": what, "files": [str(file) for file in files], "registry": None, "against": None, "lock": "schema-lock.json", "output": "ndjson", **more})


def answer(capsys, *arguments, **more):
    code = schema.run(options(*arguments, **more))
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def results(rows, against=None):
    return {(row["schema"], row["result"], row["path"]) for row in rows if against is None or row["against"] == against}


def coarser(text):
    assert '"scale": 9' in text
    return text.replace('"scale": 9', '"scale": 6')


def test_lint_finds_nothing_in_the_catalogue(capsys):
    code, rows = answer(capsys, "lint")
    assert code == 0
    assert [(row["schema"], row["result"]) for row in rows] == [(name, "clean") for name in catalog.names()]


def test_lint_of_a_folder_says_which_field_and_ends_with_3(tmp_path, capsys):
    fields = [{"name": "amount", "type": "double", "doc": "Money."}]
    (tmp_path / "shop.order.v1.avsc").write_text(json.dumps({"type": "record", "name": "Order", "doc": "An order.", "fields": fields}))
    code, rows = answer(capsys, "lint", tmp_path)
    assert code == 3
    assert results(rows) == {("shop.order.v1", "money_float", "amount")}


def test_lint_of_a_file_that_is_no_json_says_where(tmp_path):
    path = tmp_path / "x.avsc"
    path.write_text("{")
    with pytest.raises(CommandError, match=r"x\.avsc: cannot be read as JSON.*give an \.avsc file"):
        schema.run(options("lint", path))


def test_check_without_anything_to_compare_with_is_a_usage_error():
    with pytest.raises(CommandError, match="give --registry URL, --against") as refused:
        schema.run(options("check"))
    assert refused.value.code == 2


@pytest.mark.parametrize("what", ["register", "lock"])
def test_what_needs_a_registry_says_so(what):
    with pytest.raises(CommandError, match=f"schema {what}: give --registry URL") as refused:
        schema.run(options(what))
    assert refused.value.code == 2


def test_check_against_a_folder_finds_a_changed_scale_that_avro_accepts(tmp_path, capsys):
    (tmp_path / "rated_usage.avsc").write_text(coarser((AVRO / "rated_usage.avsc").read_text()))
    code, rows = answer(capsys, "check", AVRO / "rated_usage.avsc", AVRO / "hold.avsc", against=str(tmp_path))
    assert code == 3
    assert results(rows, str(tmp_path)) == {("rated_usage", "scale_changed", "quantity"), ("rated_usage", "scale_changed", "event.quantity"), ("hold", "new", "")}


def test_check_against_the_catalogue_itself_finds_nothing(capsys):
    code, rows = answer(capsys, "check", against=str(AVRO))
    assert code == 0
    assert {row["result"] for row in rows} == {"clean", "same"}


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with the catalogue released as v1."""
    folder = tmp_path / "schemas" / "avro"
    shutil.copytree(AVRO, folder)
    shutil.copy(AVRO.parent / "lock.json", tmp_path / "schemas" / "lock.json")

    def git(*arguments):
        named = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *named, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "v1")
    git("tag", "v1")
    return folder


def test_check_against_a_revision_compares_the_files_with_what_was_committed(checkout, capsys):
    path = checkout / "rated_usage.avsc"
    path.write_text(coarser(path.read_text()))
    code, rows = answer(capsys, "check", checkout, against="v1")
    assert code == 3
    assert {row for row in results(rows, "v1") if row[1] != "same"} == {("rated_usage", "scale_changed", "quantity"), ("rated_usage", "scale_changed", "event.quantity")}
    assert len(results(rows, "v1")) == len(list(checkout.glob("*.avsc"))) + 1  # two findings in one of them


def test_check_against_a_revision_that_is_none_says_so(checkout):
    with pytest.raises(CommandError, match=r"--against v9: is neither a folder nor a revision.*give a tag"):
        schema.run(options("check", checkout, against="v9"))


def test_check_of_the_catalogue_against_a_release_finds_schemas_that_are_gone_and_ids_that_changed_their_meaning(tmp_path, capsys):
    shutil.copytree(AVRO, tmp_path / "avro")
    lock = json.loads((AVRO.parent / "lock.json").read_text())
    lock["hold"]["fingerprint"] = "0"
    (tmp_path / "lock.json").write_text(json.dumps(lock))
    (tmp_path / "avro" / "gone.avsc").write_text((AVRO / "hold.avsc").read_text())
    (tmp_path / "avro" / "hold.10.avsc").write_text((AVRO / "hold.avsc").read_text())
    against = str(tmp_path / "avro")
    code, rows = answer(capsys, "check", against=against)
    assert code == 3
    assert {row for row in results(rows, against) if row[1] != "same"} == {("gone", "schema_lost", ""), ("hold", "id_reused", "")}
    assert "schemas/avro/hold.16.avsc" in next(row["message"] for row in rows if row["result"] == "id_reused")


def test_the_lock_file_of_a_release_is_found_beside_its_schemas_in_git(checkout):
    assert released.pinned("v1", checkout) == json.loads((AVRO.parent / "lock.json").read_text())
    assert [name for name in sorted(released.schemas("v1", checkout)) if "." not in name] == catalog.names()


def test_a_schema_that_cannot_be_parsed_is_one_finding_and_not_compared(checkout, capsys):
    path = checkout / "hold.avsc"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fields": [{"name": "a", "type": "Gone", "doc": "A."}]}))
    code, rows = answer(capsys, "check", path, against="v1")
    assert code == 3
    assert [row["result"] for row in rows] == ["invalid", "invalid"]
