"""Deleting: a step, a revision or a whole experiment goes at once, unless it is pinned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.errors import PinnedError, StorageError
from weightslab.engine.repository import layout
from weightslab.engine.repository.commit import (
    delete_checkpoint,
    refuse_living_writers,
    remove_leftovers,
)
from weightslab.engine.repository.notes import read_notes
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.notes import ExperimentNotes
    from weightslab.engine.storage.local import LocalStore

__all__ = ["chosen_revisions", "delete", "refuse_pinned"]


def delete(
    root: Keeper,
    exp_hash: str,
    *,
    step: int | None = None,
    revision: int | None = None,
    force: bool = False,
) -> list[str]:
    """Delete one step (all revisions, or the given one), or a whole experiment, at once and for good.

    Killed in the middle, what is left is whole: each checkpoint is there or not there.
    `root.trash.put` moves a step to the trash instead, from where it can be had back.

    Args:
        exp_hash: hash or prefix.
        step: only this step; by default the whole experiment, notes included.
        revision: only this revision of the step.
        force: delete what is pinned, too.
    Returns: the names of the deleted checkpoints.
    Raises: PinnedError if one of them is pinned: nothing was deleted; ExperimentNotFoundError,
        CheckpointNotFoundError, ReadOnlyStoreError; LockedError if one is being written or read.
    """
    if step is None and revision is not None:
        raise ValueError("delete(revision=...) needs step as well")
    refuse_read_only(root, "delete")
    full = root.get_hash(exp_hash)
    if step is None:
        refuse_living_writers(root.store, full)
        names = [entry.name for entry in root.catalog.checkpoints(full)]
    else:
        names = chosen_revisions(root, full, step, revision)
    if not force:
        refuse_pinned(read_notes(root.store, full), names, is_whole=step is None)
    for name in names:
        delete_checkpoint(root.store, name)
        record_event(
            root,
            "checkpoint_deleted",
            exp_hash=full,
            step=name.step,
            revision=name.revision,
        )
    if step is None:
        _delete_folder(root.store, full)
        record_event(root, "experiment_deleted", exp_hash=full)
    return [name.stem for name in names]


def chosen_revisions(
    root: Keeper, exp_hash: str, step: int, revision: int | None
) -> list[CheckpointName]:
    """Return all revisions of a step, or the given one.

    Raises: CheckpointNotFoundError.
    """
    full = root.get_checkpoint(exp_hash, step, revision=revision).name.exp_hash
    names = (entry.name for entry in root.catalog.checkpoints(full))
    return [n for n in names if n.step == step and revision in (None, n.revision)]


def refuse_pinned(
    notes: ExperimentNotes, names: Sequence[CheckpointName], *, is_whole: bool = False
) -> None:
    """Raise if one of the checkpoints is pinned, or, with `is_whole`, anything in the experiment.

    Raises: PinnedError that says how to unpin it.
    """
    pinned = [name.stem for name in names if notes.is_pinned(name)]
    if is_whole and not pinned and (notes.pins or not notes.is_certain):
        pinned = [notes.exp_hash]
    if not pinned:
        return
    what = f"{pinned[0]}{f' and {len(pinned) - 1} more' if len(pinned) > 1 else ''}"
    if not notes.is_certain:
        raise PinnedError(
            f"{what} may be pinned, as a note cannot be read: {notes.damaged[0]}",
            hint="remove that file if you can do without it, or pass force=True",
        )
    raise PinnedError(
        f"{what} is pinned",
        hint="root.unpin(...) takes the pin back; force=True deletes it as it is",
    )


def _delete_folder(store: LocalStore, exp_hash: str) -> None:
    """Delete what is left of an experiment: leftovers, then the record, then its files.

    Files of checkpoints are not touched here: what is left of them by now belongs to a writer
    that came meanwhile.
    """
    folder = layout.experiment_folder(exp_hash)
    remove_leftovers(store, exp_hash)
    store.delete(layout.experiment_key(exp_hash))
    store.sync(folder)
    for part in ("model/", "hp/", "data/", "notes/", "provenance/", ""):
        for name in store.list(folder + part):
            if not name.endswith("/") and layout.parse_checkpoint_file(name) is None:
                store.delete(folder + part + name)
        store.sweep(folder + part)
        store.delete(folder + part)
    store.sync(layout.CHECKPOINTS)
    if store.stat(folder) is not None:
        raise StorageError(
            f"the experiment {exp_hash} is deleted, but {folder} is not empty",
            hint="another process writes into it, or it holds folders of yours",
        )
