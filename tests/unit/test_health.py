"""The health endpoint, asked over HTTP as a probe asks it."""

import json
import socket
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from flows.cli import CommandError
from flows.flow_metrics import FlowMetrics
from flows.health import HealthServer, Thresholds
from flows.token import Token


class Hands:
    """A clock that is set by hand."""

    def __init__(self, at=1_000_000.0):
        self.at = at

    def __call__(self):
        return self.at


class Cell:
    """A cell of two partitions with its endpoint and its clock."""

    def __init__(self):
        self.clock = Hands()
        self.metrics = FlowMetrics("usage", [1, 4], cell=1, cells=3, generation=7, now=self.clock, steady=self.clock)
        self.server = HealthServer("127.0.0.1:0", self.metrics)

    def restored(self):
        for partition in (1, 4):
            self.metrics.restoring(partition)
            self.metrics.restored(Token("usage", partition, 0), 0.1)
        self.metrics.turned()
        return self

    def ask(self, path, **headers):
        request = Request(f"http://127.0.0.1:{self.server.port}{path}", headers=headers)
        try:
            with urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.headers, error.read()

    def says(self, path):
        status, headers, body = self.ask(path)
        assert headers["Content-Type"] == "application/json"
        found = json.loads(body)
        assert (status == 200) == found[path.removeprefix("/")]
        return status, found["reasons"]


@pytest.fixture
def cell():
    made = Cell()
    yield made
    made.server.close()


def test_a_cell_is_neither_alive_nor_ready_until_it_has_restored_and_its_loop_turns(cell):
    assert cell.says("/live")[0] == 503
    cell.metrics.restoring(1)
    cell.clock.at += 90
    cell.metrics.restored(Token("usage", 4, 0), 0.1)
    status, reasons = cell.says("/live")
    assert status == 503
    assert reasons == ["starting: the loop has not turned yet, 90 s since the start", "partition 1 is not fenced and restored yet, 90 s since it began"]
    status, reasons = cell.says("/ready")
    assert status == 503
    assert len(reasons) == 2
    cell.metrics.restored(Token("usage", 1, 0), 0.1)
    cell.metrics.turned()
    assert cell.says("/live") == (200, [])
    assert cell.says("/ready") == (200, [])


@pytest.mark.parametrize("cause", ["registry", "broker", "dead_letters"])
def test_a_paused_cell_is_alive_and_not_ready(cell, cause):
    cell.restored().metrics.paused(4, cause)
    cell.clock.at += 30
    cell.metrics.paused(4, cause)
    status, reasons = cell.says("/ready")
    assert status == 503
    assert len(reasons) == 1
    assert reasons[0].startswith("partition 4 has been paused for 30 s: ")
    assert cell.says("/live")[0] == 200
    cell.metrics.paused(4, None)
    assert cell.says("/ready") == (200, [])


def test_a_loop_that_stands_is_not_alive_unless_its_registry_or_broker_holds_it(cell):
    cell.restored()
    cell.clock.at += 121
    status, reasons = cell.says("/live")
    assert status == 503
    assert reasons == ["the loop has not turned for 121 s, more than 120; the cell hangs, restart it"]
    for cause, status in (("dead_letters", 503), ("registry", 200), ("broker", 200)):
        cell.metrics.paused(1, cause)
        assert cell.says("/live")[0] == status
    cell.metrics.paused(1, None)
    cell.metrics.turned()
    assert cell.says("/live") == (200, [])


def test_a_cell_that_is_paused_before_its_first_restore_is_alive(cell):
    cell.metrics.paused(1, "broker")
    assert cell.says("/live")[0] == 200
    assert cell.says("/ready")[0] == 503


def test_a_partition_that_is_restored_again_excuses_a_standing_loop_for_a_while(cell):
    cell.restored().metrics.restoring(4)
    cell.clock.at += 1800
    assert cell.says("/live")[0] == 200
    assert cell.says("/ready")[1] == ["partition 4 is not fenced and restored yet, 1800 s since it began"]
    cell.clock.at += 1
    assert cell.says("/live")[0] == 503


def test_a_cell_with_old_input_is_alive_and_not_ready(cell):
    cell.restored().metrics.lag(1, 10, 30)
    cell.clock.at += 59
    cell.metrics.turned()
    assert cell.says("/ready") == (200, [])
    cell.clock.at += 1
    assert cell.says("/ready") == (503, ["partition 1: input waits for 60 s, more than 60; 20 records are not committed"])
    assert cell.says("/live") == (200, [])
    cell.metrics.lag(1, 30, 30)
    assert cell.says("/ready") == (200, [])


