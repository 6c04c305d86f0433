"""What a commit of the invoicing flow writes so that its state can be restored, as versioned Arrow blobs.

In: what an interval changed (or the whole state). Out: records of ``_tieout.invoicing.state`` (key = kind of blob); and back.
Contracts, reference data and held usage are not kept here: their topics are read again. An interval's accounts come before
its sums: of a contract that was billed, the sums are all that is left pending. A full state lies between the marks ``full`` and ``end``.
"""

import json
from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import pyarrow as pa

from flows.invoicing_outputs import FLOW, Refused
from flows.token import Token
from flows.usage_state import blobs, table_of
from sources.errors import SourceError
from tieout.account_text import account_of, late_of, late_text, text_of
from tieout.closing import Ask, Closed, Closing, SumKey, Wait
from tieout.invoicing.records import Account, UsageSum

FORMAT: Final = 2
FULL: Final = "full"
END: Final = "end"
_SUMS: Final = pa.schema([
    ("contract_id", pa.string()), ("charge_id", pa.string()), ("group", pa.list_(pa.string())), ("period", pa.int64()), ("version", pa.int64()),
    ("since", pa.int64()), ("quantity", pa.string()), ("amount", pa.string()), ("live", pa.int64()), ("records", pa.int64()), ("digest", pa.string()),
])  # fmt: skip
_ACCOUNTS: Final = pa.schema([("contract_id", pa.string()), ("closed", pa.int64()), ("account", pa.binary())])
_LATE: Final = pa.schema([("contract_id", pa.string()), ("exception_id", pa.string()), ("late", pa.binary())])
"""Late usage that waits for finance, or for its contract's next bill; null where it was billed."""
_WAITS: Final = pa.schema([
    ("contract_id", pa.string()), ("reason", pa.string()), ("subject", pa.string()), ("message", pa.string()), ("since", pa.int64()),
    ("reference", pa.int64()), ("version", pa.int64()),
])  # fmt: skip
_CODEC: Final = "lz4"
"""Of accounts in memory; making ready for another one costs more than it saves."""


class PackedAccounts(MutableMapping[str, Account]):
    """Accounts as compressed bytes: one is an object only while somebody looks at it."""

    def __init__(self) -> None:
        self._packed: dict[str, tuple[bytes, int]] = {}
        self._codec = pa.Codec(_CODEC)

    def __getitem__(self, contract: str) -> Account:
        return account_of(self.text(contract))

    def __setitem__(self, contract: str, account: Account) -> None:
        self.put(contract, text_of(account))

    def __delitem__(self, contract: str) -> None:
        del self._packed[contract]

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def text(self, contract: str) -> bytes:
        """An account as bytes."""
        packed, size = self._packed[contract]
        return bytes(self._codec.decompress(packed, size, asbytes=True))

    def put(self, contract: str, text: bytes) -> None:
        """Keep an account that is bytes already."""
        self._packed[contract] = self._codec.compress(text, asbytes=True), len(text)


def check(token: Token) -> None:
    """SourceError where another release wrote the state."""
    if token.state_format != FORMAT:
        msg = f"{FLOW}, partition {token.partition}: its state has format {token.state_format}, this build reads {FORMAT}; run the release that wrote it"
        raise SourceError(msg)


@dataclass(slots=True)
class Changes:
    """What an interval changed, in the order in which it did."""

    sums: dict[tuple[str, SumKey], None] = field(default_factory=dict)
    bills: dict[str, None] = field(default_factory=dict)
    late: dict[tuple[str, str], None] = field(default_factory=dict)
    """Contract and exception of late usage that was set aside, decided about, or billed."""
    waits: dict[str, None] = field(default_factory=dict)
    asks: bool = False
    touched: bool = False
    """Whether thresholds were still to be looked at when it began."""
    notes: list[Closed] = field(default_factory=list)
    """Documents that were taken back at its start."""
    refused: list[Refused] = field(default_factory=list)


def changes(state: Closing, accounts: PackedAccounts, changed: Changes) -> list[tuple[str, bytes]]:
    """An interval's changes as (kind, blob)."""
    grown = [(contract, state.pending[contract][key]) for contract, key in changed.sums if contract not in changed.bills]
    left = [(contract, one) for contract in changed.bills for one in state.pending.get(contract, {}).values()]
    return [
        *blobs("accounts", _accounts(state, accounts, changed.bills)),
        *blobs("sums", _sums((*grown, *left))),
        *blobs("late", _late(state, changed.late)),
        *blobs("waits", _waits((contract, state.waits.get(contract)) for contract in changed.waits)),
        *([("asks", _asks(state.asks))] if changed.asks else []),
        *([("touched", _asks(list(state.touched)))] if changed.touched or state.touched else []),
    ]


