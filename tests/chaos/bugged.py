"""A cell with something changed, as a process of its own: ``python -m tests.chaos.bugged NAME run usage --bootstrap ...``.

The change is made in this process before the product's own ``main`` runs; the product has no switch for any of it.
``full_states`` is no bug: it only has full states written often, which is right at any time. Everything else is a
seeded bug that the campaign must catch.
"""

import dataclasses
import os
import sys
import time
import zlib
from decimal import Decimal

import numpy as np
import pyarrow as pa
from confluent_kafka import KafkaException, Producer

import sinks.kafka
from flows import cli, usage, usage_records, usage_state
from flows.usage import UsageCell
from sinks.errors import CommitUnknown
from sinks.kafka import TransactionalWriter
from tieout import ids
from tieout.dedup import Seen
from tieout.holds import Waiting
from tieout.usage import NO_CLOCK
from tieout.usage_stage import UsageState

FULL_BYTES = 1 << 40
"""More than any limit on what was written since the last full state."""
WINDOW_SECONDS = 1.5
"""A fault hits within this surely, whatever else the machine does."""
DAY = 86_400_000_000


def full_states():
    """A full state with every third interval."""
    _before_each_interval(lambda cell, count: setattr(cell, "_delta_bytes", FULL_BYTES) if count % 3 == 0 else None)


def commit_before_produce():
    """The positions are committed in a transaction of their own before the outputs."""
    commit = TransactionalWriter.commit

    def apart(self, outputs, positions, group):
        commit(self, [records for records in outputs if records.topic.endswith(".token")], positions, group)
        commit(self, [records for records in outputs if not records.topic.endswith(".token")], [], group)

    TransactionalWriter.commit = apart


def produce_before_commit():
    """Outputs go out by a producer without transactions, and then the positions in one."""
    commit = TransactionalWriter.commit
    plain = {}

    def apart(self, outputs, positions, group):
        outside = [records for records in outputs if not records.topic.split(".")[-1] in ("token", "state", "seen")]
        writer = plain.setdefault(id(self), TransactionalWriter(_plain_producer(), self._name, {}))
        for records in outside:
            writer._produce(records)
        writer._producer.flush()
        commit(self, [records for records in outputs if records not in outside], positions, group)

    TransactionalWriter.commit = apart


def token_not_read():
    """A restart begins at the beginning."""
    UsageCell._restore = lambda self: None


def restore_before_fence():
    """The fence comes with the first commit, after the restore; what lies between takes so long that others commit meanwhile."""
    commit = TransactionalWriter.commit

    def opened(cls, settings, name):
        producer = Producer({**settings, **sinks.kafka._WRITE, "transactional.id": name})
        return cls(producer, name, {})

    def late(self, outputs, positions, group):
        if not getattr(self, "fenced", False):
            time.sleep(WINDOW_SECONDS)
            self._producer.init_transactions(60)
            self.fenced = True
        commit(self, outputs, positions, group)

    TransactionalWriter.open = classmethod(opened)
    TransactionalWriter.commit = late


def fence_per_process():
    """Each process has transactional ids of its own, so that nobody is fenced."""
    opened = TransactionalWriter.open.__func__
    TransactionalWriter.open = classmethod(lambda cls, settings, name: opened(cls, settings, f"{name}-{os.getpid()}"))


def producer_reused():
    """After a commit without an answer the same producer writes the same interval once more, from memory."""
    sinks.kafka.ANSWER_SECONDS = 3.0
    sinks.kafka._WRITE["metadata.recovery.strategy"] = "none"  # a client that begins anew may never come back (librdkafka issue 5511)
    commit = TransactionalWriter.commit

    def again(self, outputs, positions, group):
        try:
            commit(self, outputs, positions, group)
        except CommitUnknown:
            for _ in range(100):
                try:
                    self._producer.commit_transaction(5)
                    break
                except KafkaException:
                    time.sleep(0.2)
            commit(self, outputs, positions, group)

    TransactionalWriter.commit = again


