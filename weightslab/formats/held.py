"""Held files: the bytes of a source file as they were at one moment, in memory.

A source may be written to, cut or deleted while it is read, and a mapped file that is cut ends the
process. So a file is read once, into memory of our own, and digested on the way; tensors look at that
copy. On Linux the copy has a name (`/proc/self/fd/N`), so that torch can map it without a second one.
"""

from __future__ import annotations

import io
import mmap
import os
import sys
from typing import TYPE_CHECKING, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import NotFoundError, SourceChangedError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["HeldFile", "hold_file"]

_BLOCK_BYTES: Final = 8 << 20  # one call per 8 MiB: fewer calls are no faster


class HeldFile:
    """The bytes of a file, and their digest. A context manager: the memory is given back at its end,
    or when the last tensor that looks at it is gone.

    Attributes:
        path: of the file.
        size_bytes: its length.
        digest: `xxh3-128:...` of its bytes.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.digest = ""
        self._descriptor = -1
        if sys.platform == "linux" and size_bytes:
            self._descriptor = os.memfd_create("weightslab-import", os.MFD_CLOEXEC)
            os.ftruncate(self._descriptor, size_bytes)
        self._memory = mmap.mmap(self._descriptor, size_bytes) if size_bytes else None

    @property
    def view(self) -> memoryview:
        """The bytes."""
        return memoryview(b"" if self._memory is None else self._memory)

    def name_or_file(self) -> str | io.BytesIO:
        """Return a path that can be mapped where there is one, else a file in memory."""
        if self._descriptor >= 0:
            return f"/proc/self/fd/{self._descriptor}"
        return io.BytesIO(self.view)

    @property
    def can_be_mapped(self) -> bool:
        """True if `name_or_file` returns a path."""
        return self._descriptor >= 0

    def close(self) -> None:
        """Close the descriptor; what looks at the memory keeps it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._memory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hold_file(path: Path) -> HeldFile:
    """Read a file into memory.

    Raises: NotFoundError; SourceChangedError if it changed meanwhile; StorageError.
    """
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            held = HeldFile(path, before.st_size)
            try:
                _fill(held.view, file, path)
                after = os.fstat(file.fileno())
            except BaseException:  # Ctrl-C, too, gives the memory back
                held.close()
                raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there") from error
    except IsADirectoryError as error:
        raise StorageError(f"{path} is a folder, not a file") from error
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read: {error}") from error
    if _changes(before) != _changes(after):
        held.close()
        raise SourceChangedError(
            f"{path} changed while it was read", hint="import it again once nobody writes to it"
        )
    held.digest = digest_bytes(held.view)
    return held


def _fill(view: memoryview, file: io.FileIO, path: Path) -> None:
    at = 0
    while at < len(view):
        count = file.readinto(view[at : at + _BLOCK_BYTES])
        if not count:
            raise SourceChangedError(f"{path} was cut while it was read", hint="import it again")
        at += count


def _changes(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
