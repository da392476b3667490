"""`MemoryStore`: the store as a dict, for tests and for trying things out."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, NamedTuple

from weightslab.engine.errors import AlreadyExistsError, ObjectNotFoundError
from weightslab.engine.storage.holder import holder_text, may_take_over
from weightslab.engine.storage.store import (
    Buffer,
    ForeignFileError,
    HoldMode,
    KeyStat,
    byte_views,
    check_key,
    check_prefix,
    read_only_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["MemoryHold", "MemoryStore"]

_DEVICES = itertools.count(1)  # each store is a place of its own: equal inodes of two are two files


class _Entry(NamedTuple):
    """A file or a folder; `tick` counts the changes of the store and stands for time."""

    inode: int
    tick: int
    data: bytes = b""


class MemoryHold:
    """A key held in a `MemoryStore`."""

    def __init__(self, key: str, let_go: Callable[[], None]) -> None:
        self._key = key
        self._let_go = let_go
        self._open = True

    @property
    def key(self) -> str:
        """The key that is held."""
        return self._key

    def release(self) -> None:
        """Remove the key if it was made for the hold, then let others take it. Idempotent."""
        if self._open:
            self._open = False
            self._let_go()

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


class MemoryStore:
    """Bytes in a dict; every promise of `Store` except to outlive the process. Thread-safe."""

    def __init__(self, *, read_only: bool = False) -> None:
        self.read_only = read_only
        self._lock = threading.RLock()
        self._files: dict[str, _Entry] = {}
        self._folders: dict[str, _Entry] = {"": _Entry(0, 0)}
        self._held: set[str] = set()
        self._locked: dict[int, int] = {}  # inode -> how many read it; -1: somebody has it alone
        self._tick = 0
        self._device = next(_DEVICES)

    def describe(self) -> str:
        """Return `memory`."""
        return "memory"

    def reopened(self, *, read_only: bool = False) -> MemoryStore:
        """Return a store with the same files and no holds: what a killed process leaves behind."""
        other = MemoryStore(read_only=read_only)
        with self._lock:
            other._files, other._folders = dict(self._files), dict(self._folders)
            other._tick = self._tick
        return other

    def put(self, key: str, parts: Sequence[Buffer], *, if_absent: bool = False) -> bool:
        # docstring inherited
        check_key(key)
        self._require_writable("written")
        with self._lock:
            if if_absent and (key in self._files or key in self._folders):
                return False
            self._create(key, b"".join(byte_views(parts)))
            return True

    def map(self, key: str) -> memoryview:
        # docstring inherited
        check_key(key)
        with self._lock:
            return memoryview(self._find(key).data)

    def link(self, src: str, dst: str) -> bool:
        # docstring inherited
        check_key(src)
        check_key(dst)
        self._require_writable("linked")
        with self._lock:
            entry = self._find(src)
            if dst in self._files or dst in self._folders:
                raise AlreadyExistsError(
                    f"{dst} exists in memory, so {src} is not linked there",
                    hint="choose another name",
                    context={"key": dst},
                )
            self._create(dst, entry.data, inode=entry.inode)
            return True

    def hold(self, key: str, *, mode: HoldMode = "create") -> MemoryHold | None:
        # docstring inherited
        check_key(key)
        if mode != "create":
            return self._lock_file(key, 1 if mode == "read" else -1)
        self._require_writable("held")
        with self._lock:
            if key in self._held:
                return None
            if key in self._files and not may_take_over(self._files[key].data):
                return None
            self._create(key, holder_text())
            self._held.add(key)
            return MemoryHold(key, lambda: self._let_go(key))

    def _lock_file(self, key: str, change: int) -> MemoryHold | None:
        with self._lock:
            inode = self._find(key).inode
            count = self._locked.get(inode, 0)
            if count and min(count, change) < 0:
                return None
            self._locked[inode] = count + change
            return MemoryHold(key, lambda: self._unlock(inode, change))

    def _unlock(self, inode: int, change: int) -> None:
        with self._lock:
            left = self._locked.pop(inode) - change
            if left:
                self._locked[inode] = left

    def _let_go(self, key: str) -> None:
        with self._lock:
            if self._files.pop(key, None) is not None:
                self._touch(_parent(key))
            self._held.discard(key)

    def list(self, prefix: str) -> list[str]:
        # docstring inherited
        start = "".join(f"{part}/" for part in check_prefix(prefix))
        with self._lock:
            files = [name for name in self._files if name.startswith(start)]
            folders = [f"{name}/" for name in self._folders if name and name.startswith(start)]
        inside = (name[len(start) :] for name in files + folders)
        return sorted(name for name in inside if name and "/" not in name[:-1])

    def stat(self, key: str) -> KeyStat | None:
        # docstring inherited
        name, place = _name(key), self._folders if _is_folder(key) else self._files
        with self._lock:
            entry = place.get(name)
        if entry is None:
            return None
        return KeyStat(
            size_bytes=len(entry.data),
            mtime_ns=entry.tick,
            ctime_ns=entry.tick,
            inode=entry.inode,
            device=self._device,
        )

    def delete(self, key: str) -> bool:
        # docstring inherited
        name = _name(key)
        if not name:
            raise ValueError("the store itself is not deleted; name a file or a folder in it")
        self._require_writable("deleted")
        with self._lock:
            if not _is_folder(key) and name in self._folders:
                raise _foreign(name)
            if _is_folder(key) and self.list(key):
                return False
            place = self._folders if _is_folder(key) else self._files
            if place.pop(name, None) is None:
                return False
            self._touch(_parent(name))
            return True

    def sync(self, prefix: str) -> None:
        # docstring inherited
        name = "/".join(check_prefix(prefix))
        self._require_writable("synced")
        with self._lock:
            if name not in self._folders:
                raise ObjectNotFoundError(
                    f"the folder {name} is not in memory, so its names are not kept",
                    hint="something deleted it; write the files again",
                    context={"key": prefix},
                )

    # ------------------------------------------------------------ behind the lock
    def _require_writable(self, action: str) -> None:
        if self.read_only:
            raise read_only_error("the store in memory", action)

    def _find(self, key: str) -> _Entry:
        entry = self._files.get(key)
        if entry is None and key in self._folders:
            raise _foreign(key)
        if entry is None:
            raise ObjectNotFoundError(f"{key} is not in memory", context={"key": key})
        return entry

    def _create(self, key: str, data: bytes, *, inode: int | None = None) -> None:
        if key in self._folders:
            raise _foreign(key)
        above = key.split("/")[:-1]
        folders = ["/".join(above[: depth + 1]) for depth in range(len(above))]
        for folder in folders:
            if folder in self._files:
                raise ForeignFileError(
                    f"{folder} is a file, so {key} cannot be under it", context={"key": key}
                )
        for folder in folders:
            if folder not in self._folders:
                self._tick += 1
                self._folders[folder] = _Entry(self._tick, self._tick)
                self._touch(_parent(folder))
        self._tick += 1
        self._files[key] = _Entry(self._tick if inode is None else inode, self._tick, data)
        self._touch(_parent(key))

    def _touch(self, folder: str) -> None:
        self._tick += 1
        if folder in self._folders:
            self._folders[folder] = self._folders[folder]._replace(tick=self._tick)


def _is_folder(key: str) -> bool:
    return not key or key.endswith("/")


def _name(key: str) -> str:
    return "/".join(check_prefix(key) if _is_folder(key) else check_key(key))


def _parent(key: str) -> str:
    return key.rpartition("/")[0]


def _foreign(key: str) -> ForeignFileError:
    return ForeignFileError(
        f"{key} is a folder, not a file", hint="name a file in it", context={"key": key}
    )
