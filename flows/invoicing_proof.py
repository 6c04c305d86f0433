"""Control total 2, from the topics alone: what was rated is what is billed plus what is open, by contract, currency and period.

In: a partition's rated usage, its documents and the invoicing flow's state, each up to what the flow's last token counts.
Out: what does not tie out. Rated amounts and billed lines are summed from their own topics; what is open is summed from the
state; the token's figures must be the same. Source: docs/semantics.md section 6 (control totals).
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from flows import control_sums
from flows.control_sums import Cut
from flows.invoicing import BILLED, OPEN, TAKEN
from flows.pipeline import Place
from flows.token import Token
from tieout import money
from tieout.control_totals import Break, Totals

_TOLD: Final = 20
"""Contracts that are named at most."""


def broken(place: Place, last: Token) -> list[str]:
    """What does not tie out in a partition as of the flow's last interval."""
    sums = control_sums.sums(place, Cut(last, None))
    found = [said(one) for one in sums.breaks()]
    more = [f"{len(found) - _TOLD} more do not tie out"] if len(found) > _TOLD else []
    return [*found[:_TOLD], *more, *_token_broken(last, sums.rated, sums.billed, sum(total.amount for total in sums.open.values()))]


def said(one: Break) -> str:
    """A break in words."""
    rated, billed, left = (_text(total.amount) for total in (one.rated, one.billed, one.open))
    return f"contract {one.key.contract_id}: of billing period {one.key.period}, {rated} {one.key.currency} is rated, {billed} is billed, {left} is open"


def _token_broken(last: Token, rated: Totals, billed: Totals, left: int) -> Iterator[str]:
    """The token's figures against those of the topics."""
    for kind, sums in ((TAKEN, rated), (BILLED, billed)):
        for currency, units in _said(last, kind).items():
            there = sum(total.amount for key, total in sums.items() if key.currency == currency)
            if units != there:
                yield f"the token says that {_text(units)} {currency} is {kind}, its topic comes to {_text(there)}"
    for currency, units in _said(last, OPEN).items():
        if units != _said(last, TAKEN)[currency] - _said(last, BILLED)[currency]:
            yield f"the token says that {_text(units)} {currency} is open, which is not what is taken less what is billed"
    if sum(_said(last, OPEN).values()) != left:
        yield f"the token's open balances come to {_text(sum(_said(last, OPEN).values()))}, the state's to {_text(left)}"


def _said(token: Token, kind: str) -> Mapping[str, int]:
    parts = ((name.partition("/"), text) for name, text in token.amounts.items())
    return {currency: money.units(Decimal(text), money.RATED_SCALE) for (currency, _, what), text in parts if what == kind}


def _text(units: int) -> str:
    return format(money.decimal(units, money.RATED_SCALE), "f")
