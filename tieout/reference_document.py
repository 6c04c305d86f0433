"""Reference records as documents: what a user writes, strictly validated.

In: a JSON document, ``{kind, key, valid_from, valid_to, recorded_at, author, reason, <kind>: {...}}``. Out: the row of its
record, or ``ReferenceRefused`` with every problem at once: its path, a code, and what to do. ``recorded_at`` and
``author`` are filled by who puts it in where they are left out. Source: docs/contracts.md (reference data).
"""

import base64
import binascii
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from tieout import money
from tieout.contracts import ContractRefused, Currency, Instant, Name, Problem, exact_decimal, parse_charges
from tieout.first_document import FirstDocument
from tieout.reference import KINDS

_STRICT: Final = ConfigDict(extra="forbid", defer_build=True)
_KEY_BYTES: Final = 32
_RATE_DIGITS: Final = 24
_RATE_SCALE: Final = 12


class ReferenceRefused(ValueError):
    """A reference document that cannot be taken; ``problems`` says where and what to do."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.path or 'document'}: {p.message}" for p in problems))
        self.problems = problems


def _rate(value: object) -> Decimal:
    number = exact_decimal(value)
    if number < 0:
        msg = f"{number} is below 0; a rate is 0 or more"
        raise ValueError(msg)
    money.units(number, _RATE_SCALE)
    if number.adjusted() >= _RATE_DIGITS - _RATE_SCALE:
        msg = f"{number} needs more than {_RATE_DIGITS} digits"
        raise ValueError(msg)
    return number


def _public_key(value: object) -> bytes:
    try:
        key = base64.b64decode(str(value), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != _KEY_BYTES:
        msg = "is no Ed25519 public key; write its 32 bytes in base64, as 'tieout key make' prints them"
        raise ValueError(msg)
    return key


def _charges(value: object) -> str:
    """Charges, validated as those of a contract, as the JSON text that their record keeps."""
    if not isinstance(value, list):
        msg = "write the charges as a list, as in a contract version"
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns ValueError into a problem with its path
    try:
        names = [charge.charge_id for charge in parse_charges(value)]
    except ContractRefused as refused:
        raise ValueError(str(refused)) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"charge ids must differ; {twice} stand more than once"
        raise ValueError(msg)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


Rate = Annotated[Decimal, PlainValidator(_rate)]
Days = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Customer:
    """A customer: its ids in other systems, where it is taxed, its ERP ids by legal entity."""

    aliases: dict[Name, Name] = Field(default_factory=dict)
    tax_jurisdiction: Name | None = None
    tax_treatment: Literal["standard", "exempt", "reverse_charge"] | None = None
    payment_terms_days: Days | None = None
    erp_ids: dict[Name, Name] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Product:
    """A product."""

    name: Name
    tax_code: Name | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class LegalEntity:
    """A legal entity and its books' currency."""

    name: Name
    currency: Currency


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class Meter:
    """A meter."""

    unit: Name


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class TaxRate:
    """A tax rate on a product's tax code in a jurisdiction."""

    jurisdiction: Name
    tax_code: Name
    rate_percent: Rate


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ExchangeRate:
    """Units of ``to_currency`` for one of ``from_currency``."""

    from_currency: Currency
    to_currency: Currency
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class AccountMapping:
    """Which account of a legal entity's books plays a role."""

    legal_entity_id: Name
    role: Name
    account: Name


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class RateCard:
    """A version of a price list; ``charges`` in the document is a list, in the record its JSON text."""

    version: Annotated[int, Field(ge=1, lt=2**31, strict=True)]
    charges: Annotated[str, BeforeValidator(_charges)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class User:
    """A person who acts; without a key nothing that the person signs counts."""

    name: Name
    public_key: Annotated[bytes, PlainValidator(_public_key)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, config=_STRICT)
class ReferenceDocument:
    """One dated record."""

    kind: Literal["customer", "product", "legal_entity", "meter", "tax_rate", "exchange_rate", "account_mapping", "rate_card", "user"]
    key: Name
    valid_from: Instant
    valid_to: Instant | None = None
    recorded_at: Instant | None = None
    author: Name | None = None
    reason: Name | None = None
    customer: Customer | None = None
    product: Product | None = None
    legal_entity: LegalEntity | None = None
    meter: Meter | None = None
    tax_rate: TaxRate | None = None
    exchange_rate: ExchangeRate | None = None
    account_mapping: AccountMapping | None = None
    rate_card: RateCard | None = None
    user: User | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ReferenceDocument":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if given != [self.kind]:
            told = ", ".join(repr(kind) for kind in given) or "nothing"
            msg = f"a record of kind {self.kind!r} has the field {self.kind!r} and no other kind's; it has {told}"
            raise ValueError(msg)
        if self.valid_to is not None and self.valid_to <= self.valid_from:
            msg = "the interval is empty: 'valid_to' must lie after 'valid_from'; to end something, record what holds from then on"
            raise ValueError(msg)
        return self


_DOCUMENT: Final = FirstDocument(ReferenceDocument)


def parse(document: Mapping[str, Any]) -> ReferenceDocument:
    """Validate one document; ReferenceRefused with all problems."""
    try:
        return _DOCUMENT.validate(document)
    except ValidationError as error:
        raise ReferenceRefused([_problem(item["loc"], item["type"], item["msg"]) for item in error.errors()]) from None


def _problem(place: tuple[int | str, ...], code: str, message: str) -> Problem:
    path = ".".join(str(part) for part in place if part != "function-plain[_public_key()]")
    if code in ("extra_forbidden", "unexpected_keyword_argument"):
        return Problem(path, code, "unknown field; see docs/contracts.md for the fields of a reference record")
    return Problem(path, code, message.removeprefix("Value error, "))
