"""Proposals: contract versions as somebody asks for them, before anybody else has looked.

In: a ``propose`` command, whose payload is the contract document of docs/interfaces.md and whose subject names contract and
version. Out: the proposal, or every problem of its document by itself, with its path. What depends on other versions or on
the reference data is judged when its turn comes (``tieout.lifecycle``). Source: docs/contracts.md.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tieout.contracts import ContractVersion, instant, parse_contract
from tieout.governance import Command
from tieout.problems import ContractRefused, Problem

SUBJECT: Final = "contract_version"
"""The type of a subject that is a version of a contract."""


class VersionKey(NamedTuple):
    """A version of a contract."""

    contract_id: str
    version: int

    @classmethod
    def of(cls, text: str) -> "VersionKey | None":
        """From its text; None where it is none. The number stands behind the last slash, so any contract id is read back."""
        contract_id, slash, number = text.rpartition("/")
        if not slash or not contract_id or not number.isascii() or not number.isdecimal() or number != str(int(number)):
            return None
        return cls(contract_id, int(number))

    @property
    def text(self) -> str:
        """As commands and people name it, ``c-acme/2``."""
        return f"{self.contract_id}/{self.version}"


class ProposalRefused(ValueError):
    """A proposal whose document cannot be taken."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.path or 'document'}: {p.message}" for p in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A contract version that somebody asks for; ``status`` as its document says it, None where it does not."""

    key: VersionKey
    version: ContractVersion
    status: str | None
    requester: str
    at: int
    digest: str


def parse(command: Command) -> Proposal:
    """The proposal of a command; ProposalRefused with all problems."""
    document = _document(command.payload)
    problems = list(_own_problems(document, command.author))
    try:
        version = parse_contract(document)
    except ContractRefused as refused:
        raise ProposalRefused(_without_twin(refused.problems, problems) + problems) from None
    key = VersionKey(version.contract_id, version.version)
    if command.subject_type != SUBJECT or command.subject_id != key.text:
        problems.append(Problem("version", "subject_mismatch", f"the document is {key.text}, the command is about {command.subject_id!r}; name the same in both"))
    if problems:
        raise ProposalRefused(problems)
    return Proposal(key, version, document.get("status"), command.author, command.at, command.digest())


def _document(payload: str | None) -> dict[str, Any]:
    try:
        document = json.loads(payload or "")
    except ValueError as error:
        raise ProposalRefused([Problem("", "payload_invalid", f"the payload is not JSON ({error}); send the contract document of docs/interfaces.md")]) from None
    if not isinstance(document, dict):
        raise ProposalRefused([Problem("", "payload_invalid", "the payload is no JSON object; send the contract document of docs/interfaces.md")])
    return document


def _own_problems(document: Mapping[str, Any], author: str) -> list[Problem]:
    """What a proposal may not say although a contract version may."""
    problems = []
    if _is_empty(document):
        problems.append(Problem("effective_to", "interval_empty", "the interval is empty: 'effective_to' must lie after 'effective_from'"))
    if document.get("recorded_at") is not None:
        problems.append(Problem("recorded_at", "recorded_at_given", "when a version is recorded is for the flow to say; take 'recorded_at' out"))
    if document.get("status") in ("draft", "approved"):
        problems.append(Problem("status", "status_given", "a proposal is a draft until it is approved, by itself; take 'status' out"))
    change = document.get("change")
    if isinstance(change, dict):
        if change.get("approved_by") is not None:
            problems.append(Problem("change.approved_by", "approved_by_given", "who approves is known by the signature of the approval; take 'approved_by' out"))
        if change.get("requested_by") not in (None, author):
            problems.append(Problem("change.requested_by", "requested_by_mismatch", f"the proposal is signed by {author!r}; take 'requested_by' out"))
    if document.get("rate_card") is not None and document.get("charges"):
        problems.append(Problem("charges", "charges_with_rate_card", "the charges come from the rate card; put what differs into 'overrides', by charge_id"))
    if document.get("rate_card") is None and document.get("overrides"):
        problems.append(Problem("overrides", "overrides_without_rate_card", "overrides change the charges of a rate card; name it in 'rate_card', or write 'charges'"))
    return problems


def _is_empty(document: Mapping[str, Any]) -> bool:
    start, end = document.get("effective_from"), document.get("effective_to")
    if start is None or end is None:
        return False
    try:
        return instant(end) <= instant(start)
    except ValueError:
        return False


def _without_twin(found: Sequence[Problem], own: Sequence[Problem]) -> list[Problem]:
    """The document's problems without the one that is told with its path already."""
    if any(problem.code == "interval_empty" for problem in own):
        return [problem for problem in found if not problem.message.startswith("the interval is empty")]
    return list(found)
