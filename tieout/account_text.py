"""The account of a contract, and its late usage, as text and back, so that a state can hold it: JSON lists in the order of the records' fields.

In: an ``Account``, or a lot of late usage. Out: bytes; integers of any size stand as they are. A field that a later release adds is a new format of
the state that holds the bytes. Source: ``tieout.invoicing.records``, ``tieout.late_usage``.
"""

import json
from typing import Any

from tieout.invoicing.records import Account, Bought, Broken, Burn, LineKey, Posted, Released, UsageSum
from tieout.late_usage import Late


def text_of(account: Account) -> bytes:
    """An account as bytes."""
    return json.dumps(account, separators=(",", ":"), ensure_ascii=False).encode()


def account_of(text: bytes) -> Account:
    """And back."""
    name, closed, version, issued, usage, billed, burns, broken, thresholds, released, kept, bought = json.loads(text)
    return Account(
        name, closed, version, issued, tuple(_sum(one) for one in usage), tuple(_posted(one) for one in billed),
        tuple(Burn(grant, _key(key), since, amount) for grant, key, since, amount in burns), tuple(Broken(*one) for one in broken),
        tuple((start, amount) for start, amount in thresholds), tuple(Released(*one) for one in released), kept,
        tuple(Bought(*one) for one in bought),
    )  # fmt: skip


def late_text(late: Late) -> bytes:
    """Late usage as bytes."""
    return json.dumps(late, separators=(",", ":"), ensure_ascii=False).encode()


def late_of(text: bytes) -> Late:
    """And back."""
    late = Late(*json.loads(text))
    return late._replace(sums=tuple(_sum(one) for one in late.sums))  # type: ignore[arg-type]


def _sum(row: list[Any]) -> UsageSum:
    row[1] = None if row[1] is None else tuple(row[1])
    return UsageSum(*row)


def _key(row: list[Any]) -> LineKey:
    row[2], row[4] = None if row[2] is None else tuple(row[2]), tuple(row[4])
    return LineKey(*row)


def _posted(row: list[Any]) -> Posted:
    row[0], row[3], row[6] = _key(row[0]), tuple(row[3]), tuple(row[6])
    return Posted(*row)
