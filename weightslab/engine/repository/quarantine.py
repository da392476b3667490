"""Quarantine: damaged checkpoints are set aside, never deleted.

    checkpoints/.quarantine/{stem}/       manifest and files under their own names
    checkpoints/.quarantine/{stem}/why.json   what was found; its appearance completes the folder

Killed anywhere, a checkpoint is still in its place, or whole in the quarantine; a second call goes on:
see `moving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository import layout
from weightslab.engine.repository.claim import claimed
from weightslab.engine.repository.commit import files_of
from weightslab.engine.repository.moving import move_aside
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
        LockedError if it is being written, deleted or read; StorageError.
    Durability: every name there is on disk before the first one here is removed.
    """
    with claimed(store, name):
        findings = verify_checkpoint(store, name)
        if reason is None and not any(finding.is_damage for finding in findings):
            raise _not_damaged(name, findings)
        note = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "exp_hash": name.exp_hash,
            "step": name.step,
            "revision": name.revision,
            "quarantined_at": now.isoformat(),
            "reason": reason,
            "findings": [{"key": f.key, "problem": f.problem} for f in findings],
        }
        return move_aside(store, layout.QUARANTINE, {name: note}, files_of(store, name))[name]


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