def dedup_by_day():
    """The same id on another event day is taken for another event."""
    judge = Seen.judge
    Seen.judge = lambda self, keys, digest, time, clock, position: judge(self, ids.combine(keys, ids.of_integers(time // DAY)), digest, time, clock, position)


def seen_not_restored():
    """What was seen before a restart is forgotten."""
    Seen.restore = lambda self, entries: None
    usage.SeenFiles.open = _without_folder(usage.SeenFiles.open)


def float_price():
    """Running totals of a charge are kept as a binary float."""
    rated_, running = usage_records._rated, {}

    def floated(rated, batch_id, clock):
        if not rated.num_rows:
            return rated_(rated, batch_id, clock)
        amounts = []
        for name, amount in zip(rated["correlation_id"].to_pylist(), rated["amount"].to_pylist(), strict=True):
            before = running.get(name, 0.0)
            running[name] = before + float(amount)
            amounts.append(Decimal(running[name] - before).quantize(Decimal("1e-12")))
        at = rated.schema.get_field_index("amount")
        return rated_(rated.set_column(at, rated.schema.field(at), pa.chunked_array([pa.array(amounts, rated.schema.field(at).type)])), batch_id, clock)

    usage_records._rated = floated


def lost_held():
    """One held event in five is overlooked when its contract comes."""
    of = Waiting.of
    Waiting.of = lambda self, customer: [held for held in of(self, customer) if zlib.crc32(held.event.key.event_id.encode()) % 5]


def row_shifted_after_poison():
    """After a record that cannot be decoded, quantities slip down by one row."""
    prepare = usage.prepare

    def shifted(decoder, lot):
        prepared = prepare(decoder, lot)
        decoded = prepared.decoded
        if not decoded.rejected or decoded.batch.num_rows < 2:
            return prepared
        first = int(np.searchsorted(decoded.rows, decoded.rejected[0].row))
        order = np.arange(decoded.batch.num_rows)
        order[first + 1 :] -= 1
        at = decoded.batch.schema.get_field_index("quantity")
        columns = [column.take(pa.array(order)) if place == at else column for place, column in enumerate(decoded.batch.columns)]
        batch = pa.RecordBatch.from_arrays(columns, schema=decoded.batch.schema)
        return dataclasses.replace(prepared, decoded=dataclasses.replace(decoded, batch=batch))

    usage.prepare = shifted


def full_state_of_another_instant():
    """A full state is taken before the interval that it travels with."""
    whole, stale = usage_state.whole, {}

    def before(cell, count):
        if count % 3 == 0:
            cell._delta_bytes = FULL_BYTES
            stale[id(cell.fold.state)] = whole(cell.fold.state)

    usage_state.whole = lambda state: stale.get(id(state)) or whole(state)
    _before_each_interval(before)


def too_late_dropped():
    """Nothing is too late."""
    made = UsageState.__post_init__

    def endless(self):
        made(self)
        self.limits = dataclasses.replace(self.limits, horizon=2**61)

    UsageState.__post_init__ = endless


def clock_not_restored():
    """A restart forgets how late it is."""
    restore = UsageCell._restore

    def forgetting(self):
        restore(self)
        self.fold.state.clock = NO_CLOCK

    UsageCell._restore = forgetting


def void_not_restored():
    """A restart forgets which events were voided."""
    table = usage_state._journal_table
    usage_state._journal_table = lambda journal: table([entry for entry in journal if entry.op != "voided"])


NO_BUG = {"full_states": full_states}
BUGS = {
    bug.__name__: bug
    for bug in (
        commit_before_produce, produce_before_commit, token_not_read, restore_before_fence, fence_per_process, producer_reused, dedup_by_day,
        seen_not_restored, float_price, lost_held, row_shifted_after_poison, full_state_of_another_instant, too_late_dropped, clock_not_restored,
        void_not_restored,
    )
}


def _before_each_interval(act):
    interval, counts = UsageCell._interval, {}

    def acting(self, *arguments):
        counts[id(self)] = counts.get(id(self), 0) + 1
        act(self, counts[id(self)])
        interval(self, *arguments)

    UsageCell._interval = acting


def _plain_producer():
    bootstrap = sys.argv[sys.argv.index("--bootstrap") + 1]
    settings = {name: value for name, value in sinks.kafka._WRITE.items() if name != "transaction.timeout.ms"}
    return Producer({**settings, "bootstrap.servers": bootstrap})


def _without_folder(opened):
    return lambda directory=None, **sizes: opened(None, **sizes)


if __name__ == "__main__":
    (BUGS | NO_BUG)[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))
