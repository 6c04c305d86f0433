"""Which rows of contract columns are surely good: the strict rules of ``tieout.contracts``, by columns.

In: contract versions as the codec decodes them. Out: a mask of the rows that ``parse_contract`` would surely take. It
decides nothing else: a row that is not surely good is parsed as a document, and is taken or refused by its word. So a
rule here may be stricter than that one (matrix prices, bounds beyond 2**62), and never looser; a test compares them.
Source: docs/semantics.md sections 3 and 4.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tieout import masks, money, wide
from tieout.period import known_zone

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_MODELS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "per_unit": (("unit_price",), ()),
    "flat": (("amount",), ()),
    "graduated": (("tiers",), ("flat_at_zero",)),
    "volume": (("tiers",), ("flat_at_zero",)),
    "package": (("size", "price"), ("free_units", "partial")),
    "percentage": (("rate_percent",), ("fixed_per_event", "free_events", "free_amount", "minimum_per_event", "maximum_per_event")),
    "graduated_percentage": (("rate_tiers",), ("flat_at_zero",)),
    "dynamic": ((), ("multiplier",)),
}
"""The fields that a price model must have and may have; matrix prices are left to the document's rules."""
_FREE: Final = frozenset({
    "change.reason", "change.requested_by", "change.approved_by", "commitments.scope", "currency", "billing.time_zone",
})  # fmt: skip
"""Texts that are no names: any length, or a rule of their own."""
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "version": (1, 2**20 - 1), "rate_card.version": (1, 2**31 - 1), "billing.anchor_day": (1, 31), "billing.anchor_month": (1, 12),
    "billing.anchor_weekday": (1, 7), "billing.grace_hours": (0, 2**31 - 1), "billing.payment_terms_days": (0, 2**31 - 1),
    "credits.priority": (0, 2**31 - 1), "charges.price.free_events": (0, 2**63 - 1),
}  # fmt: skip
_INSTANTS: Final = (-62_000_000_000_000_000, 253_000_000_000_000_000)  # years that Python's calendar surely has
_DAYS: Final = (-717_000, 2_930_000)
_LONGEST: Final = 255
_CENT_PERCENT: Final = 100 * 10**9


def sound(rows: pa.RecordBatch) -> Mask:
    """The rows that are surely good."""
    bad = np.zeros(rows.num_rows, np.bool_)
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        found = _bad(column, "charges" if name == "overrides" else name)
        if found is not None:
            bad |= found
    ends = rows["effective_to"]
    if ends.null_count < len(ends):
        bad |= pc.less_equal(ends, rows["effective_from"]).fill_null(False).to_numpy(zero_copy_only=False)
    bad |= _unknown_words(rows["currency"], money.known)
    bad |= _unknown_words(rows["billing"].field("time_zone"), known_zone)
    bad[_with_twins(rows["charges"])] = True
    return ~bad


def _bad(column: pa.Array, path: str) -> Mask | None:
    """The rows that break a rule for one field alone, or for the fields of one part; None where there are none."""
    kind = column.type
    if not len(column) or column.null_count == len(column) or pa.types.is_map(kind) or pa.types.is_boolean(kind):
        return None
    if pa.types.is_struct(kind):
        found = _bad_part(column, path)
    elif pa.types.is_list(kind):
        found = _in_lists(column, _bad(column.flatten(), path))
    elif pa.types.is_dictionary(kind):
        words = column.dictionary.to_pylist()
        found = column.indices.to_numpy(zero_copy_only=False) == words.index("unknown") if "unknown" in words else None
    elif pa.types.is_decimal(kind):
        found = wide.lanes_of(column)[0] >> np.uint64(63) != 0
    elif pa.types.is_timestamp(kind):
        found = _outside(column.cast(pa.int64()), *_INSTANTS)
    elif pa.types.is_date(kind):
        found = _outside(column.cast(pa.int32()), *_DAYS)
    elif pa.types.is_integer(kind):
        found = _outside(column, *_BOUNDS[path])
    else:
        found = None if path in _FREE else _bad_names(column)
    if found is not None and column.null_count:
        found &= masks.valid(column)
    return found if found is not None and found.any() else None


def _bad_part(column: pa.StructArray, path: str) -> Mask | None:
    parts = [_bad(column.field(at), f"{path}.{field.name}") for at, field in enumerate(column.type)]
    rule = _RULES.get(path)
    broken = [mask for mask in (*parts, None if rule is None else rule(column)) if mask is not None]
    return np.logical_or.reduce(broken) if broken else None


def _in_lists(column: pa.ListArray, items: Mask | None) -> Mask | None:
    """The rows whose list has such an item."""
    if items is None:
        return None
    found = np.zeros(len(column), np.bool_)
    found[pc.list_parent_indices(column).to_numpy()[items]] = True
    return found


def _outside(column: pa.Array, least: int, most: int) -> Mask:
    values = column.fill_null(least).to_numpy(zero_copy_only=False)
    return (values < least) | (values > most)


def _bad_names(column: pa.Array) -> Mask | None:
    bytes_ = pc.min_max(pc.binary_length(column))
    if bytes_["min"].as_py() >= 1 and bytes_["max"].as_py() <= _LONGEST:
        return None
    size = pc.utf8_length(column).fill_null(1).to_numpy(zero_copy_only=False)
    return (size < 1) | (size > _LONGEST)


