"""A journal: an append-only file of JSON lines, for people and for tools.

It is not part of what a checkpoint promises: no digest covers it, a torn last line is skipped by
readers and closed off by the next writer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["LocalJournal", "open_for_appending"]


class LocalJournal:
    """JSON lines in one local file; each line is appended by a single write.

    Several processes may append at once: `O_APPEND` keeps their lines apart on local file systems.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append `record` as one line; creates the file and its folder.

        Raises: StorageError with the reason of the file system.
        Durability: none; the line is in the page cache on return.
        """
        line = json.dumps(record, sort_keys=True, separators=(", ", ": ")).encode("ascii") + b"\n"
        try:
            descriptor, is_torn = open_for_appending(self.path)
            try:
                os.write(descriptor, b"\n" + line if is_torn else line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError(f"cannot append to {self.path}: {error}") from error

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order they were appended; what does not parse is passed over."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            for line in file:
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(record, dict):
                    yield record


def open_for_appending(path: Path) -> tuple[int, bool]:
    """Open a file of lines, created if absent with its folder.

    Returns: its descriptor, and True if its last line was cut off and has to be closed off first.
    Raises: OSError, also for a symbolic link.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_NOFOLLOW", 0)  # a root from a stranger must not point us elsewhere
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.is_symlink():
        raise OSError(f"{path.parent} is a symbolic link")
    descriptor = os.open(path, flags, 0o666)
    try:
        size_bytes = os.fstat(descriptor).st_size
        if not size_bytes:
            return descriptor, False
        os.lseek(descriptor, size_bytes - 1, os.SEEK_SET)
        return descriptor, os.read(descriptor, 1) != b"\n"
    except BaseException:
        os.close(descriptor)
        raise
