"""What invoicing takes and gives: sums of rated usage, lines, invoices, and the account of a contract.

All are immutable and made of plain integers, texts and tuples, so that a state or a topic can hold them as they stand.
Units: quantities 10^-9, rated amounts 10^-12, ``amount`` in minor units of the line's currency, instants UTC
microseconds, intervals half-open. Source: docs/semantics.md section 5, docs/interfaces.md (invoice).
"""

from fractions import Fraction
from typing import Final, Literal, NamedTuple

from tieout import ids
from tieout.period import Period

Group = tuple[str | None, ...]
Kind = Literal["usage", "fee", "minimum", "commitment", "overage", "coupon", "credit", "delta", "tax"]
DIGEST: Final = 1 << 128


class UsageSum(NamedTuple):
    """Rated records of one (charge, group, original billing period, version, stretch) that came since the last bill: an increment.

    ``since_us`` is where the stretch of the events' times begins: the largest of ``cuts(timeline)`` (the bounds of
    prepaid grants) at or below the record's ``time``, but not below ``period_us``. ``live`` is the change of the number
    of live events: +1 for a first record (cause ``usage``, or the entering half of a ``reprice``), -1 for a void and the
    leaving half, 0 for other corrections and carries. ``records`` is how many there are, ``digest`` the sum of their
    ``rated_id`` modulo 2^128.
    """

    charge_id: str
    group: Group | None
    period_us: int
    version: int
    since_us: int
    quantity: int
    amount: int
    live: int
    records: int
    digest: int

    @property
    def key(self) -> tuple[str, Group | None, int, int, int]:
        """What the sum is of."""
        return self.charge_id, self.group, self.period_us, self.version, self.since_us

    def negative(self) -> "UsageSum":
        """What takes it away."""
        return self._replace(quantity=-self.quantity, amount=-self.amount, live=-self.live, records=-self.records, digest=-self.digest % DIGEST)

    def plus(self, other: "UsageSum") -> "UsageSum":
        """Two sums of the same key as one; the order does not matter."""
        return self._replace(
            quantity=self.quantity + other.quantity, amount=self.amount + other.amount, live=self.live + other.live,
            records=self.records + other.records, digest=(self.digest + other.digest) % DIGEST,
        )


class LineKey(NamedTuple):
    """What a line bills, whatever its amount: equal keys are the same line computed again.

    ``ref`` tells lines of one charge apart: the commitment and its part, the coupon and what it lowers, the tax code.
    ``charge_id`` is empty for what belongs to the contract as a whole.
    """

    period_us: int
    charge_id: str
    group: Group | None
    kind: str
    ref: tuple[str, ...]
    start_us: int
    legal_entity_id: str
    currency: str


class TierUse(NamedTuple):
    """What a tier billed: its bound in 10^-9 billing units, quantity and amount as exact ratios."""

    up_to: int | None
    quantity: tuple[int, int]
    amount: tuple[int, int]


class Line(NamedTuple):
    """One line; ``exact`` in the currency's unit as a ratio, ``amount`` its rounded figure in minor units."""

    key: LineKey
    end_us: int
    period: str
    versions: tuple[int, ...]
    quantity: int
    usage_exact: int
    exact: Fraction
    amount: int
    product_id: str | None = None
    obligation_id: str | None = None
    tiers: tuple[TierUse, ...] = ()
    tax_code: str | None = None
    usage_count: int = 0
    usage_digest: int = 0
    kind: Kind = "usage"
    """As the document says it: the key's own, or ``delta``."""
    start_us: int = 0
    """Where its service period begins: the key's, or that of the part which a delta concerns."""
    delta_of: str | None = None
    line_id: str = ""


class Posted(NamedTuple):
    """What stands billed for a line key, net of deltas, credit notes and voids; kept as long as late usage is taken.

    ``line_id`` is the document line that deltas name; ``times`` counts the lines ever made, so that each gets an id of
    its own; of a line of 0 that no document tells it is empty. ``exact`` is (numerator, denominator).
    """

    key: LineKey
    end_us: int
    period: str
    versions: tuple[int, ...]
    quantity: int
    usage_exact: int
    exact: tuple[int, int]
    amount: int
    tax_code: str | None
    product_id: str | None
    obligation_id: str | None
    usage_count: int
    usage_digest: int
    line_id: str
    times: int
    released: Literal["", "line", "delta"] = ""
    """What was taken back by a void or a credit note and is not billed again since: the line itself, or a delta of it."""


