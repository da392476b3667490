"""Values of a filter: numbers, sizes, times and texts, read as the field that they are compared with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final

from weightslab.engine.repository.fact_tables import to_microseconds

__all__ = ["Span", "read_number", "read_quantity", "read_span"]

_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z")
_WORDS: Final = {"nan": "nan", "inf": "inf", "+inf": "inf", "-inf": "-inf"}
_QUANTITY: Final = re.compile(
    r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([kmgt]?)(i?)(b?)\Z", re.IGNORECASE
)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)(?:\s+ago)?\Z", re.IGNORECASE)
_UNITS: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(\.\d{1,6})?)?)?\s*(Z|[-+]\d\d:?\d\d)?)?\Z",
    re.IGNORECASE,
)
_MAX_DIGITS: Final = 400  # of an integer; beyond every float


def read_number(text: str) -> int | float | None:
    """Return the number that a text is, NaN and infinities included; None for another text."""
    if word := _WORDS.get(text.lower()):
        return float(word)
    if _NUMBER.match(text) is None or len(text) > _MAX_DIGITS:
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


def read_quantity(text: str) -> int | float | None:
    """Return a number that may have a unit: `10k`, `1.5GB` (10^9), `1.5GiB` (2^30); else None."""
    found = _QUANTITY.match(text)
    if found is None or len(text) > _MAX_DIGITS:
        return read_number(text)
    figure, unit, is_binary, _ = found.groups()
    number = read_number(figure)
    if number is None or (is_binary and not unit):
        return None
    factor = (1024 if is_binary else 1000) ** _POWERS[unit.lower()]
    return number if factor == 1 else number * factor


@dataclass(frozen=True, slots=True)
class Span:
    """A time as exact as it was written: a date is a day. Microseconds since 1970, the end excluded."""

    start: int
    end: int


def read_span(text: str, now: datetime) -> Span | None:
    """Return the time that a text is; None for another text.

    Args:
        text: `2026-01-15`, `2026-01-15T10:30`, with seconds and offset if need be, UTC without one;
            `2d` or `2d ago` for the moment two days ago (s, min or m, h, d, w); `today`, `yesterday`.
        now: aware UTC time.
    """
    word = text.strip().lower()
    if word in ("today", "yesterday"):
        day = now.astimezone(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
        return _span(day - timedelta(days=word == "yesterday"), timedelta(days=1))
    try:
        if found := _AGO.match(word):
            moment = now - timedelta(seconds=float(found[1]) * _UNITS[found[2]])
            return _span(moment, timedelta(microseconds=1))
        return _date(word)
    except (ValueError, OverflowError):  # no such day
        return None


def _date(word: str) -> Span | None:
    found = _TIME.match(word)
    if found is None:
        return None
    date, hour, minute, second, fraction, offset = found.groups()
    offset = (offset or "+00:00").replace("z", "+00:00")
    offset = offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    micro = (fraction or ".0")[1:].ljust(6, "0")
    moment = datetime.fromisoformat(
        f"{date}T{hour or '00'}:{minute or '00'}:{second or '00'}.{micro}{offset}"
    )
    steps = [(fraction, 1e-6), (second, 1), (minute, 60), (hour, 3600), (date, 86400)]
    seconds = next(length for part, length in steps if part)
    return _span(moment, timedelta(seconds=seconds))


def _span(start: datetime, length: timedelta) -> Span:
    begin = to_microseconds(start)
    return Span(begin, begin + length // timedelta(microseconds=1))
