"""`LocalStore`: a store in a folder of a local file system."""

from __future__ import annotations

import errno
import mmap
import os
import re
import secrets
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import AlreadyExistsError, ObjectNotFoundError
from weightslab.engine.storage.hold import LocalHold, LocalLock, lock, take
from weightslab.engine.storage.holder import host_id
from weightslab.engine.storage.store import (
    Buffer,
    ForeignFileError,
    HoldMode,
    KeyStat,
    byte_views,
    check_key,
    check_prefix,
    is_key_part,
    read_only_error,
)
from weightslab.engine.storage.system import (
    CAN_RENAME_OPEN_FILES,
    NO_LINKS,
    close_locked,
    folder_sync,
    house_errors,
    open_file,
    read_all,
    require_regular,
    same_file,
    try_lock,
    without_first,
    write_all,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

__all__ = ["LocalStore"]

_TEMP_NAME: Final = re.compile(r"\A\..+\.(?P<host>[0-9a-f]{12})\.[0-9a-f]{16}\.tmp\Z", re.DOTALL)
_TEMP_STEM_BYTES: Final = 160  # with host and token below 255 bytes, the limit of most systems
_DIRECT_FROM_BYTES: Final = 4 << 20  # one block of `direct`: with less there is nothing to overlap
_NOT_EMPTY: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST})


