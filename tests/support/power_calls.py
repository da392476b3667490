"""Power loss as a model, from the system calls that a work really made.

Bytes are on disk after an fsync of their file, names after an fsync of their folder. Of what was not
synced any subset may be there: names one by one (a rename is one step), bytes not at all, whole, as
zeros of the right length, or torn at a sector of 512 bytes or a page of 4 KiB, as in Pillai et al.,
"All File Systems Are Not Created Equal" (OSDI 2014), section 3.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from support.crash_check import ACKS
from support.power import subsets
from weightslab.engine.storage.holder import boot_id

FOLDER = object()
_OTHER_BOOT = b"00000000-0000-4000-8000-000000000000"


@dataclass(eq=False)
class _Inode:
    """A file: its bytes, and those of them that are certainly on disk."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    is_dirty: bool = False

    def write(self, offset, data):
        self.now.extend(bytes(max(0, offset + len(data) - len(self.now))))
        self.now[offset : offset + len(data)] = data
        self.is_dirty = True

    def cut(self, size_bytes):
        del self.now[size_bytes:]
        self.now.extend(bytes(size_bytes - len(self.now)))
        self.is_dirty = True

    def sync(self):
        self.synced, self.is_dirty = bytes(self.now), False

    def after_cut(self, how, chance):
        """Return the bytes that a power loss leaves."""
        if not self.is_dirty or how == "whole":
            return bytes(self.now)
        if how == "none":
            return self.synced
        kept = self.synced[: len(self.now)]
        zeros = bytearray(kept + bytes(len(self.now) - len(kept)))
        if how == "zeros":
            return bytes(zeros)
        for start in range(0, len(self.now), how):
            if chance.random() < 0.5:
                zeros[start : start + how] = self.now[start : start + how]
        return bytes(zeros)


@dataclass(frozen=True)
class State:
    """What a power loss leaves, and what had been acknowledged by then.

    Attributes:
        files: path below the root -> bytes; None for a folder.
        acks: `(kind, value)`, as JSON.
        at: number of calls that were made.
    """

    files: dict
    acks: tuple
    at: int

    def acknowledged(self):
        """Return the acknowledgements as `(kind, value)`."""
        return [(kind, json.loads(value)) for kind, value in self.acks]

    def lay_out(self, folder):
        """Write the state as files."""
        folder.mkdir()
        for name, data in sorted(self.files.items()):
            if data is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(data)


