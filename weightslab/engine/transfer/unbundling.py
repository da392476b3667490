"""Unbundling: what is in a bundle becomes part of a root, after every byte of it was verified."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from weightslab.engine.care.keeper import refuse_read_only
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.transfer.bundle_file import check_bundle, open_bundle
from weightslab.engine.transfer.choice import Choice
from weightslab.engine.transfer.moving_in import move_in

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.transfer.report import TransferReport

__all__ = ["unbundle"]


def unbundle(
    root: Keeper,
    path: str | os.PathLike[str],
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> TransferReport:
    """Take in what `bundle` wrote: experiments, checkpoints, notes, byte for byte as they were.

    Every byte of the file is verified before anything appears, and again where it then lies. What is here
    already is not written again, so a second call adds nothing, and one that was killed goes on.
    Nothing is replaced: a checkpoint whose name another one has is a conflict, and stays out.

    Args:
        path: the bundle.
        dry_run: verify it and say what would come.
        progress: called with bytes done and bytes in all: first while the file is verified, then while
            checkpoints are taken.
    Returns: what became of each; `is_complete` is False if something was left out.
    Raises: ObjectNotFoundError; TruncatedError, DigestMismatchError naming what is damaged; FormatError
        for anything that is no bundle, hostile ones included; ReadOnlyStoreError. Nothing was taken
        then.
    """
    if not dry_run:
        refuse_read_only(root, "take in a bundle")
    source = Path(path).absolute().resolve()  # a link to a bundle will do
    data = LocalStore(source.parent, read_only=True).map(source.name)
    listed, store = open_bundle(data, source.name)
    check_bundle(listed, store, progress)
    choice = Choice(
        checkpoints=listed.checkpoints, whole=listed.whole, gaps=listed.gaps, lineage=listed.lineage
    )
    return move_in(store, root, choice, source_name=str(source), dry_run=dry_run, progress=progress)
