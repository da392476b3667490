"""An append log: JSON lines written one by one through a file that stays open."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.storage.journal import open_for_appending
from weightslab.engine.storage.system import folder_sync, house_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["AppendLog"]

# the same on the platforms that have both; spares a write of the inode's times
_sync_data: Final = getattr(os, "fdatasync", os.fsync)
_encode: Final = json.JSONEncoder(allow_nan=False, check_circular=False).encode


class AppendLog:
    """JSON lines; each is one write with `O_APPEND`. Thread-safe; other processes may append, too.

    A line survives the end of the process, however it ends, when `append` returns. It survives the
    end of the machine after the next `sync` or `close`; `append` syncs where the last time was
    `sync_seconds` ago or more.

    The file is created by the first line. One that is deleted meanwhile is made again after a sync.

    Args:
        path: the file; its folder is created, too.
        clock: monotonic seconds.
        sync_seconds: the least time between two syncs by `append`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float],
        sync_seconds: float = 1.0,
    ) -> None:
        self.path = Path(path)
        self._clock = clock
        self._sync_seconds = sync_seconds
        self._synced_at = clock()
        self._lock = threading.Lock()
        self._descriptor = -1
        self._is_dirty = self._is_new = self._is_torn = False

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record of plain JSON values as one line.

        Raises: StorageError with the reason of the file system; the line may be there in part, and
            is closed off by the next one.
        """
        line = _encode(record).encode("ascii") + b"\n"
        with self._lock, house_errors("written", self.path):
            if self._descriptor < 0:
                self._descriptor, self._is_torn = open_for_appending(self.path)
                self._is_new = True
            self._write(b"\n" + line if self._is_torn else line)
            if self._clock() - self._synced_at >= self._sync_seconds:
                self._sync()

    def sync(self) -> None:
        """Have everything that was appended on disk; costs nothing where nothing was.

        Raises: StorageError.
        """
        if self._is_dirty:
            with self._lock, house_errors("written", self.path):
                self._sync()

    def close(self) -> None:
        """Sync and close the file; `append` would open it again.

        Raises: StorageError.
        """
        with self._lock, house_errors("written", self.path):
            try:
                self._sync()
            finally:
                self._close()

    def _write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
            self._is_dirty, self._is_torn = True, bool(rest)

    def _sync(self) -> None:
        if not self._is_dirty:
            return
        self._synced_at, self._is_dirty = self._clock(), False
        _sync_data(self._descriptor)
        if self._is_new:
            folder_sync(self.path.parent)
            folder_sync(self.path.parent.parent)
            self._is_new = False
        if not os.fstat(self._descriptor).st_nlink:
            self._close()  # deleted, perhaps by somebody who starts afresh

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
