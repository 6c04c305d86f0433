"""The catalogue of metrics, what a cell counts, and how long its input has waited."""

from collections import Counter as Tally
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from flows import local_engine, metrics, topics, usage
from flows import token as tokens
from flows.backlog import Backlog
from flows.file_place import FilePlace
from flows.flow_metrics import CAUSES, FlowMetrics, Interval
from flows.token import Token
from sources.files import TopicReader
from tests.flow import folders
from tieout.repricing_jobs import Job
from tieout.stage import NAMES
from tieout.usage import EVENTS, Rejected
from tieout.usage_stage import UsageBatch, UsageState, step

ROOT = Path(__file__).parents[2]
NOTHING = Interval({}, {}, {}, {})
LIBRARY = sorted(metric.name for metric in metrics.CATALOGUE if metric.library)


class Hands:
    """A clock that is set by hand."""

    def __init__(self, at=1_000_000.0):
        self.at = at

    def __call__(self):
        return self.at


def samples(flow_metrics):
    """The scrape as {(name, labels without flow): value}."""
    text = flow_metrics.exposition("")[0].decode()
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "flow")): sample.value
        for family in text_string_to_metric_families(text) for sample in family.samples
    }


def token(sequence, counts, totals, partition=0, **more):
    waiting = totals.get("held", 0) - totals.get("released", 0)
    return Token("usage", partition, sequence, counts=counts, totals=totals | {"waiting": waiting}, **more)


def intervals(rows):
    """Tokens of successive intervals, from their counts."""
    sums, made = Tally(), []
    for sequence, counts in enumerate(rows, 1):
        sums.update(counts)
        made.append(token(sequence, counts, dict(sums), written={topics.RATED: sums["priced"]}, clock=sequence * 10**6))
    return made


def told(flow_metrics):
    """Everything that a cell can tell, once."""
    flow_metrics.restoring(0)
    flow_metrics.restored(Token("usage", 0, 0), 0.5)
    flow_metrics.lag(0, 0, 10)
    flow_metrics.turned()
    flow_metrics.checked({0: 2}, 1_000_000.0)
    flow_metrics.paused(0, "registry")
    counts = dict.fromkeys(NAMES, 1) | {"invoices": 1, "line_usage": 2, "waits_tax_rate": 1}  # as if all flows were one
    interval = Interval({"too_late": 1}, {"usage_conflict": 1}, {"ids": 3, "chains": 2, "held": 1}, {"decode": 0.1, "fold": 0.2, "encode": 0.1, "commit": 0.04}, latencies=(90_000.0,))
    flow_metrics.committed(token(1, counts, counts, clock=10**6, oldest_held_at=5 * 10**5, written={topics.RATED: 7}), interval)
    return flow_metrics


def test_invoices_are_counted_by_kind_from_the_token_and_what_waits_as_it_stands():
    flow_metrics = FlowMetrics("invoicing", [0], fates=("taken",))
    first = Token("invoicing", 0, 7, counts={"received": 0, "waits_tax_rate": 2}, totals={"received": 9, "taken": 9, "invoices": 4, "credit_notes": 1, "line_usage": 8, "line_delta": 1})
    flow_metrics.restored(first, 0.1)
    assert samples(flow_metrics)["tieout_periods_held", "0", "tax_rate"] == 2
    second = Token("invoicing", 0, 8, counts={"received": 0}, totals=first.totals | {"invoices": 6, "line_usage": 12})
    flow_metrics.committed(second, Interval({}, {}, {}, {}, latencies=(86_400.0, 7 * 86_400.0)))
    found = samples(flow_metrics)
    assert [found["tieout_documents_total", kind, "0"] for kind in ("invoice", "credit_note")] == [6, 1]
    assert [found["tieout_invoice_lines_total", kind, "0"] for kind in ("usage", "delta")] == [12, 1]
    assert found["tieout_periods_held", "0", "tax_rate"] == 0
    assert (found["tieout_invoice_latency_seconds_bucket", "86400.0", "0"], found["tieout_invoice_latency_seconds_count", "0"]) == (1, 2)


