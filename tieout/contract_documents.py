"""Rows of decoded contract columns as the documents that were published.

In: columns as the codec decodes them. Out: for each row its document, with decimals as they are written (0.01, not
0.010000000000) and without what is null: those fields have their defaults. By columns, as most are null.
"""

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def documents(rows: pa.RecordBatch) -> list[dict[str, Any]]:
    """Contract versions as documents."""
    found = _structs(rows.to_struct_array())
    for document in found:
        for charge in (*document["charges"], *document["overrides"]):
            _with_tiers(charge)
    return found


def charges(column: pa.StructArray) -> list[dict[str, Any]]:
    """Charges as documents."""
    found = _structs(column)
    for charge in found:
        _with_tiers(charge)
    return found


def document(record: Mapping[str, Any]) -> dict[str, Any]:
    """The document of one decoded record."""
    found: dict[str, Any] = _plain(record)
    for charge in (*found["charges"], *found["overrides"]):
        _with_tiers(charge)
    return found


def _with_tiers(charge: dict[str, Any]) -> None:
    """Tiers of rates have a field of their own in the record."""
    if "rate_tiers" in charge["price"]:
        charge["price"]["tiers"] = charge["price"].pop("rate_tiers")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return _as_written(value) if isinstance(value, Decimal) else value


def _structs(column: pa.StructArray) -> list[dict[str, Any]]:
    fields = [(field.name, column.field(at)) for at, field in enumerate(column.type)]
    given = [(name, values) for name, values in fields if values.null_count < len(values)]
    names = [name for name, _ in given]
    rows = zip(*(_values(values) for _, values in given), strict=True)
    return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]


def _values(column: pa.Array) -> list[Any]:
    """A column's values as a document has them."""
    kind = column.type
    if pa.types.is_struct(kind):
        values: list[Any] = _structs(column)
    elif pa.types.is_map(kind):
        pairs = list(zip(_values(column.keys), _values(column.items), strict=True))
        values = [dict(part) for part in _parts(column, pairs)]
    elif pa.types.is_list(kind):
        values = _parts(column, _values(column.values))
    elif pa.types.is_decimal(kind):
        return _decimals(column)
    else:
        return column.to_pylist()
    return values if not column.null_count else [v if valid else None for v, valid in zip(values, column.is_valid().to_pylist(), strict=True)]


def _parts(column: pa.ListArray, values: list[Any]) -> list[list[Any]]:
    bounds = column.offsets.to_pylist()
    return [values[start:end] for start, end in pairwise(bounds)]


def _decimals(column: pa.Array) -> list[Decimal | None]:
    encoded = pc.dictionary_encode(column)
    numbers = [_as_written(number) for number in encoded.dictionary.to_pylist()]
    return [None if at is None else numbers[at] for at in encoded.indices.to_pylist()]


def _as_written(number: Decimal) -> Decimal:
    text = format(number, "f")
    return Decimal(text.rstrip("0").rstrip(".")) if "." in text else number
