"""Trashing: deleting with a way back, thinning, and the way back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from weightslab.engine.care.deleting import chosen_revisions, refuse_pinned
from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.repository.notes import read_notes
from weightslab.engine.repository.thinning import thin_checkpoint
from weightslab.engine.repository.trash import (
    LIFETIME,
    TrashEntry,
    empty_trash,
    find_trashed,
    list_trash,
    restore_trashed,
    trash_checkpoint,
)
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest

__all__ = ["RootTrash", "restore", "thin"]


class RootTrash:
    """The trash of a root, as `root.trash`."""

    def __init__(self, root: Keeper) -> None:
        self._root = root

    def list(self) -> list[TrashEntry]:
        """Return what is in the trash, oldest first. O(entries)."""
        return list_trash(self._root.store)

    def put(
        self,
        exp_hash: str,
        step: int,
        *,
        revision: int | None = None,
        reason: str = "on request",
        force: bool = False,
    ) -> builtins.list[str]:
        """Move one step (all revisions, or the given one) to the trash.

        Killed anywhere, each revision is in its place or whole in the trash.

        Args:
            exp_hash: hash or prefix.
            step: the step.
            revision: only this revision.
            reason: why, for people.
            force: move what is pinned, too.
        Returns: the names of the checkpoints that were moved; `restore` takes them.
        Raises: PinnedError if one of them is pinned: nothing was moved; ExperimentNotFoundError,
            CheckpointNotFoundError, ReadOnlyStoreError; LockedError if one is being written or read.
        """
        root = self._root
        refuse_read_only(root, "move a checkpoint to the trash")
        names = chosen_revisions(root, exp_hash, step, revision)
        if not force:
            refuse_pinned(read_notes(root.store, names[0].exp_hash), names)
        for name in names:
            trash_checkpoint(root.store, name, now=root.clock(), reason=reason)
            record_event(root, "checkpoint_trashed", **_about(name), reason=reason)
        return [name.stem for name in names]

    def restore(self, wanted: TrashEntry | CheckpointName | str) -> CheckpointName:
        """Put a checkpoint back into its place, see `root.restore`."""
        return restore(self._root, wanted)

    def empty(
        self, *, older_than: timedelta = LIFETIME, damaged: bool = False
    ) -> builtins.list[TrashEntry]:
        """Delete for good what has been in the trash for some time.

        Args:
            older_than: how long at least; `timedelta(0)` deletes everything.
            damaged: delete also entries with a damaged note, of which the time is not known.
        Returns: what was deleted.
        Raises: ReadOnlyStoreError, StorageError.
        """
        root = self._root
        refuse_read_only(root, "empty the trash")
        entries = empty_trash(root.store, before=root.clock() - older_than, damaged=damaged)
        size_bytes = sum(entry.size_bytes for entry in entries)
        record_event(root, "trash_emptied", num_checkpoints=len(entries), size_bytes=size_bytes)
        return entries


def restore(root: Keeper, wanted: TrashEntry | CheckpointName | str) -> CheckpointName:
    """Put a checkpoint from the trash back into its place, as it was, with its sequence and parent.

    If it was thinned, the thin revision that was made from it goes; all that it holds is in this one.
    Killed anywhere, it is in the trash or in its place, and a second call goes on.

    Args:
        wanted: an entry of `root.trash.list()`; or the name of a checkpoint, such as
            `3f2a9c1b00d14e77_step_000100`: of several the one that was trashed last.
    Raises: ObjectNotFoundError if it is not in the trash; ExperimentNotFoundError if its experiment is
        gone; AlreadyExistsError if its name was taken meanwhile; LockedError; IntegrityError,
        FormatError if it is not whole; ReadOnlyStoreError, StorageError. It then is in the trash
        as before.
    """
    refuse_read_only(root, "restore a checkpoint")
    entry = find_trashed(root.store, wanted)
    with _commit(root, entry.name):
        name = restore_trashed(root.store, entry)
        record_event(root, "checkpoint_restored", **_about(name))
    return name


def thin(
    root: Keeper,
    name: CheckpointName,
    *,
    allow: Callable[[CheckpointName], object] | None = None,
    mark: str = "",
) -> Manifest:
    """Replace a checkpoint by one without optimizer state, see `thin_checkpoint`."""
    with _commit(root, name):
        manifest = thin_checkpoint(
            root.store, root.catalog, name, clock=root.clock, allow=allow, mark=mark
        )
        record_event(
            root,
            "checkpoint_thinned",
            **_about(manifest.name),
            size_bytes=manifest.size_bytes,
            derived_from=manifest.derived_from,
        )
    return manifest


@contextmanager
def _commit(root: Keeper, name: CheckpointName) -> Iterator[None]:
    """Tell the catalogs of other processes that a manifest may appear until a further line."""
    about: dict[str, Any] = {"exp_hash": name.exp_hash, "step": name.step}
    record_event(root, "checkpoint_begun", **about)
    try:
        yield
    except BaseException as error:
        record_event(root, "checkpoint_failed", **about, reason=type(error).__name__)
        raise


def _about(name: CheckpointName) -> dict[str, Any]:
    return {"exp_hash": name.exp_hash, "step": name.step, "revision": name.revision}
