"""What is wrong with a certificate, in OpenSSL's words: the broker's client says only that there is something.

In: the client's settings (``ssl.ca.location``, ``ssl.certificate.location``, ``ssl.key.location``). Out: a fault, or None
where none is found, or nothing can be said. A broker's certificate is asked for by a handshake of its own; one's own is
shown to oneself, in memory. Keystores (``ssl.keystore.location``) are not looked into.
"""

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_ASK_SECONDS: Final = 5.0
_FLIGHTS: Final = 3
"""Messages that each side of a handshake sends at most."""


def fault_of_broker(host: str, port: int, settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the certificate that a broker shows."""
    try:
        context = _trusting(settings.get("ssl.ca.location"))
        context.check_hostname = settings.get("ssl.endpoint.identification.algorithm", "https") != "none"
        with socket.create_connection((host, port), _ASK_SECONDS) as plain, context.wrap_socket(plain, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except OSError:
        return None


def fault_of_own(settings: Mapping[str, Any]) -> str | None:
    """What is wrong with the certificate that the client shows, its authority aside: only the broker knows which it accepts."""
    certificate, key = settings.get("ssl.certificate.location"), settings.get("ssl.key.location")
    if certificate is None or key is None:
        return None
    try:
        client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        for context in (client, server):
            context.load_cert_chain(certificate, key, settings.get("ssl.key.password") or "")  # without one it would ask the terminal
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it is its own authority here
        server.load_verify_locations(certificate)
        _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        return str(error.verify_message)
    except OSError:
        return None
    return None


def _trusting(authorities: str | None) -> ssl.SSLContext:
    if authorities in (None, "probe"):
        return ssl.create_default_context()
    if Path(authorities).is_dir():
        return ssl.create_default_context(capath=authorities)
    return ssl.create_default_context(cafile=authorities)


def _shake_hands(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A handshake in memory; SSLError where it fails."""
    out, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(back, out), server.wrap_bio(out, back, server_side=True)
    for _ in range(_FLIGHTS):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
