"""Security settings are the client's own and are passed through; what they get wrong is a refusal, not a wait."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import NamedTuple

import pyarrow as pa
import pytest
from confluent_kafka.admin import AclBindingFilter, AclOperation, ResourceType

from flows import rights, topics, usage
from flows.commands.summary import totals
from flows.kafka_place import KafkaPlace
from flows.stack import loopback
from flows.verification import verify
from schemas import segments
from sinks.errors import SinkError
from sinks.kafka import Records, TransactionalWriter
from sources.errors import SourceError
from tests.flow import folders
from tests.kafka import installations, secured

ROOT = Path(__file__).parents[2]
EVENTS = 300
WAIT_SECONDS = 100


class Secured(NamedTuple):
    broker: secured.SecuredBroker
    authority: secured.Authority
    provider: secured.IdentityProvider
    endpoint: str


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    """The module's broker, its authority and its identity provider."""
    folder = tmp_path_factory.mktemp("secured")
    authority, provider = secured.Authority(folder, "authority"), secured.IdentityProvider(folder)
    broker = secured.SecuredBroker(folder / "broker", authority, provider)
    try:
        broker.start()
        yield Secured(broker, authority, provider, provider.serve())
    finally:
        broker.kill()
        provider.close()


@pytest.fixture
def installation(at):
    """`installation(principal)`: a small one with usage in it, for a user with the rights of a cell."""

    def make(*principals, without=lambda _: False):
        place = installations.make(at.broker.bootstrap, f"t{uuid.uuid4().hex[:10]}")
        installations.put(place, folders.events(1, EVENTS, 4), [folders.contract(f"k{i}") for i in range(4)])
        grant(place, *[binding for principal in principals for binding in secured.bindings(place, principal) if not without(binding)])
        return place

    return make


@pytest.fixture
def start(tmp_path):
    """`start(place, address, settings)`: a cell of the usage flow as its own process."""
    made = []

    def run(place, address, settings, *options):
        file = tmp_path / f"client-{len(made)}.properties"
        file.write_text("# the client's settings\n" + "".join(f"{name}={value}\n" for name, value in settings.items()))
        command = [
            sys.executable, "-m", "flows.cli", "run", "usage", "--bootstrap", address, "--client-config", file, "--installation", place.installation,
            "--topic-prefix", place.prefix, "--output", "json", *options,
        ]
        process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=(tmp_path / f"said-{len(made)}").open("w"),
        )
        process.said = tmp_path / f"said-{len(made)}"
        made.append(process)
        return process

    try:
        yield run
    finally:
        for process in made:
            process.kill()
            process.wait()
            process.stdout.close()


def test_a_cell_drains_by_password_by_certificate_and_by_token_with_the_documented_rights_alone(at, installation, start):
    secured.add_users(at.broker, "cell")
    ways = {
        "cell": ("PASSWORDS", secured.login("cell", at.authority)),
        "CN=cell": ("CERTIFICATES", secured.certificate(at.authority.issue("cell"), at.authority)),
        "token-cell": ("TOKENS", secured.token("token-cell", at.endpoint, at.authority)),
    }
    places = {principal: installation(principal) for principal in ways}
    running = {principal: start(places[principal], at.broker.address(listener), settings, "--drain") for principal, (listener, settings) in ways.items()}
    expected = totals(list(installations.drain(installation()).values()))
    assert {"figure": "received", "value": EVENTS} in expected
    for principal, process in running.items():
        code, out, said = ended(process)
        assert code == 0, (principal, said)
        assert json.loads(out) == expected, principal
        assert [verify(places[principal], partition)["breaks"] for partition in range(installations.PARTITIONS)] == [[], []]


