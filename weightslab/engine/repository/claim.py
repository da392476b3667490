"""The claim: one revision is had alone, so that it can be deleted, moved or replaced.

Its hold keeps writers away. The lock on its manifest, which a reader shares from the moment it reads
the manifest until it has everything, tells whether somebody is reading it. Neither waits.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from weightslab.engine.errors import CheckpointNotFoundError, LockedError, ObjectNotFoundError
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.storage.store import ForeignFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Hold, Store

__all__ = ["claimed", "held", "reading", "unread"]


@contextmanager
def reading(store: Store, name: CheckpointName) -> Iterator[Manifest]:
    """Yield the manifest of a checkpoint that stays where it is until the block ends.

    Writes nothing. Any number of readers share a checkpoint; the system forgets those that die. On a
    file system without locks nothing is kept; the files that are open then stay readable all the same.

    Raises: CheckpointNotFoundError; LockedError if it is being deleted or moved; IntegrityError,
        FormatError.
    """
    try:
        lock = store.hold(name.manifest_key, mode="read")
    except ObjectNotFoundError as error:
        raise _absent(name) from error
    if lock is None:
        raise LockedError(
            f"{name.stem} is being deleted or moved by another process",
            hint="load it again, or another one",
        )
    with lock:
        yield read_manifest(store, name)


@contextmanager
def claimed(store: Store, name: CheckpointName) -> Iterator[None]:
    """Have a revision alone while the block runs: nobody writes, deletes or reads it.

    Raises: CheckpointNotFoundError; LockedError if it is being written, deleted or read.
    """
    with held(store, name), unread(store, name):
        yield


@contextmanager
def held(store: Store, name: CheckpointName) -> Iterator[None]:
    """Hold the name of a revision while the block runs, whether it is there or not.

    Raises: LockedError if somebody else holds it.
    """
    hold = store.hold(name.pending_key)
    if hold is None:
        raise LockedError(f"{name.stem} is being written or deleted by another process")
    with hold:
        yield


@contextmanager
def unread(store: Store, name: CheckpointName) -> Iterator[None]:
    """Keep readers away from a checkpoint, which the caller holds, while the block runs.

    Raises: CheckpointNotFoundError; LockedError if it is being read.
    """
    lock = _alone(store, name)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _alone(store: Store, name: CheckpointName) -> Hold | None:
    try:
        lock = store.hold(name.manifest_key, mode="alone")
    except ObjectNotFoundError as error:
        raise _absent(name) from error
    except ForeignFileError:
        return None  # a link or a pipe in the place of a manifest: no reader takes it for one
    if lock is None:
        raise LockedError(f"{name.stem} is being read", hint="try again once it is loaded")
    return lock


def _absent(name: CheckpointName) -> CheckpointNotFoundError:
    return CheckpointNotFoundError(f"no checkpoint {name.stem}", context={"key": name.manifest_key})
