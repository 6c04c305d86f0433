"""The catalogue of every metric that a cell exposes; ``python -m flows.metrics`` prints it as docs/metrics.md.

In: nothing. Out: for each metric its name as scraped, type, unit, labels, meaning, and where it is counted. Nothing
is counted per event: a cell counts once for each interval that it has committed (``flows.flow_metrics``), and what is
an age is taken at the scrape. Money is no metric: a sample is a binary float, and totals of money are in the tokens.
"""

import sys
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

_PARTITION: Final = ("flow", "partition")
_COMMITTED: Final = "at commit, from the token"
_COMMIT: Final = "at commit"
_SCRAPE: Final = "at the scrape"
_START: Final = "at start"
_RESTORE: Final = "after a restore"
_CHECK: Final = "when the control has checked"
_LIBRARY: Final = "at the scrape, by prometheus-client"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name as scraped, what it means, and where it is counted; ``buckets`` are a histogram's."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    counted: str
    buckets: tuple[float, ...] = ()

    @property
    def library(self) -> bool:
        """Whether prometheus-client counts it by itself."""
        return self.counted == _LIBRARY


RECEIVED: Final = Metric(
    "tieout_events_received_total", "counter", "events", _PARTITION,
    "Events read from the input, undecodable ones too, since the partition's first interval.", _COMMITTED,
)
EVENTS: Final = Metric(
    "tieout_events_total", "counter", "events", (*_PARTITION, "fate"),
    "Events by fate (priced, duplicate, conflict, rejected, held; of the route flow routed, rejected; of the contract flow accepted, repeated, refused, rejected, other; of the invoicing flow taken; of the document flow numbered, draft), since the partition's first interval.", _COMMITTED,
)
RELEASED: Final = Metric(
    "tieout_events_released_total", "counter", "events", _PARTITION,
    "Held events that left waiting, to be priced, held for another reason or waived, since the partition's first interval.", _COMMITTED,
)
WITHDRAWN: Final = Metric(
    "tieout_events_withdrawn_total", "counter", "events", _PARTITION,
    "Priced events that a version has taken their price from, to be held or rejected, since the partition's first interval.", _COMMITTED,
)
WAITING: Final = Metric("tieout_events_waiting", "gauge", "events", _PARTITION, "Held events that wait now.", _COMMITTED)
WAITING_AGE: Final = Metric(
    "tieout_events_waiting_age_seconds", "gauge", "seconds", _PARTITION,
    "How long the oldest waiting event has waited, by the partition's own clock; 0 where none waits.", _COMMITTED,
)
WRITTEN: Final = Metric(
    "tieout_records_written_total", "counter", "records", (*_PARTITION, "topic"),
    "Records committed to each output topic (rated usage is usage.rated.v1), since the partition's first interval.", _COMMITTED,
)
COMMITS: Final = Metric(
    "tieout_commits_total", "counter", "intervals", _PARTITION, "Committed intervals, since the partition's first one.", _COMMITTED,
)
DEAD_LETTERS: Final = Metric(
    "tieout_dead_letters_total", "counter", "events", (*_PARTITION, "reason"),
    "Rejected events by reason code, since this process started.", _COMMIT,
)
EXCEPTIONS: Final = Metric(
    "tieout_exceptions_total", "counter", "exceptions", (*_PARTITION, "kind"),
    "Financial exceptions opened, by kind, since this process started; finance has its own queue for them.", _COMMIT,
)
COMMIT_SECONDS: Final = Metric(
    "tieout_commit_seconds", "histogram", "seconds", _PARTITION, "Wall time of a commit, from its begin to its answer.", _COMMIT,
    (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0),
)
STEP_SECONDS: Final = Metric(
    "tieout_step_seconds_total", "counter", "seconds", (*_PARTITION, "step"),
    "Wall time of the steps before the commit (decode, fold, encode), since this process started.", _COMMIT,
)
INTERVAL_ROWS: Final = Metric(
    "tieout_interval_rows", "histogram", "events", _PARTITION, "Events of a committed interval.", _COMMIT,
    (0.0, 10.0, 100.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0, 25_000.0, 50_000.0),
)
STATE_ENTRIES: Final = Metric(
    "tieout_state_entries", "gauge", "entries", (*_PARTITION, "kind"),
    "Size of the state: ids remembered, chains (running quantities), held events.", _COMMIT,
)
REPRICING_JOBS: Final = Metric(
    "tieout_repricing_jobs", "gauge", "jobs", _PARTITION,
    "Versions for which a customer's past usage is still to be looked at again.", _COMMIT,
)
REPRICING_SLICES: Final = Metric(
    "tieout_repricing_slices_total", "counter", "slices", _PARTITION,
    "Slices of past usage that such jobs have looked at, since this process started.", _COMMIT,
)
DOCUMENTS: Final = Metric(
    "tieout_documents_total", "counter", "documents", (*_PARTITION, "kind"),
    "Documents that the invoicing flow has made (invoice, credit_note), since the partition's first interval.", _COMMITTED,
)
LINES: Final = Metric(
    "tieout_invoice_lines_total", "counter", "lines", (*_PARTITION, "kind"),
    "Their lines by kind (usage, fee, minimum, commitment, overage, coupon, delta, tax), since the partition's first interval.", _COMMITTED,
)
PERIODS_HELD: Final = Metric(
    "tieout_periods_held", "gauge", "billing periods", (*_PARTITION, "reason"),
    "Billing periods that are due and wait, by reason: usage_held, tax_code, tax_rate, tax_jurisdiction, contract_unsupported.", _COMMITTED,
)
CONTROL_BREAKS: Final = Metric(
    "tieout_control_breaks", "gauge", "breaks", _PARTITION,
    "What the last check of control totals found: intervals of the usage flow that do not add up, and contracts' billing periods whose rated amounts are not what is billed plus what is open.", _CHECK,
)
CONTROL_CHECKED: Final = Metric(
    "tieout_control_checked_seconds", "gauge", "unix seconds", ("flow",), "When the last check of control totals ended.", _CHECK,
)
INVOICE_LATENCY: Final = Metric(
    "tieout_invoice_latency_seconds", "histogram", "seconds", _PARTITION,
    "From the end of a billing period to the clock at which it was closed, the contract's grace included.", _COMMIT,
    (3_600.0, 43_200.0, 86_400.0, 90_000.0, 129_600.0, 172_800.0, 345_600.0, 691_200.0, 1_382_400.0, 2_678_400.0),
)
CLOCK: Final = Metric(
    "tieout_clock_seconds", "gauge", "unix seconds", _PARTITION,
    "The partition's clock; missing until a row or a tick has set it.", _COMMITTED,
)
CLOCK_AGE: Final = Metric(
    "tieout_clock_age_seconds", "gauge", "seconds", _PARTITION,
    "How far the partition's clock is behind the wall clock; missing until a row or a tick has set it.", _SCRAPE,
)
LAG: Final = Metric(
    "tieout_input_lag_records", "gauge", "records", _PARTITION,
    "Input records known to be there and not committed.", "when the cell looks at its input",
)
OLDEST_UNPROCESSED: Final = Metric(
    "tieout_input_oldest_unprocessed_seconds", "gauge", "seconds", _PARTITION,
    "Age of the oldest input that is read, or known to be there, and not committed; 0 when caught up.", _SCRAPE,
)
RESTORED: Final = Metric(
    "tieout_partition_restored", "gauge", "0 or 1", _PARTITION,
    "1 while this cell has fenced and restored the partition, 0 before and while it does so again.", _RESTORE,
)
RESTORES: Final = Metric(
    "tieout_restores_total", "counter", "restores", _PARTITION, "Times the partition was fenced and restored by this process.", _RESTORE,
)
RESTORE_SECONDS: Final = Metric(
    "tieout_restore_seconds", "gauge", "seconds", _PARTITION, "Wall time of the last fence and restore.", _RESTORE,
)
PAUSED: Final = Metric(
    "tieout_partition_paused", "gauge", "0 or 1", (*_PARTITION, "cause"),
    "1 while the partition is paused for this cause (registry, broker, dead_letters).", "when a pause begins or ends",
)
LOOP_AGE: Final = Metric("tieout_loop_age_seconds", "gauge", "seconds", ("flow",), "Time since the cell's loop last turned.", _SCRAPE)
CELL: Final = Metric("tieout_cell_ordinal", "gauge", "ordinal", ("flow",), "This cell's ordinal, from 0.", _START)
CELLS: Final = Metric("tieout_cells", "gauge", "cells", ("flow",), "How many cells the flow is deployed as.", _START)
GENERATION: Final = Metric(
    "tieout_cell_generation", "gauge", "generation", ("flow",), "The generation of the deployment that this cell belongs to.", _START,
)
BUILD: Final = Metric("tieout_build_info", "gauge", "always 1", ("version", "python"), "The release and the Python that run.", _START)

