"""Lines of invoices as columns of ``invoice.avsc``, and back.

In: lines and the contracts that they are of. Out: one struct a line; and the lines that such structs describe, equal in
every field. Amounts in minor units are written with scale 12, whatever the currency, so that a reader needs no table of
currencies; exact ratios are two whole numbers as text, because they need not be decimals.
Source: docs/interfaces.md (invoice).
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.compute as pc

from tieout import money, wide
from tieout.invoicing import wire
from tieout.invoicing.records import Line, LineKey, TierUse

MONEY_DIGITS: Final = 38
MONEY_SCALE: Final = 12
_TIMES: Final = pa.timestamp("us", "UTC")


def structs(lines: Sequence[Line], contracts: Sequence[str]) -> pa.StructArray:
    """One struct a line; ``contracts`` are the ids of their contracts."""
    keys = [line.key for line in lines]
    currencies = [key.currency for key in keys]
    return struct({
        "line_id": texts(line.line_id for line in lines),
        "correlation_id": texts(map(wire.correlation_id, lines, contracts)),
        "charge_id": texts(key.charge_id or None for key in keys),
        "group": pa.array([key.group for key in keys], pa.list_(pa.string())),
        "kind": texts(line.kind for line in lines),
        "billing_period": texts(line.period for line in lines),
        "billing_period_start": times(key.period_us for key in keys),
        "service_period": struct({"start": times(line.start_us for line in lines), "end": times(line.end_us for line in lines)}),
        "delta_of": texts(line.delta_of for line in lines),
        "contract_versions": pa.array([line.versions for line in lines], pa.list_(pa.int32())),
        "legal_entity_id": texts(key.legal_entity_id for key in keys),
        "product_id": texts(line.product_id for line in lines),
        "obligation_id": texts(line.obligation_id for line in lines),
        "quantity": wide.decimals_of([line.quantity for line in lines], MONEY_DIGITS, money.QUANTITY_SCALE),
        "tiers": lists([line.tiers for line in lines], _tiers),
        "usage_amount_exact": wide.decimals_of([line.usage_exact for line in lines], MONEY_DIGITS, money.RATED_SCALE),
        "amount_exact": _ratios(line.exact.as_integer_ratio() for line in lines),
        "amount": amounts([line.amount for line in lines], currencies),
        "currency": texts(currencies),
        "tax_code": texts(line.tax_code for line in lines),
        "usage_count": pa.array([line.usage_count for line in lines], pa.int64()),
        "usage_digest": texts(f"{line.usage_digest:032x}" for line in lines),
        "key": struct({
            "kind": texts(key.kind for key in keys), "ref": pa.array([key.ref for key in keys], pa.list_(pa.string())),
            "start": times(key.start_us for key in keys),
        }),
    })  # fmt: skip


def read(column: pa.StructArray) -> list[Line]:
    """The lines of structs."""
    part = dict(zip(column.type.names, column.flatten(), strict=True))
    key, service = _parts(part["key"]), _parts(part["service_period"])
    names = ("charge_id", "kind", "billing_period", "delta_of", "legal_entity_id", "product_id", "obligation_id", "currency", "tax_code", "line_id", "group", "contract_versions", "usage_count", "usage_digest")  # fmt: skip
    values = {name: part[name].to_pylist() for name in names}
    keys = [
        LineKey(since, charge or "", None if group is None else tuple(group), kind, tuple(ref), start, entity, currency)
        for since, charge, group, kind, ref, start, entity, currency in zip(
            instants(part["billing_period_start"]), values["charge_id"], values["group"], key["kind"].to_pylist(), key["ref"].to_pylist(),
            instants(key["start"]), values["legal_entity_id"], values["currency"], strict=True,
        )
    ]  # fmt: skip
    return [
        Line(line_key, end, period, tuple(versions), quantity, usage, exact, amount, product, obligation, tuple(tiers), code, count, int(digest, 16), kind, start, delta_of, name)
        for line_key, end, period, versions, quantity, usage, exact, amount, product, obligation, tiers, code, count, digest, kind, start, delta_of, name in zip(
            keys, instants(service["end"]), values["billing_period"], values["contract_versions"], wide.integers(part["quantity"]),
            wide.integers(part["usage_amount_exact"]), (Fraction(*pair) for pair in _pairs(part["amount_exact"])), minors(part["amount"], values["currency"]),
            values["product_id"], values["obligation_id"], _read_tiers(part["tiers"]), values["tax_code"], values["usage_count"], values["usage_digest"],
            values["kind"], instants(service["start"]), values["delta_of"], values["line_id"], strict=True,
        )
    ]  # fmt: skip


def struct(columns: dict[str, pa.Array]) -> pa.StructArray:
    """Columns as one."""
    return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))


def lists(parts: Sequence[Sequence[Any]], made: Any) -> pa.ListArray:
    """A list a row, of what ``made`` makes of all items together."""
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), made([item for part in parts for item in part]))


def split(items: Sequence[Any], column: pa.ListArray) -> list[Sequence[Any]]:
    """What was made of a list column's items, a row at a time."""
    found, at = [], 0
    for length in column.value_lengths().to_pylist():
        found.append(items[at : at + length])
        at += length
    return found


