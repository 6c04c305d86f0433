"""Contract versions seen whole: the rules for documents are loaded with the first one that somebody looks at.

In: documents made from columns. Out: the versions and charges that they describe, validated. A partition takes versions
by columns, and where all their prices are neat it never makes an object of one; ``tieout.contracts`` with its rules takes
a tenth of a second to load, so what prices usage names it for its types alone. Whoever reads documents anyway imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tieout.contracts import Charge, ContractVersion


@cache
def _rules() -> ModuleType:
    return import_module("tieout.contracts")


def versions(documents: Sequence[Mapping[str, Any]]) -> list[ContractVersion]:
    """Contract versions; ContractRefused with all problems of the first that is invalid."""
    return [_rules().parse_contract(document) for document in documents]


def charges(documents: Sequence[Mapping[str, Any]]) -> list[Charge]:
    """Charges alone; ContractRefused with all problems of the first that is invalid."""
    found: list[Charge] = _rules().parse_charges(documents)
    return found
