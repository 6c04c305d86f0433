"""What a client of a broker tells of its connections, and when that is a refusal rather than a broker that is away.

In: the errors that the client reports beside its calls (``error_cb``), and its settings. Out: why it is refused and what
to do, in words, or None. Rule: a client goes on trying by itself for ever, whatever is wrong, and the call that waits
for it only times out; a failed authentication and a certificate that one side does not accept do not pass by waiting,
everything else does: a connection refused or lost, a name that cannot be resolved, an identity provider without an
answer. Source: docs/security.md.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaError

from sinks import certificates

_ACQUIRING: Final = "Failed to acquire SASL OAUTHBEARER token"
_UNTRUSTED: Final = "certificate verify failed"
_ALERT: Final = re.compile(r"SSL routines:.*\balert\b")
"""What the other side of a connection says when it ends a handshake."""
_NO_ANSWER: Final = re.compile(r"connect to|resolve host|timed? ?out|Recv failure|Send failure|Empty reply|HTTP error 5\d\d", re.IGNORECASE)
"""What the client says of a token's endpoint that does not answer; anything else is an answer."""
_LOST: Final = "SSL transport error"
_CUT: Final = "Local: Broker transport failure"
"""In the middle of a login: a broker that stops or starts, whatever else the client makes of it."""
_ADDRESS: Final = re.compile(r"://(?P<host>.+):(?P<port>\d+)/")


class Connections:
    """The reports of one client, as its ``error_cb``; it hears them when the client is polled."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._refused: KafkaError | None = None
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        """Hear one report."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - the client's name of it
            self._last = error
        if is_refusal(error):
            self._refused = error

    def forget(self) -> None:
        """Begin anew. A token that could not be had is told once only, so a client that never got anywhere has to remember."""
        self._refused = self._last = None

    def last(self) -> str | None:
        """The last report as it came; None where there is none."""
        return None if self._last is None else _bare(self._last)

    def refusal(self) -> str | None:
        """Why the client is refused, as the last report says, and what to do; None where it is not."""
        return None if self._refused is None else _words(self._refused, self._settings)


def is_refusal(error: KafkaError) -> bool:
    """Whether what a client reports does not pass by waiting."""
    code, text = error.code(), error.str()
    if code == KafkaError._AUTHENTICATION:  # noqa: SLF001 - the client's name of it
        return not ((_ACQUIRING in text and _NO_ANSWER.search(text)) or _CUT in text)
    if code == KafkaError._SSL:  # noqa: SLF001 - the same
        return _LOST not in text
    return _UNTRUSTED in text or _ALERT.search(text) is not None  # in TLS 1.3 a client's certificate is judged after the handshake


def _bare(error: KafkaError) -> str:
    """A report without how long it took."""
    return re.sub(r" \(after \d+ms.*\)$", "", str(error.str()))


def _words(error: KafkaError, settings: Mapping[str, Any]) -> str:
    text = _bare(error)
    if _ACQUIRING in text:
        return f"there is no token to log in with ({text}); check sasl.oauthbearer.* in the client settings, and this client at its identity provider"
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - the client's name of it
        return (
            f"the broker refuses the login ({text}); check sasl.mechanism and the user with its password or token in the client settings, "
            "and that the broker knows this user"
        )
    if _UNTRUSTED in text:
        return f"the broker's certificate is not accepted ({text}); {_mend(text, settings)}"
    if "certificate" in text or "unknown ca" in text:
        fault = certificates.fault_of_own(settings)
        return (
            f"the broker does not accept this client's certificate ({text}){'' if fault is None else f': {fault}'}; "
            "name a valid one, of an authority that the broker knows, in ssl.certificate.location and ssl.key.location"
        )
    return f"the TLS handshake fails ({text}); check ssl.* in the client settings against the broker's own"


def _mend(text: str, settings: Mapping[str, Any]) -> str:
    """What to do about the broker's certificate; the client does not say what is wrong with it, so it is asked for again."""
    address = _ADDRESS.search(text)
    fault = None if address is None else certificates.fault_of_broker(address["host"].strip("[]"), int(address["port"]), settings)
    if fault is None:
        return "see that it has not expired, name its authority in ssl.ca.location, and call the broker by a name that it is issued for"
    if "expired" in fault or "not yet valid" in fault:
        return f"{fault}: renew it on the broker"
    if "mismatch" in fault:
        return f"{fault}: call the broker by a name that it is issued for, in --bootstrap and in the broker's advertised.listeners"
    return f"{fault}: name its authority in ssl.ca.location"