class LocalStore:
    """Bytes in files under one folder. Thread-safe; any number of processes may share the folder.

    Nothing is created before the first write. Files are written beside their final name under a
    temporary one that is locked while its writer lives, synced once, and then linked or renamed.
    Below the folder no symbolic link is followed, so that nothing outside is read or deleted.

    Args:
        root: the folder.
        read_only: refuse every write.
        direct_from_bytes: files of this size and more are written past the page cache where the file
            system allows it (O_DIRECT); smaller ones, and the rest, are buffered.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        read_only: bool = False,
        direct_from_bytes: int = _DIRECT_FROM_BYTES,
    ) -> None:
        # Absolute, so that a later chdir of the training script does not move the store.
        self._root = Path(root).absolute()
        self._root_text = str(self._root)
        self.read_only = read_only
        self._direct_from_bytes = direct_from_bytes
        # Folders whose own name is known to be on disk. With the path: a folder that was moved, or
        # a new one that got the inode of a deleted one elsewhere, is another folder.
        self._durable: dict[Path, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Return the call that makes this store."""
        return f"LocalStore({str(self._root)!r}, read_only={self.read_only})"

    def describe(self) -> str:
        """Return the path of the folder."""
        return str(self._root)

    # ------------------------------------------------------------ the eight verbs
    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        # docstring inherited
        path = self._path(key)
        self._require_writable(path, "written")
        views = byte_views(parts)
        with house_errors("written", path):
            if if_absent and os.path.lexists(path):
                return False
            self._make_folders(path.parent)
            descriptor, temp = _open_temp(path)
            try:
                self._write(descriptor, views)
                os.fsync(descriptor)  # fails: so does the put; a second try would prove nothing
                if not CAN_RENAME_OPEN_FILES:
                    close_locked(descriptor)
                    descriptor = -1
                return self._publish(temp, path, if_absent=if_absent)
            finally:
                try:
                    temp.unlink(missing_ok=True)
                finally:
                    if descriptor >= 0:
                        close_locked(descriptor)

    def map(self, key: str) -> memoryview:
        # docstring inherited
        path = self._path(key)
        with house_errors("read", path, writing=False):
            try:
                descriptor = open_file(path, os.O_RDONLY)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _not_found(path, key) from error
            try:
                size_bytes = require_regular(descriptor, path).st_size
                return _map(descriptor, size_bytes)
            finally:
                os.close(descriptor)

    def link(self, src: str, dst: str) -> bool:
        # docstring inherited
        path = self._path(dst)
        self._require_writable(path, "linked")
        return self._link(self._path(src), path, src, dst)

    def hold(self, key: str, *, mode: HoldMode = "create") -> LocalHold | LocalLock | None:
        # docstring inherited
        path = self._path(key)
        if mode != "create":
            with house_errors("locked", path, writing=False):
                try:
                    return lock(key, path, shared=mode == "read")
                except (FileNotFoundError, NotADirectoryError) as error:
                    raise _not_found(path, key) from error
        self._require_writable(path, "held")
        with house_errors("held", path):
            self._make_folders(path.parent)
        return take(key, path)

    def list(self, prefix: str, *, starting: str = "") -> list[str]:
        # docstring inherited
        folder = self._folder(prefix)
        found = []
        with house_errors("listed", folder, writing=False):
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith(starting) and is_key_part(entry.name):
                            is_folder = entry.is_dir(follow_symlinks=False)
                            found.append(f"{entry.name}/" if is_folder else entry.name)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(found)

    def stat(self, key: str) -> KeyStat | None:
        # docstring inherited
        is_folder = not key or key.endswith("/")
        path = self._folder(key) if is_folder else self._path(key)
        with house_errors("examined", path, writing=False):
            try:
                status = path.stat() if path == self._root else path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        if stat.S_ISDIR(status.st_mode) != is_folder:
            return None
        return KeyStat(
            size_bytes=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            device=status.st_dev,
        )

    def delete(self, key: str) -> bool:
        # docstring inherited
        if not key.endswith("/"):
            path = self._path(key)
            self._require_writable(path, "deleted")
            with house_errors("deleted", path):
                try:
                    path.unlink()
                except (FileNotFoundError, NotADirectoryError):
                    return False
            return True
        folder = self._folder(key)
        self._require_writable(folder, "deleted")
        with house_errors("deleted", folder):
            return self._remove_folder(folder) or (
                bool(self.sweep(key)) and self._remove_folder(folder)
            )

    def sync(self, prefix: str) -> None:
        # docstring inherited
        folder = self._folder(prefix)
        self._require_writable(folder, "synced")
        with house_errors("synced", folder):
            try:
                folder_sync(folder)
                self._sync_names_above(folder)
            except FileNotFoundError as error:
                raise _not_found(folder, prefix) from error

    # ------------------------------------------------------------ beyond the protocol
    def create(self) -> None:
        """Create the folder of the store, and those above it with their names on disk.

        Its own name goes to disk with the first `sync`.

        Raises: OSError of the system.
        """
        self._make_folders(self._root)

    def sweep(self, prefix: str) -> builtins.list[str]:
        """Remove temporary files that dead processes of this host left in the folder `prefix`.

        A file whose writer lives is locked and stays; so does one of another host.

        Returns: the names removed.
        """
        folder = self._folder(prefix)
        self._require_writable(folder, "swept")
        with house_errors("swept", folder):
            try:
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in entries if _is_own_temp(entry.name))
            except (FileNotFoundError, NotADirectoryError):
                return []
            return [name for name in names if _remove_if_dead(folder / name)]

    def link_from(self, other: LocalStore, src: str, dst: str) -> bool:
        """Do as `link` with a file of another store.

        Returns: False where the system cannot do that, as on another file system.
        Raises: as `link`; ReadOnlyStoreError only if this store is.
        """
        path = self._path(dst)
        self._require_writable(path, "linked")
        return self._link(other._path(src), path, src, dst)

    # ------------------------------------------------------------ names
    def _path(self, key: str) -> Path:
        *above, name = check_key(key)
        return Path(f"{self._walk(above)}{os.sep}{name}")

    def _folder(self, prefix: str) -> Path:
        return Path(self._walk(check_prefix(prefix)))

    def _walk(self, parts: Sequence[str]) -> str:
        # text and os.path: this is under every call, and pathlib takes five times as long
        folder = self._root_text
        for part in parts:
            folder = f"{folder}{os.sep}{part}"
            if os.path.islink(folder):  # noqa: PTH114
                raise ForeignFileError(
                    f"{folder} is a symbolic link, and none is followed below {self._root}",
                    hint="move the folder here, or make the root itself the link",
                    context={"path": folder},
                )
        return folder

    def _require_writable(self, path: Path, action: str) -> None:
        if self.read_only:
            raise read_only_error(str(path), action)

    # ------------------------------------------------------------ writing
    def _write(self, descriptor: int, views: Sequence[memoryview]) -> None:
        if sum(map(len, views)) >= self._direct_from_bytes:
            from weightslab.engine.storage.direct import write_past_cache  # needs numpy

            views = without_first(views, write_past_cache(descriptor, views))
        write_all(descriptor, views)

    def _link(self, source: Path, path: Path, src: str, dst: str) -> bool:
        with house_errors("linked", path):
            try:
                mode = source.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError) as error:
                raise _not_found(source, src) from error
            if stat.S_ISDIR(mode):
                raise _not_found(source, src)
            if not stat.S_ISREG(mode):
                raise ForeignFileError(f"{source} is not a regular file", hint="move it away")
            self._make_folders(path.parent)
            try:
                os.link(source, path)
            except FileExistsError as error:
                raise AlreadyExistsError(
                    f"{path} exists, so {src} is not linked there",
                    hint="choose another name; nothing is overwritten",
                    context={"key": dst},
                ) from error
            except OSError as error:
                if error.errno in NO_LINKS:
                    return False
                raise
            return True

    def _publish(self, temp: Path, path: Path, *, if_absent: bool) -> bool:
        if not if_absent:
            temp.replace(path)
            return True
        try:
            os.link(temp, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return True
        with self._lock:  # other processes are kept out by the hold of the caller
            if os.path.lexists(path):
                return False
            temp.rename(path)
            return True

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._forget(path)
            if path in self._root.parents:
                # `sync` goes no higher than the folder above the root.
                folder_sync(path.parent)

    def _remove_folder(self, folder: Path) -> bool:
        try:
            folder.rmdir()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in _NOT_EMPTY:
                return False
            raise
        self._forget(folder)
        return True

    def _forget(self, folder: Path) -> None:
        # A folder made in place of a deleted one often gets its inode; its name is new all the same.
        with self._lock:
            self._durable.pop(folder, None)

    def _sync_names_above(self, folder: Path) -> None:
        while True:
            status = folder.stat()
            known = (status.st_dev, status.st_ino)
            if self._durable.get(folder) != known:
                folder_sync(folder.parent, may_be_closed=folder == self._root)
                with self._lock:
                    self._durable[folder] = known
            if folder == self._root:
                return
            folder = folder.parent


def _not_found(path: Path, key: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(
        f"{path} does not exist",
        hint="it was never written, or has been deleted or moved",
        context={"key": key, "path": str(path)},
    )


def _map(descriptor: int, size_bytes: int) -> memoryview:
    if not size_bytes:  # mmap refuses a length of 0
        return memoryview(b"")
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.EINVAL):
            raise
    return read_all(descriptor, size_bytes)  # some network and FUSE file systems cannot map


# ---------------------------------------------------------------- temporary files
def _open_temp(path: Path) -> tuple[int, Path]:
    """Create and lock a temporary file beside `path`; return its descriptor and name."""
    stem = path.name.encode()[:_TEMP_STEM_BYTES].decode(errors="ignore")
    while True:
        temp = path.with_name(f".{stem}.{host_id()}.{secrets.token_hex(8)}.tmp")
        descriptor = open_file(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            locked = try_lock(descriptor)
        except OSError:
            return descriptor, temp  # no locks on this file system; then nobody sweeps there either
        # A sweep that came between the two calls has taken the file for a dead one.
        if locked and same_file(descriptor, temp):
            return descriptor, temp
        close_locked(descriptor)


def _is_own_temp(name: str) -> bool:
    found = _TEMP_NAME.match(name)
    return found is not None and found["host"] == host_id()


def _remove_if_dead(temp: Path) -> bool:
    try:
        descriptor = open_file(temp, os.O_RDONLY)
    except OSError:
        return False  # gone, or not a file of ours
    try:
        require_regular(descriptor, temp)
        if not try_lock(descriptor):
            return False
        temp.unlink()
    except (OSError, ForeignFileError):
        return False  # published meanwhile, no locks here, or not a file of ours
    else:
        return True
    finally:
        close_locked(descriptor)
