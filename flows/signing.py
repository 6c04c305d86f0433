"""Ed25519 keys: made, kept in a file, used to sign and to verify.

In: a key file (PEM, PKCS #8, unencrypted, readable by its owner alone). Out: signatures, and the public half as the 32
bytes that the reference data keeps. Source: RFC 8032; docs/contracts.md (signed commands).
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tieout.governance import Command

_OWNER_ONLY: Final = 0o600


class KeyFileError(ValueError):
    """A key file that cannot be written or used; the message says what to do."""


def make(path: Path) -> bytes:
    """Make a key pair, write the private key to a new file; the public key."""
    key = Ed25519PrivateKey.generate()
    text = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY), "wb") as file:
            file.write(text)
    except FileExistsError as error:
        msg = f"{path}: exists already, and a key that is overwritten is lost; choose another name"
        raise KeyFileError(msg) from error
    except OSError as error:
        msg = f"{path}: cannot be written ({error.strerror}); choose a folder that is there and writable"
        raise KeyFileError(msg) from error
    return public_of(key)


def load(path: Path) -> Ed25519PrivateKey:
    """The private key in a file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}); give the key file that 'tieout key make' wrote"
        raise KeyFileError(msg) from error
    except (ValueError, TypeError) as error:
        msg = f"{path}: is no unencrypted private key in PEM; give the key file that 'tieout key make' wrote"
        raise KeyFileError(msg) from error
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"{path}: holds a key of another kind than Ed25519; make one with 'tieout key make'"
        raise KeyFileError(msg)
    return key


def public_of(key: Ed25519PrivateKey) -> bytes:
    """The public half of a key."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def signed(command: Command, key: Ed25519PrivateKey) -> Command:
    """The command with its author's signature."""
    return replace(command, signature=key.sign(command.statement()))


def verify(public_key: bytes, signature: bytes, statement: bytes) -> bool:
    """Whether the signature over a statement is by the holder of the key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True
