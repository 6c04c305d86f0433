"""Priced events looked at again because a version governs the past: out of the old version's sum, into the new one's.

In: slices of jobs, each some rated records of one customer. Out: for each event that today's versions judge otherwise
one signed pair in its own service period, or a hold, or a rejection; nothing where nothing changes. It looks only at
what is in force now, so it does not matter how many versions came since, or in which order.

Source: docs/semantics.md section 3 (a backdated version).
"""

from collections.abc import Iterator, Sequence

from tieout import fates
from tieout.fates import Work
from tieout.holds import Held
from tieout.rating.history import Known, known
from tieout.rating.rater import Application, Change
from tieout.rating.tariff import Tariff
from tieout.repricing_jobs import Job, Slice
from tieout.stage import DeadLetter


def reprice(work: Work, slices: Sequence[Slice]) -> None:
    """Look at what the slices hold, and let their jobs go on."""
    if not slices:
        return
    for part in slices:
        for event in known(part.rows) if part.rows.num_rows else ():
            _again(work, part.job, event)
    work.state.jobs.advance(list(slices))


def _again(work: Work, job: Job, found: Known) -> None:
    """Judge one event again; its live applications become those of the tariffs that it meets now."""
    state, event = work.state, found.event
    name = (event.customer_id, event.key)
    if name in state.voided or not found.live:
        return
    reason, tariffs = fates.judged(state, event)
    old = [state.tariffs.find(*place) for place in found.live]
    new = () if reason else tariffs
    numbers = {tariff.number for tariff in new}
    if numbers == {tariff.number for tariff in old}:
        return
    stay = [tariff for tariff in old if tariff.number in numbers]
    gone = [_live(work, found, tariff) for tariff in old if tariff.number not in numbers]
    come = [state.rater.meet(event, tariff) for tariff in new if tariff not in stay]
    for out, into, change in _pairs(job, gone, come):
        if out is not None and into is not None:
            state.rater.move(out, into, change, -1)
        elif out is not None:
            state.rater.leave(out, change, -1)
        elif into is not None:
            state.rater.enter_again(into, change, -1)
    for met in gone:
        fates.forget(work, event.customer_id, met)
    for met in come:
        fates.remember(work, event.customer_id, met)
    work.met[name] = [*(_live(work, found, tariff) for tariff in stay), *come]
    if reason is not None:
        _withdraw(work, found, reason)


def _withdraw(work: Work, found: Known, reason: str) -> None:
    """Hold an event that was priced, or reject it where its contract waives such usage."""
    event = found.event
    work.counts.withdrawn += 1
    if reason == "waived":
        work.counts.rejected += 1
        work.dead.append(DeadLetter(event.position, "waived", fates.WAIVED, value=b""))  # where its topic no longer keeps it
    else:
        fates.wait(work, Held(event, reason, max(work.state.clock, 0), event.time, b"", was_priced=True))


def _live(work: Work, found: Known, tariff: Tariff) -> Application:
    """An application as it is kept, or as running quantities know it."""
    event = found.event
    kept = work.state.rater.events.get((event.customer_id, event.key), ())
    return next((met for met in kept if met.tariff.number == tariff.number), None) or work.state.rater.meet(event, tariff)


def _pairs(job: Job, gone: list[Application], come: list[Application]) -> Iterator[tuple[Application | None, Application | None, Change]]:
    """Applications of the same charge of a contract together, with the versions before and after."""
    before = {met.tariff.contract.contract_id: met.tariff.contract.version for met in gone}
    after = {met.tariff.contract.contract_id: met.tariff.contract.version for met in come}
    waiting = {(met.tariff.contract.contract_id, met.tariff.charge.charge_id): met for met in come}
    for out in gone:
        contract = out.tariff.contract.contract_id
        into = waiting.pop((contract, out.tariff.charge.charge_id), None)
        yield out, into, Change(job.ref, before[contract], after.get(contract))
    for (contract, _), into in waiting.items():
        yield None, into, Change(job.ref, before.get(contract), after[contract])
