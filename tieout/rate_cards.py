"""Rate cards: the charges of a contract version that refers to a price list, resolved when it is published.

In: a version with ``rate_card`` and ``overrides``, and the reference data. Out: the same version with its charges: those of
the card's named version as it holds at ``effective_from``, in the card's order, each replaced by the override of its id. A
version that is published keeps these charges whatever becomes of the card. Source: docs/contracts.md (rate cards).
"""

import json
from dataclasses import replace

from tieout.contracts import ContractVersion, parse_charges
from tieout.problems import Problem
from tieout.reference import ReferenceBook


def resolve(version: ContractVersion, reference: ReferenceBook) -> tuple[ContractVersion, list[Problem]]:
    """The version with its charges; and what is wrong with its card or its overrides."""
    card = version.rate_card
    if card is None:
        return version, []
    record = reference.rate_card(card.rate_card_id, card.version, version.effective_from_us)
    if record is None:
        message = f"the reference data has no version {card.version} of rate card {card.rate_card_id!r} that holds at {version.effective_from.isoformat()}; record it with 'tieout reference put', or name another"
        return version, [Problem("rate_card", "rate_card_unknown", message)]
    charges = parse_charges(json.loads(record.value["charges"]))
    given = [charge.charge_id for charge in version.overrides]
    known = {charge.charge_id for charge in charges}
    problems = [
        Problem(f"overrides.{at}.charge_id", "override_unknown", f"rate card {card.rate_card_id!r} version {card.version} has no charge {name!r}; it has {', '.join(sorted(known))}")
        for at, name in enumerate(given) if name not in known
    ]  # fmt: skip
    problems += [
        Problem(f"overrides.{at}.charge_id", "override_repeated", f"charge {name!r} is overridden twice; write one override")
        for at, name in enumerate(given) if name in given[:at]
    ]  # fmt: skip
    overrides = {charge.charge_id: charge for charge in version.overrides}
    return replace(version, charges=tuple(overrides.get(charge.charge_id, charge) for charge in charges)), problems
