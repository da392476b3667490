"""Facts: what a plan knows of each checkpoint, gathered by somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.values import ParentLink

__all__ = ["Candidate", "Child", "FileFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """One file of a checkpoint, by the bytes it shares with others.

    Attributes:
        key: its name in the root.
        size_bytes: its length.
        identity: (device, inode); equal for two keys that are links to the same bytes.
        num_links: how many names these bytes have in all, also outside of what is planned; 1 says that
            no other file shares them.
        is_training: it holds training state alone, so that it goes when the checkpoint is thinned.
    """

    key: str
    size_bytes: int
    identity: tuple[int, int]
    num_links: int = 1
    is_training: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One committed checkpoint that a plan decides about.

    Attributes:
        entry: as the catalog lists it.
        files: its tensor files; bytes are counted by these.
        derived_from: digest of the revision that it was thinned from, None for others.
        is_pinned: a pin in the notes says that it stays.
        untouchable: why nothing of it may be changed (notes that cannot be read, ...); None if it may.
        damaged: why it cannot be used; it then counts as kept by nobody and is left where it is.
    """

    entry: CheckpointEntry
    files: tuple[FileFacts, ...] = ()
    derived_from: str | None = None
    is_pinned: bool = False
    untouchable: str | None = None
    damaged: str | None = None

    @property
    def has_training(self) -> bool:
        """It holds training state."""
        return "training" in self.entry.parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A checkpoint outside of what is planned, by what it says of its origin: it stays as it is.

    Attributes:
        exp_hash: its experiment.
        parent: where its weights came from.
    """

    exp_hash: str
    parent: ParentLink