class Burn(NamedTuple):
    """What a grant paid of a usage line's stretch, in minor units; in the order in which it was recorded."""

    grant_id: str
    key: LineKey
    since_us: int
    amount: int


class Broken(NamedTuple):
    """A grant's balance that expired, in minor units; only a purchased one is revenue."""

    grant_id: str
    kind: str
    amount: int
    at_us: int
    legal_entity_id: str
    currency: str


class Released(NamedTuple):
    """What was taken back of a document line: ``amount`` of it in minor units; ``whole`` where it is billable again.

    ``period_us`` is where the line's billing period begins: it is kept as long as that is.
    """

    invoice_id: str
    line_id: str
    amount: int
    whole: bool
    period_us: int = 0


class Bought(NamedTuple):
    """A purchased grant: ``billed`` in minor units, in billing periods that have left the account.

    ``period_us`` is where the billing period begins in which the rest of it stands, 0 where there is none.
    """

    grant_id: str
    billed: int = 0
    period_us: int = 0


class Account(NamedTuple):
    """The account of a contract: everything that earlier documents leave for later ones. Empty at first.

    ``closed_us`` is the end of the last closed billing period (0: none), ``version`` the highest version number that a
    bill has seen, ``usage`` all sums taken so far, ``billed`` what stands billed, ``thresholds`` the (period, threshold
    in minor units) that have made an invoice early, ``issued`` the number of documents made, ``released`` what was taken
    back of their lines, tax lines aside.
    """

    contract_id: str
    closed_us: int = 0
    version: int = 0
    issued: int = 0
    usage: tuple[UsageSum, ...] = ()
    billed: tuple[Posted, ...] = ()
    burns: tuple[Burn, ...] = ()
    broken: tuple[Broken, ...] = ()
    thresholds: tuple[tuple[int, int], ...] = ()
    released: tuple[Released, ...] = ()
    kept_since_us: int = 0
    """Usage of billing periods that begin before is no longer taken: what was billed of them may have gone."""
    bought: tuple[Bought, ...] = ()
    """Purchases of which something was billed in billing periods that have gone, or that came too late for their own."""

    @property
    def open_amount(self) -> int:
        """Rated amount taken and not billed (late usage under ``exception`` aside, which is never taken), in 10^-12."""
        return sum(one.amount for one in self.usage) - sum(one.usage_exact for one in self.billed)


class CreditUse(NamedTuple):
    """What a grant paid of one document (negative: given back), and its balance after it, in minor units."""

    grant_id: str
    applied: int
    balance: int


class Invoice(NamedTuple):
    """One unnumbered document of one contract and legal entity; a credit note where ``kind`` says so.

    ``voids`` and ``credits_invoice`` name the document that it takes back, whole or in part. Amounts in minor units;
    ``subtotal`` without tax, ``amount_due`` is ``total`` less what credits paid.
    """

    invoice_id: str
    kind: Literal["invoice", "credit_note"]
    status: Literal["draft", "final", "voided"]
    customer_id: str
    contract_id: str
    legal_entity_id: str
    currency: str
    period: Period
    issued_on: str
    due_on: str
    lines: tuple[Line, ...]
    subtotal: int
    tax: int
    total: int
    credits: tuple[CreditUse, ...]
    amount_due: int
    tax_treatment: str | None = None
    time_zone: str = "UTC"
    voids: str | None = None
    credits_invoice: str | None = None


class Held(NamedTuple):
    """Why a period cannot be billed yet, and what to do."""

    reason: Literal["tax_code", "tax_rate", "tax_jurisdiction"]
    subject: str
    message: str


class Billed(NamedTuple):
    """What closing a period gave: documents and the next account; or, where ``held`` is set, none and the old account.

    ``late`` are the increments for closed periods that the contract sends to an exception: they are not taken, and stay
    in the caller's open balance. ``broken`` are the balances that expired with this period, ``quiet`` the lines of documents
    that would say nothing and are not issued.
    """

    account: Account
    invoices: tuple[Invoice, ...] = ()
    held: Held | None = None
    late: tuple[UsageSum, ...] = ()
    broken: tuple[Broken, ...] = ()
    quiet: tuple[Line, ...] = ()


def line_id(contract_id: str, key: LineKey, times: int) -> str:
    """Derived from what the line bills, and how often that was billed before."""
    fields = (key.charge_id, *(key.group or ()), key.kind, *key.ref, key.legal_entity_id, key.currency, key.period_us, key.start_us, times)
    return ids.text(("line", contract_id, *fields))
