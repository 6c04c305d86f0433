"""The health endpoint: is a cell alive, is it ready, and why not; with the metrics on the same port.

In: what the cell tells ``FlowMetrics``. Out, over HTTP: ``/live`` and ``/ready`` (200 or 503) and ``/health`` (both,
with every partition; 503 unless both hold) as JSON with reasons in words, and ``/metrics``.

Ready: every partition is fenced and restored, none is paused, and the oldest input that is not committed is younger
than a limit. Live: the loop has turned within a limit. A loop may stand while a partition is paused for its registry
or broker, and while a partition is fenced and restored again: such a cell is alive and not ready. A pause for dead
letters holds one partition and not the loop, so it excuses nothing. Before its first turn a cell is not live: a
startup probe waits that long for the restore.
"""

import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from flows.cli import CommandError
from flows.flow_metrics import FlowMetrics, Status

ADDRESS: Final = "127.0.0.1:9464"
_HOLD_THE_LOOP: Final = ("registry", "broker")
_JSON: Final = "application/json"
_POLL_SECONDS: Final = 0.1
"""How long a close may have to wait."""
_REMEDIES: Final[dict[str, str]] = {
    "registry": "the schema registry is away or does not know a schema id; it goes on by itself when the registry answers",
    "broker": "the broker is away; it goes on by itself when the broker answers",
    "dead_letters": "too many of its events are rejected; look at them with 'tieout dlq ls', then 'tieout release'",
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a cell is no longer ready or alive, in seconds."""

    unprocessed_seconds_max: float = 60
    loop_seconds_max: float = 120
    restore_seconds_max: float = 1800


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether something holds, and in words why not, or why although it might seem otherwise."""

    holds: bool
    reasons: tuple[str, ...]


def live(metrics: FlowMetrics, thresholds: Thresholds) -> Answer:
    """Whether the cell is alive."""
    statuses, still = metrics.statuses(), metrics.loop_seconds()
    excuses = [_pause(s) for s in statuses if s.paused in _HOLD_THE_LOOP]
    excuses += [
        f"partition {s.partition} has been restoring for {s.restoring_seconds:.0f} s"
        for s in statuses if s.restoring_seconds is not None and s.restoring_seconds <= thresholds.restore_seconds_max and metrics.started
    ]
    if excuses or (metrics.started and still <= thresholds.loop_seconds_max):
        return Answer(True, tuple(excuses))
    if not metrics.started:
        return Answer(False, (f"starting: the loop has not turned yet, {still:.0f} s since the start", *_unrestored(statuses)))
    return Answer(False, (f"the loop has not turned for {still:.0f} s, more than {thresholds.loop_seconds_max:g}; the cell hangs, restart it",))


def ready(metrics: FlowMetrics, thresholds: Thresholds) -> Answer:
    """Whether the cell does its work: nothing restoring, nothing paused, nothing old."""
    statuses = metrics.statuses()
    reasons = _unrestored(statuses)
    reasons += [_pause(s) for s in statuses if s.paused is not None]
    reasons += [
        f"partition {s.partition}: input waits for {s.oldest_unprocessed_seconds:.0f} s, more than {thresholds.unprocessed_seconds_max:g}; "
        f"{s.lag_records} records are not committed"
        for s in statuses if s.oldest_unprocessed_seconds >= thresholds.unprocessed_seconds_max
    ]
    if not metrics.started:
        reasons.append("starting: the loop has not turned yet")
    return Answer(not reasons, tuple(reasons))


def health(metrics: FlowMetrics, thresholds: Thresholds) -> tuple[bool, dict[str, Any]]:
    """Whether the cell is alive and ready, and everything that is known of it."""
    alive, fit = live(metrics, thresholds), ready(metrics, thresholds)
    document = {
        "flow": metrics.flow, "cell": metrics.cell, "cells": metrics.cells, "generation": metrics.generation,
        "version": metrics.version, "live": alive.holds, "ready": fit.holds, "live_reasons": alive.reasons,
        "ready_reasons": fit.reasons, "loop_seconds": metrics.loop_seconds(),
        "partitions": [asdict(status) for status in metrics.statuses()],
    }
    return alive.holds and fit.holds, document


class HealthServer:
    """Serves one cell's health and metrics in threads of its own, from its making until ``close``."""

    def __init__(self, address: str, metrics: FlowMetrics, thresholds: Thresholds | None = None) -> None:
        host, port = _parsed(address)
        try:
            self._server = _Server((host, port), metrics, thresholds or Thresholds())
        except OSError as error:
            msg = f"health address {address}: {error.strerror or error}; give a free one with --health-address HOST:PORT"
            raise CommandError(msg) from error
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_SECONDS,), name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port, also where a free one (0) was asked for."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], metrics: FlowMetrics, thresholds: Thresholds) -> None:
        self.metrics, self.thresholds = metrics, thresholds
        self.address_family, _, _, _, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        super().__init__((str(found[0]), int(found[1])), _Handler)

    def server_bind(self) -> None:
        """Without the library's search for the host's full name, which may wait for a name server."""
        TCPServer.server_bind(self)

    def answer(self, path: str, accept: str) -> tuple[int, str, bytes]:
        """Status, content type and body of a path."""
        match path:
            case "/metrics":
                body, content_type = self.metrics.exposition(accept)
                return HTTPStatus.OK, content_type, body
            case "/live" | "/ready":
                found = (live if path == "/live" else ready)(self.metrics, self.thresholds)
                return _status(found.holds), _JSON, _json({path.removeprefix("/"): found.holds, "reasons": found.reasons})
            case "/health":
                holds, document = health(self.metrics, self.thresholds)
                return _status(holds), _JSON, _json(document)
            case _:
                return HTTPStatus.NOT_FOUND, _JSON, _json({"error": f"no {path} here; ask /live, /ready, /health or /metrics"})


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "tieout", ""
    timeout = 10

    def do_GET(self) -> None:
        status, content_type, body = self.server.answer(urlsplit(self.path).path, self.headers.get("Accept", ""))
        with suppress(ConnectionError):  # whoever asked may have left
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the same

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's signature
        """Say nothing: probes ask every few seconds."""


def _parsed(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        msg = f"health address {address!r} is not HOST:PORT; give for example --health-address {ADDRESS}"
        raise CommandError(msg, 2)
    return host.strip("[]"), int(port)


def _status(holds: bool) -> int:  # noqa: FBT001 - one yes or no
    return HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"


def _pause(status: Status) -> str:
    return f"partition {status.partition} has been paused for {status.paused_seconds or 0:.0f} s: {_REMEDIES[str(status.paused)]}"


def _unrestored(statuses: Sequence[Status]) -> list[str]:
    return [
        f"partition {s.partition} is not fenced and restored" + ("" if s.restoring_seconds is None else f" yet, {s.restoring_seconds:.0f} s since it began")
        for s in statuses if not s.restored
    ]
