"""Following the journal: which experiments were written to since the last look.

Every commit has two lines in `logs/events.jsonl`, one before it begins and one when it has ended. An
experiment whose commit has begun is looked at again until the second line is there, so that a
writer that is killed between its manifest and that line hides nothing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["JournalFollower", "News"]

BEGUN: Final = "checkpoint_begun"
ENDED: Final = frozenset(
    {
        "checkpoint_committed",
        "checkpoint_unchanged",
        "checkpoint_failed",
        "checkpoint_restored",
        "checkpoint_thinned",
    }
)
_FIRST_BYTES: Final = 64 << 10  # read at the first look: whose commits may be under way


@dataclass(slots=True)
class News:
    """What the journal says since the last look.

    Attributes:
        named: experiments that were named, or whose commit has begun and not ended.
        is_complete: False if something may be missing, so that everything has to be looked at.
    """

    named: set[str] = field(default_factory=set)
    is_complete: bool = True


class JournalFollower:
    """Reads what was appended to a journal since the last time. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._under_way: Counter[tuple[str, str]] = Counter()  # (exp_hash, step) of commits

    def restart(self) -> None:
        """Begin again as at the first look."""
        self._file, self._offset = None, 0
        self._under_way.clear()

    def news(self) -> News:
        """Return what was appended since the last call; one `stat` if nothing was."""
        try:
            found = self._path.lstat()
        except OSError:
            was_there, self._file = self._file is not None, None
            return News(named=self._begun(), is_complete=not was_there)
        file = found.st_dev, found.st_ino
        if file == self._file and found.st_size == self._offset:
            return News(named=self._begun())
        is_same = file == self._file and found.st_size >= self._offset
        if not is_same:
            self._file, self._offset = file, max(0, found.st_size - _FIRST_BYTES)
        try:
            lines = self._read(found.st_size)
        except OSError:
            self._file = None
            return News(named=self._begun(), is_complete=False)
        news = News(is_complete=is_same)
        for line in lines:
            self._take(line, news)
        news.named |= self._begun()
        return news

    def _begun(self) -> set[str]:
        return {exp_hash for exp_hash, _ in self._under_way}

    def _read(self, size_bytes: int) -> list[bytes]:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(self._path, flags)
        with os.fdopen(descriptor, "rb") as file:
            file.seek(self._offset)
            data = file.read(size_bytes - self._offset)
        self._offset += len(data)
        return data.split(b"\n")

    def _take(self, line: bytes, news: News) -> None:
        if not line:
            return
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            news.is_complete = False  # a torn line may have named anything
            return
        if not isinstance(record, dict) or not isinstance(record.get("exp_hash"), str):
            return
        exp_hash = record["exp_hash"]
        news.named.add(exp_hash)
        commit = exp_hash, str(record.get("step"))
        if record.get("event") == BEGUN:
            self._under_way[commit] += 1
        elif record.get("event") in ENDED and self._under_way[commit] > 1:
            self._under_way[commit] -= 1  # two processes save the same step
        elif record.get("event") in ENDED:
            del self._under_way[commit]
