"""Left files: what writers leave when they die, and whether it is certain that they are dead."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.storage.hold import lock
from weightslab.engine.storage.holder import host_id, may_take_over

if TYPE_CHECKING:
    from weightslab.engine.storage.local import LocalStore

__all__ = ["DEAD", "ELSEWHERE", "LIVING", "file_system_of", "give_up", "is_local", "state_of"]

LIVING: Final = "living"
DEAD: Final = "dead"
ELSEWHERE: Final = "elsewhere"
_TEMPORARY: Final = re.compile(r"\..+\.([0-9a-f]{12})\.[0-9a-f]{16}\.tmp\Z", re.DOTALL)
# File systems whose locks every process that can write to them sees: a free lock proves a death,
# whatever host name or boot the file was written under.
_LOCAL: Final = frozenset(
    {
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "xfs",
        "zfs",
    }
)
_MAX_HOLDER_BYTES: Final = 4096


def state_of(path: Path) -> str:
    """Return `living` if the file is locked, `dead` if its writer surely is, `elsewhere` if it may not be.

    Takes and returns its lock, which takes microseconds; writes nothing.

    Raises: FileNotFoundError if it is gone; OSError.
    """
    try:
        found = lock("", path, shared=False)
    except CheckpointError:
        return ELSEWHERE  # a link, a pipe: nothing of ours
    if found is None:
        return LIVING
    with found:
        own = _TEMPORARY.match(path.name)
        if own is not None:
            return DEAD if own[1] == host_id() else ELSEWHERE
        content = path.read_bytes()[:_MAX_HOLDER_BYTES]
    return DEAD if may_take_over(content) else ELSEWHERE


def give_up(path: Path) -> bool:
    """Empty a hold unless somebody has it, so that whoever comes next takes it over; remove a temporary
    file.

    Returns: False if somebody has it.
    Raises: OSError.
    """
    try:
        found = lock("", path, shared=False)
    except FileNotFoundError:
        return True
    if found is None:
        return False
    with found:
        if _TEMPORARY.match(path.name):
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, 0)
    return True


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the name of the file system a folder lies on (`ext4`, `nfs4`); empty if it is not known."""
    try:
        real, lines = path.resolve(), mounts.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # no such list on this system
    best, name = -1, ""
    for line in lines.splitlines():
        head, _, tail = line.partition(" - ")
        words = head.split(" ")
        if len(words) < 5 or not tail:  # noqa: PLR2004 - man 5 proc: the fifth is the mount point
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), words[4]))
        if (real == point or real.is_relative_to(point)) and len(point.parts) >= best:
            best, name = len(point.parts), tail.split(" ")[0]
    return name


def is_local(file_system: str) -> bool:
    """Tell whether a free lock on such a file system proves that its holder is dead."""
    return file_system in _LOCAL


def temporary_files(store: LocalStore, root: Path, folder: str) -> list[Path]:
    """Return the temporary files of stores in a folder; the store itself does not list them."""
    store.stat(folder)  # refuses links in the place of folders
    try:
        return sorted(
            p for p in (root / folder).iterdir() if _TEMPORARY.match(p.name) and p.is_file()
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
