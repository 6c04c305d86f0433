"""What is wrong with a document, as data: every problem at once, with its path, a code, and what to do."""

from typing import NamedTuple


class Problem(NamedTuple):
    """One thing wrong with a document."""

    path: str
    code: str
    message: str


class ContractRefused(ValueError):
    """A contract document that cannot be taken; ``problems`` says where and what to do."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{p.path or 'document'}: {p.message}" for p in problems))
        self.problems = problems
