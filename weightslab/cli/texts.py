"""Texts for a screen: made inert, measured in columns, cut to fit. Pure.

What stands in a root (names, notes, metrics, config) was written by others: it may hold what a terminal
obeys, or what turns the order of letters round. All of it passes through `inert`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final
from unicodedata import combining, east_asian_width

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["columns_of", "counted", "cut", "inert", "number", "size", "sparkline", "when"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.-:=+*#"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_THOUSAND: Final = 1000  # sizes are shown in powers of 1000, as disks are sold and `df -H` tells


def inert(text: object) -> str:
    """Return text in which control characters, line ends and marks of direction are escaped."""
    told = text if isinstance(text, str) else str(text)
    if told.isprintable():
        return told
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in told)


def columns_of(text: str) -> int:
    """Return how many columns of a terminal a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(c) for c in text)


def _columns(character: str) -> int:
    if combining(character):
        return 0
    return 2 if east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, mark: str = "...") -> str:
    """Return text of at most `width` columns; `mark` stands for what was cut off."""
    if columns_of(text) <= width:
        return text
    room = max(width - columns_of(mark), 0)
    if text.isascii():
        return (text[:room] + mark)[:width]
    kept, used = "", 0
    for character in text:
        used += _columns(character)
        if used > room:
            break
        kept += character
    return kept + mark[:width]


def size(size_bytes: int | None) -> str:
    """Return a number of bytes for people: `1.2 GB`."""
    if size_bytes is None:
        return ""
    left = float(size_bytes)
    for unit in _UNITS:
        if left < _THOUSAND or unit == _UNITS[-1]:
            break
        left /= _THOUSAND
    return f"{left:.0f} {unit}" if unit == "B" else f"{left:.1f} {unit}"


def number(value: Any) -> str:
    """Return a number in as few digits as tell it apart: `0.3127`, `1.5e-05`, `12,000`."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, int):
        return (
            f"{value:,}"
            if abs(value) < 10**15
            else f"{value:.4g}"
            if abs(value) < 10**300
            else "huge"
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    return inert(value)


def counted(count: int, noun: str) -> str:
    """Return `1 checkpoint`, `2 checkpoints`, `no checkpoints`."""
    return f"{number(count) if count else 'no'} {noun}{'' if count == 1 else 's'}"


def when(moment: datetime | str | None) -> str:
    """Return a time in UTC to the minute: `2026-01-31 14:05`."""
    if not moment:
        return ""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return inert(moment)
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M}"


def sparkline(values: Iterable[float], width: int, *, is_unicode: bool = True) -> str:
    """Return a curve of at most `width` characters; the lowest value is the lowest bar.

    More values than characters are averaged in groups. NaN is a blank, infinities are the ends.
    """
    bars = _BARS if is_unicode else _ASCII_BARS
    means = _grouped([_finite(v) for v in values], width)
    known = [v for v in means if v is not None and abs(v) != float("inf")]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return "".join(_bar(v, low, high, bars) for v in means)


def _finite(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a metric may be an integer beyond every float
        return float("inf") if value > 0 else float("-inf")


def _grouped(values: list[float], width: int) -> list[float | None]:
    count = min(len(values), max(width, 1))
    groups = (
        values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)
    )
    return [_mean(group) for group in groups]


def _mean(values: list[float]) -> float | None:
    known = [v for v in values if v == v]  # noqa: PLR0124 - NaN is not itself
    found = sum(v / len(known) for v in known) if known else None  # the sum of large ones overflows
    return found if found == found else 0.0  # noqa: PLR0124 - both infinities in one group


def _bar(value: float | None, low: float, high: float, bars: str) -> str:
    if value is None:
        return " "
    if abs(value) == float("inf"):
        return bars[-1 if value > 0 else 0]
    if high == low:
        return bars[0]
    share = value / 2 - low / 2  # halves: the span of the largest floats is infinite
    return bars[min(int(share / (high / 2 - low / 2) * len(bars)), len(bars) - 1)]
