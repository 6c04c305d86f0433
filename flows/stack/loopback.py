"""The loopback address: ports that nobody listens on, and the asking of who does.

Ports stay free while a part is down. They lie below the range that systems give to outgoing connections (Linux from 32768, others from 49152): a client that
tries to reach a killed broker would otherwise be given the broker's own port one day, and the broker could not return.
"""

import http.client
import secrets
import socket
from typing import Final

ADDRESS: Final = "127.0.0.1"
_FIRST: Final = 15_000
_LAST: Final = 32_000
_ASK_SECONDS: Final = 1.0


def free(count: int) -> list[int]:
    """Different free ports, at random, so that processes which choose at the same time hardly meet."""
    found: set[int] = set()
    while len(found) < count:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if _is_free(port):
            found.add(port)
    return list(found)


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        try:
            one.bind((ADDRESS, port))
        except OSError:
            return False
        return True


def open_at(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((ADDRESS, port), _ASK_SECONDS).close()
    except OSError:
        return False
    return True


def get(port: int, path: str) -> str | None:
    """What an HTTP server answers with status 200; None for any other status, or no answer in time."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
