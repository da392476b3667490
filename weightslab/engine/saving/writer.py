"""The writer: commits a snapshot as a checkpoint and tells the journal. Free of torch."""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from weightslab import __version__
from weightslab.engine.errors import StorageError
from weightslab.engine.repository.commit import commit_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from weightslab.engine.repository.catalog import Catalog
    from weightslab.engine.repository.commit import Draft
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.journal import LocalJournal
    from weightslab.engine.storage.store import Store

__all__ = ["Place", "library_versions", "record_event", "write_checkpoint", "write_or_find"]

logger = logging.getLogger(__name__)
_LIBRARIES = ("torch", "numpy", "safetensors")


class Place(Protocol):
    """What a writer needs of a root."""

    @property
    def store(self) -> Store: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def journal(self) -> LocalJournal: ...

    @property
    def clock(self) -> Callable[[], datetime]: ...


def write_checkpoint(place: Place, draft: Draft) -> Manifest:
    """Commit `draft`; on disk on return.

    Raises: StorageError and its kinds. Nothing that was committed before is touched.
    """
    return write_or_find(place, draft)[0]


def write_or_find(
    place: Place, draft: Draft, *, because: str | None = None
) -> tuple[Manifest, bool]:
    """Commit `draft` unless the newest revision of its step holds the same; on disk on return.

    Args:
        place: where to.
        draft: what to commit.
        because: why; noted in the journal alone, so that the same content stays the same.
    Returns: the manifest, and True if it was written now.
    Raises: StorageError and its kinds. Nothing that was committed before is touched.
    """
    # Catalogs of other processes look at the experiment from here to the line after the commit.
    about: dict[str, Any] = {"exp_hash": draft.exp_hash, "step": draft.step}
    if because is not None:
        about["because"] = because
    record_event(place, "checkpoint_begun", **about)
    try:
        manifest, written = commit_checkpoint(place.store, place.catalog, draft, clock=place.clock)
    except BaseException as error:
        record_event(place, "checkpoint_failed", **about, reason=type(error).__name__)
        raise
    if written:
        record_event(
            place,
            "checkpoint_committed",
            **about,
            revision=manifest.name.revision,
            sequence=manifest.sequence,
            size_bytes=manifest.size_bytes,
            digest=manifest.digest,
        )
    else:
        record_event(place, "checkpoint_unchanged", **about)
    return manifest, written


def record_event(place: Place, event: str, **facts: Any) -> None:
    """Append a line to `logs/events.jsonl`.

    A journal that cannot be written does not undo what was done; it is logged as a warning.
    """
    record: Mapping[str, Any] = {"time": place.clock().isoformat(), "event": event, **facts}
    try:
        place.journal.append(record)
    except StorageError as error:
        logger.warning("the event %s is not in the journal: %s", event, error)


@cache
def library_versions() -> dict[str, str]:
    """Return the versions that a manifest records; read once (3 ms), since they cannot change."""
    from platform import python_version

    found = {"python": python_version(), "weightslab": __version__}
    return found | {name: _version(name) for name in _LIBRARIES}


def _version(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # 30 ms

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
