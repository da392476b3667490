"""Symptoms of a whole root: its kind, its folders, logs, trash, quarantine, catalog and file system."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from weightslab.engine.care.diagnosis import ERROR, NOTE, WARNING, Problem
from weightslab.engine.care.left_files import is_local
from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.index_file import INDEX_VARIABLE, find_index_path
from weightslab.engine.repository.index_rows import IndexFailedError
from weightslab.engine.repository.trash import LIFETIME, list_trash

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightslab.engine.care.keeper import Keeper

__all__ = ["LOGS", "root_symptoms"]

LOGS: Final = ("logs/events.jsonl", "logs/metrics.jsonl")
_NO_LINKS: Final = frozenset({"exfat", "msdos", "vfat", "fuse.s3fs", "fuse.gcsfuse", "fuse.goofys"})
_SHOWN: Final = 3


def root_symptoms(root: Keeper, file_system: str) -> Iterator[Problem]:
    """Yield what is wrong with a root beside its experiments."""
    for look in (_kind, _folders, _logs, _catalog):
        yield from look(root)
    if not (root.path / "checkpoints").is_symlink():
        yield from _trash(root)
        yield from _quarantine(root)
    yield from _file_system(file_system)


def _kind(root: Keeper) -> Iterator[Problem]:
    """Say if this is a root of another kind."""
    for where, sign in (
        (
            "checkpoints.metadata",
            "the numbered CheckpointManager (ckpt_7_..., checkpoints.metadata)",
        ),
        (
            "checkpoints/checkpoints.metadata",
            "the numbered CheckpointManager (ckpt_7_..., checkpoints.metadata)",
        ),
        (
            "checkpoints/manifest.yaml",
            "weightslab 2 (manifest.yaml, models/, HP/, pickled architectures)",
        ),
        ("manifest.yaml", "weightslab 2 (manifest.yaml, models/, HP/, pickled architectures)"),
    ):
        if (root.path / where).is_file():
            yield Problem(
                severity=WARNING, kind="other_kind", where=where,
                what=f"checkpoints of {sign} lie here; this package does not list them, and never unpickles them",
                mend="`weightslab import` brings them into a root of this package; they stay as they are",
            )  # fmt: skip


def _folders(root: Keeper) -> Iterator[Problem]:
    checkpoints = root.path / "checkpoints"
    if checkpoints.is_symlink():
        yield Problem(
            severity=ERROR, kind="link", where=layout.CHECKPOINTS,
            what="is a symbolic link, and none is followed below the root",
            mend="move the folder here, or make the root itself the link",
        )  # fmt: skip
        return
    if not checkpoints.is_dir():
        yield Problem(
            severity=WARNING, kind="empty", where=layout.CHECKPOINTS,
            what="there is no such folder: nothing was ever saved here", mend="check the path of the root",
        )  # fmt: skip
        return
    names, links, foreign = [], [], []
    with os.scandir(checkpoints) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and layout.is_exp_hash(entry.name):
                names.append(entry.name)
            elif entry.is_symlink() and layout.is_exp_hash(entry.name):
                links.append(entry.name)
            elif entry.name not in (".trash", ".quarantine"):
                foreign.append(entry.name)
    for name in links:
        yield Problem(
            severity=ERROR, kind="link", where=layout.CHECKPOINTS + name,
            what="is a symbolic link, and none is followed", mend="copy the folder here instead",
        )  # fmt: skip
    if foreign:
        more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
        yield Problem(
            severity=NOTE, kind="foreign", where=layout.CHECKPOINTS,
            what=f"holds what is not ours: {', '.join(sorted(foreign)[:_SHOWN])}{more}",
            mend="it is left alone; move it elsewhere if you do not need it here",
        )  # fmt: skip
    yield from _access(root, names)


def _access(root: Keeper, names: list[str]) -> Iterator[Problem]:
    folders = ["", "logs", "checkpoints"]
    folders += [f"checkpoints/{n}{part}" for n in sorted(names) for part in ("", "/model")]
    for folder in folders:
        path = root.path / folder
        if not path.is_dir():
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            yield Problem(
                severity=ERROR, kind="unreadable", where=f"{folder}/",
                what="the folder may not be read", mend=f"chmod u+rx {folder}, as its owner",
            )  # fmt: skip
        elif not root.read_only and not os.access(path, os.W_OK):
            yield Problem(
                severity=WARNING, kind="unwritable", where=f"{folder}/",
                what="the folder may not be written to: saving there fails",
                mend=f"chmod u+w {folder}, as its owner, or open the root with read_only=True",
            )  # fmt: skip


def _logs(root: Keeper) -> Iterator[Problem]:
    for where in LOGS:
        path = root.path / where
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                yield Problem(
                    severity=WARNING, kind="log", where=where,
                    what="is no regular file, so nothing is written to it", mend="move it away",
                )  # fmt: skip
                continue
            if not found.st_size:
                continue
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                is_torn = file.read(1) != b"\n"
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Problem(
                severity=WARNING, kind="log", where=where,
                what=f"cannot be read: {error.strerror}", mend="mend its permissions",
            )  # fmt: skip
            continue
        if is_torn:
            yield Problem(
                severity=NOTE, kind="torn_log", where=where,
                what="its last line was cut off; readers pass over it",
                mend="root.doctor(mend=True) closes it off; so does the next line",
                is_mendable=True,
            )  # fmt: skip


def _trash(root: Keeper) -> Iterator[Problem]:
    try:
        entries = list_trash(root.store)
        listed = {entry.key for entry in entries}
        names = [n for n in root.store.list(layout.TRASH) if n.endswith("/")]
    except CheckpointError as error:
        yield Problem(
            severity=WARNING, kind="trash", where=layout.TRASH,
            what=f"cannot be read: {error}", mend="see what lies there",
        )  # fmt: skip
        return
    limit = root.clock() - LIFETIME
    old = [e for e in entries if e.trashed_at is not None and e.trashed_at < limit]
    if old:
        size_bytes = sum(entry.size_bytes for entry in old)
        yield Problem(
            severity=NOTE, kind="trash", where=layout.TRASH,
            what=f"{len(old)} checkpoints have been in the trash for more than {LIFETIME.days} days,"
            f" {size_bytes:,} bytes",
            mend="root.trash.empty() deletes them for good",
        )  # fmt: skip
    for entry in entries:
        if entry.is_damaged:
            yield Problem(
                severity=WARNING, kind="trash", where=entry.key,
                what=f"it is not whole, so it cannot be restored: {entry.reason}",
                mend="root.trash.empty(damaged=True) deletes it for good",
            )  # fmt: skip
    for name in names:
        key = layout.TRASH + name
        if key not in listed and root.store.stat(f"{key}why.json") is None:
            yield Problem(
                severity=NOTE, kind="trash_remains", where=key,
                what="what a move to the trash, or its emptying, left when it was cut off",
                mend="root.doctor(mend=True) removes it; nothing of it is a whole checkpoint",
                is_mendable=True,
            )  # fmt: skip


def _quarantine(root: Keeper) -> Iterator[Problem]:
    try:
        names = [n for n in root.store.list(layout.QUARANTINE) if n.endswith("/")]
    except CheckpointError as error:
        names = []
        yield Problem(
            severity=WARNING, kind="quarantine", where=layout.QUARANTINE,
            what=f"cannot be read: {error}", mend="see what lies there",
        )  # fmt: skip
    if names:
        yield Problem(
            severity=NOTE, kind="quarantine", where=layout.QUARANTINE,
            what=f"{len(names)} damaged checkpoints were set aside: {', '.join(n[:-1] for n in names[:_SHOWN])}",
            mend="why.json in each says what was found; remove the folders you do not need",
        )  # fmt: skip


def _catalog(root: Keeper) -> Iterator[Problem]:
    if os.environ.get(INDEX_VARIABLE, "").lower() == "off":
        return
    path = find_index_path(root.path)
    if path is None:
        yield Problem(
            severity=NOTE, kind="catalog", where="the cache folder",
            what="it cannot be written to, so every process reads the manifests anew",
            mend=f"set {INDEX_VARIABLE} to a folder that can be written to",
        )  # fmt: skip
        return
    if not path.exists():
        return
    from weightslab.engine.repository.index import Index

    try:
        Index(path).close()
    except IndexFailedError as error:
        yield Problem(
            severity=NOTE, kind="catalog", where=str(path),
            what=f"the catalog cannot be used: {error}",
            mend="root.doctor(mend=True) removes it; it is built again from the manifests",
            is_mendable=error.is_damaged,
        )  # fmt: skip


def _file_system(name: str) -> Iterator[Problem]:
    if name in _NO_LINKS:
        yield Problem(
            severity=NOTE, kind="file_system", where=name,
            what="has no hard links: tensors that did not change are written again with each save",
            mend="use a file system with links (ext4, xfs, btrfs, APFS, NTFS) if space matters",
        )  # fmt: skip
    elif name and not is_local(name):
        yield Problem(
            severity=NOTE, kind="file_system", where=name,
            what="its locks need not reach other machines, and its syncs have not been proven by our tests",
            mend="let one machine at a time write to an experiment; read from as many as you like",
        )  # fmt: skip
