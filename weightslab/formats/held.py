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
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import ByteHasher
from weightslab.engine.errors import (
    CheckpointError,
    FormatError,
    NotFoundError,
    SourceChangedError,
    StorageError,
)
from weightslab.engine.storage.system import require_regular

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

__all__ = ["HeldFile", "HeldMemory", "HeldPart", "hold_file"]

_BLOCK_BYTES: Final = 1 << 20  # 1 MiB: is still in the second-level cache when it is digested
_ROOM_BYTES: Final = 4 << 20  # files of a training differ by some bytes
_BINARY: Final = getattr(os, "O_BINARY", 0)


class HeldMemory:
    """Memory for the bytes of files, used for one after another.

    Fresh pages cost more than the reading itself (0.1 s of 0.2 s per 100 MB on the reference machine).
    """

    def __init__(self) -> None:
        self._free: list[_Region] = []

    def take(self, size_bytes: int) -> _Region:
        """Return a region of this size: one that was given back if it is large enough."""
        fitting = [region for region in self._free if region.capacity_bytes >= size_bytes]
        if not size_bytes:
            return _Region(0)
        if not fitting:
            if self._free:  # one goes before another comes, so that both are never there
                self._free.pop().close()
            return _Region(size_bytes)
        found = min(fitting, key=lambda region: region.capacity_bytes)
        self._free.remove(found)
        found.resize(size_bytes)
        return found

    def give(self, region: _Region) -> None:
        """Take a region back; what looked at it sees other bytes from the next `take` on."""
        self._free.append(region)

    def trim(self) -> None:
        """Let go of what is not in use."""
        for region in self._free:
            region.close()
        self._free.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.trim()


class _Region:
    """Memory, with a descriptor where the system gives one."""

    def __init__(self, size_bytes: int) -> None:
        # room for files that are a little longer; pages that no file has reached take no memory
        self.capacity_bytes = -(-size_bytes // _ROOM_BYTES) * _ROOM_BYTES
        self.descriptor = -1
        if sys.platform == "linux" and size_bytes:
            self.descriptor = os.memfd_create("weightslab-import", os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, self.capacity_bytes)
        self.memory = mmap.mmap(self.descriptor, self.capacity_bytes) if size_bytes else None
        self.resize(size_bytes)

    def resize(self, size_bytes: int) -> None:
        """Make the file as long as it says; the mapping stays, and pages behind the end are freed."""
        if self.descriptor >= 0:
            os.ftruncate(self.descriptor, size_bytes)
        self.size_bytes = size_bytes

    def close(self) -> None:
        """Close the descriptor; what looks at the memory keeps it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        self.memory = None


class HeldFile:
    """The bytes of a file, and their digest. A context manager: the memory is given back at its end.

    Attributes:
        path: of the file.
        size_bytes: its length.
        digest: `xxh3-128:...` of its bytes.
    """

    def __init__(self, path: Path, size_bytes: int, memory: HeldMemory | None = None) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.digest = ""
        self._home = memory
        self._region: _Region | None = memory.take(size_bytes) if memory else _Region(size_bytes)

    @property
    def view(self) -> memoryview:
        """The bytes."""
        found = None if self._region is None else self._region.memory
        return memoryview(b"" if found is None else found)[: self.size_bytes]

    def name_or_file(self) -> Any:
        """Return a path that can be mapped where there is one, else a file that looks at the bytes."""
        if self.can_be_mapped:
            assert self._region is not None
            return f"/proc/self/fd/{self._region.descriptor}"
        return _file_over(self.view)

    @property
    def can_be_mapped(self) -> bool:
        """True if `name_or_file` returns a path."""
        return self._region is not None and self._region.descriptor >= 0

    def part(self, start: int, size_bytes: int) -> HeldPart:
        """Return a file that lies within this one, as it is; nothing is copied.

        Raises: FormatError if it does not.
        """
        if not 0 <= start <= start + size_bytes <= self.size_bytes:
            raise FormatError(
                f"{self.path.name} has {self.size_bytes} bytes, not {start + size_bytes}"
            )
        return HeldPart(self.path, self.view[start : start + size_bytes])

    def close(self) -> None:
        """Give the memory back; without a `HeldMemory`, what looks at it keeps it."""
        region, self._region = self._region, None
        if region is None:
            return
        if self._home is not None and region.size_bytes:
            self._home.give(region)
        else:
            region.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HeldPart:
    """A file within a held file. Same attributes; it cannot be mapped."""

    can_be_mapped = False

    def __init__(self, path: Path, view: memoryview) -> None:
        self.path = path
        self.view = view
        self.size_bytes = len(view)

    def name_or_file(self) -> Any:
        """Return a file that looks at the bytes."""
        return _file_over(self.view)


def _file_over(view: memoryview) -> io.BufferedReader:
    return io.BufferedReader(_ViewFile(view), 1 << 16)


class _ViewFile(io.RawIOBase):
    """A file over memory that is there; `BytesIO` would copy it."""

    def __init__(self, view: memoryview) -> None:
        self._view, self._at = view, 0

    def readable(self) -> bool:
        # docstring inherited
        return True

    def seekable(self) -> bool:
        # docstring inherited
        return True

    def tell(self) -> int:
        # docstring inherited
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        # docstring inherited
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        # docstring inherited
        found = self._view[self._at : self._at + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def hold_file(path: Path, memory: HeldMemory | None = None) -> HeldFile:
    """Read a file into memory.

    Args:
        path: the file.
        memory: where to; by default it is the file's own.
    Raises: NotFoundError; SourceChangedError if it changed meanwhile; StorageError.
    """
    try:
        # a pipe is opened without waiting for a writer, and refused then
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - of a descriptor
            before = require_regular(file.fileno(), path)
            held = HeldFile(path, before.st_size, memory)
            try:
                _fill(held, file)
                after = os.fstat(file.fileno())
            except BaseException:  # Ctrl-C, too, gives the memory back
                held.close()
                raise
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} is not there") from error
    except IsADirectoryError as error:
        raise StorageError(f"{path} is a folder, not a file") from error
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise StorageError(f"{path} cannot be read: {error}") from error
    if _changes(before) != _changes(after):
        held.close()
        raise SourceChangedError(
            f"{path} changed while it was read", hint="import it again once nobody writes to it"
        )
    return held


def _fill(held: HeldFile, file: io.FileIO) -> None:
    """Read the file, and digest each block while it is in the processor's cache."""
    view, hasher, at = held.view, ByteHasher(), 0
    while at < len(view):
        count = file.readinto(view[at : at + _BLOCK_BYTES])
        if not count:
            raise SourceChangedError(
                f"{held.path} was cut while it was read", hint="import it again"
            )
        hasher.update(view[at : at + count])
        at += count
    held.digest = hasher.text()


def _changes(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns
