"""Commands: what people ask for, who may, and what exactly they signed.

In: who asks for what, when and why, with a signature. Out: the command's identity, the bytes that its author signs, and
whether the signature is the author's. The statement is every field but the signature, as JSON with sorted names behind a
line of its own, so a signature of this product means nothing elsewhere and one command's signature fits no other.
The key is the one that the reference data has for the author when the command is recorded: a key that was taken back
signs nothing any more, whatever time a command gives itself. Source: docs/contracts.md (signed commands).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tieout import ids
from tieout.problems import Problem
from tieout.reference import ReferenceBook

Verify = Callable[[bytes, bytes, bytes], bool]
"""Whether a signature over a statement is by the holder of a public key: (key, signature, statement)."""
_HEAD: Final = b"tieout command v1\n"


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks for; ``at`` in UTC microseconds, ``payload`` as JSON text."""

    kind: str
    subject_type: str
    subject_id: str
    author: str
    at: int
    reason: str
    payload: str | None = None
    signature: bytes | None = None

    @property
    def command_id(self) -> str:
        """Its identity: what it says, without the signature."""
        more = () if self.payload is None else (self.payload,)
        return ids.text(("command", self.kind, self.subject_type, self.subject_id, self.author, self.at, self.reason, *more))

    def statement(self) -> bytes:
        """What its author signs."""
        said = {
            "kind": self.kind, "subject_type": self.subject_type, "subject_id": self.subject_id, "author": self.author, "at": self.at,
            "reason": self.reason, "payload": self.payload,
        }
        return _HEAD + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """SHA-256 of the statement: an approval names what it approves by it, so that nobody can put another text under it."""
        return hashlib.sha256(self.statement()).hexdigest()


def fault(command: Command, reference: ReferenceBook, verify: Verify, recorded_at: int) -> Problem | None:
    """Why a command does not count: unsigned, by somebody unknown, or not signed by its author; None where it does."""
    if command.signature is None:
        return Problem("signature", "signature_missing", "the command is not signed; sign it with its author's key, as 'tieout contract propose' and 'tieout approve' do")
    user = reference.at("user", command.author, recorded_at)
    if user is None:
        return Problem("author", "author_unknown", f"the reference data knows no user {command.author!r}; record the user with 'tieout reference put', then send the command again")
    key = user.value["public_key"]
    if key is None:
        return Problem("author", "key_missing", f"user {command.author!r} has no public key; record one with 'tieout reference put', then send the command again")
    if not verify(key, command.signature, command.statement()):
        return Problem("signature", "signature_invalid", f"the signature is not made with the key of user {command.author!r}, or the command was changed after it; sign it again")
    return None