def test_the_page_of_metrics_is_as_generated():
    assert (ROOT / "docs/metrics.md").read_text() == metrics.page(), "run 'python -m flows.metrics > docs/metrics.md'"


def test_a_scrape_has_the_catalogue_and_nothing_else():
    text = told(FlowMetrics("usage", [0])).exposition("")[0].decode()
    helps = dict(line.removeprefix("# HELP ").split(" ", 1) for line in text.splitlines() if line.startswith("# HELP "))
    types = dict(line.removeprefix("# TYPE ").split(" ", 1) for line in text.splitlines() if line.startswith("# TYPE "))
    assert types == {metric.name: metric.kind for metric in metrics.CATALOGUE}
    assert {name: text for name, text in helps.items() if name not in LIBRARY} == {m.name: m.meaning for m in metrics.CATALOGUE if not m.library}
    labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name if sample.name in types else sample.name.rsplit("_", 1)[0]
            labels.setdefault(name, set()).update(set(sample.labels) - {"le"})
    assert labels == {metric.name: set(metric.labels) for metric in metrics.CATALOGUE}


def test_the_catalogue_names_each_metric_once_and_says_its_unit_in_the_name():
    names = [metric.name for metric in metrics.CATALOGUE]
    assert len(set(names)) == len(names)
    for metric in metrics.CATALOGUE:
        assert metric.library or metric.name.startswith("tieout_")
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert ("_seconds" in metric.name) == (metric.unit.endswith("seconds")), metric.name
        assert bool(metric.buckets) == (metric.kind == "histogram")


def test_counters_stand_where_the_tokens_of_a_real_run_do_also_after_a_restart(tmp_path):
    folders.write(tmp_path, folders.events(5, 800, 6), [folders.contract(f"k{i}") for i in range(5)], poison_every=97)
    pipeline = usage.pipeline(FilePlace(tmp_path), range(2), rows=100)
    local_engine.run(pipeline)
    for cell in pipeline.cells.values():
        cell.close()
    for partition in (0, 1):
        history = list(tokens.all_of(TopicReader(tmp_path, usage.TOKEN, partition)))
        assert len(history) > 3
        before, after = FlowMetrics("usage", [partition]), FlowMetrics("usage", [partition])
        before.restored(Token("usage", partition, 0), 0)
        for each in history:
            before.committed(each, NOTHING)
        after.restored(history[2], 0)
        for each in history[3:]:
            after.committed(each, NOTHING)
        for found in (samples(before), samples(after)):
            _equals(found, history[-1])
        assert samples(before)["tieout_interval_rows_sum", str(partition)] == history[-1].totals["received"]


def _equals(found, last):
    partition = str(last.partition)
    assert last.totals["rejected"] > 0
    assert last.totals["waiting"] > 0
    assert found["tieout_events_received_total", partition] == last.totals["received"]
    assert found["tieout_events_released_total", partition] == last.totals["released"]
    assert found["tieout_events_withdrawn_total", partition] == last.totals["withdrawn"]
    for fate in ("priced", "duplicate", "conflict", "rejected", "held"):
        assert found["tieout_events_total", fate, partition] == last.totals[fate]
    assert found["tieout_events_waiting", partition] == last.totals["waiting"]
    assert found["tieout_events_waiting_age_seconds", partition] == (last.clock - last.oldest_held_at) / 10**6
    assert found["tieout_commits_total", partition] == last.sequence
    assert found["tieout_clock_seconds", partition] == last.clock / 10**6
    written = {topic: found["tieout_records_written_total", partition, topic] for topic in last.written}
    assert written == last.written


counts_of = st.fixed_dictionaries({name: st.integers(0, 10**6) for name in NAMES})


