"""The rated topic as the stage's tests need it, held in memory: what was rated, found again by event or by customer and time."""

import pyarrow as pa

from tieout.ids import EventKey
from tieout.rating.history import known
from tieout.repricing_jobs import Slice
from tieout.usage import key_lanes


class RatedMemory:
    def __init__(self):
        self.rows = []
        self.schema = None

    def add(self, table):
        if not table.num_rows:
            return
        plain = pa.table({name: column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for name, column in zip(table.column_names, table.columns, strict=True) if name != "cause"})
        cause = table["cause"].combine_chunks()
        fields = [cause.field(i).cast(pa.string()) if pa.types.is_dictionary(cause.field(i).type) else cause.field(i) for i in range(cause.type.num_fields)]
        plain = plain.append_column("cause", pa.StructArray.from_arrays(fields, names=[cause.type.field(i).name for i in range(len(fields))]))
        self.schema = plain.schema
        self.rows += plain.to_pylist()

    def batch(self, rows):
        ordered = sorted(rows, key=lambda row: (row["time"], key_lanes(name_of(row))))  # stable: an event's rows stay in log order
        return pa.RecordBatch.from_pylist(ordered, schema=self.schema)

    def originals(self, documents):
        """What is known of the events that these correct or void."""
        wanted = {(d.customer_id, EventKey((d.corrects or d.voids).source, (d.corrects or d.voids).id)) for d in documents if d.corrects or d.voids}
        rows = [row for row in self.rows if (row["customer_id"], name_of(row)) in wanted and row["cause"]["kind"] != "carry"]
        return {(found.event.customer_id, found.event.key): found for found in known(self.batch(rows))} if rows else {}

    def slices(self, jobs, limit):
        """The first jobs' next events, about so many rows in all."""
        found = []
        for job in jobs.due():
            if limit <= 0:
                break
            rows = [row for row in self.rows if row["customer_id"] == job.customer_id and row["cause"]["kind"] != "carry" and (job.time, job.identity) <= place_of(row) and micros(row) < job.end_us]
            places = sorted(place_of(row) for row in rows)
            last = places[min(limit, len(places)) - 1] if places else None
            taken = [row for row in rows if place_of(row) <= last] if places else []
            done = len(taken) == len(rows)
            found.append(Slice(job, self.batch(taken) if taken else pa.RecordBatch.from_pylist([], schema=self.schema or pa.schema([])), None if done else (last[0], last[1] + 1)))
            limit -= len(taken)
            if not done:
                break
        return found


def name_of(row):
    return EventKey(row["usage"]["source"], row["usage"]["id"])


def micros(row):
    return int(row["time"].timestamp() * 1_000_000)


def place_of(row):
    return micros(row), key_lanes(name_of(row))[0]
