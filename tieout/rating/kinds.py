"""How a charge's running quantity is kept, and which charges the kernel may price.

In: a charge, or charges as decoded columns. Out: its kind: ``sum`` and ``count`` are running quantities, ``amount`` a
running sum of given amounts, ``kept`` the values of a period, ``walked`` each event in order, ``level`` what opens the
next period, ``fee`` no usage at all. Source: docs/semantics.md section 4 (aggregations, models).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tieout import masks

if TYPE_CHECKING:
    from tieout.contracts import Charge

Kind = Literal["sum", "count", "amount", "kept", "walked", "level", "fee"]
Mask = npt.NDArray[np.bool_]
KINDS: Final[tuple[Kind, ...]] = ("sum", "count", "amount", "kept", "walked", "level", "fee")
_BY_MODEL: Final[dict[str, Kind]] = {"flat": "fee", "percentage": "walked", "matrix": "walked", "dynamic": "amount"}
_BY_AGGREGATION: Final[dict[str, Kind]] = {
    "sum": "sum", "count": "count", "max": "kept", "latest": "kept", "unique_count": "kept", "weighted_sum": "level",
}  # fmt: skip


class Kinds(NamedTuple):
    """Of each charge the place of its kind in ``KINDS``, whether the kernel may price it, whether each version starts anew."""

    kind: npt.NDArray[np.int32]
    kernel: Mask
    by_version: Mask


def kind_of(charge: Charge) -> Kind:
    """How a charge's running quantity is kept."""
    if charge.price.model == "flat":
        return "fee"
    if charge.price.model in ("percentage", "matrix"):
        return "walked"
    if charge.price.model == "dynamic":
        return "amount"
    return "level" if charge.aggregation.carry_over else _BY_AGGREGATION[charge.aggregation.kind]


def in_kernel(charge: Charge) -> bool:
    """Whether the kernel may price a charge: one running quantity for all events of its meter, that resets."""
    return kind_of(charge) in ("sum", "count") and not charge.filters and not charge.group_by and charge.reset != "never"


def kinds_of(charges: pa.StructArray) -> Kinds:
    """The same for columns of charges."""
    aggregation = charges.field("aggregation")
    by_model = _coded(charges.field("price").field("model"), _BY_MODEL)
    kind = np.where(by_model >= 0, by_model, _coded(aggregation.field("kind"), _BY_AGGREGATION))
    carries = aggregation.field("carry_over").to_numpy(zero_copy_only=False)
    kind[carries & (by_model < 0)] = KINDS.index("level")
    reset = charges.field("reset")
    alone = (masks.sizes(charges.field("filters")) == 0) & (masks.sizes(charges.field("group_by")) == 0)
    kernel = (kind <= KINDS.index("count")) & alone & ~masks.is_one(reset, "never")
    return Kinds(kind, kernel, masks.is_one(reset, "contract_version"))


def _coded(words: pa.DictionaryArray, codes: dict[str, Kind]) -> npt.NDArray[np.int32]:
    """The place of each word's kind, -1 for words without one."""
    table = np.array([KINDS.index(codes[word]) if word in codes else -1 for word in words.dictionary.to_pylist()], np.int32)
    return table[words.indices.to_numpy()]
