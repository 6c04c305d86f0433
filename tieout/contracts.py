"""Contract versions: the document that governs prices, strictly validated and frozen.

In: the JSON document of docs/interfaces.md. Out: a ``ContractVersion``, or ``ContractRefused`` with every problem at
once: its path, a code, and what to do. Decimals come as strings; a JSON number with a fraction is refused, because a
float has already lost the figure. Source: docs/semantics.md sections 3 and 4.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, dataclass_transform
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from tieout import money
from tieout.first_document import FirstDocument
from tieout.period import Calendar, micros


class Problem(NamedTuple):
    """One thing wrong with a document."""

    path: str
    code: str
    message: str


class ContractRefused(ValueError):
    """A contract document that cannot be taken; ``problems`` says where and what to do."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.path or 'document'}: {p.message}" for p in problems))
        self.problems = problems


def exact_decimal(value: object) -> Decimal:
    """A decimal from its string; a JSON number is refused, it may have lost digits already."""
    if isinstance(value, Decimal):
        return value
    if not isinstance(value, str):
        msg = f'write decimals as strings, as in "0.01", not as {type(value).__name__}'
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError into a problem with its path
    try:
        number = Decimal(value)
    except InvalidOperation:
        msg = f"{value!r} is not a decimal number"
        raise ValueError(msg) from None
    if not number.is_finite():
        msg = f"{value!r} is not a finite number"
        raise ValueError(msg)
    return number


def _limited(digits: int, scale: int) -> PlainValidator:
    """Decimals of 0 or more, of at most ``digits`` digits of which ``scale`` are decimals."""
    whole = digits - scale

    def check(value: object) -> Decimal:
        number = exact_decimal(value)
        if not number:
            return number
        if number < 0:
            msg = f"{number} is below 0; prices, fees and quantities of a contract are 0 or more"
            raise ValueError(msg)
        money.units(number, scale)
        if number.adjusted() >= whole:
            msg = f"{number} needs more than {digits} digits"
            raise ValueError(msg)
        return number

    return PlainValidator(check)


def instant(value: object) -> datetime:
    """An aware time from RFC 3339 text."""
    moment = value if isinstance(value, datetime) else None
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            msg = f"{value!r} is not an RFC 3339 time, as in '2026-03-01T00:00:00Z'"
            raise ValueError(msg) from None
    if moment is None or moment.tzinfo is None:
        msg = f"{value!r} needs a time with its zone, as in '2026-03-01T00:00:00Z'"
        raise ValueError(msg)
    return moment