CATALOGUE: Final = (
    RECEIVED, EVENTS, RELEASED, WITHDRAWN, WAITING, WAITING_AGE, WRITTEN, DEAD_LETTERS, EXCEPTIONS,
    REPRICING_JOBS, REPRICING_SLICES, DOCUMENTS, LINES, PERIODS_HELD, INVOICE_LATENCY, CONTROL_BREAKS, CONTROL_CHECKED, LAG, OLDEST_UNPROCESSED, CLOCK, CLOCK_AGE,
    COMMITS, COMMIT_SECONDS, INTERVAL_ROWS, STEP_SECONDS, STATE_ENTRIES,
    RESTORED, RESTORES, RESTORE_SECONDS, PAUSED, LOOP_AGE, CELL, CELLS, GENERATION, BUILD,
    Metric("process_cpu_seconds_total", "counter", "seconds", (), "User and system CPU time.", _LIBRARY),
    Metric("process_resident_memory_bytes", "gauge", "bytes", (), "Resident memory.", _LIBRARY),
    Metric("process_virtual_memory_bytes", "gauge", "bytes", (), "Virtual memory.", _LIBRARY),
    Metric("process_start_time_seconds", "gauge", "unix seconds", (), "When the process started.", _LIBRARY),
    Metric("process_open_fds", "gauge", "descriptors", (), "Open file descriptors.", _LIBRARY),
    Metric("process_max_fds", "gauge", "descriptors", (), "Most file descriptors that may be open.", _LIBRARY),
)

_HEAD: Final = """\
# Metrics

Generated from `flows/metrics.py` by `python -m flows.metrics > docs/metrics.md`; a test fails when it is stale.

A cell that is given `--health-address HOST:PORT` answers on one port: `/metrics` (Prometheus text or OpenMetrics),
`/live`, `/ready` and `/health` (JSON, status 200 or 503, with the reasons). A scrape never falls into the middle of a
commit's counting, so the fate equations hold in every scrape. What is counted *from the token* goes on where the
committed state stands, through restarts and moves to another cell; the rest begins at 0 with the process.
Money is no metric: a sample is a binary float. Totals of money are in the tokens (`tieout verify`).

| metric | type | unit | labels | meaning | counted |
|---|---|---|---|---|---|
"""


def page() -> str:
    """The catalogue as docs/metrics.md."""
    rows = (
        f"| `{m.name}` | {m.kind} | {m.unit} | {', '.join(m.labels) or '-'} | {m.meaning} | {m.counted} |\n"
        for m in CATALOGUE
    )
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page())
