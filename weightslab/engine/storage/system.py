"""What differs between operating systems: locks, folder syncs, large writes, errors."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import (
    CheckpointError,
    ReadOnlyStoreError,
    StorageError,
    StorageFullError,
)
from weightslab.engine.storage.store import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = [
    "CAN_RENAME_OPEN_FILES",
    "NO_LINKS",
    "close_locked",
    "folder_sync",
    "house_errors",
    "open_file",
    "read_all",
    "register_locked",
    "require_regular",
    "same_file",
    "try_lock",
    "without_first",
    "write_all",
]

CAN_RENAME_OPEN_FILES: Final = sys.platform != "win32"
# Answers of os.link where the file system, not the name, is the reason. EPERM: FAT on Linux.
NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
)
_FULL: Final = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})
_FOREIGN: Final = frozenset({errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENXIO})
_MAX_WRITE_BYTES: Final = 1 << 30  # Linux writes 0x7ffff000 bytes per call, macOS refuses 1 << 31
_MAX_WRITE_PARTS: Final = 1024  # IOV_MAX of Linux and macOS
# O_NONBLOCK: opening a pipe must not wait for somebody to write into it.
_SAFE_FLAGS: Final = (
    getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
)


# ---------------------------------------------------------------- errors
@contextlib.contextmanager
def house_errors(action: str, path: Path, *, writing: bool = True) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError that says what failed and what to do.

    Args:
        action: past participle that completes "`path` cannot be ...".
        path: the file or folder.
        writing: whether a refused permission means that nothing can be written.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointError):
            raise
        raise _house_error(error, action, path, writing=writing) from error


def _house_error(error: OSError, action: str, path: Path, *, writing: bool) -> StorageError:
    kind: type[StorageError] = StorageError
    hint = "what was committed before is untouched; see the cause for the system's own words"
    if error.errno in _FULL:
        kind = StorageFullError
        hint = "free space, inodes or quota there (df -h, df -i); earlier checkpoints are untouched"
    elif writing and error.errno == errno.EROFS:
        kind = ReadOnlyStoreError
        hint = "its file system is mounted read-only; open the root with read_only=True to read it"
    elif writing and error.errno in _FORBIDDEN:
        kind = ReadOnlyStoreError
        hint = "get write permission there, or open the root with read_only=True to read it"
    elif error.errno in _FORBIDDEN:
        hint = "get read permission for it"
    elif error.errno in _FOREIGN:
        kind = ForeignFileError
        hint = "a symbolic link, pipe, device, or a folder in place of a file is in the way"
    found = kind(
        f"{path} cannot be {action}: {error.strerror or error}",
        hint=hint,
        context={"path": str(path)},
    )
    found.errno = error.errno
    return found


# ---------------------------------------------------------------- files
def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """Open `path` without following a link and without waiting for a pipe.

    Raises: OSError of the system.
    """
    return os.open(path, flags | _SAFE_FLAGS, mode)


def require_regular(descriptor: int, path: Path) -> os.stat_result:
    """Return the status of the open file `path`.

    Raises: ForeignFileError unless it is a regular file.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise ForeignFileError(
            f"{path} is not a regular file", hint="move it away", context={"path": str(path)}
        )
    return status


def same_file(descriptor: int, path: Path) -> bool:
    """Return whether the name `path` still leads to the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_all(descriptor: int, views: Sequence[memoryview]) -> None:
    """Append the bytes of `views`, in as few system calls as the system allows."""
    waiting = [
        view[start : start + _MAX_WRITE_BYTES]
        for view in views
        for start in range(0, len(view), _MAX_WRITE_BYTES)
    ]
    waiting.reverse()
    while waiting:
        written = _write_some(descriptor, _batch(waiting))
        while waiting and written >= len(waiting[-1]):
            written -= len(waiting.pop())
        if written:
            waiting[-1] = waiting[-1][written:]


def without_first(views: Sequence[memoryview], size_bytes: int) -> list[memoryview]:
    """Return `views` without their first `size_bytes` bytes; nothing is copied."""
    rest = []
    for view in views:
        skipped = min(size_bytes, len(view))
        size_bytes -= skipped
        rest.append(view[skipped:])
    return rest


def _batch(waiting: Sequence[memoryview]) -> list[memoryview]:
    batch, size_bytes = [], 0
    for view in waiting[: -_MAX_WRITE_PARTS - 1 : -1]:
        size_bytes += len(view)
        if size_bytes > _MAX_WRITE_BYTES:
            break
        batch.append(view)
    return batch


def _write_some(descriptor: int, batch: Sequence[memoryview]) -> int:
    if sys.platform == "win32":  # no writev
        return os.write(descriptor, batch[0])
    else:
        return os.writev(descriptor, batch)


def read_all(descriptor: int, size_bytes: int) -> memoryview:
    """Return the next `size_bytes` of an open file, fewer at its end, read-only."""
    data = bytearray()
    while chunk := os.read(descriptor, min(_MAX_WRITE_BYTES, size_bytes - len(data))):
        data += chunk
    return memoryview(data).toreadonly()


def folder_sync(path: Path, *, may_be_closed: bool = False) -> None:
    """Make the names in the folder `path` survive a power loss; does nothing on Windows.

    EINVAL and EBADF come from file systems that cannot sync a folder; they are no failure (as in
    PostgreSQL, src/common/file_utils.c, fsync_fname).

    Args:
        path: the folder.
        may_be_closed: whether a folder that this user may not open is left as it is.
    """
    if sys.platform != "win32":
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            if may_be_closed:
                return
            raise
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EBADF):
                raise
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------- locks
_locked: set[int] = set()


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file for this descriptor until it is closed; False if somebody has it.

    The lock belongs to the descriptor: two opens exclude each other, also within one process, and
    the system gives it back when the process dies, however it dies.

    Args:
        descriptor: of the open file.
        shared: lock it beside others that do the same. Windows has no such lock; there an open file
            cannot be removed, which comes to the same.
    Raises: OSError where the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            if not shared:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    register_locked(descriptor)
    return True


def register_locked(descriptor: int) -> None:
    """Have a forked child close `descriptor` at once.

    A child inherits the lock with the descriptor: a data-loading worker that outlives its parent
    would keep everybody out.
    """
    _locked.add(descriptor)


def close_locked(descriptor: int) -> None:
    """Close `descriptor` and with it give back its lock."""
    # First forgotten, then closed: the other way round a fork in between could close a file of
    # another thread that has been given the same number.
    _locked.discard(descriptor)
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in _locked:
        with contextlib.suppress(OSError):  # closed by the parent just before the fork
            os.close(descriptor)
    _locked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
