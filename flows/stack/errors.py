"""What can go wrong with a part of the stack: ``StackError``, whose message says what, where and what to do."""

from flows.cli import CommandError


class StackError(CommandError):
    """A part of the stack cannot be had, started or reached."""