def _unknown_words(column: pa.Array, known: Callable[[str], bool]) -> Mask:
    encoded = pc.dictionary_encode(column)
    strange = np.array([not known(word) for word in encoded.dictionary.to_pylist()], np.bool_)
    return strange[encoded.indices.to_numpy(zero_copy_only=False)]


def _with_twins(charges: pa.ListArray) -> I64:
    """The rows in which a charge's id stands more than once."""
    names = pc.dictionary_encode(charges.flatten().field("charge_id"))
    parent = pc.list_parent_indices(charges).to_numpy()
    pairs = np.asarray(parent, np.int64) * len(names.dictionary) + names.indices.to_numpy()
    pairs.sort()
    return pairs[1:][pairs[1:] == pairs[:-1]] // max(len(names.dictionary), 1)


def _yes(part: pa.StructArray, name: str) -> Mask:
    return part.field(name).fill_null(False).to_numpy(zero_copy_only=False)


def _charge(part: pa.StructArray) -> Mask:
    price, aggregation = part.field("price"), part.field("aggregation")
    fee = masks.is_one(price.field("model"), "flat")
    walked = masks.is_one(price.field("model"), "percentage", "dynamic")
    simple = masks.is_one(aggregation.field("kind"), "sum") & ~_yes(aggregation, "carry_over")
    return (masks.valid(part.field("meter")) == fee) | (walked & ~simple) | masks.is_one(part.field("interval"), "term") | _above(part, "discount_percent")


def _aggregation(part: pa.StructArray) -> Mask:
    carries = _yes(part, "carry_over")
    return (
        (masks.valid(part.field("bucket")) & ~masks.is_one(part.field("kind"), "max"))
        | (masks.valid(part.field("property")) != masks.is_one(part.field("kind"), "unique_count"))
        | (masks.valid(part.field("initial")) & ~masks.is_one(part.field("kind"), "weighted_sum"))
        | (carries & (masks.is_one(part.field("kind"), "unique_count", "weighted_sum") | masks.valid(part.field("bucket"))))
        | (masks.valid(part.field("prorate")) & ~carries)
    )


def _price(part: pa.StructArray) -> Mask:
    """Each model has its own fields, and no other's."""
    found = ~masks.is_one(part.field("model"), *_MODELS)
    for field in part.type:
        name = field.name
        if name == "model":
            continue
        needs = [model for model, (must, _) in _MODELS.items() if name in must]
        takes = [model for model, (_, may) in _MODELS.items() if name in may]
        if part.field(name).null_count < len(part):
            found |= masks.valid(part.field(name)) & ~masks.is_one(part.field("model"), *needs, *takes)
        if needs:
            found |= masks.is_one(part.field("model"), *needs) & ~masks.valid(part.field(name))
    found |= _zero(part, "size")
    for name in ("tiers", "rate_tiers"):
        column = part.field(name)
        if column.null_count < len(column):
            found |= _falling(column)
    return found


def _falling(tiers: pa.ListArray) -> Mask:
    """Lists of tiers that are empty, not open at their end and only there, or whose bounds do not rise."""
    sizes = masks.sizes(tiers)
    found = sizes == 0
    bounds = tiers.flatten().field("up_to")
    if not len(bounds):
        return found & masks.valid(tiers)
    last = np.cumsum(sizes)[sizes > 0] - 1
    first = last - sizes[sizes > 0] + 1
    units, fits = wide.narrow(bounds)
    below = np.empty_like(units)
    below[1:] = units[:-1]
    below[first] = 0
    open_ = ~masks.valid(bounds)
    ends = np.zeros(len(units), np.bool_)
    ends[last] = True
    wrong = (open_ != ends) | (~open_ & (~fits | (units <= below)))
    found[pc.list_parent_indices(tiers).to_numpy()[wrong]] = True
    return found & masks.valid(tiers)


def _conversion(part: pa.StructArray) -> Mask:
    both = masks.valid(part.field("multiply_by")) == masks.valid(part.field("divide_by"))
    return both | _zero(part, "multiply_by") | _zero(part, "divide_by")


def _coupon(part: pa.StructArray) -> Mask:
    return _above(part, "percent")


def _zero(part: pa.StructArray, name: str) -> Mask:
    column = part.field(name)
    if column.null_count == len(column):
        return np.zeros(len(part), np.bool_)
    high, low = wide.lanes_of(column)
    return (high == 0) & (low == 0) & masks.valid(column)


def _above(part: pa.StructArray, name: str) -> Mask:
    """Where a percent is above 100."""
    column = part.field(name)
    if column.null_count == len(column):
        return np.zeros(len(part), np.bool_)
    units, fits = wide.narrow(column)
    return ~fits | (units > _CENT_PERCENT)


_RULES: Final[Mapping[str, Callable[[pa.StructArray], Mask]]] = {
    "charges": _charge, "charges.aggregation": _aggregation, "charges.price": _price, "charges.unit_conversion": _conversion,
    "coupons": _coupon,
}  # fmt: skip