def test_thresholds_are_given(cell):
    cell.restored()
    with HealthServer("127.0.0.1:0", cell.metrics, Thresholds(unprocessed_seconds_max=5, loop_seconds_max=3)) as strict:
        cell.metrics.lag(1, 0, 1)
        cell.clock.at += 5
        for path in ("/ready", "/live"):
            with pytest.raises(HTTPError, match="503"):
                urlopen(f"http://127.0.0.1:{strict.port}{path}", timeout=10)


def test_health_tells_everything_of_every_partition(cell):
    cell.restored().metrics.paused(1, "registry")
    cell.metrics.lag(4, 0, 25)
    cell.clock.at += 2
    status, _, body = cell.ask("/health")
    found = json.loads(body)
    assert status == 503
    assert (found["flow"], found["cell"], found["cells"], found["generation"]) == ("usage", 1, 3, 7)
    assert (found["live"], found["ready"], found["loop_seconds"]) == (True, False, 2)
    assert found["ready_reasons"] == [f"partition 1 has been paused for 2 s: {found['ready_reasons'][0].split(': ', 1)[1]}"]
    one, four = found["partitions"]
    assert (one["partition"], one["paused"], one["paused_seconds"], one["restored"]) == (1, "registry", 2, True)
    assert (four["partition"], four["paused"], four["lag_records"], four["oldest_unprocessed_seconds"]) == (4, None, 25, 2)
    cell.metrics.paused(1, None)
    cell.metrics.joined(8)
    status, _, body = cell.ask("/health")
    assert (status, json.loads(body)["generation"]) == (200, 8)
    assert b'tieout_cell_generation{flow="usage"} 8.0' in cell.ask("/metrics")[2]


def test_metrics_come_from_the_same_port_in_the_format_that_is_asked_for(cell):
    cell.restored()
    status, headers, body = cell.ask("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    found = {s.name: s.value for family in plain(body.decode()) for s in family.samples}
    assert (found["tieout_cell_ordinal"], found["tieout_cells"], found["tieout_cell_generation"]) == (1, 3, 7)
    status, headers, body = cell.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert "tieout_partition_restored" in {family.name for family in openmetrics(body.decode())}


def test_other_paths_and_methods_are_refused(cell):
    status, _, body = cell.ask("/liev?x=1")
    assert status == 404
    assert json.loads(body) == {"error": "no /liev here; ask /live, /ready, /health or /metrics"}
    with pytest.raises(HTTPError, match="501"):
        urlopen(Request(f"http://127.0.0.1:{cell.server.port}/live", data=b"x", method="POST"), timeout=10)


def test_a_head_request_has_no_body(cell):
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"http://127.0.0.1:{cell.server.port}/ready", method="HEAD"), timeout=10)
    with refused.value as answer:
        assert answer.code == 503
        assert answer.read() == b""


def test_a_probe_that_hangs_up_harms_nobody(cell, capfd):
    cell.restored()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", cell.server.port)) as left:
            left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            left.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert cell.says("/ready") == (200, [])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("address", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536"])
def test_an_address_that_is_none_is_refused_with_an_example(address):
    with pytest.raises(CommandError, match="is not HOST:PORT; give for example --health-address 127.0.0.1:9464"):
        HealthServer(address, FlowMetrics("usage", [0]))


def test_an_address_that_is_taken_is_refused_with_what_to_do(cell):
    with pytest.raises(CommandError, match=f"health address 127.0.0.1:{cell.server.port}: Address already in use; give a free one with --health-address"):
        HealthServer(f"127.0.0.1:{cell.server.port}", cell.metrics)


def test_an_ipv6_address_stands_in_brackets():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as missing:
        pytest.skip(f"this machine has no IPv6 loopback: {missing}")
    with HealthServer("[::1]:0", FlowMetrics("usage", [0])) as server, urlopen(f"http://[::1]:{server.port}/metrics", timeout=10) as answer:
        assert answer.status == 200


def test_a_closed_endpoint_frees_its_port():
    metrics = FlowMetrics("usage", [0])
    with HealthServer("127.0.0.1:0", metrics) as first:
        port = first.port
    with HealthServer(f"127.0.0.1:{port}", metrics) as second:
        assert second.port == port
