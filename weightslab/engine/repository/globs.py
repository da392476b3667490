"""Globs: whether a text holds what the operator `~` of a filter asks for. Pure; called by SQLite."""

from __future__ import annotations

__all__ = ["glob_matches"]


def glob_matches(pattern: str, text: str | None) -> bool:
    """Tell whether a text holds what `~` asks for; letters are equal in both cases.

    With `*` (any text) or `?` (one character) the pattern is that of the whole text, else a part of
    it. O(pattern x text).
    """
    if not isinstance(text, str):
        return False
    pattern, text = pattern.casefold(), text.casefold()
    if "*" not in pattern and "?" not in pattern:
        return pattern in text
    head, *pieces = pattern.split("*")
    if not pieces:
        return len(head) == len(text) and _fits(head, text, 0)
    if not _fits(head, text, 0):
        return False
    at, tail = len(head), pieces.pop()
    for piece in pieces:  # the first place is as good as every later one
        places = range(at, len(text) - len(piece) + 1)
        found = text.find(piece, at) if "?" not in piece else _first(piece, text, places)
        if found < 0:
            return False
        at = found + len(piece)
    end = len(text) - len(tail)
    return end >= at and _fits(tail, text, end)


def _first(piece: str, text: str, places: range) -> int:
    return next((at for at in places if _fits(piece, text, at)), -1)


def _fits(piece: str, text: str, at: int) -> bool:
    if at + len(piece) > len(text):
        return False
    return all(p in ("?", c) for p, c in zip(piece, text[at : at + len(piece)], strict=True))