def test_a_failed_login_and_an_expired_certificate_end_a_cell_with_what_to_do_and_who_is_away_is_waited_for(at, installation, start):
    """All at once, because most of it is waiting."""
    door, desk, patient = *loopback.free(2), secured.certificate(at.authority.issue("patient"), at.authority)
    by_certificate = start(installation("CN=patient"), f"{loopback.ADDRESS}:{door}", patient, "--drain")
    token = secured.token("patient", f"http://{loopback.ADDRESS}:{desk}/token", at.authority)
    by_token = start(installation("patient"), at.broker.address("TOKENS"), token, "--drain")
    secured.add_users(at.broker, "cell")
    stranger, place = secured.Authority(at.authority.folder, "stranger"), installation()
    passwords, certificates, expired, tokens = map(at.broker.address, ("PASSWORDS", "CERTIFICATES", "EXPIRED", "TOKENS"))
    cases = {
        "a wrong password": (passwords, secured.login("cell", at.authority) | {"sasl.password": "wrong"}, (
            passwords, "invalid credentials", "check sasl.mechanism and the user with its password or token",
        )),
        "an unknown authority": (passwords, secured.login("cell", stranger), (
            passwords, "certificate verify failed", "unable to get local issuer certificate: name its authority in ssl.ca.location",
        )),
        "an expired certificate of the broker": (expired, {"security.protocol": "SSL", "ssl.ca.location": at.authority.file}, (
            expired, "certificate verify failed", "certificate has expired: renew it on the broker",
        )),
        "an expired certificate of the client": (
            certificates, secured.certificate(at.authority.issue("cell", timedelta(days=-1)), at.authority),
            (certificates, "alert certificate", "certificate has expired; name a valid one", "ssl.certificate.location"),
        ),
        "a client that the identity provider does not know": (
            tokens, secured.token("cell", at.endpoint, at.authority) | {"sasl.oauthbearer.client.secret": "wrong"},
            (tokens, "cell may not log in", "check sasl.oauthbearer.* in the client settings"),
        ),
    }
    running = {case: start(place, address, settings, "--drain") for case, (address, settings, _) in cases.items()}
    for case, process in running.items():
        refused(process, *cases[case][2])
    for process in (by_certificate, by_token):
        until(lambda: "the broker does not answer" in process.said.read_text(), process)
    at.provider.serve(desk)
    with relay(door, at.broker.port_of("CERTIFICATES")):
        for process in (by_certificate, by_token):
            code, out, said = ended(process)
            assert code == 0, said
            assert {"figure": "received", "value": EVENTS} in json.loads(out)


def test_settings_that_cannot_work_are_refused_with_what_to_do(at, installation, monkeypatch):
    monkeypatch.setattr("sources.kafka.ANSWER_SECONDS", 2.0)
    monkeypatch.setattr("sinks.kafka._LOOK_SECONDS", 2.0)
    passwords, certificates, tokens = map(at.broker.address, ("PASSWORDS", "CERTIFICATES", "TOKENS"))
    trusting = {"ssl.ca.location": at.authority.file}
    cases = {
        "no certificate": (certificates, {"security.protocol": "SSL", **trusting}, "alert certificate required.*of an authority that the broker knows"),
        "another mechanism": (tokens, secured.login("cell", at.authority), "supported mechanisms: OAUTHBEARER.*check sasl.mechanism"),
        "another name": (passwords.replace("127.0.0.1", "localhost"), secured.login("cell", at.authority), "Hostname mismatch.*in --bootstrap"),
        "no such file": (passwords, secured.login("cell", at.authority) | {"ssl.ca.location": "/nowhere.pem"}, "ssl.ca.location failed.*--client-config"),
        "no such setting": (passwords, secured.login("cell", at.authority, **{"ssl.ca.lacation": "x"}), '"ssl.ca.lacation".*--client-config'),
    }
    place = installation()
    asking = {case: as_user(place, address, settings).topics for case, (address, settings, _) in cases.items()}
    wrong = as_user(place, passwords, secured.login("cell", at.authority) | {"sasl.password": "wrong"}).settings
    cases |= {"a fence": (None, None, f"usage-0 at {passwords}: the broker refuses the login"), "no such mechanism": (None, None, "--client-config")}
    asking["a fence"] = lambda: TransactionalWriter.open(wrong, f"{place.installation}.usage-0")
    asking["no such mechanism"] = lambda: TransactionalWriter.open(wrong | {"sasl.mechanism": "NONE-SUCH"}, f"{place.installation}.usage-0")
    with ThreadPoolExecutor(len(asking)) as pool:
        answers = {case: pool.submit(ask) for case, ask in asking.items()}
    for case, answer in answers.items():
        with pytest.raises((SourceError, SinkError), match=cases[case][2]) as failure:
            answer.result()
        assert type(failure.value) in {SourceError, SinkError}, case


