"""Validators that are built when the first document comes, by one thread while the others wait.

In: the kind of a document, as a pydantic dataclass with ``defer_build``, and those of its parts that are also made by
themselves. Out: what validates it. Building costs a start some tenths of a second that most commands do not need; left
to pydantic's own first use it goes wrong where the partitions of a cell, restored at once, meet their first documents
together: one thread takes from the class what another has just built.
"""

from collections.abc import Sequence
from threading import Lock
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic.dataclasses import rebuild_dataclass

_T = TypeVar("_T")
_BUILDING: Final = Lock()
"""One for all kinds: they have parts in common."""


class FirstDocument(Generic[_T]):
    """The validator of a kind of document."""

    def __init__(self, kind: type[_T], parts: Sequence[type] = ()) -> None:
        self._kind, self._parts = kind, parts
        self._built: TypeAdapter[_T] | None = None

    def validate(self, document: Any) -> _T:
        """The document as its kind; pydantic's ValidationError with all problems."""
        built = self._built or self._build()
        return built.validate_python(document)

    def _build(self) -> TypeAdapter[_T]:
        with _BUILDING:
            if self._built is None:
                for kind in (*self._parts, self._kind):
                    rebuild_dataclass(kind)
                self._built = TypeAdapter(self._kind)
            return self._built
