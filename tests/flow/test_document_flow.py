"""The document flow over folders: every final invoice numbered once, no gap in any series, and a kill changes nothing."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import bytewax_engine, codecs, document, document_view, invoice_records, local_engine, topics
from flows.document import DocumentCell
from flows.file_place import FilePlace
from flows.verification import verify_document
from schemas import segments
from sinks.errors import Fenced
from sinks.ingress import Ingress
from sources.errors import SourceError
from sources.files import TopicReader
from sources.merged import merge
from tests.invoices import by_partition, invoice, invoices
from tieout import ids, numbering, wide

PARTITIONS = 4
SEED = int(os.environ.get("TIEOUT_SEED", "1"))
KILLS = int(os.environ.get("TIEOUT_KILLS", "6"))


def put(root, made, name="first"):
    """Invoices into a folder."""
    ingress = Ingress.open(root, PARTITIONS)
    ingress.append(topics.INVOICES, by_partition(made, PARTITIONS), name)
    ingress.close()


def run(root, rows=25_000, engine=local_engine):
    """The flow to the end of its input; its last token."""
    cell = DocumentCell.start(FilePlace(root), PARTITIONS)
    try:
        engine.run(document.pipeline(FilePlace(root), cell, PARTITIONS, rows=rows))
        return cell.token
    finally:
        cell.close()


def numbered(root):
    """All documents, partition by partition."""
    return [list(document_view.in_partition(FilePlace(root), partition)) for partition in range(PARTITIONS)]


def records(root, topic):
    found = []
    for partition in range(PARTITIONS):
        reader = TopicReader(root, topic, partition)
        found.append(reader.read(0, reader.refresh()).to_pylist())
    return found


def rewrite(path, change):
    """Other values in a segment, in a new file: the old one is still mapped."""
    whole, start = segments.read(path).to_batches()[0], segments.first_position(path)
    values = pa.array(change(whole["value"].to_pylist()), pa.large_binary())
    segments.write(path.with_suffix(".new"), whole.set_column(1, segments.RECORDS.field("value"), values), "", start)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("engine", [local_engine, bytewax_engine])
def test_each_final_invoice_is_numbered_once_in_the_partition_of_its_legal_entity(tmp_path, engine):
    made = invoices(500)
    put(tmp_path, made)
    token = run(tmp_path, rows=37, engine=engine)
    assert {name: token.totals[name] for name in ("received", "numbered", "draft")} == {"received": 500, "numbered": 495, "draft": 5}
    found = numbered(tmp_path)
    for partition, documents in enumerate(found):
        assert {ids.partition_of(one.invoice.legal_entity_id, PARTITIONS) for one in documents} <= {partition}
    documents = [one for part in found for one in part]
    assert sorted(one.invoice for one in documents) == sorted(one for one in made if one.status == "final")
    for entity in {one.invoice.legal_entity_id for one in documents}:
        series = [one for one in documents if one.invoice.legal_entity_id == entity]
        assert [one.sequence for one in series] == list(range(1, len(series) + 1))
        assert [one.number for one in series] == [numbering.printed(entity, place) for place in range(1, len(series) + 1)]
        assert {one.invoice.kind for one in series} == {"invoice", "credit_note"}
        assert token.totals[f"numbered/{entity}"] == len(series)


def test_a_run_goes_on_where_the_last_one_ended_without_reading_what_was_numbered(tmp_path):
    made = invoices(300)
    put(tmp_path, made[:200])
    first = run(tmp_path)
    for path in tmp_path.glob(f"document/all/*/{topics.DOCUMENTS}@*.arrow"):
        rewrite(path, lambda values: [b"nothing"] * len(values))  # a restart that looked at them would fail
    put(tmp_path, made[200:], "second")
    second = run(tmp_path)
    assert (first.totals["received"], second.totals["received"], second.sequence) == (200, 300, first.sequence + 1)
    assert run(tmp_path) == second
    assert {name: count for name, count in second.totals.items() if name.startswith("numbered/")} == {
        f"numbered/{entity}": sum(one.legal_entity_id == entity and one.status == "final" for one in made) for entity in ("us-inc", "de-gmbh", "jp-kk")
    }


def test_both_engines_write_the_same_records(tmp_path):
    found = []
    for engine in (local_engine, bytewax_engine):
        root = tmp_path / engine.__name__
        put(root, invoices(200))
        run(root, 23, engine)
        found.append([records(root, topic) for topic in (topics.DOCUMENTS, document.TOKEN)])
    assert found[0] == found[1]


def test_a_document_keeps_the_record_time_of_its_invoice_and_the_key_of_its_entity(tmp_path):
    put(tmp_path, [invoice(1, random.Random(1), "us-inc")])
    run(tmp_path)
    (record,) = [record for part in records(tmp_path, topics.DOCUMENTS) for record in part]
    (source,) = [record for part in records(tmp_path, topics.INVOICES) for record in part]
    assert (record["key"], record["timestamp"]) == (b"us-inc", source["timestamp"])


def test_a_second_process_is_refused_while_one_gives_numbers(tmp_path):
    put(tmp_path, invoices(3))
    cell = DocumentCell.start(FilePlace(tmp_path), PARTITIONS)
    with pytest.raises(Fenced, match="is writing this partition"):
        DocumentCell.start(FilePlace(tmp_path), PARTITIONS)
    cell.close()


def test_an_invoice_that_cannot_be_read_ends_the_flow_and_nothing_after_it_is_numbered(tmp_path):
    put(tmp_path, invoices(5))
    before = run(tmp_path)
    home = ids.partition_of("k1", PARTITIONS)
    ingress = Ingress.open(tmp_path, PARTITIONS)
    ingress.append(topics.INVOICES, {home: segments.records(pa.array([b"\0\0\0\0\x18\xff"], pa.large_binary()), None, np.array([0]))}, "broken")
    ingress.close()
    at = TopicReader(tmp_path, topics.INVOICES, home).refresh() - 1
    put(tmp_path, invoices(5, seed=2), "second")
    with pytest.raises(SourceError, match=f"billing.invoice.v1, partition {home}: record at position {at}: .*nothing after it is numbered"):
        run(tmp_path)
    cell = DocumentCell.start(FilePlace(tmp_path), PARTITIONS)
    assert cell.token == before
    cell.close()


def test_a_voided_invoice_on_the_topic_of_unnumbered_ones_ends_the_flow(tmp_path):
    put(tmp_path, [invoice(1, random.Random(1), status="voided")])
    with pytest.raises(SourceError, match="a document of kind invoice and status voided is none that this release numbers"):
        run(tmp_path)


def test_a_cell_without_invoices_commits_once_a_day_and_the_numbers_stand(tmp_path, monkeypatch):
    put(tmp_path, invoices(20))
    before = run(tmp_path)
    cell = DocumentCell.start(FilePlace(tmp_path), PARTITIONS)
    nothing = document.prepare(merge([], cell.position))
    cell.take(nothing)
    assert cell.token == before
    monkeypatch.setattr(document, "IDLE_SECONDS", 0.0)
    cell.take(nothing)
    assert (cell.token.sequence, cell.token.totals, cell.token.positions) == (before.sequence + 1, before.totals, before.positions)
    cell.close()
    assert verify_document(FilePlace(tmp_path))["breaks"] == []


# the proof


def test_the_proof_finds_nothing_wrong_with_what_the_flow_wrote(tmp_path):
    Ingress.open(tmp_path, PARTITIONS).close()
    assert verify_document(FilePlace(tmp_path)) is None
    put(tmp_path, invoices(300))
    token = run(tmp_path, rows=41)
    proof = verify_document(FilePlace(tmp_path))
    assert (proof["breaks"], proof["intervals"], proof["head"]) == ([], token.sequence, token.chain)


def swapped(values):
    return [values[1], values[0], *values[2:]]


def repeated(values):
    return [values[0], values[0], *values[2:]]


def cheaper(values):
    batch = invoice_records.columns(pa.array(values, pa.large_binary()), "document")
    totals = wide.decimals_of([units - 1 for units in wide.integers(batch["total"])], 38, 12)
    return codecs.encode("document", batch.set_column(batch.schema.get_field_index("total"), "total", totals)).to_pylist()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swapped, ["-00000002 stands where", "-00000001 has to follow"]),
        (repeated, ["1 documents have the invoice_id of another one", "1 final invoices have no document that is the same"]),
        (cheaper, ["documents are not the same as any final invoice", "final invoices have no document that is the same"]),
    ],
)
def test_the_proof_finds_documents_that_were_changed(tmp_path, change, told):
    put(tmp_path, invoices(60))
    run(tmp_path)
    path = next(tmp_path.glob(f"document/all/*/{topics.DOCUMENTS}@*.arrow"))
    rewrite(path, change)
    breaks = " ".join(verify_document(FilePlace(tmp_path))["breaks"])
    assert "are not those that were committed" in breaks
    assert [part for part in told if part not in breaks] == []


def test_the_proof_finds_an_invoice_that_was_put_in_after_the_numbers_were_given(tmp_path):
    put(tmp_path, invoices(60))
    run(tmp_path)
    path = next(tmp_path.glob(f"ingress/*/*/{topics.INVOICES}.arrow"))
    other = invoice_records.encode([invoice(99, random.Random(9), "us-inc")]).to_pylist()
    rewrite(path, lambda values: [*other, *values[1:]])
    assert "1 final invoices have no document that is the same" in verify_document(FilePlace(tmp_path))["breaks"]


# kills


CODE = """
import sys
from pathlib import Path
from flows import {engine}, document
from flows.document import DocumentCell
from flows.file_place import FilePlace
print("fence", flush=True)
place = FilePlace(Path(sys.argv[1]))
cell = DocumentCell.start(place, 4)
print("run", flush=True)
{engine}.run(document.pipeline(place, cell, 4, rows=11))
"""


@pytest.mark.kill
@pytest.mark.parametrize("engine", ["local_engine", "bytewax_engine"])
def test_a_killed_run_started_again_skips_no_number_and_numbers_no_invoice_twice(tmp_path, engine):
    made = invoices(1500)
    whole = tmp_path / "whole"
    put(whole, made)
    run(whole, rows=11)
    rnd = random.Random(f"{engine} {SEED}")
    kills = runs = 0
    while kills < KILLS and runs < 20:
        runs += 1
        root = tmp_path / f"killed-{runs}"
        put(root, made)
        while kills < KILLS and _killed(root, engine, rnd):
            kills += 1
        _start(root, engine).communicate()
        for topic in (topics.DOCUMENTS, document.TOKEN):
            assert records(root, topic) == records(whole, topic), f"{topic}, seed {SEED}"
        assert verify_document(FilePlace(root))["breaks"] == []
    assert kills == KILLS


def _start(root: Path, engine: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CODE.format(engine=engine), str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _killed(root: Path, engine: str, rnd: random.Random) -> bool:
    """Kill a run in its restore or among its commits; False where it ended first."""
    process = _start(root, engine)
    aim = rnd.choice([b"fence", b"run", b"run"])
    for line in process.stdout:
        if line.strip() == aim:
            break
    time.sleep(rnd.uniform(0, 0.4))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True
