"""Contract versions as records of their topic, and back.

In: a validated ``ContractVersion``. Out: a row of ``contract_version.avsc``, field by field; and the version that such
a row describes, validated as strictly as the document was.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from flows import codecs
from schemas import catalog
from tieout.contracts import ContractVersion, GraduatedPercentage, parse_contract

SCHEMA: Final = "contract_version"


class ContractRecordError(ValueError):
    """A record of the contract topic that cannot be read; the message names the first one by its row."""


def encode(versions: list[ContractVersion]) -> pa.Array:
    """Versions as framed values."""
    rows = [_row(version) for version in versions]
    return codecs.encode(SCHEMA, pa.RecordBatch.from_pylist(rows, schema=catalog.arrow_schema(SCHEMA)))


def decode(values: pa.Array) -> list[ContractVersion]:
    """Versions from framed values; ContractRecordError where one cannot be decoded, ContractRefused where it is invalid."""
    decoded = codecs.own(SCHEMA).decode(values)
    if decoded.rejected:
        first = decoded.rejected[0]
        msg = f"record {first.row}: {first.message}"
        raise ContractRecordError(msg)
    return versions(decoded.batch)


def versions(rows: pa.RecordBatch) -> list[ContractVersion]:
    """The versions of decoded rows; ContractRefused where one is invalid."""
    documents = _documents(rows.to_struct_array())
    for document in documents:
        for charge in (*document["charges"], *document["overrides"]):
            if "rate_tiers" in charge["price"]:
                charge["price"]["tiers"] = charge["price"].pop("rate_tiers")
    return [parse_contract(document) for document in documents]


def _row(value: Any) -> Any:
    """A part of a document as plain values; a price's figures keep their names, but tiers of rates have their own."""
    if is_dataclass(value):
        row = {field.name: _row(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, GraduatedPercentage):
            row["rate_tiers"] = row.pop("tiers")
        return row
    if isinstance(value, tuple):
        return [_row(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _row(item) for key, item in value.items()}
    return value


def _documents(column: pa.StructArray) -> list[dict[str, Any]]:
    """Rows as documents without what is null: those fields have their defaults. By columns, as most are null."""
    fields_ = [(field.name, column.field(at)) for at, field in enumerate(column.type)]
    given = [(name, values) for name, values in fields_ if values.null_count < len(values)]
    names = [name for name, _ in given]
    rows = zip(*(_values(values) for _, values in given), strict=True)
    return [{name: value for name, value in zip(names, row, strict=True) if value is not None} for row in rows]


def _values(column: pa.Array) -> list[Any]:
    """A column's values as a document has them."""
    kind = column.type
    if pa.types.is_struct(kind):
        values: list[Any] = _documents(column)
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
    """Decimals as a document writes them: 0.01, not 0.010000000000."""
    encoded = pc.dictionary_encode(column)
    numbers = [Decimal(format(number, "f").rstrip("0").rstrip(".")) for number in encoded.dictionary.to_pylist()]
    return [None if at is None else numbers[at] for at in encoded.indices.to_pylist()]
