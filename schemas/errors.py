"""What a schema registry can fail with.

``RegistryError`` is operational: whatever it says, records wait, and none is rejected for it. Under it: ``RegistryAway``
(down, slow, or in trouble of its own: try again), ``UnknownSchema`` (it answers, and has no schema of that id),
``RegistryRefused`` (wrong address, credentials, certificate or settings, or a schema that it does not take) and
``LockMismatch`` (an id of the lock file stands for another schema there).
``UnusableSchema`` is about the data: the id is known, and no body can be read by its schema.
"""


class RegistryError(OSError):
    """A registry cannot give what is needed; the message says where and what to do."""


class RegistryAway(RegistryError):
    """The registry does not answer now; nothing is wrong with what it holds."""


class UnknownSchema(RegistryError):
    """The registry has no schema of an id."""

    def __init__(self, schema_id: int, message: str) -> None:
        super().__init__(message)
        self.schema_id = schema_id


class RegistryRefused(RegistryError):
    """The registry answers, and refuses."""


class LockMismatch(RegistryError):
    """The registry has another schema under an id that the lock file pins."""


class UnusableSchema(Exception):
    """A known id whose schema cannot be read as Avro: values that carry it are rejected."""
