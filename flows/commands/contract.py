"""``tieout contract``: propose a version, see what there is and what governs when, compare versions, check a file."""

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from flows import output
from flows.cli import DIFFERENCES, DONE, ERROR, CommandError
from flows.commands import files, places, sending
from flows.contract_view import ContractView
from schemas.registry import Registry
from tieout import proposal
from tieout.contract_batch import FOREVER
from tieout.contract_book import ContractBook
from tieout.contract_diff import differences, fields_of, text_of
from tieout.contracts import ContractVersion
from tieout.governance import Command
from tieout.lifecycle import Contract, referred
from tieout.problems import Problem
from tieout.proposal import SUBJECT, Proposal, ProposalRefused, VersionKey

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def run(options: argparse.Namespace) -> int:
    """Answer one of the subcommands."""
    registry = None if options.registry is None else Registry(options.registry)
    with places.pinned(registry, options.schema_lock):
        return {"propose": _propose, "show": _show, "timeline": _timeline, "diff": _diff, "validate": _validate}[options.what](options)


# put in


def _propose(options: argparse.Namespace) -> int:
    for name in ("key", "reason"):
        if vars(options)[name] is None:
            msg = f"contract propose: give --{name}; a proposal is signed, and says why"
            raise CommandError(msg, 2)
    place, view = places.place(options), None
    documents = _documents(options)
    given = [(document, *_parsed(document)) for document in documents]
    problems = [(document, problem) for document, one, found in given for problem in found]
    if not problems:
        view = ContractView(place)
        problems = [(document, problem) for document, one, _ in given if one is not None for problem in _known_problems(view, one)]
    if problems:
        lines = "".join(f"\n  {_name(document)}, {p.path or 'document'}: {p.message}" for document, p in problems)
        msg = f"{options.names[0]}: refused, nothing was proposed{lines}"
        raise CommandError(msg)
    rows = []
    for document, one, _ in given:
        if one is None:
            continue
        command = sending.signed(options, "propose", one.key, json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False))
        sending.send(place, command)
        rows.append({"proposed": one.key.text, "author": command.author, "change": one.version.change.kind, "effective_from": text_of(one.version.effective_from), "command_id": command.command_id})
    output.show(rows, options.output)
    output.say("each is a draft until somebody else approves it with 'tieout approve CONTRACT/VERSION'")
    return DONE


def _validate(options: argparse.Namespace) -> int:
    """Check a file; with a place also against its reference data and the versions that are there."""
    view = None if options.dir is None and options.bootstrap is None else ContractView(places.place(options))
    rows = []
    for number, document in enumerate(_documents(options), 1):
        one, problems = _parsed(document)
        if one is not None and view is not None:
            problems += _known_problems(view, one)
        rows += [{"document": number, "contract": _name(document), "path": p.path, "code": p.code, "message": p.message} for p in problems]
    output.show(rows, options.output, "what is wrong" if rows else "nothing is wrong")
    return ERROR if rows else DONE


def _documents(options: argparse.Namespace) -> list[Mapping[str, Any]]:
    if len(options.names) != 1:
        msg = f"contract {options.what}: name one file, a contract version or a list of them as JSON"
        raise CommandError(msg, 2)
    found = files.read_json(options.names[0])
    documents = found if isinstance(found, list) else [found]
    if not all(isinstance(document, dict) for document in documents):
        msg = f"{options.names[0]}: holds something that is no JSON object; write a contract version, or a list of them"
        raise CommandError(msg)
    return documents


def _parsed(document: Mapping[str, Any]) -> tuple[Proposal | None, list[Problem]]:
    """The document as a proposal by whom it names; or what is wrong with it by itself."""
    change = document.get("change")
    author = str(change.get("requested_by") or "") if isinstance(change, dict) else ""
    try:
        return proposal.parse(Command("propose", SUBJECT, _name(document), author, 0, "", json.dumps(document))), []
    except ProposalRefused as refused:
        return None, list(refused.problems)


def _known_problems(view: ContractView, one: Proposal) -> list[Problem]:
    """What is wrong with it among what the place knows: all where its turn has come, else what it refers to."""
    state, book = view.fold.state, view.fold.book
    contract = state.contracts.get(one.key.contract_id) or Contract()
    governed = {version.version for version in view.complete(one.key.contract_id)}
    imported = [version.version for version in view.versions(one.key.contract_id) if version.version not in governed]
    if imported:
        return [Problem("contract_id", "contract_imported", f"version {imported[0]} of contract {one.key.contract_id} was imported and is no part of what was proposed and approved; import its later versions too, or propose a new contract")]
    if one.key.version == len(contract.published) + 1:
        return state.judge(one, book)[1]
    known = contract.published[one.key.version - 1].proposal if one.key.version <= len(contract.published) else None
    if known is not None and known.version != one.version:
        return [Problem("version", "version_conflict", f"{one.key.text} is published with other content; propose version {len(contract.published) + 1}")]
    return referred(one.version, book)[1]


def _name(document: Mapping[str, Any]) -> str:
    return f"{document.get('contract_id')}/{document.get('version', 1)}"


# look at


