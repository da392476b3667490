"""`LocalHold`: a file that is locked while it exists; `LocalLock`: one that is there anyway."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from weightslab.engine.storage.holder import holder_text, may_take_over
from weightslab.engine.storage.system import (
    CAN_RENAME_OPEN_FILES,
    close_locked,
    house_errors,
    open_file,
    read_all,
    register_locked,
    require_regular,
    same_file,
    try_lock,
    write_all,
)

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["LocalHold", "LocalLock", "lock", "take"]

_TRIES: Final = 100  # each retry means that somebody else took and released the key meanwhile
_MAX_HOLDER_BYTES: Final = 4096  # ours have about 110


class LocalHold:
    """A locked file; it disappears on release, and its lock with the process at the latest."""

    def __init__(self, key: str, path: Path, descriptor: int) -> None:
        self._key = key
        self._path = path
        self._descriptor: int | None = descriptor
        self._pid = os.getpid()

    @property
    def key(self) -> str:
        """The key that is held."""
        return self._key

    def release(self) -> None:
        """Remove the file, then unlock it. Idempotent; does nothing in a forked child.

        In this order: a process that has opened the file before and gets the lock now finds that
        the name no longer leads to its file, and starts over. Unlocked first, the file could be
        taken over by another process and then be removed under its hands.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None or self._pid != os.getpid():
            return
        try:
            with house_errors("released", self._path):
                # Not ours any more if somebody deleted the folder and another process made it anew.
                if CAN_RENAME_OPEN_FILES and same_file(descriptor, self._path):
                    self._path.unlink(missing_ok=True)
        finally:
            close_locked(descriptor)
        if not CAN_RENAME_OPEN_FILES:  # Windows: an open file cannot be removed
            with contextlib.suppress(OSError):  # opened by the next holder, who takes it over
                self._path.unlink()

    def __enter__(self) -> Self:
        """Return this hold."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release."""
        self.release()


def take(key: str, path: Path) -> LocalHold | None:
    """Create and lock `path`, or take over what a dead process left; None if somebody has it."""
    with house_errors("held", path):
        for _ in range(_TRIES):
            opened = _open(path)
            if opened is None:
                continue
            descriptor, is_new = opened
            try:
                answer = _claim(descriptor, path, is_new=is_new)
            except BaseException:  # Ctrl-C, too, leaves no lock file behind
                if is_new and same_file(descriptor, path):
                    path.unlink(missing_ok=True)
                close_locked(descriptor)
                raise
            if answer:
                return LocalHold(key, path, descriptor)
            close_locked(descriptor)
            if answer is False:
                return None
        return None


def _open(path: Path) -> tuple[int, bool] | None:
    try:
        return open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), True
    except FileExistsError:
        pass
    try:
        return open_file(path, os.O_RDWR), False
    except FileNotFoundError:
        return None  # released between the two calls


def _claim(descriptor: int, path: Path, *, is_new: bool) -> bool | None:
    """Return True if the file is ours, False if it is somebody's, None if it went away."""
    require_regular(descriptor, path)
    try:
        locked = try_lock(descriptor)
    except OSError:
        # No locks on this file system: creating the file exclusively is all there is.
        locked = is_new
    if not locked:
        return False
    if not same_file(descriptor, path):
        return None
    if not may_take_over(bytes(read_all(descriptor, _MAX_HOLDER_BYTES))):
        return False
    # Not synced: after a power loss the file may be empty, and whoever held it is dead.
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.ftruncate(descriptor, 0)
    write_all(descriptor, [memoryview(holder_text())])
    return True


class LocalLock:
    """A lock on a file that stays where it is; it ends with the process at the latest."""

    def __init__(self, key: str, descriptor: int | None) -> None:
        self._key = key
        self._descriptor = descriptor
        self._pid = os.getpid()

    @property
    def key(self) -> str:
        """The key that is locked."""
        return self._key

    def release(self) -> None:
        """Unlock the file. Idempotent; does nothing in a forked child, whose lock it is not."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None and self._pid == os.getpid():
            close_locked(descriptor)

    def __enter__(self) -> Self:
        """Return this lock."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release."""
        self.release()


def lock(key: str, path: Path, *, shared: bool) -> LocalLock | None:
    """Lock the file `path`, which is there; None if somebody has it otherwise.

    On a file system without locks everybody gets one. Windows: see `try_lock`; there a file that is
    to be removed must not be open, so that an unshared lock keeps nothing.

    Raises: FileNotFoundError, also for a file that is removed while this looks; ForeignFileError.
    """
    descriptor = open_file(path, os.O_RDONLY)
    try:
        require_regular(descriptor, path)
        keep = shared or CAN_RENAME_OPEN_FILES
        locked = keep and _try_lock(descriptor, shared=shared)
        if locked and not same_file(descriptor, path):
            raise FileNotFoundError(f"{path} was removed while it was locked")  # noqa: TRY301
    except BaseException:  # Ctrl-C, too, leaves nothing locked
        close_locked(descriptor)
        raise
    if locked:
        return LocalLock(key, descriptor)
    close_locked(descriptor)
    return None if keep else LocalLock(key, None)


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    try:
        return try_lock(descriptor, shared=shared)
    except OSError:
        # No locks on this file system. Kept open all the same, and closed in forked children.
        register_locked(descriptor)
        return True
