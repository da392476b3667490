"""Checking: every byte is read, and what is damaged is set aside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.repository import layout
from weightslab.engine.repository.quarantine import quarantine_checkpoint
from weightslab.engine.repository.verify import VerifyReport, verify_all
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from weightslab.engine.care.keeper import Keeper

__all__ = ["quarantine", "verify"]


def verify(
    root: Keeper,
    exp_hash: str | None = None,
    *,
    step: int | None = None,
    revision: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> VerifyReport:
    """Read every byte of the root, an experiment or a step; tell what is wrong with it.

    A file with several names is hashed once. Each big file is hashed in several threads.

    Args:
        exp_hash: hash or prefix; by default the whole root.
        step: only the checkpoints of this step, without the files of the experiment.
        revision: only this revision of the step; by default all.
        progress: called with bytes done and bytes in all, from several threads, one call at a
            time; what it raises ends the verification.
    Returns: a report that iterates over its findings and equals `[]` if there are none.
    Raises: ExperimentNotFoundError, CheckpointNotFoundError.
    """
    if step is None:
        if revision is not None:
            raise ValueError("verify(revision=...) needs step as well")
        hashes = root.list_hashes() if exp_hash is None else [root.get_hash(exp_hash)]
        return verify_all(root.store, hashes, progress=progress)
    if exp_hash is None:
        raise ValueError("verify(step=...) needs exp_hash as well")
    full = root.get_checkpoint(exp_hash, step, revision=revision).name.exp_hash
    names = [
        entry.name
        for entry in root.catalog.checkpoints(full)
        if entry.name.step == step and revision in (None, entry.name.revision)
    ]
    return verify_all(root.store, [], names=names, progress=progress)


def quarantine(
    root: Keeper,
    exp_hash: str,
    *,
    step: int | None = None,
    revision: int | None = None,
    force: bool = False,
) -> list[Path]:
    """Set damaged checkpoints aside in `checkpoints/.quarantine/`; nothing is deleted.

    Each is verified again first; one that is whole, or that could only not be read, stays.
    Killed in the middle, a checkpoint is in its place or whole in the quarantine.

    Args:
        exp_hash: hash or prefix.
        step: only this step; by default every damaged checkpoint of the experiment.
        revision: only this revision; by default the damaged ones of the step.
        force: move the given revision (by default the highest) whatever its state is.
    Returns: the folders that were made; `why.json` in each says what was found.
    Raises: CheckpointNotFoundError; CheckpointError if the given step is not damaged;
        ReadOnlyStoreError, LockedError, StorageError.
    """
    refuse_read_only(root, "set a checkpoint aside")
    if step is None and (revision is not None or force):
        raise ValueError("quarantine(revision=..., force=...) needs step as well")
    if step is not None and force:
        chosen = [root.get_checkpoint(exp_hash, step, revision=revision).name]
    else:
        found = verify(root, exp_hash, step=step, revision=revision)
        chosen = [
            layout.CheckpointName(exp_hash=h, step=s, revision=r) for h, s, r in found.damaged
        ]
        if step is not None and not chosen:  # raises with the reason
            chosen = [root.get_checkpoint(exp_hash, step, revision=revision).name]
    return [_set_aside(root, name, force=force) for name in chosen]


def _set_aside(root: Keeper, name: layout.CheckpointName, *, force: bool) -> Path:
    folder = quarantine_checkpoint(
        root.store, name, now=root.clock(), reason="on request" if force else None
    )
    record_event(
        root,
        "checkpoint_quarantined",
        exp_hash=name.exp_hash,
        step=name.step,
        revision=name.revision,
        folder=folder,
    )
    return root.path / folder
