"""Control total 2: what was rated is what is billed plus what is open, by contract, currency and billing period.

In: three sums by key, each from a source of its own: the rated topic, the invoice topic, the invoicing flow's state. Out: the
keys in which they do not tie out, with what is missing; and what of it is news beside the exceptions that stand already. A
total also counts records and adds up their ids (modulo 2^128): where one record is missing or too many, the difference of
those sums is its very id. Source: docs/semantics.md section 6 (control totals), docs/decisions/0013-control-totals.md.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tieout import ids, money, wide
from tieout.exception_queue import RESOLVE, UNSETTLED, WAIVE, Item
from tieout.invoicing.records import DIGEST, Account, UsageSum

KIND: Final = "control_total"
PERIOD: Final = "period"
"""How the line of evidence begins that says of which billing period an exception is; one about an interval has none."""


class Key(NamedTuple):
    """What a total is of; ``period`` is the billing period's label."""

    contract_id: str
    currency: str
    period: str


class Total(NamedTuple):
    """Rated amounts in 10^-12, how many records they are of, and the sum of the records' ids modulo 2^128."""

    amount: int = 0
    records: int = 0
    digest: int = 0

    def plus(self, other: "Total", sign: int = 1) -> "Total":
        """Both together, or (sign -1) what is left without the other."""
        return Total(self.amount + sign * other.amount, self.records + sign * other.records, (self.digest + sign * other.digest) % DIGEST)


Totals = dict[Key, Total]


class Break(NamedTuple):
    """A key that does not tie out."""

    key: Key
    rated: Total
    billed: Total
    open: Total

    @property
    def missing(self) -> Total:
        """What is rated and neither billed nor open; negative where more is billed or open than rated."""
        return self.rated.plus(self.billed, -1).plus(self.open, -1)

    @property
    def one_more(self) -> str | None:
        """The id of the one record that is in the rated topic and in no sum that was made of it."""
        return f"{self.missing.digest:032x}" if self.missing.records == 1 else None

    @property
    def one_less(self) -> str | None:
        """The id of the one record that was taken, and is not in the rated topic."""
        return f"{-self.missing.digest % DIGEST:032x}" if self.missing.records == -1 else None


def add(totals: Totals, more: Iterable[tuple[Key, Total]], sign: int = 1) -> None:
    """Add to totals by key."""
    for key, total in more:
        totals[key] = totals.get(key, Total()).plus(total, sign)


def columns(contracts: pa.Array, currencies: pa.Array, periods: pa.Array, amounts: pa.Array, records: pa.Array | None, digests: pa.Array) -> Totals:
    """Totals of rows: rated records (``records`` None: each is one), or lines with the count and digest of the records behind them."""
    if not len(contracts):
        return {}
    coded = [pc.dictionary_encode(column.cast(pa.string())) for column in (contracts, currencies, periods)]
    code = np.zeros(len(contracts), np.int64)
    for column in coded:
        code = code * len(column.dictionary) + column.indices.to_numpy()
    order = np.argsort(code, kind="stable")
    first = np.nonzero(np.append(True, np.diff(code[order])))[0]
    at = order[first]
    keys = map(Key, *(column.take(pa.array(at)).to_pylist() for column in coded))
    counts = np.ones(len(code), np.int64) if records is None else records.to_numpy()
    amount, digest = wide.signed_sums(wide.lanes_of(amounts), order, first), wide.unsigned_sums(wide.hexadecimal(digests), order, first)
    return {key: Total(a, n, d % DIGEST) for key, a, n, d in zip(keys, amount, np.add.reduceat(counts[order], first).tolist(), digest, strict=True)}


def open_of(contract: str, sums: Iterable[UsageSum], account: Account, named: Callable[[int, int], tuple[str, str]]) -> Totals:
    """What of a contract is taken and not billed: sums that wait, and what its account holds beyond what stands billed.

    ``named`` says of a version and the start of a billing period the currency and the period's label.
    """
    totals: Totals = {}
    for one in (*sums, *account.usage):
        currency, label = named(one.version, one.period_us)
        add(totals, [(Key(contract, currency, label), Total(one.amount, one.records, one.digest))])
    billed = ((Key(contract, one.key.currency, one.period), Total(one.usage_exact, one.usage_count, one.usage_digest)) for one in account.billed)
    add(totals, billed, -1)
    return totals


def breaks(rated: Mapping[Key, Total], billed: Mapping[Key, Total], open_: Mapping[Key, Total]) -> list[Break]:
    """The keys whose amounts do not tie out."""
    found = (Break(key, *(of.get(key, Total()) for of in (rated, billed, open_))) for key in sorted({*rated, *billed, *open_}))
    return [one for one in found if one.missing.amount]


class Told(NamedTuple):
    """What an exception is about: a contract's key, or (of no contract) an interval of a flow by its name; the amount where it is one of money."""

    subject: str
    currency: str | None = None
    period: str | None = None
    amount: int | None = None

    @classmethod
    def of(cls, item: Item) -> "Told":
        """What an exception in the queue is about."""
        one = item.opened
        period = next((line.removeprefix(f"{PERIOD} ") for line in one.evidence if line.startswith(f"{PERIOD} ")), None)
        return cls(one.object_id, one.currency, period, None if one.amount_at_risk is None else money.units(one.amount_at_risk, money.RATED_SCALE))

    def exception_id(self, number: int) -> str:
        """The id of its exception: the same break found again has the same; one that came back after it had tied out has another."""
        return ids.text(("exception", KIND, *self, number))


class News(NamedTuple):
    """What to write: breaks that open an exception with its id, and exceptions whose break is over, with why."""

    opened: list[tuple[Told, str]]
    over: list[tuple[Item, str]]


def news(found: Sequence[Told], items: Iterable[Item], proved: Callable[[Told], bool]) -> News:
    """What a check comes to beside the exceptions that are there already, in the order in which they were opened.

    A break opens one exception, however often it is found. Where its amount has moved the exception gives way to another;
    where it ties out again it is over. What a person has settled is not opened again as long as the amount is the same.
    ``proved`` says whether the records that a total needs are all there: what cannot be checked any more stays as it is.
    """
    mine = [item for item in items if item.opened.kind == KIND]
    broken, over = set(found), []
    for item in mine:
        told = Told.of(item)
        if item.state in UNSETTLED and told not in broken and proved(told):
            moved = next((one for one in found if one[:3] == told[:3]), None)
            over.append((item, "it ties out again" if moved is None else "the amount has changed; another exception has it"))
    opened = []
    for told in found:
        same = [item for item in mine if Told.of(item) == told]
        if not same or (same[-1].state not in UNSETTLED and not _decided(same[-1])):
            opened.append((told, told.exception_id(len(same))))
    return News(opened, over)


def _decided(item: Item) -> bool:
    """Whether a person has settled an exception, not a check that found it over."""
    return any(act.kind in {RESOLVE, WAIVE} for act in item.acts)
