"""The JSON document of a usage event, validated field by field.

In: documents of docs/interfaces.md. Out: columns in ``EVENTS``, or ``DocumentRefused`` with the path of the first
problem. Only the form is checked here; ranges and times are the usage stage's to judge. Source: docs/interfaces.md.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from tieout import money
from tieout.contracts import exact_decimal, instant
from tieout.first_document import FirstDocument
from tieout.period import micros
from tieout.usage import EVENTS


class DocumentRefused(ValueError):
    """A usage document that is not one: ``path`` says where, the message what to do."""

    def __init__(self, path: str, code: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path, self.code, self.message = path, code, message


def _digits(digits: int, scale: int) -> AfterValidator:
    def check(number: Decimal) -> Decimal:
        if abs(money.units(number, scale)) >= 10**digits:
            msg = f"{number} needs more than {digits} digits"
            raise ValueError(msg)
        return number

    return AfterValidator(check)


def _micros(value: datetime) -> datetime:
    return value.astimezone(UTC)


_Quantity = Annotated[Decimal, BeforeValidator(exact_decimal), _digits(money.QUANTITY_DIGITS, money.QUANTITY_SCALE)]
_Amount = Annotated[Decimal, BeforeValidator(exact_decimal), _digits(money.RATED_DIGITS, money.RATED_SCALE)]
_Instant = Annotated[datetime, BeforeValidator(instant), AfterValidator(_micros)]
_strict: Final = dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", defer_build=True))


@_strict
class UsageKeyDocument:
    """The identity of another event."""

    source: str
    id: str


@_strict
class UsageDocument:
    """One usage event as a user writes it."""

    id: str
    source: str
    customer_id: str
    meter: str
    time: _Instant
    quantity: _Quantity | None = None
    attributes: dict[str, str] = Field(default_factory=dict)
    contract_id: str | None = None
    amount: _Amount | None = None
    corrects: UsageKeyDocument | None = None
    voids: UsageKeyDocument | None = None


_DOCUMENT: Final = FirstDocument(UsageDocument)


def parse(document: Mapping[str, Any], path: str = "") -> UsageDocument:
    """Validate one document."""
    try:
        return _DOCUMENT.validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (*([path] if path else []), *first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "unexpected_keyword_argument":
            message = "unknown field; docs/interfaces.md lists the fields of a usage event"
        raise DocumentRefused(where, first["type"], message) from None


def columns(documents: Sequence[UsageDocument]) -> pa.RecordBatch:
    """Documents as a batch of ``EVENTS``, one row each."""
    rows: dict[str, list[Any]] = {name: [getattr(document, name) for document in documents] for name in EVENTS.names}
    rows["time"] = [micros(moment) for moment in rows["time"]]
    rows["attributes"] = [list(attributes.items()) for attributes in rows["attributes"]]
    for name in ("corrects", "voids"):
        rows[name] = [None if key is None else {"source": key.source, "id": key.id} for key in rows[name]]
    arrays = [pa.array(rows[field.name], pa.int64()).cast(field.type) if field.name == "time" else pa.array(rows[field.name], field.type) for field in EVENTS]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENTS)