def _date(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        msg = f"{value!r} is not a date, as in '2026-03-01'"
        raise ValueError(msg) from None


def _zone(value: str) -> str:
    if not known_zone(value):
        msg = f"{value!r} is not an IANA time zone, as in 'America/New_York'"
        raise ValueError(msg)
    return value


@cache
def known_zone(name: str) -> bool:
    """Whether a time zone is one of IANA's."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _currency(value: str) -> str:
    money.minor_unit(value)
    return value


def known_currency(name: str) -> bool:
    """Whether a currency is one of ISO 4217's."""
    try:
        money.minor_unit(name)
    except ValueError:
        return False
    return True


Quantity = Annotated[Decimal, _limited(money.QUANTITY_DIGITS, money.QUANTITY_SCALE)]
UnitPrice = Annotated[Decimal, _limited(money.UNIT_PRICE_DIGITS, money.UNIT_PRICE_SCALE)]
Amount = Annotated[Decimal, _limited(money.RATED_DIGITS, money.RATED_SCALE)]
Positive = Annotated[Quantity, Field(gt=0)]
Instant = Annotated[datetime, BeforeValidator(instant)]
Day = Annotated[date, BeforeValidator(_date)]
Name = Annotated[str, Field(min_length=1, max_length=255)]
Percent = Annotated[Quantity, Field(le=100)]
Currency = Annotated[str, AfterValidator(_currency)]
Zone = Annotated[str, AfterValidator(_zone)]
Rate = Quantity


_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def _document(cls: type[_T]) -> type[_T]:
    """How every part of a contract is declared: frozen, strict about unknown fields, and small in memory."""
    return dataclass(cls, frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", defer_build=True))  # type: ignore[return-value]


@_document
class Tier:
    """Quantities above the tier before, up to ``up_to``, inclusive; the last is open."""

    up_to: Quantity | None = None
    unit_price: UnitPrice = Decimal(0)
    flat_fee: Amount = Decimal(0)


@_document
class RateTier:
    """The same with a percent rate on value."""

    up_to: Quantity | None = None
    rate_percent: Rate = Decimal(0)
    flat_fee: Amount = Decimal(0)


def _rising(tiers: tuple[Tier, ...] | tuple[RateTier, ...]) -> None:
    bounds = [tier.up_to for tier in tiers]
    if not bounds or bounds[-1] is not None:
        msg = 'the last tier must be open: give it "up_to": null'
        raise ValueError(msg)
    if any(bound is None for bound in bounds[:-1]):
        msg = "only the last tier is open; give every other tier its 'up_to'"
        raise ValueError(msg)
    low = Decimal(0)
    for bound in bounds[:-1]:
        if bound is None or bound <= low:
            msg = f"the tiers' bounds must rise; {bound} does not lie above {low}"
            raise ValueError(msg)
        low = bound


@_document
class PerUnit:
    """Every unit at one price."""

    model: Literal["per_unit"]
    unit_price: UnitPrice


@_document
class Flat:
    """One amount an interval."""

    model: Literal["flat"]
    amount: Amount


@_document
class _Tiered:
    tiers: tuple[Tier, ...]
    flat_at_zero: bool = True

    @field_validator("tiers")
    @classmethod
    def _bounds(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        _rising(tiers)
        return tiers


@_document
class Graduated(_Tiered):
    """Each tier prices the part of the quantity inside it."""

    model: Literal["graduated"]


@_document
class Volume(_Tiered):
    """The tier that holds the whole quantity prices all of it."""

    model: Literal["volume"]


@_document
class Package:
    """Whole packages of ``size`` units."""

    model: Literal["package"]
    size: Positive
    price: Amount
    free_units: Quantity = Decimal(0)
    partial: Literal["up", "down"] = "up"


@_document
class Percentage:
    """A rate on the value of each event, with allowances and bounds per event."""

    model: Literal["percentage"]
    rate_percent: Rate
    fixed_per_event: Amount | None = None
    free_events: Annotated[int, Field(ge=0, lt=2**63, strict=True)] | None = None
    free_amount: Quantity | None = None
    minimum_per_event: Amount | None = None
    maximum_per_event: Amount | None = None


@_document
class GraduatedPercentage:
    """As graduated, with rates on value."""

    model: Literal["graduated_percentage"]
    tiers: tuple[RateTier, ...]
    flat_at_zero: bool = True

    @field_validator("tiers")
    @classmethod
    def _bounds(cls, tiers: tuple[RateTier, ...]) -> tuple[RateTier, ...]:
        _rising(tiers)
        return tiers


@_document
class MatrixPrice:
    """The price of events whose attributes match."""

    match: dict[str, str]
    unit_price: UnitPrice | None = None
    tiers: tuple[Tier, ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> "MatrixPrice":
        if (self.unit_price is None) == (self.tiers is None):
            msg = "give either 'unit_price' or 'tiers'"
            raise ValueError(msg)
        if self.tiers is not None:
            _rising(self.tiers)
        return self


@_document
class Matrix:
    """A price by attribute values."""

    model: Literal["matrix"]
    dimensions: tuple[Name, ...]
    prices: tuple[MatrixPrice, ...]
    default_unit_price: UnitPrice | None = None

    @model_validator(mode="after")
    def _known_dimensions(self) -> "Matrix":
        for price in self.prices:
            strange = sorted(set(price.match) - set(self.dimensions))
            if strange:
                msg = f"'match' names {strange}, which are not among 'dimensions'"
                raise ValueError(msg)
        return self


@_document
class Dynamic:
    """The amount given in the event, times a multiplier."""

    model: Literal["dynamic"]
    multiplier: Quantity = Decimal(1)


Price = Annotated[
    PerUnit | Flat | Graduated | Volume | Package | Percentage | GraduatedPercentage | Matrix | Dynamic,
    Field(discriminator="model"),
]


@_document
class Aggregation:
    """How events become a quantity."""

    kind: Literal["sum", "count", "max", "latest", "unique_count", "weighted_sum"] = "sum"
    bucket: Literal["hour", "day"] | None = None
    property: Name | None = None
    initial: Quantity | None = None
    carry_over: bool = False
    prorate: Literal["day"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Aggregation":
        checks = (
            (self.bucket is not None and self.kind != "max", "'bucket' goes with kind max"),
            ((self.property is not None) != (self.kind == "unique_count"), "'property' is what unique_count counts; give it there only"),
            (self.initial is not None and self.kind != "weighted_sum", "'initial' goes with kind weighted_sum"),
            (self.carry_over and self.kind in ("unique_count", "weighted_sum"), f"'carry_over' does not go with kind {self.kind}"),
            (self.carry_over and self.bucket is not None, "'carry_over' does not go with 'bucket'"),
            (self.prorate is not None and not self.carry_over, "'prorate' goes with 'carry_over'"),
        )
        for wrong, message in checks:
            if wrong:
                raise ValueError(message)
        return self


@_document
class UnitConversion:
    """Raw units to billing units."""

    multiply_by: Positive | None = None
    divide_by: Positive | None = None
    round: Literal["none", "ceil", "floor", "half_up"] = "none"

    @model_validator(mode="after")
    def _one(self) -> "UnitConversion":
        if (self.multiply_by is None) == (self.divide_by is None):
            msg = "give either 'multiply_by' or 'divide_by'"
            raise ValueError(msg)
        return self


@_document
class Charge:
    """What is charged for one meter, or a fee."""

    charge_id: Name
    product_id: Name | None = None
    legal_entity_id: Name | None = None
    meter: Name | None = None
    aggregation: Aggregation = Field(default_factory=Aggregation)
    filters: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    group_by: tuple[Name, ...] = ()
    unit_conversion: UnitConversion | None = None
    included_quantity: Quantity = Decimal(0)
    price: Price
    discount_percent: Percent = Decimal(0)
    maximum: Amount | None = None
    minimum: Amount | None = None
    reset: Literal["billing_period", "contract_version", "never"] = "billing_period"
    interval: Literal["week", "month", "quarter", "year"] | None = None
    timing: Literal["advance", "arrears"] = "arrears"
    proration: Literal["day", "second", "none"] = "day"
    obligation_id: Name | None = None

    @model_validator(mode="after")
    def _metered(self) -> "Charge":
        if isinstance(self.price, Flat):
            if self.meter is not None:
                msg = "a flat price is a fee and has no 'meter'"
                raise ValueError(msg)
        elif self.meter is None:
            msg = "usage prices need a 'meter'"
            raise ValueError(msg)
        walked = isinstance(self.price, Percentage | Matrix | Dynamic)
        if walked and (self.aggregation.kind != "sum" or self.aggregation.carry_over):
            msg = f"a {self.price.model} price looks at each event; its aggregation is sum"
            raise ValueError(msg)
        return self


@_document
class Term:
    """The contract's term, half-open."""

    start_on: Day
    end_on: Day | None = None


@_document
class Billing:
    """When and how the contract is billed."""

    period: Literal["week", "month", "quarter", "year"] = "month"
    anchor_day: Annotated[int, Field(ge=1, le=31, strict=True)] = 1
    anchor_month: Annotated[int, Field(ge=1, le=12, strict=True)] = 1
    anchor_weekday: Annotated[int, Field(ge=1, le=7, strict=True)] = 1
    time_zone: Zone = "UTC"
    grace_hours: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 24
    payment_terms_days: Annotated[int, Field(ge=0, lt=2**31, strict=True)] | None = None
    """None: the customer's, see ``tieout.payment_terms``."""
    late_usage: Literal["next_invoice", "exception"] = "next_invoice"
    inactive_usage: Literal["exception", "price", "waive"] = "exception"
    thresholds: tuple[Amount, ...] = ()

    @property
    def calendar(self) -> Calendar:
        """The contract's billing periods."""
        return Calendar(self.period, self.anchor_day, self.anchor_month, self.anchor_weekday, self.time_zone)


@_document
class Change:
    """Why this version exists."""

    kind: Literal["new", "amendment", "renewal", "credit", "suspension", "resumption", "termination"] = "new"
    treatment: Literal["prospective", "cumulative_catch_up", "separate_contract"] | None = None
    reason: str | None = None
    requested_by: str | None = None
    approved_by: str | None = None


@_document
class RateCardRef:
    """The versioned price list that the charges come from."""

    rate_card_id: Name
    version: Annotated[int, Field(ge=1, lt=2**31, strict=True)]


@_document
class Coupon:
    """A percent or an amount off the rounded lines."""

    coupon_id: Name
    percent: Percent | None = None
    amount: Amount | None = None
    until: Instant | None = None


@_document
class Commitment:
    """A minimum per contract, charge or term."""

    commitment_id: Name
    kind: Literal["prepaid", "postpaid"] = "postpaid"
    scope: str = "contract"
    amount: Amount
    interval: Literal["week", "month", "quarter", "year", "term"] = "month"
    includes_base_fee: bool = False
    prorate: bool = False
    rollover: bool = False
    overage_factor: Quantity | None = None
    obligation_id: Name | None = None


@_document
class Credit:
    """A prepaid or granted credit."""

    grant_id: Name
    amount: Amount
    priority: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 1
    kind: Literal["granted", "purchased"] = "granted"
    effective_from: Instant | None = None
    expires_at: Instant | None = None


@_document
class Obligation:
    """A performance obligation and how it is recognised."""

    obligation_id: Name
    ssp: Amount | None = None
    recognition: Literal["ratable", "point_in_time", "as_invoiced", "units"] = "as_invoiced"
    start_on: Day | None = None
    end_on: Day | None = None


@_document
class ContractVersion:
    """One immutable version of a contract."""

    contract_id: Name
    version: Annotated[int, Field(ge=1, lt=2**20, strict=True)] = 1
    customer_id: Name
    legal_entity_id: Name = "default"
    currency: Currency = "USD"
    status: Literal["draft", "approved", "active", "suspended", "terminated"] = "active"
    change: Change = Field(default_factory=Change)
    effective_from: Instant
    effective_to: Instant | None = None
    recorded_at: Instant | None = None
    term: Term | None = None
    rate_card: RateCardRef | None = None
    overrides: tuple[Charge, ...] = ()
    billing: Billing = Field(default_factory=Billing)
    charges: tuple[Charge, ...] = ()
    coupons: tuple[Coupon, ...] = ()
    commitments: tuple[Commitment, ...] = ()
    credits: tuple[Credit, ...] = ()
    obligations: tuple[Obligation, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "ContractVersion":
        if self.effective_to is not None and self.effective_to <= self.effective_from:
            msg = "the interval is empty: 'effective_to' must lie after 'effective_from'"
            raise ValueError(msg)
        names = [charge.charge_id for charge in self.charges]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            msg = f"charge ids must differ; {twice} stand more than once"
            raise ValueError(msg)
        return self

    @property
    def effective_from_us(self) -> int:
        """The first instant of the version, in UTC microseconds."""
        return micros(self.effective_from)

    @property
    def effective_to_us(self) -> int | None:
        """The instant at which it ends, not included; None for open."""
        return None if self.effective_to is None else micros(self.effective_to)


_MADE: Final = (Tier, RateTier, Graduated, Volume, GraduatedPercentage, Charge)  # levels are priced with charges made anew
_CONTRACT: Final = FirstDocument(ContractVersion, _MADE)
_CHARGE: Final = FirstDocument(Charge, _MADE)
_OPEN_SINCE: Final = "1970-01-01T00:00:00Z"


def parse_contract(document: Mapping[str, Any]) -> ContractVersion:
    """Validate one contract version document; ContractRefused with all problems."""
    try:
        return _CONTRACT.validate(document)
    except ValidationError as error:
        raise _refused(error) from None


def parse_charges(documents: Sequence[Mapping[str, Any]]) -> list[Charge]:
    """Validate charges alone; ContractRefused with all problems of the first that is wrong."""
    try:
        return [_CHARGE.validate(document) for document in documents]
    except ValidationError as error:
        raise _refused(error, "charge") from None


def parse_charge(document: Mapping[str, Any], currency: str) -> ContractVersion:
    """Wrap a bare charge into a contract ``quote`` of the customer ``customer``, in force since 1970."""
    try:
        charge = _CHARGE.validate({"charge_id": "charge", "meter": _default_meter(document), **document})
    except ValidationError as error:
        raise _refused(error, "charge") from None
    whole = {"contract_id": "quote", "customer_id": "customer", "currency": currency, "effective_from": _OPEN_SINCE, "charges": (charge,)}
    return parse_contract(whole)


def _default_meter(document: Mapping[str, Any]) -> str | None:
    price = document.get("price")
    flat = isinstance(price, Mapping) and price.get("model") == "flat"
    return None if flat else "meter"


def _refused(error: ValidationError, prefix: str = "") -> ContractRefused:
    problems = []
    for item in error.errors():
        path = ".".join(str(part) for part in (*([prefix] if prefix else []), *_path(item["loc"])))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            message = "unknown field; see docs/interfaces.md for the fields of a contract version"
        problems.append(Problem(path, item["type"], message))
    return ContractRefused(problems)


def _path(parts: tuple[int | str, ...]) -> Iterator[int | str]:
    """A problem's place in the document: the tag that chose a price model stands in no document."""
    before: int | str = ""
    for part in parts:
        if before != "price" or part not in _MODELS:
            yield part
        before = part


_MODELS: Final = frozenset(
    ("per_unit", "flat", "graduated", "volume", "package", "percentage", "graduated_percentage", "matrix", "dynamic")
)
