"""Usage: how many bytes a root takes, by experiment and by kind, and what deleting would free.

Hard links are counted by inode: bytes with several names are on disk once.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.repository.layout import is_exp_hash

if TYPE_CHECKING:
    from weightslab.engine.care.keeper import Keeper

__all__ = ["ExperimentUsage", "KindUsage", "Usage", "usage"]

KINDS: Final = (
    "weights", "training", "config", "samples", "notes", "provenance", "records", "trash", "quarantine",
    "logs", "data", "other",
)  # fmt: skip
_BLOCK_BYTES: Final = 512  # the unit of st_blocks, whatever the file system has (POSIX stat.h)
_FOLDERS: Final = {"hp": "config", "data": "samples", "notes": "notes", "provenance": "provenance"}
_ASIDE: Final = {".trash": "trash", ".quarantine": "quarantine"}
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_SHOWN: Final = 20


@dataclass(slots=True)
class _Inode:
    """Bytes with more than one name."""

    disk_bytes: int
    num_names: int
    owners: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Sum:
    num_files: int = 0
    size_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KindUsage:
    """What all files of one kind take.

    Attributes:
        num_files: names.
        size_bytes: sum of the sizes of all names.
        disk_bytes: what is on disk; bytes with several names are counted with the first.
    """

    num_files: int
    size_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentUsage:
    """What one experiment takes.

    Attributes:
        exp_hash: the experiment.
        num_files: names in its folder.
        size_bytes: sum of the sizes of all names: what a copy without links takes.
        own_bytes: on disk, and nobody else's: what deleting it frees.
        shared_bytes: on disk, with further names in other experiments, the trash or elsewhere.
        kinds: kind -> sum of sizes.
    """

    exp_hash: str
    num_files: int
    size_bytes: int
    own_bytes: int
    shared_bytes: int
    kinds: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a root takes.

    Attributes:
        experiments: those that take most of their own first.
        kinds: kind -> `KindUsage`; kinds without files are left out.
        num_files: names.
        size_bytes: sum of the sizes of all names.
        disk_bytes: what is on disk, each byte once.
        problems: folders that could not be read; what is in them is not counted.
    """

    experiments: tuple[ExperimentUsage, ...]
    kinds: dict[str, KindUsage]
    num_files: int
    size_bytes: int
    disk_bytes: int
    problems: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "num_files": self.num_files,
            "size_bytes": self.size_bytes,
            "disk_bytes": self.disk_bytes,
            "kinds": {kind: _fields(found) for kind, found in self.kinds.items()},
            "experiments": [_fields(experiment) for experiment in self.experiments],
            "problems": list(self.problems),
        }

    def __str__(self) -> str:
        """Return a table of the 20 largest experiments, and one of the kinds."""
        apparent = readable(self.size_bytes)
        head = f"{readable(self.disk_bytes)} on disk in {self.num_files:,} files ({apparent} without links)"
        lines = [head]
        for e in self.experiments[:_SHOWN]:
            own, shared = readable(e.own_bytes), readable(e.shared_bytes)
            lines.append(
                f"  {e.exp_hash}  {own:>12} own  {shared:>12} shared  {e.num_files:>7,} files"
            )
        if len(self.experiments) > _SHOWN:
            lines.append(f"  and {len(self.experiments) - _SHOWN:,} more experiments")
        lines += [
            f"  {kind:<16}  {readable(found.disk_bytes):>12}  {found.num_files:>9,} files"
            for kind, found in self.kinds.items()
        ]
        lines += [f"  not counted: {problem}" for problem in self.problems]
        return "\n".join(_shown(line) for line in lines)


