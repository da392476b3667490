"""What a format finds in a source: experiments, and checkpoints that can be read one by one.

A format is a module with a `FORMAT`. It looks at names and small files when it is asked what is
there, and reads tensors only when a checkpoint is loaded. Nothing of a source is ever changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import torch

    from weightslab.formats.held import HeldFile

__all__ = ["Format", "Reader", "Source", "SourceCheckpoint", "SourceExperiment", "SourceState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """The content of one checkpoint.

    Attributes:
        models: name -> state_dict key -> tensor; the name is `""` where there is one model. Tensors may
            look at the files that were held; they are written before these are let go.
        extra: name of the model -> key -> entry of its state_dict that is no tensor.
        optimizers: name -> `state_dict()` of an optimizer.
        schedulers: name -> `state_dict()` of a scheduler, scaler or anything that is stateful.
        step: optimizer steps, where only the content knows; None leaves that of the listing.
        epoch: as the source counts; None if it does not say.
        metrics: name -> number.
        metadata: plain JSON values that the source has beside it.
        config: hyperparameters that only the content knows; None if there are none.
        name: what people call the experiment, where only the content knows.
        random: tree of random generators, as `random_tree` returns it; None if there is none.
        world_size: processes that trained together.
        omitted: what was left out and why, a line each: `callbacks: of lightning, not read`.
        damaged: parts that should be there and cannot be used, and why, a line each; the import is
            not complete then.
    """

    models: Mapping[str, Mapping[str, torch.Tensor]]
    extra: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    optimizers: Mapping[str, Any] = field(default_factory=dict)
    schedulers: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    epoch: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    name: str | None = None
    random: Mapping[str, Any] | None = None
    world_size: int = 1
    omitted: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


class Reader(Protocol):
    """What a format gets to read a checkpoint with."""

    @property
    def trust(self) -> bool:
        """True if the caller allows pickles to run code."""
        ...

    def hold(self, path: Path) -> HeldFile:
        """Return the bytes of a file as they are now; they count into the digest of the checkpoint.

        Raises: NotFoundError, SourceChangedError, StorageError.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCheckpoint:
    """One checkpoint of a source.

    Attributes:
        key: its name within the source, stable when the source moves: a relative path, an id.
        experiment: key of its experiment.
        files: all its files, in a fixed order.
        load: reads it.
        step: optimizer steps; None where only the content knows, or nothing does.
        step_is: what the number in `step` counts.
        parent: key of the checkpoint that it was trained from; None if the source does not say.
        is_first: True where the source says that it has no parent.
        created_at: aware time, None if the source does not say.
    """

    key: str
    experiment: str
    files: tuple[Path, ...]
    load: Callable[[Reader], SourceState]
    step: int | None = None
    step_is: str = "optimizer steps"
    parent: str | None = None
    is_first: bool = False
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceExperiment:
    """Checkpoints of a source that share config and data.

    Attributes:
        key: its name within the source.
        identity: what tells it from unrelated ones wherever the source lies (a UUID, a hash of the other
            system); empty where the source has no such thing, and the content of its first checkpoint
            serves.
        config: hyperparameters; None if the source does not say.
        uids: active samples; None if the source does not say.
        discarded: samples that are known and not active.
        name: what people call it.
        notes: texts that people wrote.
        metadata: plain JSON values for its provenance.
    """

    key: str
    identity: str = ""
    config: Mapping[str, Any] | None = None
    uids: Iterable[Any] | None = None
    discarded: Iterable[Any] = ()
    name: str | None = None
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a format found at a place.

    Attributes:
        format: name of the format.
        path: the place.
        experiments: oldest first where that is known.
        checkpoints: parents before children, else in the order of their steps.
        problems: what is named there and cannot be used, and why: (key, reason).
        claimed: files and folders at the place and below that belong to it, read or not; in what is
            left, other formats look for theirs. None if all belongs to it.
    """

    format: str
    path: Path
    experiments: Sequence[SourceExperiment]
    checkpoints: Sequence[SourceCheckpoint]
    problems: Sequence[tuple[str, str]] = ()
    claimed: frozenset[Path] | None = None


class Format(Protocol):
    """One foreign layout."""

    @property
    def name(self) -> str:
        """Short name, as `import --format` takes it."""
        ...

    def recognises(self, path: Path) -> bool:
        """Tell, from names and the first bytes, whether `path` is of this format."""
        ...

    def open(self, path: Path) -> Source:
        """Say what is there, without reading tensors.

        Raises: FormatError, StorageError.
        """
        ...
