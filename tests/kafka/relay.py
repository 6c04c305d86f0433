"""Loses the answer to a commit on purpose: a relay before a broker's listener, or before a proxy of it.

Bytes pass both ways until an armed relay sees a client commit a transaction. From then on its clients get no answer,
while their connections stay open, until `heal`; the commit itself reaches the broker ("done") or is lost, too, with
all that clients send after it. Of Kafka's protocol it knows how requests are framed, and where EndTxn of versions 0 to
5 says that a transaction is committed. The listener has to tell its clients the relay's port.
"""

import contextlib
import socket
import struct
import threading

from flows.stack import loopback

END_TXN = 26
FLEXIBLE = 3
"""From this version on EndTxn ends with tagged fields; none are defined."""


class Relay:
    """A relay at `port`, or at a free one, before an upstream port of the loopback address; `struck` is set when an armed one has seen its commit."""

    def __init__(self, upstream, port=None):
        [self.port] = [port] if port else loopback.free(1)
        self.struck = threading.Event()
        self._upstream, self._lock, self._open = upstream, threading.Lock(), set()
        self._armed, self._answered, self._asked = None, True, True
        self._server = socket.create_server((loopback.ADDRESS, self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self):
        return f"{loopback.ADDRESS}:{self.port}"

    def arm(self, *, done):
        """Strike at the next commit; `done`: the broker still gets it."""
        with self._lock:
            self.struck.clear()
            self._armed = done

    def heal(self):
        """Let everything pass again. Connections that lost bytes cannot be saved: where it has struck, all are ended."""
        with self._lock:
            if self.struck.is_set():
                self._end_all()
            self._armed, self._answered, self._asked = None, True, True

    def close(self):
        _end(self._server)  # wakes who waits for a client
        self._server.close()
        with self._lock:
            self._end_all()

    def _end_all(self):
        for one in self._open:
            _end(one)

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        """One connection of a client, with one upstream that ends with it."""
        with client, contextlib.suppress(OSError), socket.create_connection((loopback.ADDRESS, self._upstream)) as broker:
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {client, broker}
            answers = threading.Thread(target=self._pass_answers, args=(client, broker), daemon=True)
            answers.start()
            self._pass_requests(client, broker)
            answers.join()
            with self._lock:
                self._open -= {client, broker}

    def _pass_requests(self, client, broker):
        with contextlib.suppress(OSError), client.makefile("rb") as sent:
            while len(size := sent.read(4)) == 4:
                length = int.from_bytes(size, "big")
                request = sent.read(length)
                if len(request) < length:
                    break
                if self._passes(request):
                    broker.sendall(size + request)
        _end(client)
        _end(broker)

    def _pass_answers(self, client, broker):
        with contextlib.suppress(OSError):
            while answer := broker.recv(1 << 16):
                if self._answered:
                    client.sendall(answer)
        _end(client)
        _end(broker)

    def _passes(self, request):
        """Whether a request reaches the broker; an armed relay strikes before its commit does."""
        with self._lock:
            if self._armed is None or not commits(request):
                return self._asked
            done, self._armed, self._answered = self._armed, None, False
            self._asked = done
            self.struck.set()
            return done


def commits(request):
    """Whether a request (without its size) is an EndTxn that commits: that flag is its last field."""
    key, version = struct.unpack_from(">hh", request)
    return key == END_TXN and request[-2 if version >= FLEXIBLE else -1] == 1


def _end(connection):
    with contextlib.suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)
