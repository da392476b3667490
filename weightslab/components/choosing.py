"""Choosing: which checkpoint a load takes, and what is said about those it passes over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from weightslab.components import advising
from weightslab.engine.errors import (
    CheckpointNotFoundError,
    FormatError,
    IntegrityError,
    StorageError,
)
from weightslab.engine.saving.writer import record_event

if TYPE_CHECKING:
    from weightslab.engine.errors import CheckpointError
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.root import CheckpointRoot

__all__ = ["PASSED_OVER", "candidates", "find_hash", "skip"]

logger = logging.getLogger(__name__)

# why the next older checkpoint is tried; not found: deleted since it was listed
PASSED_OVER: Final = (IntegrityError, StorageError, FormatError, CheckpointNotFoundError)


def find_hash(root: CheckpointRoot, exp_hash: str | None, current: str | None) -> str | None:
    """Return the experiment a load is about: the one named, else the current one, else the one of
    the newest checkpoint; None in a root without checkpoints.
    """
    if exp_hash is not None:
        return exp_hash
    if current is not None:
        return current
    newest = root.catalog.latest()
    return None if newest is None else newest.name.exp_hash


def candidates(
    root: CheckpointRoot, exp_hash: str | None, current: str | None
) -> list[CheckpointEntry]:
    """Return the checkpoints to try, newest first.

    Those with a damaged manifest come first of all: where they stood is unknown, so each may have
    been the newest, and the caller has to say that it was passed over.
    """
    wanted = find_hash(root, exp_hash, current)
    if wanted is None or (exp_hash is None and root.catalog.experiment(wanted) is None):
        return []  # another rank may be about to begin the current experiment
    entries = root.catalog.checkpoints(root.get_hash(wanted))
    if not entries:
        advising.warn_no_checkpoints(root, root.get_hash(wanted))
    damaged = [e for e in entries if e.damaged is not None]
    return damaged + [e for e in reversed(entries) if e.damaged is None]


def skip(
    root: CheckpointRoot, entry: CheckpointEntry, error: CheckpointError, *, record: bool
) -> dict[str, Any]:
    """Say that a damaged checkpoint is passed over; returns what the caller is told of it."""
    name = entry.name
    logger.warning("skipping the damaged checkpoint %s: %s", name.stem, error)
    facts = {"step": name.step, "revision": name.revision, "reason": str(error)}
    if record and not root.read_only:
        record_event(root, "checkpoint_skipped", exp_hash=name.exp_hash, **facts)
    return facts | {"name": name.stem}
