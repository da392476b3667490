"""Quarantine: damaged checkpoints are set aside, never deleted.

    checkpoints/.quarantine/{stem}/       manifest and files under their own names
    checkpoints/.quarantine/{stem}/why.json   what was found; its appearance completes the folder
    checkpoints/.quarantine/{stem}.2/ ...     where the name is taken by another checkpoint

Everything is linked there first, then the note is written, then the checkpoint is deleted as usual:
its manifest, then its files. Killed anywhere, it is still in its place, or whole in the quarantine; a
second call goes on. Each checkpoint owns its files, so no other one misses them.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    CheckpointNotFoundError,
    LockedError,
    ObjectNotFoundError,
)
from weightslab.engine.jsonform import seal
from weightslab.engine.repository import layout
from weightslab.engine.repository.commit import remove_committed
from weightslab.engine.repository.verify import verify_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from weightslab.engine.repository.findings import Finding
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store

__all__ = ["quarantine_checkpoint"]

SCHEMA: Final = "weightslab.quarantine"
SCHEMA_VERSION: Final = 1
NOTE: Final = "why.json"


def quarantine_checkpoint(
    store: Store, name: CheckpointName, *, now: datetime, reason: str | None = None
) -> str:
    """Move one revision into the quarantine.

    Args:
        store: where the root lives.
        name: the revision.
        now: aware UTC time for the note.
        reason: move it although nothing is wrong with it, and note this; None moves damaged ones
            only.
    Returns: the key of its folder there, ending with `/`.
    Raises: CheckpointNotFoundError; CheckpointError if it is not damaged and no reason is given;
        LockedError if it is being written or deleted; StorageError.
    Durability: every name there is on disk before the first one here is removed.
    """
    hold = store.hold(name.pending_key)
    if hold is None:
        raise LockedError(f"{name.stem} is being written or deleted by another process")
    with hold:
        if store.stat(name.manifest_key) is None:
            raise CheckpointNotFoundError(f"no checkpoint {name.stem}")
        findings = verify_checkpoint(store, name)
        if reason is None and not any(finding.is_damage for finding in findings):
            raise _not_damaged(name, findings)
        keys = _files_of(store, name)
        folder = _fill(store, name, keys)
        note = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "exp_hash": name.exp_hash,
            "step": name.step,
            "revision": name.revision,
            "quarantined_at": now.isoformat(),
            "reason": reason,
            "findings": [{"key": f.key, "problem": f.problem} for f in findings],
            "files": sorted(key.rpartition("/")[2] for key in keys),
        }
        store.put(folder + NOTE, [seal(note)], if_absent=True)
        store.sync(folder)
        remove_committed(store, name)
    return folder


def _not_damaged(name: CheckpointName, findings: Sequence[Finding]) -> CheckpointError:
    if findings:
        return CheckpointError(
            f"{name.stem} is not known to be damaged, so it stays: {findings[0].problem}",
            hint="mend what keeps it from being read; force=True sets it aside all the same",
        )
    return CheckpointError(
        f"every byte of {name.stem} is as it was written, so it stays",
        hint="force=True sets it aside all the same",
    )


def _files_of(store: Store, name: CheckpointName) -> list[str]:
    """Return the keys of all files of a revision that are there, the manifest last.

    From the listing: the manifest may be what is damaged.
    """
    folder = layout.model_folder(name.exp_hash)
    files = []
    for file in store.list(folder):
        found = layout.parse_checkpoint_file(file)
        if found is not None and found[0] == name and found[1].endswith("safetensors"):
            files.append(folder + file)
    return [*files, name.manifest_key]


def _fill(store: Store, name: CheckpointName, keys: Sequence[str]) -> str:
    """Give all files their further names in a folder that holds nothing else; returns it."""
    for number in itertools.count(1):
        folder = f"{layout.QUARANTINE}{name.stem}{f'.{number}' if number > 1 else ''}/"
        if all(_is_free(store, key, folder) for key in keys):
            for key in keys:
                _take(store, key, folder + key.rpartition("/")[2])
            break
    return folder


def _is_free(store: Store, key: str, folder: str) -> bool:
    """Tell whether `key` can go into the folder: its name is free, or an earlier try put it there."""
    there = folder + key.rpartition("/")[2]
    found, own = store.stat(there), store.stat(key)
    if found is None or own is None:
        return found is None
    if (found.device, found.inode) == (own.device, own.inode):
        return True
    return found.size_bytes == own.size_bytes and store.map(there) == store.map(key)


def _take(store: Store, key: str, there: str) -> None:
    try:
        if not store.link(key, there):
            store.put(there, [store.map(key)], if_absent=True)  # no links on this file system
    except AlreadyExistsError:
        return  # an earlier try was interrupted; `_is_free` has compared the two
    except ObjectNotFoundError:
        return  # deleted by hand since it was listed; the note lists it, the folder lacks it
