"""Stamps: what tells, without reading, that a file or folder is the one that was read before.

A stamp serves to notice a change; no order is ever taken from it.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from weightslab.engine.repository import layout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from weightslab.engine.storage.store import Store

__all__ = ["MISSING", "LocalStamps", "NoStamps", "Stamps"]

MISSING: Final = "none"  # stamp of what is not there

# A file that changes twice within one tick of the file system's clock looks the same after both, so
# what is younger than that when it is read is read again. Linux ticks every 10 ms or faster (HZ >=
# 100), and 2 ms are left for the two clocks to be read; times in whole milliseconds come from a coarser clock: FAT has 2 s, HFS+ 1 s.
_FINE_GRACE_NS: Final = 12_000_000
_COARSE_GRACE_NS: Final = 2_000_000_000
_COARSE_NS: Final = 1_000_000
# A folder that is being copied into the root gets its names one after the other, with a large file
# between two of them; so it counts as settled only when no name was added for a minute.
_COPY_GRACE_NS: Final = 60_000_000_000


class Stamps(Protocol):
    """Tells whether files and folders are those that were read before."""

    def file(self, key: str) -> str | None:
        """Return the stamp of a file; None if it is not there."""
        ...

    def files(self, folder: str, ending: str) -> dict[str, str]:
        """Return name -> stamp of the files in a folder whose names end like this."""
        ...

    def names(self, key: str) -> str | None:
        """Return the stamp of the names in a folder; None if it is not there."""
        ...

    def changed(
        self, keys: Mapping[str, str], known: Mapping[str, str], *, folders: bool
    ) -> dict[str, str]:
        """Return the stamps of what does not have its known stamp for sure."""
        ...


class NoStamps:
    """Stamps for a store that has none: whatever is there may have changed.

    Args:
        store: tells what is there.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def file(self, key: str) -> str | None:
        """Return an empty stamp; None if the file is not there."""
        return None if self._store.stat(key) is None else ""

    def files(self, folder: str, ending: str) -> dict[str, str]:
        """Return name -> an empty stamp."""
        return {name: "" for name in self._store.list(folder) if name.endswith(ending)}

    def names(self, key: str) -> str | None:  # noqa: ARG002 - the signature is that of `Stamps`
        """Return an empty stamp: whoever reads the folder sees whether it is there."""
        return ""

    def changed(
        self,
        keys: Mapping[str, str],
        known: Mapping[str, str],  # noqa: ARG002 - as above
        *,
        folders: bool,  # noqa: ARG002 - as above
    ) -> dict[str, str]:
        """Return an empty stamp for each."""
        return dict.fromkeys(keys, "")


class LocalStamps:
    """Stamps of the files and folders of a root on a local file system.

    It asks the system directly, 2 us a file; `Store.stat` takes 40 because it proves at each call
    that no folder above is a link. Content is only ever read through the store.
    """

    def __init__(self, root: Path) -> None:
        self._root = f"{root}{os.sep}"

    def file(self, key: str) -> str | None:
        """Return the stamp of a file; None if it is not there or is a folder.

        The stamp is empty, and to be taken as unlike every other, while the file is so young that
        it may change once more without a trace.
        """
        return self._of(key, folder=False)

    def files(self, folder: str, ending: str) -> dict[str, str]:
        """Return name -> stamp of the files in a folder whose names end like this.

        Raises: OSError; a folder that is not there has no files.
        """
        found = {}
        try:
            with os.scandir(self._root + folder) as entries:
                for entry in entries:
                    if entry.name.endswith(ending) and not entry.is_dir(follow_symlinks=False):
                        with suppress(FileNotFoundError):  # deleted since the listing
                            found[entry.name] = _text(entry.stat(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return found

    def listing(self, folder: str, ending: str) -> set[str]:
        """Return the names in a folder that end like this; a folder that is not there has none."""
        try:
            return {name for name in os.listdir(self._root + folder) if name.endswith(ending)}  # noqa: PTH208
        except OSError:
            return set()  # whoever reads it through the store gets the reason

    def names(self, key: str) -> str | None:
        """Return the stamp of the names in a folder; None if it is not there."""
        return self._of(key, folder=True)

    def changed(
        self, keys: Mapping[str, str], known: Mapping[str, str], *, folders: bool
    ) -> dict[str, str]:
        """Return the stamps of what is not as it was, or is young.

        Made for tens of thousands of files at each question: 4 us each, of which the system takes
        2.5. What has its known stamp is not young: it was not when that was taken.

        Args:
            keys: what a file or folder is called by -> its key.
            known: the same -> its stamp when it was read; `MISSING` if it was not there.
            folders: these are folders, and their names are meant.
        """
        found, lstat, root = {}, os.lstat, self._root
        for name, key in keys.items():
            try:
                now = lstat(root + key)
            except FileNotFoundError:
                stamp = MISSING
            except OSError:
                stamp = ""  # whoever reads it through the store gets the reason
            else:
                stamp = (
                    f"{now.st_dev}.{now.st_ino}.{0 if folders else now.st_size}"
                    f".{now.st_mtime_ns}.{now.st_ctime_ns}"
                )
                if known.get(name) != stamp:
                    stamp = self._of(key, folder=folders) or ""
            if not stamp or known.get(name) != stamp:
                found[name] = stamp
        return found

    def checkpoints(self, exp_hash: str) -> str | None:
        """Return the stamp of the names in a model folder, or of the place where it is missing.

        None if the experiment is not there; empty for a minute after a change, because the folder
        may be under copy.
        """
        model, above = layout.model_folder(exp_hash), layout.experiment_folder(exp_hash)
        stamp = self._of(model, folder=True, grace_ns=_COPY_GRACE_NS)
        if stamp is None:
            stamp = self._of(above, folder=True, grace_ns=_COPY_GRACE_NS)
            return f"none in {stamp}" if stamp else stamp
        return stamp

    def _of(self, key: str, *, folder: bool, grace_ns: int = 0) -> str | None:
        try:
            found = os.lstat(self._root + key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return ""  # whoever reads it through the store gets the reason
        if stat.S_ISDIR(found.st_mode) != folder:
            return None
        return "" if _age_ns(found.st_mtime_ns) < grace_ns else _text(found)


def _text(found: os.stat_result) -> str:
    if _is_young(found):
        return ""
    size_bytes = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return f"{found.st_dev}.{found.st_ino}.{size_bytes}.{found.st_mtime_ns}.{found.st_ctime_ns}"


def _is_young(found: os.stat_result) -> bool:
    is_coarse = not (found.st_mtime_ns % _COARSE_NS or found.st_ctime_ns % _COARSE_NS)
    grace = _COARSE_GRACE_NS if is_coarse else _FINE_GRACE_NS
    return _age_ns(max(found.st_mtime_ns, found.st_ctime_ns)) < grace


def _age_ns(changed_ns: int) -> int:
    return time.time_ns() - changed_ns
