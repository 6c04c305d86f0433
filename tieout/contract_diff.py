"""Contract versions side by side: every field by its path, and where two versions differ.

In: contract versions. Out: paths with their figures as text, null fields left out. Parts that have an id stand under it and
not under their place in a list (``charges[tokens].price.unit_price``), so a charge that moved has not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from tieout.contracts import ContractVersion


_BY_ID: Final = {"charges": "charge_id", "overrides": "charge_id", "coupons": "coupon_id", "commitments": "commitment_id", "credits": "grant_id", "obligations": "obligation_id"}


class Difference(NamedTuple):
    """A field that two versions have not in common; None where one lacks it."""

    path: str
    before: str | None
    after: str | None


def fields_of(version: ContractVersion) -> dict[str, str]:
    """Every field that is set, in the document's order."""
    return dict(_flat(version, ""))


def differences(before: ContractVersion, after: ContractVersion) -> list[Difference]:
    """All fields that differ, in the order of the later version, lost ones last."""
    old, new = fields_of(before), fields_of(after)
    paths = [*new, *(path for path in old if path not in new)]
    return [Difference(path, old.get(path), new.get(path)) for path in paths if old.get(path) != new.get(path)]


def _flat(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if value is None or value in ((), {}):
        return
    if is_dataclass(value):
        for field in fields(value):
            yield from _flat(getattr(value, field.name), f"{path}.{field.name}" if path else field.name)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(item, f"{path}.{name}")
    elif isinstance(value, tuple):
        known = _BY_ID.get(path)
        for at, item in enumerate(value):
            yield from _flat(item, f"{path}[{at if known is None else getattr(item, known)}]")
    else:
        yield path, text_of(value)


def text_of(value: object) -> str:
    """A figure as a document writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return value.isoformat() if isinstance(value, date) else str(value)
