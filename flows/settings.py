"""Settings of a run on a broker: the client's own, from a file, and what a cell keeps for itself.

The file holds ``name=value`` lines as the client's documentation names them (security.protocol, ssl.ca.location,
sasl.mechanism, sasl.oauthbearer.*, ...); everything in it is passed through. Names that decide about exactness are
the flow's own and are refused, so are those that take a program's object instead of a text.
Source: docs/security.md.
"""

from pathlib import Path
from typing import Final

from flows.cells import CellError

OWN: Final = frozenset({
    "acks", "auto.offset.reset", "bootstrap.servers", "enable.auto.commit", "enable.auto.offset.store", "enable.idempotence",
    "enable.partition.eof", "group.id", "isolation.level", "max.in.flight", "max.in.flight.requests.per.connection", "message.max.bytes",
    "metadata.broker.list", "partitioner", "request.required.acks", "transaction.timeout.ms", "transactional.id",
})
QUIET: Final = "2"
"""The client's own lines but for what is fatal: otherwise it writes twenty a second while a broker is away. We say what it says."""
OBJECTS: Final = frozenset({"default.topic.config", "error_cb", "logger", "oauth_cb", "on_commit", "on_delivery", "stats_cb", "throttle_cb"})


def client_settings(bootstrap: str, file: str | None) -> dict[str, str]:
    """The client's settings; CellError for a line that is none, or one that is not the user's to set."""
    settings = {"bootstrap.servers": bootstrap, "log_level": QUIET}
    if file is None:
        return settings
    try:
        lines = Path(file).read_text().splitlines()
    except OSError as error:
        msg = f"{file}: cannot be read ({error.strerror}); give the path of the client's settings"
        raise CellError(msg) from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            msg = f"{file}, line {number}: write name=value, as in security.protocol=SASL_SSL"
            raise CellError(msg)
        if name in OWN:
            msg = f"{file}, line {number}: {name!r} decides about exactness and is set by the flow; take the line out"
            raise CellError(msg)
        if name in OBJECTS:
            msg = f"{file}, line {number}: {name!r} takes an object of a program, which a file cannot hold; take the line out"
            raise CellError(msg)
        settings[name] = value
    return settings