def _show(options: argparse.Namespace) -> int:
    if len(options.names) > 1:
        msg = "contract show: name one contract, one version of it, or nothing for all"
        raise CommandError(msg, 2)
    place = places.place(options)
    view, name = ContractView(place), options.names[0] if options.names else None
    key = None if name is None else VersionKey.of(name)
    version = None if key is None else view.version(key)
    if version is not None:
        output.show([{"path": path, "value": value} for path, value in fields_of(version).items()], options.output, name)
        return DONE
    rows = list(_rows(view, name))
    if name is not None and not rows:
        msg = f"{place.name}: knows no contract {name!r}; 'tieout contract show' lists all"
        raise CommandError(msg)
    output.show(rows, options.output, "contract versions, published and proposed")
    return DONE


def _rows(view: ContractView, contract_id: str | None) -> Iterator[dict[str, Any]]:
    """A row for each version that is published, proposed or refused, by contract and number."""
    found: dict[VersionKey, dict[str, Any]] = {}
    for version in view.versions(contract_id):
        found.setdefault(VersionKey(version.contract_id, version.version), _row(version, version.status))
    contracts = view.fold.state.contracts
    for name in contracts if contract_id is None else {contract_id} & contracts.keys():
        contract = contracts[name]
        for version in view.complete(name):
            key = VersionKey(name, version.version)
            if key not in found:
                found[key] = _row(version, "approved") | {"recorded_at": None, "note": "waits for the contract flow to run"}
        for number, (_, given) in contract.proposals.items():
            approval = contract.approvals.get(number)
            following = len(contract.published) + 1
            waits = f"waits for version {following}" if number > following else "waits for approval" if approval is None else None
            row = _row(given.version, "draft" if approval is None else "approved", given.requester, None if approval is None else approval.approver)
            found[given.key] = row | {"note": waits}
        for number, refusals in contract.refusals.items():
            last = refusals[-1]
            key = VersionKey(name, number)
            empty = {"subject": key.text, "state": "refused", "customer_id": last.customer_id}
            found[key] = found.get(key, empty | dict.fromkeys(_COLUMNS)) | {"note": f"refused: {last.message}"}
    return (found[key] for key in sorted(found))


_COLUMNS: Final = ("change", "effective_from", "effective_to", "recorded_at", "requested_by", "approved_by", "note")


def _row(version: ContractVersion, state: str, requester: str | None = None, approver: str | None = None) -> dict[str, Any]:
    key = VersionKey(version.contract_id, version.version)
    return {
        "subject": key.text, "state": state, "customer_id": version.customer_id, "change": version.change.kind,
        "effective_from": text_of(version.effective_from), "effective_to": _text(version.effective_to), "recorded_at": _text(version.recorded_at),
        "requested_by": requester or version.change.requested_by, "approved_by": approver or version.change.approved_by, "note": None,
    }


def _timeline(options: argparse.Namespace) -> int:
    """Every version, and the stretches of time that it governs."""
    if len(options.names) != 1:
        msg = "contract timeline: name one contract"
        raise CommandError(msg, 2)
    place, name = places.place(options), options.names[0]
    versions = {version.version: version for version in reversed(ContractView(place).versions(name))}
    if not versions:
        msg = f"{place.name}: has no published version of contract {name!r}; 'tieout contract show' lists all"
        raise CommandError(msg)
    book = ContractBook()
    waiting = {number for number in sorted(versions) if book.apply(versions[number]).kind == "waiting"}
    governs: dict[int, list[str]] = {}
    for stretch in book.intervals(name):
        end = "open" if stretch.end_us >= FOREVER else text_of(_EPOCH + timedelta(microseconds=stretch.end_us))
        governs.setdefault(stretch.version.version, []).append(f"{text_of(_EPOCH + timedelta(microseconds=stretch.start_us))} .. {end}")
    rows: list[dict[str, Any]] = [
        {
            "version": number, "change": version.change.kind, "state": version.status, "effective_from": text_of(version.effective_from),
            "effective_to": _text(version.effective_to), "recorded_at": _text(version.recorded_at),
            "governs": ["waits for an earlier number"] if number in waiting else governs.get(number, []),
        }
        for number, version in sorted(versions.items())
    ]
    if options.output == "table":
        rows = [row | {"governs": "\n".join(row["governs"]) or "nothing, later versions do"} for row in rows]
    output.show(rows, options.output, f"contract {name}")
    return DONE


def _diff(options: argparse.Namespace) -> int:
    if len(options.names) != 2:
        msg = "contract diff: name two versions, as in c-acme/1 c-acme/2"
        raise CommandError(msg, 2)
    place = places.place(options)
    view, found = ContractView(place), []
    for name in options.names:
        version = view.version(sending.key_of(name, "contract diff"))
        if version is None:
            msg = f"{place.name}: has no version {name}, published or proposed; 'tieout contract show' lists all"
            raise CommandError(msg)
        found.append(version)
    rows = [{"path": one.path, options.names[0]: one.before, options.names[1]: one.after} for one in differences(*found)]
    output.show(rows, options.output, f"{options.names[0]} and {options.names[1]}")
    return DIFFERENCES if rows else DONE


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else text_of(moment)