class Disk:
    """A root on a disk; system calls come in, legal states after a power loss come out."""

    def __init__(self, root, unsynced=()):
        self._root = str(root)
        self._now, self._certain, self._pending = {}, {}, []
        self._open, self._acks, self._calls = {}, [], 0
        inodes = {}
        for path in sorted(root.rglob("*")):
            inode = FOLDER
            if not path.is_dir():
                data = path.read_bytes()
                new = _Inode(bytearray(data), data)
                inode = inodes.setdefault(path.stat().st_ino, new)
            self._now[str(path)] = inode
        self._now[self._root] = FOLDER
        late = {str(root / name): self._now[str(root / name)] for name in unsynced}
        self._certain = {path: inode for path, inode in self._now.items() if path not in late}
        self._pending += [{path: inode} for path, inode in late.items()]

    # ------------------------------------------------------------ calls
    def take(self, call):
        """Take in one call; returns whether it changed what a power loss may leave."""
        self._calls += 1
        handler = getattr(self, f"_on_{call.name}", None)
        if call.result < 0 or handler is None:
            return False
        handler(call)
        return call.changes() or call.name == "sendto"

    def _on_sendto(self, call):
        self._acks += [(kind, json.dumps(value)) for kind, value in acks_in([call])]

    def _on_openat(self, call):
        path = _path_in(call)
        is_new = path not in self._now
        if not path.startswith(self._root) or (is_new and not call.creates()):
            self._open.pop(call.result, None)
            return
        if is_new:
            self._add(path, _Inode())
        inode = self._now[path]
        if "O_TRUNC" in call.args and inode is not FOLDER:
            inode.cut(0)
        start = None if "O_APPEND" in call.args else 0  # appends go to the end, whatever was sought
        self._open[call.result] = [path, inode, start]

    def _on_close(self, call):
        self._open.pop(call.integers()[0], None)

    def _on_lseek(self, call):
        opened = self._at(call)
        if opened[2] is not None:
            opened[2] = call.result

    def _at(self, call):
        return self._open.get(int(call.args.partition(",")[0]), [None, None, 0])

    def _on_write(self, call):
        opened = self._at(call)
        if opened[1] is not None:
            data = b"".join(call.texts())[: call.result]
            opened[1].write(len(opened[1].now) if opened[2] is None else opened[2], data)
            if opened[2] is not None:
                opened[2] += len(data)

    _on_writev = _on_write

    def _on_pwrite64(self, call):
        inode = self._at(call)[1]
        if inode is not None:
            inode.write(call.integers()[-1], call.texts()[0][: call.result])

    def _on_ftruncate(self, call):
        inode = self._at(call)[1]
        if inode is not None:
            inode.cut(call.integers()[-1])

    def _on_fsync(self, call):
        path, inode, _ = self._at(call)
        if inode is FOLDER:
            self._sync_folder(path)
        elif inode is not None:
            inode.sync()

    _on_fdatasync = _on_fsync

    def _on_mkdir(self, call):
        self._add(_path_in(call), FOLDER)

    def _on_link(self, call):
        source, path = (text.decode() for text in call.texts())
        if path.startswith(self._root):
            self._add(path, self._now[source])

    _on_linkat = _on_link

    def _on_unlink(self, call):
        path = _path_in(call)
        if path in self._now:
            del self._now[path]
            self._pending.append({path: None})

    _on_rmdir = _on_unlink

    def _on_rename(self, call):
        source, path = (text.decode() for text in call.texts())
        if source in self._now:
            self._now[path] = self._now.pop(source)
            change = {source: None, path: self._now[path]}
            for names in (self._now, self._certain):  # of a folder: what is in it moves with it
                for name in [name for name in names if name.startswith(f"{source}/")]:
                    there = path + name.removeprefix(source)
                    if names is self._now:
                        names[there] = names.pop(name)
                    else:
                        change |= {name: None, there: names[name]}
            self._pending.append(change)

    def _add(self, path, inode):
        if path.startswith(self._root):
            self._now[path] = inode
            self._pending.append({path: inode})

    # ------------------------------------------------------------ states
    def _sync_folder(self, folder):
        def is_in(change):
            return any(str(PurePosixPath(path).parent) == folder for path in change)

        for change in filter(is_in, self._pending):
            _settle(self._certain, change)
        self._pending = [change for change in self._pending if not is_in(change)]

    def states(self, chance):
        """Yield `(what is equal for equal states, state)` for what a power loss may leave now."""
        inodes = {
            inode
            for names in (self._now, self._certain, *self._pending)
            for inode in names.values()
            if inode not in (None, FOLDER)
        }
        is_dirty = any(inode.is_dirty for inode in inodes)
        chosen = list(subsets(len(self._pending), chance))
        for how in ("none", "whole", "zeros", 512, 4096) if is_dirty else ("whole",):
            left = {inode: _Bytes.of(inode.after_cut(how, chance)) for inode in inodes}
            for indices in chosen:
                yield self._state(indices, left)

    def _state(self, indices, left):
        names = dict(self._certain)
        for index in indices:
            _settle(names, self._pending[index])
        files, key = {}, [tuple(self._acks)]
        for path in sorted(names):
            if names.get(str(PurePosixPath(path).parent)) is FOLDER:  # else its folder was lost
                inside, inode = path[len(self._root) + 1 :], names[path]
                files[inside] = None if inode is FOLDER else left[inode].data
                key.append((inside, inode is FOLDER or left[inode].digest))
            elif path != self._root:
                del names[path]
        return tuple(key), State(files, tuple(self._acks), self._calls)


@dataclass(frozen=True)
class _Bytes:
    """What is in a file after a power loss. Holds are of a boot that is over then."""

    data: bytes
    digest: bytes

    @classmethod
    def of(cls, data):
        data = data.replace(boot_id().encode(), _OTHER_BOOT) if len(data) < 300 else data
        return cls(data, hashlib.blake2b(data).digest())


def _path_in(call):
    return call.texts()[0].decode().rstrip("/")


def acks_in(calls):
    """Return what the calls acknowledge, as `(kind, value)`."""
    found = []
    for call in calls:
        if call.name == "sendto":
            words = [json.loads(line) for line in call.texts()[0].splitlines()]
            found += [(k, word[k]) for word in words for k in ACKS if k in word]
    return found


def _settle(names, change):
    for path, inode in change.items():
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode


def all_states(root, calls, unsynced=(), seed=0):
    """Return the different states that a power loss at any moment of a work may leave.

    Args:
        root: the root before the work, at the path at which the calls were made.
        calls: what `tracing.recorded` returned.
        unsynced: names in it that are not on disk yet.
    """
    chance, disk, found = random.Random(seed), Disk(root, unsynced), {}
    for call in [None, *calls]:
        if call is None or disk.take(call):
            for key, state in disk.states(chance):
                found.setdefault(key, state)
    return list(found.values())