def test_a_right_that_is_missing_ends_a_cell_before_anything_is_written(at, installation, start):
    secured.add_users(at.broker, "poor", "half", "unfenced", "ungrouped")
    passwords = at.broker.address("PASSWORDS")
    lacking = {
        "half": lambda binding: (binding.name.endswith(usage.STATE) and binding.operation == AclOperation.DELETE)
        or (binding.name.endswith(topics.HOLDS) and binding.operation == AclOperation.WRITE),
        "unfenced": lambda binding: binding.restype == ResourceType.TRANSACTIONAL_ID,
        "ungrouped": lambda binding: binding.restype == ResourceType.GROUP,
    }
    places = {user: installation(user, without=without) for user, without in lacking.items()} | {"poor": installation()}
    running = {user: start(places[user], passwords, secured.login(user, at.authority), "--drain") for user in ("half", "unfenced")}
    with pytest.raises(SourceError, match="Group authorization failed.*rights"):
        installations.drain(as_user(places["ungrouped"], passwords, secured.login("ungrouped", at.authority)))
    poor = as_user(places["poor"], passwords, secured.login("poor", at.authority))
    with pytest.raises(SourceError, match=rf"{poor.physical(topics.USAGE)}: Describe, DescribeConfigs, Read \(Broker: Topic authorization failed\).*rights"):
        rights.check(poor.admin, poor.prefix, poor.flow)
    half = places["half"]
    said = refused(running["half"], f"{half.physical(topics.HOLDS)}: Describe, DescribeConfigs, Write", f"{half.physical(usage.STATE)}: Delete", "rights")
    assert topics.RATED not in said
    refused(running["unfenced"], f"{places['unfenced'].installation}.usage-", "Transactional Id authorization failed", "rights")
    assert [installations.read(place, topics.RATED) for place in places.values()] == [[[], []]] * len(places)


def test_a_running_cell_outlives_its_broker_and_ends_when_its_user_loses_the_login_or_a_right(at, installation, start):
    secured.add_users(at.broker, "leaver", "demoted")
    at.provider.lifetimes["token-leaver"] = 8
    places = {user: installation(user) for user in ("leaver", "token-leaver", "demoted")}
    passwords, tokens = at.broker.address("PASSWORDS"), at.broker.address("TOKENS")
    running = {
        "leaver": start(places["leaver"], passwords, secured.login("leaver", at.authority)),
        "token-leaver": start(places["token-leaver"], tokens, secured.token("token-leaver", at.endpoint, at.authority)),
        "demoted": start(places["demoted"], passwords, secured.login("demoted", at.authority)),
    }
    for user, process in running.items():
        until(lambda: sum(installations.group_positions(places[user])) >= EVENTS, process)
    at.broker.kill()
    at.broker.start()
    for user, process in running.items():
        installations.put(places[user], folders.events(2, EVENTS, 4))
        until(lambda: sum(installations.group_positions(places[user])) >= 2 * EVENTS, process)
    secured.remove_user(at.broker, "leaver")
    at.provider.refused.add("token-leaver")
    demoted = places["demoted"]
    revoke(demoted, [one for one in secured.bindings(demoted, "demoted") if one.name.endswith(topics.RATED) and one.operation == AclOperation.WRITE])
    installations.put(demoted, folders.events(3, EVENTS, 4))
    refused(running["demoted"], f"{demoted.physical(topics.RATED)}: Write", "rights")
    refused(running["leaver"], passwords, "invalid credentials", "check sasl.mechanism and the user")
    refused(running["token-leaver"], tokens, "check sasl.", "token-leaver may not log in")


