"""People with keys, and the commands that they sign: what the tests of the contract flow are made of."""

import hashlib
import json
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flows import signing
from tieout.contracts import instant
from tieout.governance import Command
from tieout.lifecycle import Received
from tieout.period import micros
from tieout.reference import ReferenceBook, ReferenceRecord

START = micros(instant("2026-01-01T00:00:00Z"))
MINUTE = 60_000_000
CHARGES = [{"charge_id": "calls", "meter": "calls", "price": {"model": "per_unit", "unit_price": "0.01"}}]
DOCUMENT = {"contract_id": "c-acme", "customer_id": "acme", "effective_from": "2026-02-01T00:00:00Z", "charges": CHARGES}


@cache
def key(name):
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def public(name):
    return signing.public_of(key(name))


def record(kind, name, value, valid_from=START - 1, valid_to=None, recorded_at=START - 1, number=0):
    return ReferenceRecord(kind, name, valid_from, valid_to, recorded_at, "root", None, value, (0, number))


def users(*names):
    return [record("user", name, {"name": name, "public_key": public(name)}) for name in names or ("una", "ben", "cid")]


def book(*records):
    found = ReferenceBook()
    found.learn([*users(), *records])
    return found


def document(version=1, kind=None, **more):
    """A version of the contract; the first is new, later ones amend it."""
    kind = kind or ("new" if version == 1 else "amendment")
    return DOCUMENT | {"version": version, "change": {"kind": kind, **more.pop("change", {})}} | more


def propose(given, author="una", at=START, signer=None, reason="asked for", subject=None):
    subject = subject or f"{given.get('contract_id')}/{given.get('version', 1)}"
    return signing.signed(Command("propose", "contract_version", subject, author, at, reason, json.dumps(given)), key(signer or author))


def decide(proposal, kind="approve", author="ben", at=START, signer=None, reason="looked at"):
    payload = json.dumps({"proposal": proposal.digest()})
    return signing.signed(Command(kind, "contract_version", proposal.subject_id, author, at, reason, payload), key(signer or author))


def received(commands, start=START, position=0):
    """Commands as the log has them, a minute apart."""
    return [Received(position + at, start + at * MINUTE, command) for at, command in enumerate(commands)]
