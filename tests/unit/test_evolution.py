"""Producers and consumers of four releases at once: every reader reads every writer, and no identity is counted twice."""

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from flows import local_engine, publish, topics, usage
from flows.file_place import FilePlace
from schemas import catalog
from schemas.codec import Decoder
from schemas.compatibility import backward, forward
from schemas.lint import lint
from schemas.lint_change import changes
from sinks.ingress import Ingress
from tests import versions
from tests.flow import folders
from tests.versions import NAMES
from tieout.dedup import CONFLICT, DUPLICATE, NEW, Seen
from tieout.usage import content_digests, identities

EVENTS, RATED = versions.usage_event(), versions.rated_usage()
IDS = dict(zip(NAMES, (101, 102, 11, 103), strict=True))
"""The registry's ids; this release's own is the catalogue's."""
RATED_IDS = dict(zip(NAMES, (201, 202, 15, 203), strict=True))


def values(rows: list[bytes]) -> pa.Array:
    return pa.array(rows, pa.large_binary())


def writers(schemas: dict, ids: dict) -> dict:
    return {ids[name]: schemas[name] for name in NAMES}


def fitting(record: dict, avro: dict) -> dict:
    return {field["name"]: record[field["name"]] for field in avro["fields"] if field["name"] in record}


def written(name: str, record: dict) -> bytes:
    return versions.framed(IDS[name], EVENTS[name], fitting(record, EVENTS[name]))


def python(column: pa.Array) -> list:
    """A column's values as fastavro gives them: maps as dicts."""
    kind = column.type
    return [dict(value) if value is not None and pa.types.is_map(kind) else value for value in column.to_pylist()]


@pytest.mark.parametrize("schemas", [EVENTS, RATED], ids=["usage", "rated"])
def test_every_release_follows_the_one_before_without_a_finding(schemas):
    for older, newer in zip(NAMES, NAMES[1:], strict=False):
        assert backward(schemas[older], schemas[newer]) == forward(schemas[older], schemas[newer]) == []
        assert changes(schemas[older], schemas[newer], forward=True) == []
        assert lint(schemas[newer]) == []


@pytest.mark.parametrize("reader", NAMES)
def test_a_reader_of_any_release_reads_usage_of_all_four_mixed_in_one_batch(reader):
    extra = {"contract_id": "c1", "amount": Decimal("1.5"), "corrects": {"source": "s", "id": "x"}, "trace": "t", "origin": {"host": "h", "weights": [Decimal("0.5")]}}
    sent = [(name, versions.event(i, **(extra if i % 5 == 0 else {}))) for i in range(120) for name in (NAMES[i % 4], NAMES[(i * 7 + 1) % 4])]
    rows = [written(name, record) for name, record in sent]
    decoded = Decoder(EVENTS[reader], writers(EVENTS, IDS)).decode(values(rows))
    assert decoded.rejected == []
    assert decoded.rows.tolist() == list(range(len(rows)))
    expected = [versions.read(row, EVENTS[name], EVENTS[reader]) for row, (name, _) in zip(rows, sent, strict=True)]
    for field in EVENTS[reader]["fields"]:
        name = field["name"]
        assert python(decoded.batch[name]) == [record[name] for record in expected], name


@pytest.mark.parametrize("reader", NAMES)
def test_a_downstream_reader_of_any_release_reads_rated_usage_of_all_four(reader):
    def record(i: int, name: str) -> dict:
        kinds = {"N-2": "correction", "N+1": "rebate"}
        cause = {"kind": kinds.get(name, "carry"), "ref": "r", "from_version": None, "to_version": i, "ref_source": "s"}
        texts = dict.fromkeys(("rated_id", "correlation_id", "batch_id", "customer_id", "contract_id", "charge_id", "product_id", "legal_entity_id", "meter", "billing_period"), f"x{i}")
        money = {"quantity": Decimal(-i) / 1000, "amount": Decimal(i) / 10**12, "currency": "USD", "contract_version": 2, "time": datetime(2026, 1, 1, tzinfo=UTC)}
        return {**texts, **money, "usage": {"source": "s", "id": str(i)}, "cause": cause, "group": ["eu", None], "tax_code": "t"}

    sent = [(NAMES[i % 4], record(i, NAMES[i % 4])) for i in range(80)]
    rows = [versions.framed(RATED_IDS[name], RATED[name], fitting(given, RATED[name])) for name, given in sent]
    decoded = Decoder(RATED[reader], writers(RATED, RATED_IDS)).decode(values(rows))
    assert decoded.rejected == []
    expected = [versions.read(row, RATED[name], RATED[reader]) for row, (name, _) in zip(rows, sent, strict=True)]
    for field in RATED[reader]["fields"]:
        assert decoded.batch[field["name"]].to_pylist() == [row[field["name"]] for row in expected], field["name"]
    assert sum(decoded.batch["amount"].to_pylist()) == sum(given["amount"] for _, given in sent)
    known = RATED[reader]["fields"][4]["type"]["fields"][0]["type"]["symbols"]
    kinds = [given["cause"]["kind"] for _, given in sent]
    assert [row["kind"] for row in decoded.batch["cause"].to_pylist()] == [kind if kind in known else "unknown" for kind in kinds]


