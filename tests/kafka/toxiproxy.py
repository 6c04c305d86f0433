"""Bad networks on purpose: toxiproxy before a broker or a registry, built once by Go into the cache.

A proxied broker has a second listener: it listens at one port and tells its clients the proxy's.
"""

import http.client
import json
import os
import shutil
import subprocess
from pathlib import Path

from flows.stack import downloads, loopback
from flows.stack.broker import Broker, Listener
from flows.stack.errors import StackError
from flows.stack.process import Part, last_lines

VERSION = "2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"


class Toxiproxy(Part):
    """The server: `start` it, give `proxy`s to what they stand before, `stop` it."""

    name = "Toxiproxy"

    def __init__(self, folder):
        super().__init__(folder)
        [self.port] = loopback.free(1)

    def command(self):
        return [str(program()), "-host", loopback.ADDRESS, "-port", str(self.port)]

    def ready(self):
        return loopback.get(self.port, "/version") is not None

    def proxy(self, name, upstream, port=None):
        """A proxy before a port of the loopback address, itself at `port` or at a free one."""
        [port] = [port] if port else loopback.free(1)
        self.ask("POST", "/proxies", {"name": name, "listen": f"{loopback.ADDRESS}:{port}", "upstream": f"{loopback.ADDRESS}:{upstream}", "enabled": True})
        return Proxy(self, name, port)

    def ask(self, method, path, content=None):
        connection = http.client.HTTPConnection(loopback.ADDRESS, self.port, timeout=10)
        try:
            connection.request(method, path, None if content is None else json.dumps(content))
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        assert answer.status < 300, f"{method} {path}: {answer.status} {body}"
        return json.loads(body) if body else None


class Proxy:
    """One proxy; what it does to connections holds until `heal`."""

    def __init__(self, server, name, port):
        self.server, self.name, self.port = server, name, port

    @property
    def address(self):
        return f"{loopback.ADDRESS}:{self.port}"

    def cut(self):
        """End all connections and refuse new ones."""
        self._set(enabled=False)

    def latency(self, milliseconds, jitter=0, stream="downstream"):
        """Hold all answers (or, `upstream`, all requests) back for so long."""
        self._toxic("latency", stream, latency=milliseconds, jitter=jitter)

    def slow(self, kilobytes_a_second):
        """Let only so much through, either way."""
        for stream in ("upstream", "downstream"):
            self._toxic("bandwidth", stream, rate=kilobytes_a_second)

    def swallow(self, stream="downstream"):
        """Lose all answers (or, `upstream`, all requests) while connections stay open."""
        self._toxic("timeout", stream, timeout=0)

    def reset_after(self, received_bytes):
        """End each connection after so many bytes of answers, anywhere in a message."""
        self._toxic("limit_data", "downstream", bytes=received_bytes)

    def heal(self):
        """A good network again. Connections that lost bytes cannot be saved: they are ended."""
        if any(toxic["type"] == "timeout" for toxic in self.server.ask("GET", f"/proxies/{self.name}")["toxics"]):
            self.cut()
        for toxic in self.server.ask("GET", f"/proxies/{self.name}")["toxics"]:
            self.server.ask("DELETE", f"/proxies/{self.name}/toxics/{toxic['name']}")
        self._set(enabled=True)

    def _set(self, *, enabled):
        self.server.ask("POST", f"/proxies/{self.name}", {"enabled": enabled})

    def _toxic(self, kind, stream, **attributes):
        self.server.ask("POST", f"/proxies/{self.name}/toxics", {"name": f"{kind}_{stream}", "type": kind, "stream": stream, "attributes": attributes})


def proxied(folder: Path, server: Toxiproxy) -> tuple[Broker, Proxy]:
    """A broker (to be started) whose clients come through a proxy: `proxy.address` is their bootstrap address."""
    behind, before = loopback.free(2)
    broker = Broker(folder, listeners=[Listener("PROXIED", behind, before)])
    return broker, server.proxy("kafka", behind, before)


def program() -> Path:
    """The server's binary, built at the first call of all processes."""

    def build(folder):
        go = shutil.which("go")
        if go is None:
            raise StackError("toxiproxy is built by Go, and there is no go on the PATH; install Go 1.23 or newer and run again")
        answer = subprocess.run([go, "install", MODULE], env={**os.environ, "GOBIN": str(folder)}, capture_output=True, text=True)
        if answer.returncode:
            raise StackError(f"toxiproxy could not be built; check the network and 'go env'. Go said:\n{last_lines(answer.stdout + answer.stderr, 5)}")

    return downloads.once(f"toxiproxy-{VERSION}", build) / "server"
