"""``tieout import``: usage from CSV, JSON lines or Parquet, and contracts from JSON, into a folder's or a broker's topics.

A column mapping says where each usage field comes from. The whole file is read and checked before anything is
written: a row that is no usage event is named with its line, and nothing of the file is imported. In a folder the same
file with the same mapping is imported once, also when an import was interrupted and is run again; a broker takes a
file whole or not at all, and what is sent twice is deduplicated by the flow.
"""

import argparse
import gzip
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from flows import codecs, output, publish, topics
from flows.cli import CommandError
from flows.commands import files, places
from tieout.contract_book import ContractBook
from tieout.contracts import parse_contract
from tieout.period import micros
from tieout.problems import ContractRefused
from tieout.usage import EVENTS

_PLAIN: Final = ("id", "source", "customer_id", "meter", "time", "quantity", "contract_id", "amount")
_REQUIRED: Final = ("customer_id", "meter", "time")


def run(options: argparse.Namespace) -> int:
    """Import one file and say how many records were new."""
    path = Path(options.file)
    try:
        raw = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give the path of an existing file"
        raise CommandError(msg) from error
    source = hashlib.sha256(json.dumps([options.format, sorted(options.map)]).encode() + raw).hexdigest()
    if options.format == "contracts":
        documents = _contracts(path)
        added = _append(options, lambda ingress, partitions: publish.contracts(ingress, documents, partitions, source))
        _done(added, len(documents), "contract versions", topics.CONTRACTS, options.output)
        return 0
    table = _table(path, options.format)
    events = _events(table, _mapping(options.map, table.column_names), path)
    values = codecs.encode("usage_event", events)
    now = time.time_ns() // 1000
    record_time = np.minimum(events["time"].cast(pa.int64()).to_numpy(zero_copy_only=False), now)
    added = _append(
        options, lambda ingress, partitions: publish.usage(ingress, values, events["customer_id"], record_time, partitions, source)
    )
    _done(added, events.num_rows, "usage events", topics.USAGE, options.output)
    return 0


def _append(options: argparse.Namespace, append: Callable[[publish.Ingress, int], int]) -> int:
    ingress, partitions = places.ingress(options)
    try:
        return append(ingress, partitions)
    finally:
        ingress.close()


def _done(added: int, rows: int, what: str, topic: str, how: str) -> None:
    if added < rows:
        output.say(f"{rows - added} of {rows} {what} stand in the folder from an earlier import of this file")
    output.show([{"topic": topic, "in file": rows, "imported": added}], how)


def _contracts(path: Path) -> list[dict[str, Any]]:
    document = files.read_json(str(path))
    documents = document if isinstance(document, list) else [document]
    book = ContractBook(first_number=None)
    for number, one in enumerate(documents, 1):
        try:
            book.apply(parse_contract(one))
        except ContractRefused as refused:
            lines = "".join(f"\n  {p.path or 'document'}: {p.message}" for p in refused.problems)
            msg = f"{path}, contract {number}: refused, nothing was imported{lines}"
            raise CommandError(msg) from None
    return documents


def _table(path: Path, form: str) -> pa.Table:
    try:
        if form == "parquet":
            return parquet.read_table(path)
        if form == "jsonl":
            return pa.Table.from_pylist([row for _, row in files.read_lines(str(path))])
        raw = path.read_bytes()
        return _all_text(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (pa.ArrowInvalid, OSError, EOFError, AttributeError, UnicodeDecodeError) as error:
        msg = f"{path}: is not {form} ({error}); check the file, or name its real format"
        raise CommandError(msg) from error


def _all_text(raw: bytes) -> pa.Table:
    """A CSV with every column as text: a figure must not pass through a float."""
    end = raw.find(b"\n")
    head = csv.read_csv(pa.py_buffer(raw if end < 0 else raw[: end + 1]), csv.ReadOptions(), csv.ParseOptions())
    kinds = {name: pa.string() for name in head.column_names}
    return csv.read_csv(pa.py_buffer(raw), convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=True))


def _mapping(given: list[str], columns: list[str]) -> dict[str, str]:
    """Field to column; without --map the columns carry the fields' own names."""
    mapping = {}
    for item in given:
        name, equals, column = item.partition("=")
        if not equals or not (name in _PLAIN or name.startswith("attributes.")):
            msg = f"--map {item!r}: write FIELD=COLUMN, with a FIELD of {', '.join(_PLAIN)} or attributes.NAME"
            raise CommandError(msg, 2)
        mapping[name] = column
    for name in _PLAIN:
        if name not in mapping and name in columns:
            mapping[name] = name
    for name, column in mapping.items():
        if not column.startswith(":") and column not in columns:
            msg = f"--map {name}={column}: the file has no column {column!r}; it has {', '.join(columns)}"
            raise CommandError(msg)
    missing = [name for name in _REQUIRED if name not in mapping]
    if missing:
        msg = f"no column for {', '.join(missing)}; add --map {missing[0]}=COLUMN (or =:text for a fixed one); the file has {', '.join(columns)}"
        raise CommandError(msg)
    return mapping


