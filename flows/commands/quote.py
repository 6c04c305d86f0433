"""``tieout quote``: price usage against contracts offline, one case from files or many from JSON lines."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from flows import output
from flows.cli import CommandError
from flows.commands import files
from tieout import usage_document
from tieout.contracts import ContractVersion, instant, parse_charge, parse_contract
from tieout.period import Period, micros, midnight
from tieout.problems import ContractRefused
from tieout.quote import Case, answer_document, quote
from tieout.usage_document import DocumentRefused, UsageDocument

CHUNK: Final = 500
_FIELDS: Final = {"id", "contract", "contracts", "charge", "currency", "period", "events", "as_of"}


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A case ready to be asked, with its documents; or the error that answers it."""

    name: object
    versions: list[ContractVersion]
    events: list[UsageDocument]
    as_of: int | None
    period: Period | None
    error: dict[str, Any] | None = None


def run(options: argparse.Namespace) -> int:
    """Answer a batch, or one case as tables."""
    if options.batch:
        _batch(options.batch)
        return 0
    if not options.contract or not options.usage:
        msg = "quote: give --contract and --usage, or --batch; 'tieout quote --help' shows an example"
        raise CommandError(msg, 2)
    documents = files.read_json(options.contract)
    listed = documents if isinstance(documents, list) else [documents]
    versions = [parse_contract(document) for document in listed]
    events = [
        usage_document.parse(event_defaults(document, versions, None, at), f"{options.usage}, line {number}")
        for at, (number, document) in enumerate(files.read_lines(options.usage))
    ]
    as_of = micros(instant(options.as_of)) if options.as_of else None
    answer = next(quote([Case(versions, 0, len(events), as_of)], usage_document.columns(events)))
    if isinstance(answer, ContractRefused):
        raise answer
    _show(answer_document(answer), options.output)
    return 0


def _show(document: dict[str, Any], how: str) -> None:
    if how != "table":
        print(json.dumps(document, indent=2 if how == "json" else None))
        return
    output.show(document["events"], how, "events")
    shown = ("charge_id", "group", "kind", "period", "quantity", "amount_exact", "amount", "currency")
    output.show([{name: line[name] for name in shown} for line in document["lines"]], how, "lines")
    output.show(document.get("totals") or [{name: document[name] for name in ("total_exact", "total", "amount_due")}], how)


def _batch(name: str) -> None:
    chunk: list[_Parsed] = []
    for number, document in files.read_lines(name):
        chunk.append(_parse(document, number))
        if len(chunk) == CHUNK:
            _answer(chunk)
            chunk = []
    _answer(chunk)


def _answer(chunk: list[_Parsed]) -> None:
    """Answer a chunk of cases: their events go through the columnar checks together."""
    asked = [case for case in chunk if case.error is None]
    events = [event for case in asked for event in case.events]
    answers = _asked(asked, events)
    for case in chunk:
        body = {"error": case.error} if case.error is not None else next(answers)
        print(json.dumps({"id": case.name} | body))


def _asked(asked: list[_Parsed], events: list[UsageDocument]) -> Iterator[dict[str, Any]]:
    cases, first = [], 0
    for case in asked:
        cases.append(Case(case.versions, first, len(case.events), case.as_of, case.period))
        first += len(case.events)
    for answer in quote(cases, usage_document.columns(events)):
        if isinstance(answer, ContractRefused):
            problem = answer.problems[0]
            yield {"error": {"code": problem.code, "message": problem.message, "path": problem.path}}
        else:
            yield answer_document(answer)


def _parse(document: Any, number: int) -> _Parsed:
    name = document.get("id", number) if isinstance(document, dict) else number
    try:
        return _case(name, document)
    except ContractRefused as refused:
        problem = refused.problems[0]
        return _failed(name, problem.code, problem.message, problem.path)
    except DocumentRefused as refused:
        return _failed(name, refused.code, refused.message, refused.path)


def _failed(name: object, code: str, message: str, path: str) -> _Parsed:
    return _Parsed(name, [], [], None, None, {"code": code, "message": message, "path": path})


def _case(name: object, document: Any) -> _Parsed:
    if not isinstance(document, dict):
        raise DocumentRefused("", "not_an_object", "a case is a JSON object")
    unknown = sorted(set(document) - _FIELDS)
    if unknown:
        raise DocumentRefused(unknown[0], "unknown_field", f"unknown field; a case has {', '.join(sorted(_FIELDS))}")
    versions = case_versions(document)
    period = _period(document, versions)
    return _Parsed(name, versions, case_events(document, versions, period), _moment(document.get("as_of")), period)


def case_events(document: dict[str, Any], versions: list[ContractVersion], period: Period | None) -> list[UsageDocument]:
    """The events of a case; DocumentRefused with the path of the first that is wrong."""
    events = document.get("events", [])
    if not isinstance(events, list):
        raise DocumentRefused("events", "not_a_list", "'events' is a list of usage events")
    parsed = []
    for at, event in enumerate(events):
        if not isinstance(event, dict):
            raise DocumentRefused(f"events.{at}", "not_an_object", "an event is a JSON object")
        parsed.append(usage_document.parse(event_defaults(event, versions, period, at), f"events.{at}"))
    return parsed


def case_versions(document: dict[str, Any]) -> list[ContractVersion]:
    """The contract versions of a case, given in one of three ways."""
    given = [name for name in ("contract", "contracts", "charge") if name in document]
    if len(given) != 1:
        raise DocumentRefused("", "contract_missing", "give exactly one of 'contract', 'contracts' and 'charge'")
    if given[0] == "charge":
        return [parse_charge(document["charge"], document.get("currency", "USD"))]
    documents = [document["contract"]] if given[0] == "contract" else document["contracts"]
    return [parse_contract(one) for one in documents]


def _moment(value: object) -> int | None:
    if value is None:
        return None
    try:
        return micros(instant(value))
    except ValueError as error:
        raise DocumentRefused("as_of", "value_error", str(error)) from None


def _period(document: dict[str, Any], versions: list[ContractVersion]) -> Period | None:
    """The one period of a bare charge: ``YYYY-MM`` or its first day; a contract's own periods otherwise."""
    label = document.get("period")
    if label is None:
        label = "2026-01" if "charge" in document else None
    if label is None:
        return None
    try:
        start = date.fromisoformat(label if len(label) > 7 else f"{label}-01")
    except (TypeError, ValueError):
        raise DocumentRefused("period", "value_error", f"{label!r} is not a billing period, as in '2026-10'") from None
    calendar = versions[0].billing.calendar
    return calendar.containing(midnight(start, calendar.time_zone))


def event_defaults(event: dict[str, Any], versions: list[ContractVersion], period: Period | None, at: int) -> dict[str, Any]:
    """An event with what its position gives it."""
    meter = next((charge.meter for charge in versions[0].charges if charge.meter is not None), "meter") if versions else "meter"
    base = {"id": f"event-{at + 1}", "source": "quote", "customer_id": versions[0].customer_id if versions else "customer", "meter": meter}
    if "time" not in event:
        start = period.start_us if period is not None else versions[0].effective_from_us
        base["time"] = datetime.fromtimestamp(start // 1_000_000, UTC).replace(microsecond=start % 1_000_000 + at).isoformat()
    return base | event
