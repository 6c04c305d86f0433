"""The lifecycle of contracts: from proposals, approvals and rejections to published versions and refusals.

In: signed commands in the order of their log, and the reference data known when their interval began. Out: versions that
are published, in the order in which they became complete; refusals, each with where it is wrong and what to do; and which
earlier refusals are settled by what came after. A version is published when the one before it is, its proposal is good and
somebody other than its author has approved it; proposals and approvals may arrive in any order. What is wrong is told as
soon as its turn comes, approved or not. Versions behind a refused or missing one wait, and go on when it is published.

A version's ``recorded_at`` is the clock when it was published: the largest record time of the commands so far.
Source: docs/contracts.md, docs/semantics.md section 3.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, NamedTuple

from tieout import contract_references, governance, lifecycle_rules, payment_terms, proposal, rate_cards
from tieout.contract_book import ContractBook, governing
from tieout.contract_calendar import calendar_problems
from tieout.contract_currency import currency_problems
from tieout.contracts import ContractVersion
from tieout.governance import Command, Verify
from tieout.period import EPOCH
from tieout.problems import Problem
from tieout.proposal import Proposal, ProposalRefused, VersionKey
from tieout.reference import ReferenceBook
from tieout.usage import NO_CLOCK

KINDS: Final = ("propose", "approve", "reject")
FATES: Final = ("accepted", "repeated", "refused", "rejected", "other")
"""Of each command on arrival; ``rejected`` are those that cannot be decoded, ``other`` those that are about something else."""

Kind = Literal["proposal_refused", "command_refused"]


class Received(NamedTuple):
    """A command as its log has it; ``recorded_at`` in UTC microseconds."""

    position: int
    recorded_at: int
    command: Command


class Approval(NamedTuple):
    """Who approved a proposal."""

    approver: str
    at: int


class Published(NamedTuple):
    """A version that is published, and the proposal that asked for it."""

    version: ContractVersion
    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Refusal:
    """A proposal or another command that does not count, with every problem; ``at`` is the clock when it was refused."""

    kind: Kind
    received: Received
    customer_id: str
    problems: tuple[Problem, ...]
    at: int

    @property
    def message(self) -> str:
        """What is wrong, where, and what to do."""
        return "; ".join(f"{problem.path or 'document'}: {problem.message}" for problem in self.problems)


class Settled(NamedTuple):
    """A refusal that needs nobody any more, when, and why."""

    refusal: Refusal
    at: int
    resolution: str


@dataclass(slots=True)
class Result:
    """What an interval came to."""

    published: list[ContractVersion] = field(default_factory=list)
    told: list[Refusal | Settled] = field(default_factory=list)
    """In the order in which it was come to."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("received", *FATES), 0))

    @property
    def refused(self) -> list[Refusal]:
        """The refusals alone."""
        return [one for one in self.told if isinstance(one, Refusal)]

    @property
    def settled(self) -> list[Settled]:
        """What was settled alone."""
        return [one for one in self.told if isinstance(one, Settled)]

    def add(self, following: "Result") -> None:
        """Put what came after behind it."""
        self.published += following.published
        self.told += following.told
        self.counts = {name: count + following.counts[name] for name, count in self.counts.items()}


@dataclass(slots=True)
class Contract:
    """What is known of one contract."""

    published: list[Published] = field(default_factory=list)
    proposals: dict[int, tuple[Received, Proposal]] = field(default_factory=dict)
    """Those that are open, by number."""
    approvals: dict[int, Approval] = field(default_factory=dict)
    """Of open proposals."""
    early: dict[tuple[int, str], list[Received]] = field(default_factory=dict)
    """Approvals and rejections whose proposal has not come, by number and digest."""
    closed: dict[str, Literal["refused", "rejected"]] = field(default_factory=dict)
    """What became of proposals that are neither open nor published, by digest."""
    refusals: dict[int, list[Refusal]] = field(default_factory=dict)
    """Unsettled ones, by number."""


