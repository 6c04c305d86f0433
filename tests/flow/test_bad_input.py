"""What a user sees when something is wrong: a message with path and remedy, the documented exit code, nothing half-written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USAGE = "time,customer_id,meter,quantity\n2026-01-01T00:00:00Z,k,m,1\n"


def tieout(*arguments, cwd):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "flows.cli", *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("name", "content", "arguments", "code", "words"),
    [
        ("x.csv", None, ("csv", "x.csv"), 1, "cannot be read"),
        ("x.csv", "a,b\n1,2\n", ("csv", "x.csv", "--map", "time=when"), 1, "no column 'when'"),
        ("x.csv", "a,b\n1,2\n", ("csv", "x.csv", "--map", "size=a"), 2, "write FIELD=COLUMN"),
        ("x.csv", USAGE + "yesterday,k,m,1\n", ("csv", "x.csv"), 1, "row 2: 'yesterday' is not a time"),
        ("x.csv", USAGE.replace(",1\n", ",1.0000000001\n"), ("csv", "x.csv"), 1, "row 1: '1.0000000001' is not a quantity"),
        ("x.csv", USAGE.replace(",k,", ",,"), ("csv", "x.csv"), 1, "'customer_id' is empty"),
        ("x.csv", "\x00\xfc\xff,\x01\n", ("csv", "x.csv"), 1, "x.csv"),
        ("x.parquet", USAGE, ("parquet", "x.parquet"), 1, "is not parquet"),
        ("x.jsonl", USAGE, ("jsonl", "x.jsonl"), 1, "line 1: is not JSON"),
        ("x.json", json.dumps([{"contract_id": "c"}]), ("contracts", "x.json"), 1, "customer_id"),
        ("x.json", json.dumps([{"contract_id": "c", "customer_id": "k", "effective_from": "2026-01-01T00:00:00Z"}, {"contract_id": "c", "customer_id": "k", "effective_from": "2026-02-01T00:00:00Z"}]), ("contracts", "x.json"), 1, "exists with other content"),
    ],
)
def test_a_file_that_cannot_be_imported_leaves_nothing_behind(tmp_path, name, content, arguments, code, words):
    if content is not None:
        (tmp_path / name).write_text(content, encoding="latin-1")
    answer = tieout("import", *arguments, "--dir", "topics", cwd=tmp_path)
    assert (answer.returncode, words in answer.stderr) == (code, True), answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "topics").exists()


def test_the_same_file_is_imported_once(tmp_path):
    (tmp_path / "x.csv").write_text(USAGE)
    first, second = (tieout("import", "csv", "x.csv", "--dir", "topics", "--output", "json", cwd=tmp_path) for _ in range(2))
    assert (json.loads(first.stdout)[0]["imported"], json.loads(second.stdout)[0]["imported"]) == (1, 0)


def test_another_number_of_partitions_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text(USAGE)
    tieout("import", "csv", "x.csv", "--dir", "topics", cwd=tmp_path)
    answer = tieout("import", "csv", "x.csv", "--dir", "topics", "--partitions", "7", cwd=tmp_path)
    assert answer.returncode == 1
    assert "has 4 partitions, 7 were asked for" in answer.stderr


def test_a_folder_that_is_none_is_refused(tmp_path):
    answer = tieout("run", "usage", "--dir", "nowhere", cwd=tmp_path)
    assert answer.returncode == 1
    assert "is no folder of topics" in answer.stderr


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a disk of its own needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("engine", ["bytewax", "local"])
def test_a_full_disk_stops_the_run_whole_and_it_goes_on_when_there_is_room(small_disk, tmp_path, engine):
    for what in (("contracts",), ("usage", "--events", "8000")):
        assert tieout("generate", *what, "--customers", "5", "--dir", "disk/topics", cwd=tmp_path).returncode == 0
    (small_disk / "ballast").write_bytes(bytes(max(0, os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize - 300_000)))
    full = tieout("run", "usage", "--dir", "disk/topics", "--engine", engine, cwd=tmp_path)
    assert full.returncode == 1, full.stdout
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(small_disk.glob("topics/*/*/.writing*"))
    (small_disk / "ballast").unlink()
    assert tieout("run", "usage", "--dir", "disk/topics", "--engine", engine, cwd=tmp_path).returncode == 0
    assert tieout("verify", "--dir", "disk/topics", cwd=tmp_path).returncode == 0


def test_a_read_only_folder_is_refused(small_disk, tmp_path):
    assert tieout("generate", "usage", "--events", "500", "--dir", "disk/topics", cwd=tmp_path).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    answer = tieout("run", "usage", "--dir", "disk/topics", cwd=tmp_path)
    assert answer.returncode == 1
    assert "cannot be written (Read-only file system)" in answer.stderr


def test_the_demo_ties_out_and_runs_again(tmp_path):
    for _ in range(2):
        answer = tieout("demo", "--dir", "demo", "--events", "20000", cwd=tmp_path)
        assert answer.returncode == 0, answer.stderr
        assert "every fate is what the generator expects" in answer.stderr
    page = next(tmp_path.glob("demo/*/report.html")).read_text()
    assert page.count("<svg") >= 4
    assert "http" not in page.replace("http://www.w3.org", "")
    invoices = next(tmp_path.glob("demo/*/invoices.html")).read_text()
    for entity in ("us-inc", "eu-gmbh"):
        numbers = re.findall(rf"{entity}-(\d{{8}})", invoices)
        assert sorted(map(int, numbers)) == list(range(1, 31)), "a number is missing, or given twice"
    assert "not numbered yet" not in invoices
