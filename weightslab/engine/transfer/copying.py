"""Copying: experiments with their lineage from one root into another, without duplicates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.transfer.choice import choose
from weightslab.engine.transfer.moving_in import move_in

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.transfer.report import TransferReport

__all__ = ["copy_to"]


def copy_to(
    root: Keeper,
    target: str | os.PathLike[str] | Keeper,
    *references: str,
    lineage: str = "full",
    links: bool = True,
    dry_run: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> TransferReport:
    """Copy experiments or checkpoints with their lineage into another root, byte for byte.

    Every byte is verified where it then lies. Files whose bytes are in the other root already, or that the
    file system can give a further name there, are linked, not written. A second call adds nothing,
    one that was killed goes on. Nothing is replaced: a checkpoint whose name another one has there is
    a conflict, and stays out. Savers and collections may run in both roots.

    Args:
        target: the other root, open or as a path; created if it is not there.
        references: `3f2a`, an experiment with all its checkpoints; `3f2a@100`, `latest`, ... one
            checkpoint; none: everything in the root.
        lineage: `full`: with the experiments and checkpoints that led to these; `records`: with the
            experiments alone; `none`: as chosen.
        links: False writes every byte, so that no fault of the disk can hit both roots at once.
        dry_run: change nothing and say what would be copied.
        progress: called with bytes done and bytes in all, after each checkpoint.
    Returns: what became of each; `is_complete` is False if something was left out.
    Raises: ValueError if both are one root; ExperimentNotFoundError, CheckpointNotFoundError;
        ReadOnlyStoreError, StorageError if the other root cannot be written to.
    """
    other = _opened(root, target, dry_run=dry_run)
    if other.path.exists() and root.path.exists() and other.path.samefile(root.path):
        raise ValueError(f"{other.path} is the root itself")
    if not dry_run:
        refuse_read_only(other, "copy something there")
    choice = choose(root, references, lineage)
    return move_in(
        root.store,
        other,
        choice,
        source_name=str(root.path),
        links=links,
        dry_run=dry_run,
        progress=progress,
    )


def _opened(root: Keeper, target: Any, *, dry_run: bool) -> Keeper:
    if hasattr(target, "store"):
        found: Keeper = target
        return found
    made: Keeper = type(root)(target, read_only=dry_run, must_exist=False, clock=root.clock)  # type: ignore[call-arg]
    return made
