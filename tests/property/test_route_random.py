"""Routing by columns against a plain reading of its rules, event by event."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import codecs, route_records, topics
from flows.pipeline import Prepared
from schemas import segments
from sources.lot import Lot
from tests.unit.test_aliases import RECORDS, plainly
from tieout import ids
from tieout.aliases import Aliases
from tieout.usage import EVENTS, NO_CLOCK

PARTITIONS = 3
POISON = b"\x00\x00\x00\x00\x0b\xff"
CLOUD = {"ce_id": "id", "ce_source": "source", "ce_subject": "customer_id", "ce_type": "meter", "ce_time": "time"}
TIMES = {b"1970-01-01T00:00:00.000003Z": 3, b"1970-01-01T01:00:00.000005+01:00": 5, b"1970-01-01T00:00:00.0000051Z": None, b"soon": None, b"\xff": None}
TEXTS = st.sampled_from([b"a", b"1", b"u", b"", b"\xff", None])
HEADERS = st.lists(
    st.tuples(st.sampled_from([*CLOUD, "trace"]), TEXTS).map(lambda each: each if each[0] != "ce_time" else ("trace", each[1]))
    | st.tuples(st.just("ce_time"), st.sampled_from(list(TIMES))),
    max_size=4,
)
EVENT = st.fixed_dictionaries({
    "id": st.sampled_from(["", "e"]), "source": st.sampled_from(["", "s", "t"]), "customer_id": st.sampled_from(["", "a", "b", "1", "2", "z"]),
    "meter": st.sampled_from(["", "calls"]), "time": st.integers(0, 8),
})
ROW = st.tuples(st.none() | EVENT, st.none() | HEADERS, st.integers(0, 9))


def value_of(event):
    if event is None:
        return POISON
    row = dict.fromkeys(EVENTS.names) | event | {"quantity": None, "attributes": [("region", "eu")]}
    return codecs.encode("usage_event", pa.RecordBatch.from_pylist([row], schema=EVENTS))[0].as_py()


def expected(event, headers, records):
    """The event as routed, or the reason why it is not."""
    if event is None:
        return None, "undecodable"
    found, reason = dict(event), None
    for header, name in CLOUD.items():
        given = [value for key, value in headers or () if key == header and value]
        if given and event[name] in ("", 0):
            read = TIMES[given[-1]] if header == "ce_time" else given[-1].decode(errors="replace")
            if read is None or b"\xff" in given[-1]:
                reason = "field_invalid"
            else:
                found[name] = read
    if reason is None and not found["customer_id"]:
        reason = "field_missing"
    whose = plainly(records, found["customer_id"], found["source"], found["time"])
    if reason is None and len(whose) > 1:
        reason = "customer_ambiguous"
    return (found | {"customer_id": whose[0]}, None) if reason is None else (None, reason)


@settings(max_examples=150, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=12), st.lists(RECORDS, max_size=6, unique_by=lambda each: each.position), st.integers(-3, 5))
def test_columns_route_as_single_events_would_be(rows, records, start):
    clock = NO_CLOCK if start < 0 else start
    values = [value_of(event) for event, _, _ in rows]
    headers = [None if not given else [{"key": key, "value": value} for key, value in given] for _, given, _ in rows]
    lot = Lot(
        np.arange(10, 10 + len(rows)),
        segments.records(pa.array(values, pa.large_binary()), None, np.array([at for *_, at in rows]), pa.array(headers, segments.HEADERS)),
        10 + len(rows),
    )
    aliases = Aliases()
    aliases.learn(records)
    decoded = codecs.decoder("usage_event", {}).decode(lot.records["value"])
    routed = route_records.route(Prepared(lot, decoded), aliases, clock, PARTITIONS)
    meant = [expected(event, given, records) for event, given, _ in rows]
    assert [(dead.position, dead.reason) for dead in routed.dead_letters] == [(10 + row, reason) for row, (_, reason) in enumerate(meant) if reason]
    outputs = routed.outputs()
    for partition in range(PARTITIONS):
        batch = outputs.get(topics.in_partition(topics.USAGE, partition), segments.records(pa.array([], pa.large_binary()), None, np.empty(0, np.int64)))
        here = [row for row, (found, _) in enumerate(meant) if found and ids.partition_of(found["customer_id"], PARTITIONS) == partition]
        assert batch["key"].to_pylist() == [meant[row][0]["customer_id"].encode() for row in here]
        assert batch["value"].to_pylist() == [values[row] if meant[row][0] == rows[row][0] else value_of(meant[row][0]) for row in here]
        assert batch["headers"].to_pylist() == [headers[row] for row in here]
        assert batch["timestamp"].to_pylist() == [rows[row][2] for row in here]
    assert routed.received == len(rows) == routed.records.num_rows + len(routed.dead_letters)
    assert routed.clock == max([clock, *(min(found["time"], rows[row][2]) for row, (found, _) in enumerate(meant) if found)])
