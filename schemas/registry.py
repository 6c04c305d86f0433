"""A schema registry with Confluent's interface (Apicurio, Karapace, Confluent's own), from the client's side.

In: its address and the client's settings, by the names that Confluent's client gives them (``basic.auth.user.info``,
``ssl.ca.location``, ``bearer.auth.*``). Out: writers' schemas by id, versions of a subject, and what registering needs.
Subjects follow the topic (``<topic>-value``). Nothing here is called by a producer: values are framed with ids of a
lock file (``schemas.lock``), and only ``tieout schema register`` registers. No call retries by itself: who asks waits.
Errors: ``schemas.errors``. Source: docs/decisions/0004-schema-ids.md.
"""

import json
import re
import ssl
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from confluent_kafka.schema_registry import Schema as Entry
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.error import OAuthTokenError, SchemaRegistryError

from schemas import references
from schemas.catalog import Avro
from schemas.compatibility import alike
from schemas.errors import LockMismatch, RegistryAway, RegistryRefused, UnknownSchema, UnusableSchema
from schemas.lint import PARSE_ERRORS
from schemas.lock import Lock

try:  # the client speaks HTTP by one of these, and its errors are theirs
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef, import-not-found]  # only one of the two is installed

TIMEOUT_SECONDS: Final = 5.0
_BUSY: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_DENIED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_MISSING: Final = range(40400, 40500)
"""Codes by which a registry says that it lacks something; a 404 without one comes from something else."""


class Registered(NamedTuple):
    """One version of a subject."""

    schema_id: int
    version: int
    avro: Avro


