"""The contract flow over folders: what is published where, what is told, and that a kill changes nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows import bytewax_engine, codecs, command_records, contract, dead_letters, local_engine, topics, usage
from flows.contract import ContractCell
from flows.contract_outputs import DEAD
from flows.file_place import FilePlace
from flows.verification import verify, verify_contract
from schemas import segments
from sinks.errors import Fenced
from sinks.ingress import Ingress
from sources.errors import SourceError
from tests import governed
from tests.flow import folders
from tests.flow import governed_folders as place
from tests.governed import decide, document, propose
from tieout import ids, usage_document
from tieout.governance import Command
from tieout.period import micros

SEED = int(os.environ.get("TIEOUT_SEED", "1"))
KILLS = int(os.environ.get("TIEOUT_KILLS", "6"))


def agreed(*documents, at=governed.START):
    """Proposals and approvals in order, each at its own minute."""
    found = []
    for given in documents:
        found.append(propose(given, at=at + len(found) * governed.MINUTE))
        found.append(decide(found[-1], at=at + len(found) * governed.MINUTE))
    return found


def of_customer(number, version=1, **more):
    return document(version, **{"contract_id": f"c-{number}", "customer_id": f"k{number}"} | more)


def price(root):
    """The usage flow to the end of its input."""
    pipeline = usage.pipeline(FilePlace(root), range(place.PARTITIONS), rows=100)
    try:
        local_engine.run(pipeline)
    finally:
        for cell in pipeline.cells.values():
            cell.close()


@pytest.mark.parametrize("engine", [local_engine, bytewax_engine])
def test_versions_are_published_in_the_partition_of_their_customer_and_price_usage(tmp_path, engine):
    place.make(tmp_path)
    place.send(tmp_path, *agreed(*(of_customer(number) for number in range(8)), of_customer(3, 2, effective_from="2026-03-01T00:00:00Z")))
    token = place.run(tmp_path, rows=5, engine=engine)
    assert (token.totals["received"], token.totals["published"], token.totals["refusals"]) == (18, 9, 0)
    for partition in range(place.PARTITIONS):
        for record in place.records(tmp_path, topics.CONTRACTS, partition):
            assert ids.partition_of(record["key"].decode(), place.PARTITIONS) == partition
    (amended,) = [version for version in place.published(tmp_path) if version.version == 2]
    assert (amended.contract_id, amended.change.requested_by, amended.change.approved_by) == ("c-3", "una", "ben")
    event = {"id": "1", "source": "s", "customer_id": "k3", "meter": "calls", "time": "2026-03-02T00:00:00Z", "quantity": "10"}
    columns = usage_document.columns([usage_document.parse(event)])
    ingress = Ingress.open(tmp_path, place.PARTITIONS)
    home = ids.partition_of("k3", place.PARTITIONS)
    ingress.append(topics.USAGE, {home: segments.records(codecs.encode("usage_event", columns), columns["customer_id"], columns["time"].cast(pa.int64()).to_numpy())}, "usage")
    ingress.close()
    price(tmp_path)
    (rated,) = folders.rated(tmp_path, place.PARTITIONS)
    assert (rated["contract_version"], str(rated["amount"])) == (2, "0.100000000000")


def test_both_engines_and_every_size_of_an_interval_write_the_same_versions_and_exceptions(tmp_path):
    commands = [*agreed(*(of_customer(number) for number in range(5))), propose(of_customer(1, 2, kind="resumption")), *agreed(of_customer(2, 2))]
    found = []
    for engine, rows in ((local_engine, 1000), (local_engine, 1), (bytewax_engine, 3)):
        root = tmp_path / f"{engine.__name__}-{rows}"
        place.make(root)
        place.send(root, *commands)
        place.run(root, rows, engine)
        found.append([place.all_records(root, topic) for topic in (topics.CONTRACTS, topics.EXCEPTIONS)])
    assert found[0] == found[1] == found[2] and all(found[0])


def test_a_refusal_is_an_exception_with_paths_and_what_to_do_and_is_resolved_when_it_is_corrected(tmp_path):
    place.make(tmp_path, place.reference("customer", "k1", {}))
    bad = propose(of_customer(1, kind="amendment", customer_id="k2"))
    place.send(tmp_path, bad)
    place.run(tmp_path)
    (found,) = place.exceptions(tmp_path)
    assert (found["kind"], found["owner"], found["state"], found["customer_id"]) == ("proposal_refused", "contracts", "open", "k2")
    assert found["object"] == {"type": "contract_version", "id": "c-1/1"}
    assert "change.kind: version 1 of a contract is its beginning" in found["message"]
    assert [json.loads(text)["path"] for text in found["evidence"][:-1]] == ["change.kind", "customer_id"]
    assert found["evidence"][-1] == f"governance.command.v1 partition 0 position 0: command {bad.command_id}, propose by una"
    place.send(tmp_path, *agreed(of_customer(1), at=governed.START + 60 * governed.MINUTE))
    place.run(tmp_path)
    first, resolved = sorted(place.exceptions(tmp_path), key=lambda one: one["state"])
    assert (first["exception_id"], resolved["state"]) == (resolved["exception_id"], "resolved")
    assert resolved["resolution"] == "c-1/1 was published, proposed by una and approved by ben"
    assert len(place.published(tmp_path)) == 1


def test_reference_data_counts_from_the_interval_after_it_came(tmp_path):
    place.make(tmp_path, place.reference("customer", "other", {}))
    place.send(tmp_path, propose(of_customer(1)))
    assert place.run(tmp_path).totals["refused"] == 1
    place.know(tmp_path, place.reference("customer", "k1", {}))
    place.send(tmp_path, *agreed(of_customer(1), at=governed.START + 60 * governed.MINUTE))
    token = place.run(tmp_path)
    assert (token.totals["refused"], token.totals["published"]) == (1, 1)


def test_a_restart_folds_each_interval_with_the_reference_data_that_it_had(tmp_path):
    """What was refused for want of a customer stays refused, although the customer is known now."""
    place.make(tmp_path, place.reference("customer", "other", {}))
    first = propose(of_customer(1))
    place.send(tmp_path, first)
    place.run(tmp_path)
    place.know(tmp_path, place.reference("customer", "k1", {}))
    place.send(tmp_path, decide(first, at=governed.START + governed.MINUTE))
    token = place.run(tmp_path)
    assert token.totals["published"] == 0
    assert {found["kind"]: found["message"] for found in place.exceptions(tmp_path)}["command_refused"].startswith("payload: this proposal of c-1/1 was refused")


def test_commands_about_something_else_and_undecodable_ones_have_their_fate(tmp_path):
    place.make(tmp_path)
    ingress = Ingress.open(tmp_path, place.PARTITIONS)
    broken = segments.records(pa.array([b"\0\0\0\0\x0e\xff"], pa.large_binary()), pa.array([b"who"]), np.array([governed.START]))
    ingress.append(topics.COMMANDS, {0: broken}, "broken")
    ingress.close()
    place.send(tmp_path, Command("release", command_records.PARTITION, "usage-0", "ops", governed.START, "mended"), *agreed(of_customer(1)))
    token = place.run(tmp_path)
    assert {name: token.totals[name] for name in ("received", "accepted", "rejected", "other")} == {"received": 4, "accepted": 2, "rejected": 1, "other": 1}
    (letter,) = place.records(tmp_path, DEAD, 0)
    said = dead_letters.said_of(letter["headers"])
    assert (letter["value"], letter["key"], said["reason"], said["topic"]) == (b"\0\0\0\0\x0e\xff", b"who", "undecodable", topics.COMMANDS)
    assert place.run(tmp_path).sequence == token.sequence  # a restart counts them as they were


def test_imported_and_governed_contracts_stand_beside_each_other_in_one_topic(tmp_path):
    place.make(tmp_path)
    imported = [{"contract_id": f"i-{number}", "customer_id": f"k{number}", "effective_from": "2026-01-01T00:00:00Z"} for number in range(6)]
    place.import_contracts(tmp_path, imported[:3])
    place.send(tmp_path, *agreed(*(of_customer(number) for number in range(6))))
    place.run(tmp_path, rows=3)
    place.import_contracts(tmp_path, imported[3:])
    found = {(version.contract_id, version.version) for version in place.published(tmp_path)}
    assert found == {(f"{kind}-{number}", 1) for kind in "ic" for number in range(6)}
    assert len(place.all_records(tmp_path, topics.CONTRACTS)) == 12


def test_the_proof_of_the_usage_flow_holds_beside_exceptions_of_the_contract_flow(tmp_path):
    work = folders.events(5, 2_000, 4), [folders.contract(f"k{number}") for number in range(3)]
    folders.write(tmp_path, *work, partitions=place.PARTITIONS)
    place.know(tmp_path, *place.USERS)
    bad = [propose(of_customer(number, kind="amendment")) for number in range(4)]
    place.send(tmp_path, *bad[:2])
    place.run(tmp_path)
    price(tmp_path)
    place.send(tmp_path, *bad[2:])
    place.run(tmp_path)
    folders.write(tmp_path, folders.events(6, 500, 4), [], partitions=place.PARTITIONS)
    price(tmp_path)
    kinds = {found["kind"] for found in place.exceptions(tmp_path)}
    assert {"proposal_refused", "usage_conflict"} <= kinds
    assert sum(found["kind"] == "proposal_refused" for found in place.exceptions(tmp_path)) == 4
    assert all(verify(FilePlace(tmp_path), partition)["breaks"] == [] for partition in range(place.PARTITIONS))
    assert verify_contract(FilePlace(tmp_path))["breaks"] == []


def test_the_proof_of_the_contract_flow_holds_beside_imports_and_finds_what_was_changed(tmp_path):
    place.make(tmp_path)
    assert verify_contract(FilePlace(tmp_path)) is None
    place.import_contracts(tmp_path, [{"contract_id": f"i-{number}", "customer_id": f"k{number}", "effective_from": "2026-01-01T00:00:00Z"} for number in range(4)])
    place.send(tmp_path, *agreed(*(of_customer(number) for number in range(6))), propose(of_customer(1, 2, kind="resumption")))
    token = place.run(tmp_path, rows=4)
    proof = verify_contract(FilePlace(tmp_path))
    assert (proof["intervals"], proof["breaks"], proof["head"]) == (4, [], token.chain)
    assert proof["digests"] >= 4
    path = next(tmp_path.glob(f"contract/all/*/{topics.CONTRACTS}@*.arrow"))
    whole, start = segments.read(path).to_batches()[0], segments.first_position(path)
    values = [value[:-1] + bytes([value[-1] ^ 1]) for value in whole["value"].to_pylist()]
    segments.write(path, whole.set_column(1, segments.RECORDS.field("value"), pa.array(values, pa.large_binary())), topics.CONTRACTS, start)
    (broken,) = verify_contract(FilePlace(tmp_path))["breaks"]
    assert topics.CONTRACTS in broken and "are not those that were committed" in broken


def test_two_runs_at_once_are_fenced(tmp_path):
    place.make(tmp_path)
    cell = ContractCell.start(FilePlace(tmp_path), place.PARTITIONS)
    with pytest.raises(Fenced, match="is writing this partition"):
        ContractCell.start(FilePlace(tmp_path), place.PARTITIONS)
    cell.close()


def test_a_folder_whose_commands_were_changed_is_not_gone_on_with(tmp_path):
    place.make(tmp_path)
    place.send(tmp_path, propose(of_customer(1)))
    place.run(tmp_path)
    path = next(tmp_path.glob(f"ingress/0000/*/{topics.COMMANDS}.arrow"))
    segments.write(path, command_records.record(propose(of_customer(1), signer="ben")), topics.COMMANDS, 0)
    with pytest.raises(SourceError, match="folded again the commands come to"):
        place.run(tmp_path)


# kills


CODE = """
import sys
from pathlib import Path
from flows import {engine}, contract
from flows.contract import ContractCell
from flows.file_place import FilePlace
print("fence", flush=True)
cell = ContractCell.start(FilePlace(Path(sys.argv[1])), 3)
print("run", flush=True)
{engine}.run(contract.pipeline(cell, rows=7))
"""


def history(customers=60):
    """Commands of a year: every kind of fate, in a shuffled order."""
    commands = []
    for number in range(customers):
        commands += agreed(of_customer(number), of_customer(number, 2, effective_from="2026-03-01T00:00:00Z"))
        commands.append(propose(of_customer(number, 4, kind="new")))
        commands.append(decide(propose(of_customer(number, 3)), author="una"))
    random.Random(7).shuffle(commands)
    return commands


@pytest.mark.kill
@pytest.mark.parametrize("engine", ["local_engine", "bytewax_engine"])
def test_a_killed_run_started_again_equals_one_that_never_died(tmp_path, engine):
    whole = tmp_path / "whole"
    place.make(whole)
    place.send(whole, *history())
    place.run(whole, rows=7)
    rnd = random.Random(f"{engine} {SEED}")
    kills = runs = 0
    while kills < KILLS and runs < 20:
        runs += 1
        root = tmp_path / f"killed-{runs}"
        place.make(root)
        place.send(root, *history())
        while kills < KILLS and _killed(root, engine, rnd):
            kills += 1
        _start(root, engine).communicate()
        for topic in (topics.CONTRACTS, topics.EXCEPTIONS, contract.TOKEN):
            assert place.all_records(root, topic) == place.all_records(whole, topic), f"{topic}, seed {SEED}"
    assert kills == KILLS
    versions = [(version.contract_id, version.version) for version in place.published(whole)]
    assert len(versions) == len(set(versions)) == 120


def _start(root: Path, engine: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", CODE.format(engine=engine), str(root)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def _killed(root: Path, engine: str, rnd: random.Random) -> bool:
    """Kill a run in its restore or among its commits; False where it ended first."""
    process = _start(root, engine)
    aim = rnd.choice([b"fence", b"run", b"run"])
    for line in process.stdout:
        if line.strip() == aim:
            break
    time.sleep(rnd.uniform(0, 0.15))
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def test_recorded_times_are_those_of_the_log(tmp_path):
    place.make(tmp_path)
    place.send(tmp_path, *agreed(of_customer(1)))
    place.run(tmp_path)
    (version,) = place.published(tmp_path)
    assert micros(version.recorded_at) == governed.START + governed.MINUTE