@settings(deadline=None, max_examples=30)
@given(st.lists(counts_of, min_size=1, max_size=6), st.data())
def test_a_restore_in_between_never_doubles_or_loses_a_count(rows, data):
    """The answer of a commit may be lost: the restore then finds it done, or not done."""
    found, history, at = FlowMetrics("usage", [0]), intervals(rows), 0
    while at < len(history):
        match data.draw(st.sampled_from(("committed", "found done", "found undone"))):
            case "committed":
                found.committed(history[at], NOTHING)
                at += 1
            case "found done":
                found.restored(history[at], 0)
                at += 1
            case "found undone" if at:
                found.restored(history[at - 1], 0)
    scrape = samples(found)
    assert scrape["tieout_events_received_total", "0"] == sum(counts["received"] for counts in rows)
    assert scrape["tieout_events_total", "priced", "0"] == sum(counts["priced"] for counts in rows)
    assert scrape["tieout_records_written_total", "0", topics.RATED] == sum(counts["priced"] for counts in rows)
    assert scrape["tieout_commits_total", "0"] == len(rows)


def test_what_a_token_holds_is_missing_until_the_restore_so_no_rate_sees_a_jump_from_zero():
    found, history = FlowMetrics("usage", [0]), intervals([dict.fromkeys(NAMES, 5)] * 2)
    from_token = {metric.name for metric in metrics.CATALOGUE if metric.counted == metrics.COMMITS.counted}
    assert len(from_token) == 12
    assert not from_token & {name for name, *_ in samples(found)}
    found.restored(history[1], 0)
    billing = {"tieout_documents_total", "tieout_invoice_lines_total", "tieout_periods_held"}
    assert from_token - billing - {"tieout_clock_seconds"} <= {name for name, *_ in samples(found)}
    assert samples(found)["tieout_events_received_total", "0"] == 10


def test_a_scrape_never_sees_half_an_interval():
    counts = dict.fromkeys(NAMES, 1)
    writers, waited = [], []

    def now():  # asked in the middle of a scrape, for an age
        if writers:
            writer.start()
            writers.pop().join(0.2)
            waited.append(writer.is_alive())
        return 0.0

    found = FlowMetrics("usage", [0], now=now)
    found.restored(Token("usage", 0, 0), 0)
    writer = Thread(target=lambda: found.committed(token(1, counts, counts), NOTHING))
    found.lag(0, 0, 1)
    writers.append(writer)
    assert samples(found)["tieout_commits_total", "0"] == 0
    assert waited == [True]
    writer.join(10)
    assert samples(found)["tieout_commits_total", "0"] == 1


def test_labels_are_bound_once_and_not_at_each_interval(monkeypatch):
    found, history = FlowMetrics("usage", [0]), intervals([dict.fromkeys(NAMES, 2)] * 3)
    interval = Interval({"too_late": 2}, {"usage_conflict": 1}, {"ids": 1, "chains": 1, "held": 0}, {"decode": 1, "fold": 1, "encode": 1, "commit": 1})
    found.committed(history[0], interval)
    for kind in (Counter, Gauge, Histogram):
        monkeypatch.setattr(kind, "labels", lambda *_: pytest.fail("a label was bound again"))
    found.committed(history[1], interval)
    monkeypatch.undo()
    assert samples(found)["tieout_dead_letters_total", "0", "too_late"] == 4


def test_what_an_interval_came_to_is_taken_from_its_results():
    events = pa.RecordBatch.from_pylist(
        [{"id": str(i), "source": "s", "customer_id": "nobody", "meter": "m", "time": 10**6, "quantity": i, "attributes": []} for i in range(2)], schema=EVENTS
    )
    state = UsageState()
    values = pa.array([b"x"] * 3, pa.large_binary())
    batch = UsageBatch(np.arange(3), events, np.array([0, 2]), np.full(3, 10**6), values, [Rejected(1, "undecodable", "torn", None)])
    interval = Interval.of([step(state, batch)], state, {"fold": 0.25})
    assert interval.dead_letters == {"undecodable": 1}
    assert interval.exceptions == {}
    assert interval.sizes == {"ids": 2, "chains": 0, "held": 2}
    late = UsageState()
    late.limits = type(late.limits)(hold_limit=0)
    assert Interval.of([step(late, batch)], late, {}).exceptions == {"hold_no_customer": 2}