class Registry:
    """One registry; ``settings`` go to the client as they are."""

    def __init__(self, url: str, settings: Mapping[str, Any] | None = None) -> None:
        self.url = re.sub(r"//[^@/]*@", "//", url)
        """Its address without credentials."""
        given = {"url": url, "timeout": TIMEOUT_SECONDS, "max.retries": 0, **(settings or {})}
        try:
            self._client = SchemaRegistryClient(given)
        except (ValueError, TypeError, OSError) as error:
            msg = f"registry {self.url}: {error}; repair its address or the settings of its client"
            raise RegistryRefused(msg) from error
        self._writers: dict[int, Avro] = {}

    def close(self) -> None:
        """Give its connections up."""
        self._client.close()

    def writer(self, schema_id: int) -> Avro:
        """The schema of an id, asked for once: ids never change their meaning.

        UnknownSchema where there is none (asked again next time), UnusableSchema where it is no Avro record.
        """
        known = self._writers.get(schema_id)
        if known is None:
            found = self._ask(self._client.get_schema, schema_id)
            if found is None:
                msg = (
                    f"schema id {schema_id} is not in the registry {self.url}: register the producer's schema there, or, "
                    "where the id stands for nothing, name it under 'refused' in the lock file; until then its records wait"
                )
                raise UnknownSchema(schema_id, msg)
            known = self._writers[schema_id] = self._avro(found, f"schema id {schema_id}")
        return known

    def versions(self, subject: str) -> list[Registered]:
        """The versions of a subject that are Avro records, oldest first; none where it does not exist."""
        numbers = self._ask(self._client.get_versions, subject) or []
        found = (self._ask(self._client.get_version, subject, number) for number in sorted(numbers))
        return [one for one in (self._registered(entry) for entry in found if entry is not None) if one is not None]

    def latest(self, subject: str) -> Registered | None:
        """The latest version of a subject, or none."""
        found = self._ask(self._client.get_version, subject, "latest")
        return None if found is None else self._registered(found)

    def find(self, subject: str, avro: Avro) -> Registered | None:
        """The latest version of a subject that writes the same bytes with the same meaning."""
        return next((one for one in reversed(self.versions(subject)) if alike(one.avro, avro)), None)

    def compatible(self, subject: str, avro: Avro) -> bool:
        """Whether the registry would take a schema as the subject's next version, by the subject's own rule."""
        answer = self._ask(self._client.test_compatibility_all_versions, subject, _entry(avro))
        return answer is None or bool(answer)  # a subject that is not there takes anything

    def compatibility(self, subject: str) -> str | None:
        """The rule that a subject's versions are held to; None where it has none of its own."""
        answer = self._ask(self._client.get_compatibility, subject)
        return None if answer is None else str(answer)

    def set_compatibility(self, subject: str, rule: str) -> None:
        """Hold the subject's versions to a rule."""
        self._ask(self._client.set_compatibility, subject, rule)

    def register(self, subject: str, avro: Avro) -> int:
        """Register a schema, which does nothing where it is there; its id. RegistryRefused where the registry refuses."""
        answer = self._ask(self._client.register_schema, subject, _entry(avro))
        if answer is None:
            msg = f"registry {self.url}: does not know {subject} when it is registered; check the address"
            raise RegistryRefused(msg)
        return int(answer)

    def confirm(self, lock: Lock) -> dict[str, dict[int, Avro]]:
        """Check that each id of a lock stands for its schema; other versions of each subject by id, by schema name.

        LockMismatch where an id stands for something else, or for nothing.
        """
        for schema in lock.schemas.values():
            try:
                same = alike(self.writer(schema.id), schema.avro)
            except (UnknownSchema, UnusableSchema):
                same = False
            if not same:
                msg = (
                    f"the lock file pins id {schema.id} for {schema.subject}, and the registry {self.url} has another "
                    "schema under it or none: the file belongs to another registry or release; run 'tieout schema "
                    "register' and 'tieout schema lock' against this one, and review the change"
                )
                raise LockMismatch(msg)
        return {
            name: {one.schema_id: one.avro for one in self.versions(schema.subject) if one.schema_id != schema.id}
            for name, schema in lock.schemas.items()
        }

    def _registered(self, found: Any) -> Registered | None:
        try:
            return Registered(found.schema_id, found.version, self._avro(found.schema, f"{found.subject} version {found.version}"))
        except UnusableSchema:
            return None

    def _avro(self, entry: Any, what: str) -> Avro:
        """An entry as a whole schema, with what it refers to written out."""
        if entry.schema_type not in (None, "AVRO"):
            msg = f"{what} is {entry.schema_type}, not Avro; write usage as Avro"
            raise UnusableSchema(msg)
        needed: dict[tuple[str, int], str] = {}
        self._need(entry, needed, what)
        try:
            avro = references.whole(json.loads(entry.schema_str), [json.loads(text) for text in needed.values()])
        except PARSE_ERRORS as error:
            msg = f"{what} cannot be read as Avro: {error}; register a schema that can"
            raise UnusableSchema(msg) from error
        if not isinstance(avro, dict) or avro.get("type") != "record":
            msg = f"{what} is no record; write a record of the topic's fields"
            raise UnusableSchema(msg)
        return avro

    def _need(self, entry: Any, needed: dict[tuple[str, int], str], what: str) -> None:
        """Add the texts that an entry refers to, each once and after those that it needs itself."""
        for reference in entry.references or ():
            key = (reference.subject, reference.version)
            if key in needed:
                continue
            found = self._ask(self._client.get_version, *key)
            if found is None:
                msg = f"{what} refers to {key[0]} version {key[1]}, which is gone; register it again"
                raise UnusableSchema(msg)
            self._need(found.schema, needed, what)
            needed[key] = found.schema.schema_str

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call the client; None where the registry says that there is no such thing."""
        try:
            return call(*arguments)
        except SchemaRegistryError as error:
            if error.http_status_code == HTTPStatus.NOT_FOUND and error.error_code in _MISSING:
                return None
            raise self._failure(error) from error
        except (httpx.TransportError, OAuthTokenError) as error:
            if _has_cause(error, ssl.SSLCertVerificationError):
                msg = f"registry {self.url}: its certificate is refused ({error}); renew it, or name its authority in ssl.ca.location"
                raise RegistryRefused(msg) from error
            msg = f"registry {self.url}: does not answer ({error or type(error).__name__}); records wait, start it or check its address"
            raise RegistryAway(msg) from error
        except (json.JSONDecodeError, httpx.InvalidURL) as error:
            msg = f"registry {self.url}: is no address of a registry ({error}); repair it"
            raise RegistryRefused(msg) from error

    def _failure(self, error: Any) -> RegistryAway | RegistryRefused:
        status, said = error.http_status_code, error.error_message or "no message"
        if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return RegistryAway(f"registry {self.url}: is in trouble ({status}: {said}); records wait, look at its log")
        if status in _DENIED:
            return RegistryRefused(f"registry {self.url}: refuses the credentials ({status}: {said}); repair them or its permissions")
        if status == HTTPStatus.NOT_FOUND:
            return RegistryRefused(f"registry {self.url}: there is no registry at this address ({status}); check the path, /apis/ccompat/v7 with Apicurio")
        return RegistryRefused(f"registry {self.url}: refuses ({status}: {said}); 'tieout schema check --registry URL' says what is incompatible")


def _entry(avro: Avro) -> Any:
    return Entry(json.dumps(avro), "AVRO")


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    while error is not None:
        if isinstance(error, kind):
            return True
        error = error.__cause__ or error.__context__
    return False