def readable(size_bytes: int) -> str:
    """Return a number of bytes for people: `1.5 MiB`."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - the step of these units
        size, unit = size / 1024, unit + 1
    return f"{size:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} bytes"


def usage(root: Keeper) -> Usage:
    """Return how many bytes the root takes, by experiment and by kind.

    Nothing is read but names and sizes: 4 us a file. No link is followed.
    """
    return _Walk().everything(str(root.path))


class _Walk:
    """One walk through a root."""

    def __init__(self) -> None:
        self._kinds = {kind: _Sum() for kind in KINDS}
        self._of_hash: dict[str, dict[str, _Sum]] = {}
        self._inodes: dict[tuple[int, int], _Inode] = {}
        self._problems: list[str] = []

    def everything(self, path: str) -> Usage:
        for name, is_folder, _ in self._entries(path):
            if name == "checkpoints" and is_folder:
                self._checkpoints(os.path.join(path, name))  # noqa: PTH118 - text, for speed
        kinds = {"data": "data", "logs": "logs"}
        self._files(path, "", kinds, skip="checkpoints")
        return self._result()

    def _checkpoints(self, path: str) -> None:
        for name, is_folder, _ in self._entries(path):
            below = f"{path}{os.sep}{name}"
            if is_folder and is_exp_hash(name):
                self._of_hash[name] = {}
                self._files(below, name, _FOLDERS)
            elif is_folder:
                self._files(below, "", {}, kind=_ASIDE.get(name, "other"))
        self._files(path, "", {}, is_flat=True)

    def _files(
        self,
        path: str,
        owner: str,
        kinds: dict[str, str],
        *,
        kind: str | None = None,
        skip: str = "",
        is_flat: bool = False,
    ) -> None:
        """Count all files below a folder; `kinds` names those of its folders."""
        stack: list[tuple[str, str | None]] = [(path, kind)]
        while stack:
            folder, inherited = stack.pop()
            is_top = folder == path
            for name, is_folder, found in self._entries(folder):
                if is_folder and not is_flat and not (is_top and name == skip):
                    further = inherited or (_model_or(kinds, name, owner) if is_top else "other")
                    stack.append((f"{folder}{os.sep}{name}", further))
                elif found is not None and not is_folder:
                    self._add(owner, inherited, name, found)

    def _entries(self, folder: str) -> list[tuple[str, bool, os.stat_result | None]]:
        """Return (name, is a folder, stat of anything else) of what is in a folder."""
        entries: list[tuple[str, bool, os.stat_result | None]] = []
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    if entry.is_dir(follow_symlinks=False):
                        entries.append((entry.name, True, None))
                        continue
                    try:
                        entries.append((entry.name, False, entry.stat(follow_symlinks=False)))
                    except FileNotFoundError:
                        continue  # deleted since it was listed
        except FileNotFoundError:
            return entries
        except OSError as error:
            self._problems.append(f"{folder}: {error.strerror}")
        return entries

    def _add(self, owner: str, kind: str | None, name: str, found: os.stat_result) -> None:
        kind = (
            _kind_in_model(name) if kind == "model" else kind or ("records" if owner else "other")
        )
        size_bytes = found.st_size
        blocks = getattr(found, "st_blocks", None)
        disk_bytes = size_bytes if blocks is None else blocks * _BLOCK_BYTES
        is_first = True
        if found.st_nlink > 1 and stat.S_ISREG(found.st_mode):
            key = found.st_dev, found.st_ino
            inode = self._inodes.get(key)
            is_first = inode is None
            if inode is None:
                inode = self._inodes[key] = _Inode(disk_bytes, found.st_nlink)
            inode.owners[owner] = inode.owners.get(owner, 0) + 1
        total = self._kinds[kind]
        total.num_files += 1
        total.size_bytes += size_bytes
        total.disk_bytes += disk_bytes if is_first else 0
        if owner:
            own = self._of_hash[owner].setdefault(kind, _Sum())
            own.num_files += 1
            own.size_bytes += size_bytes
            own.disk_bytes += disk_bytes if found.st_nlink == 1 else 0

    def _result(self) -> Usage:
        own = {h: sum(s.disk_bytes for s in kinds.values()) for h, kinds in self._of_hash.items()}
        shared = dict.fromkeys(own, 0)
        for inode in self._inodes.values():
            for owner, count in inode.owners.items():
                if owner:
                    into = own if count == inode.num_names else shared
                    into[owner] += inode.disk_bytes
        experiments = [
            ExperimentUsage(
                exp_hash=h,
                num_files=sum(s.num_files for s in kinds.values()),
                size_bytes=sum(s.size_bytes for s in kinds.values()),
                own_bytes=own[h],
                shared_bytes=shared[h],
                kinds={kind: s.size_bytes for kind, s in sorted(kinds.items())},
            )
            for h, kinds in self._of_hash.items()
        ]
        experiments.sort(key=lambda e: (-e.own_bytes, -e.shared_bytes, e.exp_hash))
        kinds = {
            kind: KindUsage(num_files=s.num_files, size_bytes=s.size_bytes, disk_bytes=s.disk_bytes)
            for kind, s in self._kinds.items()
            if s.num_files
        }
        return Usage(
            experiments=tuple(experiments),
            kinds=kinds,
            num_files=sum(k.num_files for k in kinds.values()),
            size_bytes=sum(k.size_bytes for k in kinds.values()),
            disk_bytes=sum(k.disk_bytes for k in kinds.values()),
            problems=tuple(self._problems),
        )


def _model_or(kinds: dict[str, str], name: str, owner: str) -> str:
    return "model" if owner and name == "model" else kinds.get(name, "other")


def _kind_in_model(name: str) -> str:
    if name.endswith(".safetensors"):
        return "training" if ".training." in name else "weights"
    return "records" if name.endswith((".json", ".txt")) else "other"


def _fields(record: KindUsage | ExperimentUsage) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _shown(line: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
