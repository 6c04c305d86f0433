"""What people ask of the invoicing flow, as its fold takes it.

In: commands about billing periods and documents. Out: what to bill again, and what to take back; ReleaseRefused where it cannot
be read. Source: docs/interfaces.md (commands).
"""

import json
from decimal import Decimal

from tieout import money
from tieout.closing import Ask, TakeBack
from tieout.governance import Command
from tieout.invoicing.notes import ReleaseRefused


def ask(request: Command) -> Ask:
    """A request as the fold takes it: a billing period by its name, of all contracts or of the one that its payload names."""
    given = {} if request.payload is None else json.loads(request.payload)
    return Ask(request.subject_id, given.get("contract_id"))


def taking_back(command: Command, currency: str) -> TakeBack:
    """What a request wants back of a document: lines, amounts off lines in the currency, or all of it."""
    given = {} if command.payload is None else json.loads(command.payload)
    try:
        amounts = tuple((line, money.units(Decimal(text), money.minor_unit(currency))) for line, text in sorted(given.get("amounts", {}).items()))
    except (ArithmeticError, ValueError) as error:
        msg = f"invoice {command.subject_id}: an amount is no number of {currency} with at most {money.minor_unit(currency)} decimals ({error}); ask again"
        raise ReleaseRefused(msg) from error
    return TakeBack(command.subject_id, tuple(given.get("lines", ())), amounts)