def _events(table: pa.Table, mapping: dict[str, str], path: Path) -> pa.RecordBatch:
    n = table.num_rows
    columns = {name: _column(table, column, n) for name, column in mapping.items()}
    arrays: dict[str, pa.Array] = {}
    arrays["time"] = pa.array(_times(columns["time"], path), pa.int64()).cast(pa.timestamp("us", "UTC"))
    arrays["quantity"] = _decimals(columns.get("quantity"), n, pa.decimal128(28, 9), path, "quantity")
    arrays["amount"] = _decimals(columns.get("amount"), n, pa.decimal128(38, 12), path, "amount")
    for name in ("customer_id", "meter"):
        arrays[name] = _required(columns[name], path, mapping[name])
    arrays["source"] = columns.get("source", pa.array([path.name.removesuffix(".gz")] * n, pa.string()))
    arrays["contract_id"] = columns.get("contract_id", pa.nulls(n, pa.string()))
    arrays["attributes"] = _attributes({k.partition(".")[2]: v for k, v in columns.items() if k.startswith("attributes.")}, n)
    arrays["id"] = columns.get("id") or _row_ids(arrays["meter"], n)
    for name in ("corrects", "voids"):
        arrays[name] = pa.nulls(n, EVENTS.field(name).type)
    return pa.RecordBatch.from_arrays([arrays[field.name] for field in EVENTS], schema=EVENTS)


def _column(table: pa.Table, column: str, n: int) -> pa.Array:
    if column.startswith(":"):
        return pa.array([column[1:]] * n, pa.string())
    found = table[column].combine_chunks()
    if pa.types.is_floating(found.type):
        msg = f"column {column!r} holds binary floats, which may have lost the figure; store it as text, integer or decimal"
        raise CommandError(msg)
    if pa.types.is_timestamp(found.type):
        return found
    return found.cast(pa.string())


def _row_ids(meter: pa.Array, n: int) -> pa.Array:
    """Rows without an id are told apart by meter and row: the source is the file, so they repeat with it."""
    numbers = pa.array(np.arange(1, n + 1)).cast(pa.string())
    return pc.binary_join_element_wise(meter, numbers, "-")


def _required(column: pa.Array, path: Path, name: str) -> pa.Array:
    if column.null_count:
        row = column.is_null().index(True).as_py() + 1
        msg = f"{path}, row {row}: column {name!r} is empty; every usage event needs it, nothing was imported"
        raise CommandError(msg)
    return column


def _times(column: pa.Array, path: Path) -> npt.NDArray[np.int64]:
    """Times as microseconds; finer ones are truncated, a time without zone is UTC."""
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()).to_numpy()
    out = np.empty(len(column), np.int64)
    for row, text in enumerate(column.to_pylist()):
        out[row] = _time(text, path, row)
    return out


def _time(text: str | None, path: Path, row: int) -> int:
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        msg = f"{path}, row {row + 1}: {text!r} is not a time, as in '2026-03-01T12:00:00Z'; nothing was imported"
        raise CommandError(msg) from None
    return micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _decimals(column: pa.Array | None, n: int, kind: pa.DataType, path: Path, name: str) -> pa.Array:
    if column is None:
        return pa.nulls(n, kind)
    out = []
    for row, text in enumerate(column.to_pylist()):
        try:
            out.append(None if text is None else Decimal(text.strip()))
            if out[-1] is not None:
                pa.scalar(out[-1], kind)
        except (ArithmeticError, pa.ArrowInvalid, ValueError):
            msg = f"{path}, row {row + 1}: {text!r} is not a {name} of at most {kind.scale} decimals; nothing was imported"
            raise CommandError(msg) from None
    return pa.array(out, kind)


def _attributes(columns: dict[str, pa.Array], n: int) -> pa.Array:
    names = sorted(columns)
    lists = [columns[name].to_pylist() for name in names]
    rows = [[(name, values[row]) for name, values in zip(names, lists, strict=True) if values[row] is not None] for row in range(n)]
    return pa.array(rows, EVENTS.field("attributes").type)

