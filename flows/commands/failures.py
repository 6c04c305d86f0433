"""Which errors are a user's to mend, with their exit codes; everything else is a bug and shows its trace."""

from typing import Final

from flows.cells import CellError
from flows.cli import ERROR, GAP, CommandError
from flows.signing import KeyFileError
from schemas.catalog import CatalogError
from schemas.codec import SchemaMismatch
from schemas.errors import RegistryError
from sinks.errors import SinkError
from sources.errors import RetentionGap, SourceError
from tieout.problems import ContractRefused
from tieout.usage_document import DocumentRefused

EXPECTED: Final = (CommandError, CellError, SinkError, SourceError, ContractRefused, DocumentRefused, SchemaMismatch, CatalogError, RegistryError, KeyFileError)


def code_of(error: Exception) -> int:
    """The exit code of an expected error."""
    if isinstance(error, CommandError):
        return error.code
    return GAP if isinstance(error, RetentionGap) else ERROR
