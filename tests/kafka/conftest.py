"""One broker and one registry for a whole test run, over all workers of pytest-xdist, started when first asked for."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from flows import cli
from flows.stack import loopback
from flows.stack.broker import Broker, Listener
from flows.stack.registry import Registry
from tests.kafka import keeper
from tests.kafka.relay import Relay
from tests.kafka.toxiproxy import Toxiproxy, proxied

ROOT = Path(__file__).parents[2]
MAVEN_LOCK = Path(tempfile.gettempdir()) / "tieout-maven.lock"


class SharedBroker(NamedTuple):
    """The broker that all tests of the run use: it is nobody's to stop, kill or pause."""

    bootstrap: str
    pid: int
    folder: Path


class SharedRegistry(NamedTuple):
    """The registry that all tests of the run use: it is nobody's to stop, kill or pause, nor its compatibility to change."""

    url: str
    pid: int
    folder: Path


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    """The run's broker: `broker.bootstrap`. Topics need a prefix of their own: `topic_prefix`."""
    with _shared("broker", tmp_path_factory) as kept:
        yield SharedBroker(*kept)


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """The run's registry: `registry.url`. Subjects need a prefix of their own: `topic_prefix`."""
    with _shared("registry", tmp_path_factory) as kept:
        yield SharedRegistry(*kept)


@pytest.fixture
def schema_lock(registry, tmp_path, tmp_path_factory):
    """A lock file of the catalogue, registered; one worker at a time: of two that register at once a registry refuses one."""
    path = tmp_path / "schema-lock.json"
    with (tmp_path_factory.getbasetemp().parent / "registering").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for what in ("register", "lock"):
            assert cli.main(["schema", what, "--registry", registry.url, "--lock", str(path)]) == 0
    return path


@pytest.fixture
def topic_prefix():
    """A prefix for the topics, groups and transactional ids of one test."""
    return f"t{uuid.uuid4().hex[:10]}."


@pytest.fixture
def new_broker(tmp_path):
    """A broker of the test's own, to stop, kill, pause and start again: `new_broker(**options of Broker)`, started."""
    made = []

    def start(**options):
        made.append(Broker(tmp_path / f"broker-{len(made)}", **options))
        made[-1].start()
        return made[-1]

    try:
        yield start
    finally:
        for one in made:
            one.kill()


@pytest.fixture
def new_registry(tmp_path):
    """A registry of the test's own, started."""
    one = Registry(tmp_path / "registry")
    try:
        one.start()
        yield one
    finally:
        one.kill()


@pytest.fixture
def toxiproxy(tmp_path):
    """A toxiproxy of the test's own, started: `toxiproxy.proxy(name, port)`."""
    server = Toxiproxy(tmp_path / "toxiproxy")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def proxied_broker(tmp_path, toxiproxy):
    """A broker of the test's own, started, and the proxy that its clients come through: `proxy.address` is their bootstrap."""
    broker, proxy = proxied(tmp_path / "proxied", toxiproxy)
    try:
        broker.start()
        yield broker, proxy
    finally:
        broker.kill()


@pytest.fixture
def relayed_broker(new_broker):
    """A broker of the test's own, started, and the relay that its clients come through: `relay.address` is their bootstrap."""
    behind, before = loopback.free(2)
    relay = Relay(behind, before)
    try:
        yield new_broker(listeners=[Listener("RELAYED", behind, before)]), relay
    finally:
        relay.close()


@contextmanager
def _shared(kind, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    _install_maven()
    with keeper.users_of(kind, root).open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (root / f"{kind}.gate").open("a") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            answer = _kept(kind, root)
        if "error" in answer:
            pytest.fail(answer["error"], pytrace=False)
        yield answer["address"], answer["pid"], root / kind


def _kept(kind, root):
    """The keeper's answer, after starting it where nobody has."""
    path, said = root / f"{kind}.json", root / f"{kind}.keeper"
    if not path.exists():
        with said.open("ab") as output:
            command = [sys.executable, "-m", "tests.kafka.keeper", kind, str(root)]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
        while not path.exists():
            assert process.poll() is None, said.read_text()
            time.sleep(0.02)
    return json.loads(path.read_text())


def _install_maven():
    """Maven from the system's packages, where tests run as root on a bare Debian image."""
    if shutil.which("mvn") or os.geteuid() or not shutil.which("apt-get"):
        return  # where it is missing still, the part's own error says what to install
    with MAVEN_LOCK.open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not shutil.which("mvn"):
            subprocess.run(["apt-get", "update", "--quiet"], check=True)
            subprocess.run(["apt-get", "install", "--quiet", "--yes", "--no-install-recommends", "maven"], check=True)
