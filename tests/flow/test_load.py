"""The load of `tieout dev`: usage as if it happened now, with fates that are known beforehand."""

import pyarrow as pa
import pytest

from flows import codecs, generate, local_engine, publish, usage
from flows.file_place import FilePlace
from flows.stack import load
from sinks.ingress import Ingress

FIRST_AT = 1_790_000_000_000_000
EVERY = 2_000
ROWS = 12_000


@pytest.fixture(scope="module")
def made():
    return load.live(3, ROWS, 40, FIRST_AT, EVERY)


def test_every_event_has_the_fate_that_the_generator_expects(tmp_path, made):
    ingress = Ingress.open(tmp_path, 2)
    publish.contracts(ingress, generate.contracts(3, 40), 2, "contracts")
    publish.usage(ingress, made.values, made.keys, made.record_time, 2, "usage")
    ingress.close()
    pipeline = usage.pipeline(FilePlace(tmp_path), range(2))
    local_engine.run(pipeline)
    counted = {fate: sum(cell.token.totals[fate] for cell in pipeline.cells.values()) for fate in made.expected}
    assert counted == made.expected
    assert min(counted.values()) > 0


def test_it_is_sent_at_a_steady_rate_and_what_comes_again_keeps_its_time(made):
    assert made.record_time.tolist() == list(range(FIRST_AT, FIRST_AT + ROWS * EVERY, EVERY))
    decoded = codecs.own("usage_event").decode(made.values)
    times = {}
    for event in decoded.batch.select(["id", "time"]).to_pylist():
        times.setdefault(event["id"], set()).add(event["time"])
    assert all(len(found) == 1 for found in times.values())
    assert len(times) < len(decoded.rows)
    newest = decoded.batch["time"].cast(pa.int64()).to_numpy()
    assert (newest <= made.record_time[decoded.rows]).all()


def test_two_rounds_have_no_event_in_common(made):
    following = load.live(3, ROWS, 40, FIRST_AT + ROWS * EVERY, EVERY)
    ids = [set(codecs.own("usage_event").decode(one.values).batch["id"].to_pylist()) for one in (made, following)]
    assert not ids[0] & ids[1]