def test_a_writer_that_may_not_write_to_a_topic_names_it(at, installation):
    secured.add_users(at.broker, "writer")
    place = installation("writer", without=lambda binding: binding.name.endswith(topics.HOLDS))
    settings = as_user(place, at.broker.address("PASSWORDS"), secured.login("writer", at.authority)).settings
    writer = TransactionalWriter.open(settings, f"{place.installation}.usage-0")
    record = segments.records(pa.array([b"x"], pa.large_binary()), None, pa.array([0]).to_numpy())
    with pytest.raises(SinkError, match=rf"refuses records of {place.physical(topics.HOLDS)} \(Broker: Topic authorization failed\).*rights"):
        writer.commit([Records(place.physical(topics.RATED), record, 0, False), Records(place.physical(topics.HOLDS), record, 0, False)], [], None)
    writer.close()


def test_the_documented_rights_are_enough_to_trim_state_and_to_import(at, installation):
    secured.add_users(at.broker, "trimmer", "importer")
    place = installation("trimmer")
    installations.drain(place)
    mine = as_user(place, at.broker.address("PASSWORDS"), secured.login("trimmer", at.authority))
    rights.check(mine.admin, mine.prefix, "usage")
    for topic in (usage.STATE, usage.SEEN):
        end = mine.ends(topic, 0)
        mine.delete_before(topic, 0, end)
        reader = mine.reader(topic, 0)
        assert (reader.refresh(), reader.start) == (end, end)
    with pytest.raises(SourceError, match="refuses access"):
        mine.delete_before(usage.TOKEN, 0, 1)
    grant(place, *secured.importing(place, "importer"))
    before = place.ends(topics.USAGE, 0)
    contracts = [folders.contract(f"k{i}") for i in range(4)]
    installations.put(as_user(place, at.broker.address("PASSWORDS"), secured.login("importer", at.authority)), folders.events(2, EVENTS, 4), contracts)
    assert place.ends(topics.USAGE, 0) > before
    mine.close()


def as_user(place, address, settings):
    """The place as a user sees it."""
    given = {name: str(value) for name, value in settings.items()}
    return KafkaPlace(given | {"bootstrap.servers": address, "log_level": 0}, place.installation, place.prefix)


def ended(process):
    """Its exit code, what it printed, and what it said."""
    out, _ = process.communicate(timeout=WAIT_SECONDS)
    return process.returncode, out, process.said.read_text()


def refused(process, *words):
    """The last thing that a process said, after it has ended with code 1."""
    code, _, said = ended(process)
    assert code == 1, said
    assert "Traceback" not in said
    last = [line for line in said.splitlines() if line.startswith("tieout: ")][-1]
    assert [word for word in words if word not in last] == [], last
    return last


def grant(place, *bindings):
    for answer in place.admin.create_acls(list(bindings)).values() if bindings else ():
        answer.result()


def revoke(place, bindings):
    for one in bindings:
        for answer in place.admin.delete_acls([filter_of(one)]).values():
            assert answer.result()


def filter_of(binding):
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host, binding.operation, binding.permission_type
    )


def until(holds, process):
    for _ in range(WAIT_SECONDS * 4):
        if holds():
            return
        assert process.poll() is None, process.said.read_text()
        time.sleep(0.25)
    raise AssertionError(process.said.read_text())


@contextmanager
def relay(port, onwards):
    """A port that leads to another one."""
    class Handler(BaseRequestHandler):
        def handle(self):
            with socket.create_connection((loopback.ADDRESS, onwards)) as there:
                back = threading.Thread(target=pump, args=(there, self.request))
                back.start()
                pump(self.request, there)
                back.join()

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    class Server(ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server((loopback.ADDRESS, port), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
