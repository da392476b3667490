"""What the verbs of care need of a root."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from weightslab.engine.errors import ReadOnlyStoreError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from weightslab.engine.repository.catalog import Catalog, CheckpointEntry, ExperimentEntry
    from weightslab.engine.storage.journal import LocalJournal
    from weightslab.engine.storage.local import LocalStore

__all__ = ["Keeper", "refuse_read_only"]


class Keeper(Protocol):
    """A root: where it is, what it is made of, and how a question finds what it is about."""

    path: Path
    read_only: bool
    clock: Callable[[], datetime]
    store: LocalStore
    catalog: Catalog
    journal: LocalJournal

    def list_hashes(self) -> list[str]:
        """Return the hashes of all experiments, oldest first."""
        ...

    def get_hash(self, prefix: str) -> str:
        """Return the full hash that starts with `prefix`."""
        ...

    def get_experiment(self, exp_hash: str) -> ExperimentEntry:
        """Return an experiment by hash or prefix."""
        ...

    def at(self, reference: str) -> CheckpointEntry:
        """Return the checkpoint that a reference names."""
        ...

    def get_checkpoint(
        self, exp_hash: str, step: int, *, revision: int | None = None
    ) -> CheckpointEntry:
        """Return the checkpoint of a step: the given revision, else the highest."""
        ...


def refuse_read_only(root: Keeper, action: str) -> None:
    """Raise if a root was opened for reading.

    Raises: ReadOnlyStoreError that says what cannot be done.
    """
    if root.read_only:
        raise ReadOnlyStoreError(
            f"cannot {action}: {root.path} was opened with read_only=True",
            hint="open it without read_only to change it",
        )
