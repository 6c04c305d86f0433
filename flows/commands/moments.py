"""Times as people write and read them.

In: RFC 3339, a month, or so far back from now; a stretch of time. Out: UTC microseconds, and back.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from flows.cli import CommandError
from tieout.contracts import instant
from tieout.period import micros

_UNITS: Final = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(text: str, now: int, option: str) -> int:
    """An instant from RFC 3339, a month, or so far back from now; CommandError names the option."""
    if text.startswith("-") and (back := _seconds(text[1:])) is not None:
        return now - back * 1_000_000
    try:
        return micros(instant(f"{text}-01T00:00:00Z" if len(text) == len("2026-10") else text))
    except ValueError as error:
        msg = f"{option} {text!r} is no time; write 2026-10-01T00:00:00Z, 2026-10, or -2h (s, m, h, d) back from now"
        raise CommandError(msg, 2) from error


def stretch(text: str, option: str) -> int:
    """Microseconds from a number and a unit; CommandError names the option."""
    seconds = _seconds(text)
    if seconds is None:
        msg = f"{option} {text!r} is no stretch of time; write a number and s, m, h or d, as in 7d"
        raise CommandError(msg, 2)
    return seconds * 1_000_000


def _seconds(text: str) -> int | None:
    number, unit = text[:-1], text[-1:]
    return int(number) * _UNITS[unit] if number.isascii() and number.isdecimal() and unit in _UNITS else None


def written(at: int) -> str:
    """An instant in RFC 3339."""
    return (_EPOCH + timedelta(microseconds=at)).isoformat()


def words(microseconds: int) -> str:
    """A stretch of time in its two largest units, rounded down."""
    left, parts = max(microseconds, 0) // 1_000_000, list[str]()
    for unit, seconds in _UNITS.items():
        count, left = divmod(left, seconds)
        if count or parts:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