def texts(values: Iterable[str | None]) -> pa.Array:
    """Strings."""
    return pa.array(list(values), pa.string())


def times(instants_: Iterable[int]) -> pa.Array:
    """UTC microseconds as timestamps."""
    return pa.array(list(instants_), pa.int64()).cast(_TIMES)


def instants(column: pa.Array) -> list[int]:
    """Timestamps as UTC microseconds."""
    return column.cast(pa.int64()).to_pylist()


def amounts(units: Sequence[int], currencies: Sequence[str]) -> pa.Array:
    """Minor units as decimals of scale 12."""
    scaled = [unit * _step(currency) for unit, currency in zip(units, currencies, strict=True)]
    return wide.decimals_of(scaled, MONEY_DIGITS, MONEY_SCALE)


def minors(column: pa.Array, currencies: Sequence[str]) -> list[int]:
    """Decimals of scale 12 as minor units; ValueError where one is not whole."""
    found = []
    units = cast("list[int]", wide.integers(column))  # the schema has no null for an amount
    for unit, currency in zip(units, currencies, strict=True):
        whole, rest = divmod(unit, _step(currency))
        if rest:
            msg = f"an amount of {money.decimal(unit, MONEY_SCALE)} {currency} is not a whole number of minor units; it was not written by this product"
            raise ValueError(msg)
        found.append(whole)
    return found


def _step(currency: str) -> int:
    """Units of 10^-12 in one minor unit."""
    return 10 ** (MONEY_SCALE - money.minor_unit(currency))


def _parts(column: pa.StructArray) -> dict[str, pa.Array]:
    return dict(zip(column.type.names, column.flatten(), strict=True))


def _ratios(pairs: Iterable[tuple[int, int]]) -> pa.StructArray:
    found = list(pairs)
    return struct({"numerator": texts(str(top) for top, _ in found), "denominator": texts(str(bottom) for _, bottom in found)})


def _pairs(column: pa.StructArray) -> list[tuple[int, int]]:
    part = _parts(column)
    return [(int(top), int(bottom)) for top, bottom in zip(part["numerator"].to_pylist(), part["denominator"].to_pylist(), strict=True)]


def _tiers(tiers: Sequence[TierUse]) -> pa.StructArray:
    bounds = wide.decimals_of([tier.up_to or 0 for tier in tiers], MONEY_DIGITS, money.QUANTITY_SCALE)
    unbounded = pa.array([tier.up_to is None for tier in tiers], pa.bool_())
    return struct({
        "up_to": pc.if_else(unbounded, pa.scalar(None, bounds.type), bounds),
        "quantity": _ratios(tier.quantity for tier in tiers), "amount": _ratios(tier.amount for tier in tiers),
    })  # fmt: skip


def _read_tiers(column: pa.ListArray) -> list[Sequence[TierUse]]:
    part = _parts(column.flatten())
    items = list(map(TierUse, wide.integers(part["up_to"]), _pairs(part["quantity"]), _pairs(part["amount"])))
    return split(items, column)