class Lifecycle:
    """The state of the fold: all contracts, and the clock."""

    def __init__(self, verify: Verify) -> None:
        self.contracts: dict[str, Contract] = {}
        self.clock = NO_CLOCK
        self._book = ContractBook()
        self.verify = verify

    def step(self, received: Iterable[Received], reference: ReferenceBook) -> Result:
        """Take commands in, in the order of their log."""
        result = Result()
        for one in received:
            self.clock = max(self.clock, one.recorded_at)
            result.counts["received"] += 1
            result.counts[_Step(self, reference, result, one).take()] += 1
        return result

    def judge(self, given: Proposal, reference: ReferenceBook) -> tuple[ContractVersion, list[Problem]]:
        """A proposal whose turn it is: the version as it is to be published, or what is wrong with it now that those before it are known."""
        contract = self.contracts.get(given.key.contract_id)
        status, problem = lifecycle_rules.judge(given.version, self._book.intervals(given.key.contract_id))
        problems = [] if problem is None else [problem]
        if problem is None and given.status not in (None, status):
            problems.append(Problem("status", "status_mismatch", f"after a {given.version.change.kind} the contract is {status}, not {given.status}; take 'status' out"))
        owner = contract.published[0].version.customer_id if contract is not None and contract.published else given.version.customer_id
        if given.version.customer_id != owner:
            problems.append(Problem("customer_id", "customer_changed", f"contract {given.key.contract_id} belongs to customer {owner}; open a new contract for {given.version.customer_id}"))
        before = [] if contract is None else [one.version for one in contract.published]
        problems += calendar_problems([*before[:1], given.version])
        if not problems and any(one.currency != given.version.currency for one in before):
            problems += currency_problems(governing([*before, replace(given.version, status=status)]))
        version, unknown = referred(given.version, reference)
        problems += unknown
        return (version if problems else replace(version, status=status)), problems

    def published(self, version: ContractVersion) -> None:
        """Take note of a version that governs from now on."""
        self._book.apply(version)


def referred(version: ContractVersion, reference: ReferenceBook) -> tuple[ContractVersion, list[Problem]]:
    """A version with the charges of its rate card and its payment terms, and what of all that it refers to is unknown."""
    whole, problems = rate_cards.resolve(version, reference)
    return payment_terms.resolve(whole, reference), problems or contract_references.problems(whole, reference)