def whole(state: Closing, accounts: PackedAccounts) -> list[tuple[str, bytes]]:
    """The full state, by contract."""
    names = sorted(accounts)
    return [
        (FULL, b""),
        *blobs("accounts", _accounts(state, accounts, names)),
        *blobs("sums", _sums((name, one) for name in sorted(state.pending) for one in state.pending[name].values())),
        *blobs("late", _late(state, ((name, exception) for name in sorted(state.aside) for exception in state.aside[name]))),
        *blobs("waits", _waits((name, state.waits[name]) for name in sorted(state.waits))),
        *([("asks", _asks(state.asks))] if state.asks else []),
        *([("touched", _asks(list(state.touched)))] if state.touched else []),
        (END, b""),
    ]


class Sizes(NamedTuple):
    """The bytes of the last full state, and of what came after it."""

    full: int = 0
    since: int = 0


def restore(state: Closing, accounts: PackedAccounts, records: Iterable[tuple[str, bytes]]) -> Sizes:
    """Put the blobs of all commits back, in their order."""
    full, since, within = 0, 0, False
    for kind, raw in records:
        if kind == FULL:
            _clear(state)
            full, since, within = 0, 0, True
        full, since = (full + len(raw), 0) if within else (full, since + len(raw))
        within = within and kind != END
        match kind:
            case "accounts":
                _accounts_back(state, accounts, table_of(raw))
            case "sums":
                for contract, one in _sums_back(raw):
                    state.pending.setdefault(contract, {})[one.key] = one
            case "late":
                _late_back(state, raw)
            case "waits":
                _waits_back(state, raw)
            case "touched":
                state.touched = dict.fromkeys((contract, start) for contract, start in json.loads(raw[1:]))
            case "asks":
                state.asks = [Ask(*row) for row in json.loads(raw[1:])]
            case _:
                pass
    return Sizes(full, since)


def _clear(state: Closing) -> None:
    state.accounts.clear()
    for found in (state.pending, state.aside, state.closed, state.waits):
        found.clear()
    state.asks, state.touched = [], {}


def _accounts(state: Closing, accounts: PackedAccounts, contracts: Iterable[str]) -> pa.Table:
    names = list(contracts)
    columns = [names, [state.closed[name] for name in names], [accounts.text(name) for name in names]]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _ACCOUNTS, strict=True)], schema=_ACCOUNTS)


def _accounts_back(state: Closing, accounts: PackedAccounts, table: pa.Table) -> None:
    for contract, closed, text in zip(*(column.to_pylist() for column in table.columns), strict=True):
        accounts.put(contract, text)
        state.closed[contract] = closed
        state.pending.pop(contract, None)


def _sums(rows: Iterable[tuple[str, UsageSum]]) -> pa.Table:
    made = [
        (contract, one.charge_id, None if one.group is None else list(one.group), one.period_us, one.version, one.since_us, str(one.quantity), str(one.amount), one.live, one.records, f"{one.digest:x}")
        for contract, one in rows
    ]
    columns: Sequence[Sequence[object]] = list(zip(*made, strict=True)) if made else [()] * len(_SUMS)
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _SUMS, strict=True)], schema=_SUMS)


def _sums_back(raw: bytes) -> Iterator[tuple[str, UsageSum]]:
    for row in zip(*(column.to_pylist() for column in table_of(raw).columns), strict=True):
        contract, charge, group, period, version, since, quantity, amount, live, records, digest = row
        yield contract, UsageSum(charge, None if group is None else tuple(group), period, version, since, int(quantity), int(amount), live, records, int(digest, 16))


def _late(state: Closing, places: Iterable[tuple[str, str]]) -> pa.Table:
    made = [(contract, exception, state.aside.get(contract, {}).get(exception)) for contract, exception in places]
    columns: list[list[object]] = [[row[0] for row in made], [row[1] for row in made], [None if late is None else late_text(late) for _, _, late in made]]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _LATE, strict=True)], schema=_LATE)


def _late_back(state: Closing, raw: bytes) -> None:
    for contract, exception, text in zip(*(column.to_pylist() for column in table_of(raw).columns), strict=True):
        mine = state.aside.setdefault(contract, {})
        mine.pop(exception, None) if text is None else mine.update({exception: late_of(text)})
        if not mine:
            del state.aside[contract]


def _waits(rows: Iterable[tuple[str, Wait | None]]) -> pa.Table:
    made = [(contract, *((None,) * 6 if one is None else (*one[:4], *one.known))) for contract, one in rows]
    columns: Sequence[Sequence[object]] = list(zip(*made, strict=True)) if made else [()] * len(_WAITS)
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, _WAITS, strict=True)], schema=_WAITS)


def _waits_back(state: Closing, raw: bytes) -> None:
    for contract, reason, subject, message, since, reference, version in zip(*(column.to_pylist() for column in table_of(raw).columns), strict=True):
        state.waits.pop(contract, None)
        if reason is not None:
            state.waits[contract] = Wait(reason, subject, message, since, (reference, version))


def _asks(asks: Sequence[object]) -> bytes:
    return bytes([FORMAT]) + json.dumps(asks).encode()
