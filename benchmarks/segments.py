"""Segments: Arrow IPC beside Avro containers, writing and reading topic records, CPU-seconds per million records."""

import tempfile
import time
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa

from schemas import segments

ROWS = 200_000
SCHEMA = fastavro.parse_schema({
    "type": "record", "name": "Record",
    "fields": [{"name": "key", "type": ["null", "bytes"]}, {"name": "value", "type": "bytes"}, {"name": "timestamp", "type": "long"}],
})


def main() -> None:
    """Print one row for each way."""
    values = [bytes([i % 251]) * 100 for i in range(ROWS)]
    batch = segments.records(pa.array(values, pa.large_binary()), None, np.arange(ROWS))
    with tempfile.TemporaryDirectory() as name:
        arrow, avro = Path(name) / "a.arrow", Path(name) / "a.avro"
        figures = {
            "Arrow IPC, write": _per_million(lambda: segments.write(arrow, batch, "t", 0)),
            "Arrow IPC, read": _per_million(segments.read(arrow)["value"].combine_chunks),
            "Avro container, write": _per_million(lambda: _write(avro, values)),
            "Avro container, read": _per_million(lambda: _read(avro)),
        }
    for label, seconds in figures.items():
        print(f"{label:24} {seconds:8.3f} CPU-s per million records")


def _per_million(work) -> float:
    work()
    before = time.process_time()
    work()
    return (time.process_time() - before) * 1_000_000 / ROWS


def _write(path: Path, values: list[bytes]) -> None:
    with path.open("wb") as file:
        fastavro.writer(file, SCHEMA, ({"key": None, "value": value, "timestamp": at} for at, value in enumerate(values)))


def _read(path: Path) -> pa.Array:
    with path.open("rb") as file:
        return pa.array([row["value"] for row in fastavro.reader(file)], pa.large_binary())


if __name__ == "__main__":
    main()
