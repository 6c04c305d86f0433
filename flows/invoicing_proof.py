"""Control total 2, from the topics alone: what was rated is what is billed plus what is open, by contract and currency.

In: a partition's rated usage, its documents and the invoicing flow's state, each up to what the flow's last token counts.
Out: what does not tie out. Rated amounts and billed lines are summed from their own topics; what is open is summed from the
state; the token's figures must be the same. Source: docs/semantics.md section 8.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from flows import codecs, invoice_records, invoicing_state, topics
from flows.invoice_records import InvoiceRecordError
from flows.invoicing import BILLED, OPEN, STATE, TAKEN
from flows.invoicing_state import PackedAccounts
from flows.pipeline import Place
from flows.token import Token
from sources.lot import Lot
from tieout import money
from tieout.closing import Closing
from tieout.held_usage import HeldUsage
from tieout.rating.rated import amounts_by

_ROWS: Final = 20_000
_TOLD: Final = 20
"""Contracts that are named at most."""

Sums = dict[tuple[str, str], int]
"""Amounts in 10^-12 by contract and currency."""


def broken(place: Place, last: Token) -> list[str]:
    """What does not tie out in a partition as of the flow's last interval."""
    try:
        return _broken(place, last)
    except InvoiceRecordError as error:
        return [f"{topics.INVOICES} cannot be read: {error}"]


def _broken(place: Place, last: Token) -> list[str]:
    rated, billed, left = _rated(place, last), _billed(place, last), _open(place, last)
    taken, done = _by_contract(rated), _by_contract(billed)
    found = [
        f"contract {contract}: {_text(taken.get(contract, 0))} is rated, {_text(done.get(contract, 0))} is billed, {_text(left.get(contract, 0))} is open"
        for contract in sorted({*taken, *done, *left})
        if taken.get(contract, 0) != done.get(contract, 0) + left.get(contract, 0)
    ]
    more = [f"{len(found) - _TOLD} contracts more do not tie out"] if len(found) > _TOLD else []
    return [*found[:_TOLD], *more, *_token_broken(last, rated, billed, sum(left.values()))]


def _token_broken(last: Token, rated: Sums, billed: Sums, left: int) -> Iterator[str]:
    """The token's figures against those of the topics."""
    for kind, sums in ((TAKEN, rated), (BILLED, billed)):
        for currency, units in _said(last, kind).items():
            there = sum(amount for (_, mine), amount in sums.items() if mine == currency)
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


def _by_contract(sums: Sums) -> dict[str, int]:
    found: dict[str, int] = {}
    for (contract, _), units in sums.items():
        found[contract] = found.get(contract, 0) + units
    return found


def _text(units: int) -> str:
    return format(money.decimal(units, money.RATED_SCALE), "f")


def _lots(place: Place, topic: str, partition: int, count: int) -> Iterator[Lot]:
    """The first records of a topic, so many."""
    reader = place.written(topic, partition)
    end, at = reader.refresh(), reader.start
    while at < end and count > 0:
        lot = reader.lot(at, min(_ROWS, count), end)
        at, count = lot.end, count - lot.records.num_rows
        yield lot


def _rated(place: Place, last: Token) -> Sums:
    sums: dict[tuple[str, str], Decimal] = {}
    for lot in _lots(place, topics.RATED, last.partition, last.totals.get("received", 0)):
        for (contract, currency), amount in amounts_by(codecs.own("rated_usage").decode(lot.records["value"]).batch, ("contract_id", "currency")).items():
            sums[contract, currency] = money.sum_exact(sums.get((contract, currency)), amount)
    return {key: money.units(amount, money.RATED_SCALE) for key, amount in sums.items()}


def _billed(place: Place, last: Token) -> Sums:
    sums: Sums = {}
    for lot in _lots(place, topics.INVOICES, last.partition, last.written.get(topics.INVOICES, 0)):
        for invoice in invoice_records.decode(lot.records["value"]):
            key = (invoice.contract_id, invoice.currency)
            sums[key] = sums.get(key, 0) + sum(line.usage_exact for line in invoice.lines)
    return sums


def _open(place: Place, last: Token) -> dict[str, int]:
    """What is open by contract: pending, set aside, or taken into its account and not billed."""
    accounts = PackedAccounts()
    state = Closing(HeldUsage(0), accounts)
    invoicing_state.restore(state, accounts, _records(place, last))
    return {name: state.open_of(name) for name in sorted({*state.pending, *state.aside, *accounts})}


def _records(place: Place, last: Token) -> Iterator[tuple[str, bytes]]:
    """The state's records up to the interval; on a broker a header numbers them."""
    reader = place.written(STATE, last.partition)
    end, at = reader.refresh(), reader.start
    while at < end:
        lot = reader.lot(at, _ROWS, end)
        at = lot.end
        for row, position in enumerate(lot.positions.tolist()):
            record = lot.record(row)
            number = next((int(header["value"]) for header in record["headers"] or () if header["key"] == "n"), position)
            if number < last.written.get(STATE, 0):
                yield (record["key"] or b"").decode(), record["value"]