@dataclass(slots=True)
class _Step:
    """One command on its way through the fold."""

    fold: "Lifecycle"
    reference: ReferenceBook
    result: Result
    received: Received

    def take(self) -> str:
        """The command's fate."""
        command = self.received.command
        if command.kind not in KINDS or command.subject_type != proposal.SUBJECT:
            return "other"
        problem = governance.fault(command, self.reference, self.fold.verify, self.received.recorded_at)
        if problem is not None:
            return self._refuse("command_refused", self.received, [problem], lasting=True)
        return self._propose() if command.kind == "propose" else self._decide()

    # proposals

    def _propose(self) -> str:
        received = self.received
        try:
            given = proposal.parse(received.command)
        except ProposalRefused as refused:
            return self._refuse("proposal_refused", received, refused.problems)
        contract, number = self._contract(given.key.contract_id), given.key.version
        known = contract.published[number - 1].proposal if number <= len(contract.published) else contract.proposals.get(number, (None, None))[1]
        if known is not None:
            if known.version == given.version or known.digest == given.digest:
                return "repeated"
            return self._refuse("proposal_refused", received, [_conflict(known, published=number <= len(contract.published))])
        if contract.closed.get(given.digest) == "rejected":
            return "repeated"
        contract.closed.pop(given.digest, None)
        contract.proposals[number] = (received, given)
        for decision in contract.early.pop((number, given.digest), ()):
            if number in contract.proposals:
                self._decide_on(contract, given, decision)
        return self._settle(contract)

    # approvals and rejections

    def _decide(self) -> str:
        command = self.received.command
        key, digest = VersionKey.of(command.subject_id), _digest_of(command.payload)
        if key is None or digest is None:
            wrong = Problem("subject", "subject_invalid", f"{command.subject_id!r} is no contract version, as in c-acme/2") if key is None else Problem("payload", "payload_invalid", 'the payload names no proposal; send {"proposal": DIGEST}, as \'tieout approve\' does')
            return self._refuse("command_refused", self.received, [wrong])
        contract, number = self._contract(key.contract_id), key.version
        if number <= len(contract.published):
            if command.kind == "approve" and contract.published[number - 1].proposal.digest == digest:
                return "repeated"
            return self._refuse("command_refused", self.received, [Problem("subject", "version_published", f"{key.text} is published and stays as it is; propose the next version")])
        closed = contract.closed.get(digest)
        if closed is not None:
            if command.kind == "reject" and closed == "rejected":
                return "repeated"
            return self._refuse("command_refused", self.received, [Problem("payload", "proposal_closed", f"this proposal of {key.text} was {closed}; decide on the one that took its place, 'tieout contract show' names it")])
        _, given = contract.proposals.get(number, (None, None))
        if given is None or given.digest != digest:
            early = contract.early.setdefault((number, digest), [])
            if any(one.command == command for one in early):
                return "repeated"
            early.append(self.received)
            return "accepted"
        fate = self._decide_on(contract, given, self.received)
        return fate if fate != "accepted" else self._settle(contract)

    def _decide_on(self, contract: Contract, given: Proposal, decision: Received) -> str:
        """Approve or reject an open proposal."""
        number, command = given.key.version, decision.command
        if command.kind == "reject":
            del contract.proposals[number]
            contract.approvals.pop(number, None)
            contract.closed[given.digest] = "rejected"
            self._settled(contract, number, f"proposal rejected by {command.author}: {command.reason}")
            return "accepted"
        if command.author == given.requester:
            problem = Problem("author", "self_approved", f"{command.author!r} has proposed {given.key.text} and cannot approve it; let somebody else approve it")
            return self._refuse("command_refused", decision, [problem])
        if number in contract.approvals:
            return "repeated"
        contract.approvals[number] = Approval(command.author, command.at)
        return "accepted"

    # whose turn it is

    def _settle(self, contract: Contract) -> str:
        """Publish or refuse what has its turn; the fate of the command at hand."""
        while (number := len(contract.published) + 1) in contract.proposals:
            received, given = contract.proposals[number]
            version, problems = self.fold.judge(given, self.reference)
            if problems:
                del contract.proposals[number]
                contract.approvals.pop(number, None)
                contract.closed[given.digest] = "refused"
                self._refuse("proposal_refused", received, problems)
                return "refused" if received is self.received else "accepted"
            approval = contract.approvals.get(number)
            if approval is None:
                return "accepted"
            self._publish(contract, given, version, approval)
        return "accepted"

    def _publish(self, contract: Contract, given: Proposal, version: ContractVersion, approval: Approval) -> None:
        number = given.key.version
        change = replace(version.change, requested_by=given.requester, approved_by=approval.approver)
        whole = replace(version, change=change, recorded_at=EPOCH + timedelta(microseconds=self.fold.clock))
        contract.published.append(Published(whole, given))
        del contract.proposals[number], contract.approvals[number]
        for early in [key for key in contract.early if key[0] == number]:
            for decision in contract.early.pop(early):
                self._refuse("command_refused", decision, [Problem("payload", "proposal_unknown", f"{given.key.text} was published from another proposal; this one never came")])
        self.fold.published(whole)
        self.result.published.append(whole)
        self._settled(contract, number, f"{given.key.text} was published, proposed by {given.requester} and approved by {approval.approver}")

    # what is told

    def _contract(self, contract_id: str) -> Contract:
        return self.fold.contracts.setdefault(contract_id, Contract())

    def _refuse(self, kind: Kind, received: Received, problems: Iterable[Problem], *, lasting: bool = False) -> str:
        """Tell a refusal; one about a version that may still be published is settled when it is, unless it is ``lasting``."""
        key = VersionKey.of(received.command.subject_id)
        contract = None if key is None else self.fold.contracts.get(key.contract_id)
        refusal = Refusal(kind, received, self._customer(received.command, contract), tuple(problems), self.fold.clock)
        self.result.told.append(refusal)
        if key is not None and not lasting:
            known = contract or self._contract(key.contract_id)
            if key.version > len(known.published):
                known.refusals.setdefault(key.version, []).append(refusal)
        return "refused"

    def _settled(self, contract: Contract, number: int, resolution: str) -> None:
        self.result.told += [Settled(refusal, self.fold.clock, resolution) for refusal in contract.refusals.pop(number, ())]

    def _customer(self, command: Command, contract: Contract | None) -> str:
        """The customer whom a refusal concerns; empty where nobody says it."""
        if contract is not None:
            for known in (*(one.proposal for one in contract.published[:1]), *(given for _, given in contract.proposals.values())):
                return known.version.customer_id
        if command.kind != "propose":
            return ""
        try:
            document = json.loads(command.payload or "")
        except ValueError:
            return ""
        found = document.get("customer_id") if isinstance(document, dict) else None
        return found if isinstance(found, str) else ""


def _conflict(known: Proposal, *, published: bool) -> Problem:
    what = "is published" if published else f"was proposed by {known.requester!r} and waits"
    do = "propose the next number" if published else "reject that one first, or propose the next number"
    return Problem("version", "version_conflict", f"{known.key.text} {what} with other content; {do}")


def _digest_of(payload: str | None) -> str | None:
    """The digest of the proposal that an approval or a rejection names."""
    try:
        document = json.loads(payload or "")
    except ValueError:
        return None
    digest = document.get("proposal") if isinstance(document, dict) else None
    return digest if isinstance(digest, str) and digest else None