def test_an_event_has_one_digest_whichever_release_wrote_it():
    """25,000 events, each four times: what N-2 cannot say is absent in all, what N+1 adds is not of this release."""
    usage_events = [versions.event(i) for i in range(500)]
    decoder = Decoder(catalog.load("usage_event"), writers(EVENTS, IDS))
    copies = {name: decoder.decode(values([written(name, record | {"trace": "again"}) for record in usage_events] * 50)).batch for name in NAMES}
    expected = content_digests(copies["N"])
    assert len(np.unique(expected)) == 500
    for name in NAMES:
        assert np.array_equal(content_digests(copies[name]), expected), name


def test_a_redelivery_under_another_schema_is_a_duplicate_and_other_content_a_conflict():
    rng = np.random.default_rng(11)
    sent = [(NAMES[place], versions.event(i)) for i in range(300) for place in rng.permutation(4)]
    order = rng.permutation(len(sent))
    rows = [written(*sent[place]) for place in order]
    rows += [written(name, versions.event(i, quantity=Decimal(999))) for i, name in enumerate(NAMES)]
    rows += [written("N", versions.event(4, contract_id="c9")), written("N+1", versions.event(5, trace="retry 2"))]
    events = Decoder(catalog.load("usage_event"), writers(EVENTS, IDS)).decode(values(rows)).batch
    time = events["time"].cast(pa.int64()).to_numpy()
    verdicts = Seen(10**15).judge(identities(events["source"], events["id"]), content_digests(events), time, np.maximum.accumulate(time), np.arange(len(rows)))
    assert Counter(verdicts.kind[: len(sent)].tolist()) == {NEW: 300, DUPLICATE: 900}
    assert verdicts.kind[len(sent) :].tolist() == [CONFLICT] * 5 + [DUPLICATE]


def test_the_flow_counts_each_event_of_four_releases_once_and_old_consumers_read_what_it_rated(tmp_path):
    sent = [versions.event(i) for i in range(240)]
    rows = [written(NAMES[(i + turn) % 4], record) for turn in range(4) for i, record in enumerate(sent)]
    (tmp_path / "schemas").mkdir()
    for name in ("N-2", "N-1", "N+1"):
        (tmp_path / "schemas" / f"{IDS[name]}.avsc").write_text(json.dumps(EVENTS[name]))
    ingress = Ingress.open(tmp_path, 2)
    publish.contracts(ingress, [folders.contract(f"k{i}") for i in range(7)], 2, "contracts")
    customers = pa.array([record["customer_id"] for record in sent] * 4)
    stamps = np.full(len(rows), int(datetime(2026, 1, 6, tzinfo=UTC).timestamp()) * 1_000_000)
    publish.usage(ingress, values(rows), customers, stamps, 2, "usage")
    ingress.close()
    pipeline = usage.pipeline(FilePlace(tmp_path), range(2), rows=100)
    local_engine.run(pipeline)
    tokens = [cell.token for cell in pipeline.cells.values()]
    for cell in pipeline.cells.values():
        cell.close()
    counts = {name: sum(token.totals[name] for token in tokens) for name in ("received", "priced", "duplicate", "conflict", "rejected", "waiting")}
    assert counts == {"received": 960, "priced": 240, "duplicate": 720, "conflict": 0, "rejected": 0, "waiting": 0}
    total = sum(record["quantity"] for record in sent) * Decimal("0.01")
    for name in NAMES:
        rated = [Decoder(RATED[name], {15: catalog.load("rated_usage").avro}).decode(values(part)).batch for part in folders.output(tmp_path)]
        assert sum(sum(batch["amount"].to_pylist()) for batch in rated) == total, name
    assert folders.output(tmp_path, topic=topics.EXCEPTIONS) == [[], []]