def test_jobs_are_those_that_are_open_and_slices_add_up():
    state = UsageState()
    state.jobs.queue += [Job("acme", "c-acme", number, 0, 10) for number in (2, 3)]
    found, counts = FlowMetrics("usage", [0]), dict.fromkeys(NAMES, 0)
    for sequence, slices in enumerate((1, 0, 2), 1):
        found.committed(token(sequence, counts | {"slices": slices}, counts), Interval.of([], state, {}))
    assert (samples(found)["tieout_repricing_jobs", "0"], samples(found)["tieout_repricing_slices_total", "0"]) == (2, 3)
    found.committed(token(4, counts, counts), NOTHING)
    assert (samples(found)["tieout_repricing_jobs", "0"], samples(found)["tieout_repricing_slices_total", "0"]) == (0, 3)


def test_money_is_no_metric():
    counts = dict.fromkeys(NAMES, 0)
    found = FlowMetrics("usage", [0])
    found.committed(token(1, counts, counts, amounts={"USD": "123.456789"}), NOTHING)
    text = found.exposition("")[0].decode()
    assert "USD" not in text
    assert "123.456" not in text


def test_a_partition_is_paused_for_one_cause_at_a_time():
    found = FlowMetrics("usage", [0, 1])

    def causes(partition):
        scrape = samples(found)
        return [cause for cause in CAUSES if scrape["tieout_partition_paused", cause, str(partition)]]

    assert causes(0) == []
    found.paused(0, "registry")
    found.paused(0, "broker")
    assert (causes(0), causes(1)) == (["broker"], [])
    found.paused(0, None)
    assert causes(0) == []


def test_a_clock_that_no_row_has_set_is_missing_and_not_zero():
    now = Hands(5_000.0)
    found = FlowMetrics("usage", [0], now=now)
    found.restored(Token("usage", 0, 0), 0)
    assert ("tieout_clock_seconds", "0") not in samples(found)
    counts = dict.fromkeys(NAMES, 0)
    found.committed(token(1, counts, counts, clock=4_000 * 10**6), NOTHING)
    assert samples(found)["tieout_clock_age_seconds", "0"] == 1_000
    now.at += 60
    assert samples(found)["tieout_clock_age_seconds", "0"] == 1_060


def test_an_age_is_taken_at_the_scrape_so_it_grows_while_the_cell_stands():
    now = Hands()
    found = FlowMetrics("usage", [0], now=now)
    found.lag(0, 5, 5)
    now.at += 100
    assert samples(found)["tieout_input_oldest_unprocessed_seconds", "0"] == 0
    found.lag(0, 5, 9)
    now.at += 100
    scrape = samples(found)
    assert scrape["tieout_input_oldest_unprocessed_seconds", "0"] == 100
    assert scrape["tieout_input_lag_records", "0"] == 4
    found.lag(0, 9, 9)
    scrape = samples(found)
    assert scrape["tieout_input_oldest_unprocessed_seconds", "0"] == 0
    assert scrape["tieout_input_lag_records", "0"] == 0


def test_a_cell_that_keeps_up_is_not_behind_although_something_always_waits():
    backlog = Backlog()
    for second in range(0, 600, 2):
        backlog.look(position=second * 10, end=second * 10 + 40, now=float(second))
        assert backlog.records == 40
        assert second - backlog.oldest_at() <= 4


def test_input_waits_since_it_was_appended_where_the_broker_says_when():
    backlog = Backlog()
    backlog.look(0, 1000, 500.0)
    assert backlog.oldest_at() == 500.0
    backlog.look(0, 1000, 501.0, appended_at=100.0)
    assert backlog.oldest_at() == 100.0
    backlog.look(400, 1000, 502.0)
    assert backlog.oldest_at() == 100.0, "the rest of the backlog is no younger than is known"
    backlog.look(400, 1000, 503.0, appended_at=300.0)
    assert backlog.oldest_at() == 300.0
    backlog.look(1000, 1200, 504.0)
    assert backlog.oldest_at() == 504.0
    backlog.look(1000, 1200, 505.0, appended_at=9_999.0)
    assert backlog.oldest_at() == 504.0, "a broker whose clock is ahead makes nothing younger"


def test_looking_often_costs_no_memory():
    backlog = Backlog()
    for look in range(10_000):
        backlog.look(0, look + 1, look / 1000)
    assert backlog.records == 10_000
    assert backlog.oldest_at() == 0.0
    assert len(backlog._stretches) == 10
