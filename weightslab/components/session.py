"""The session: what one manager works with and on, and what it may do now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from weightslab.components.advising import Advice
from weightslab.components.live_objects import LiveObjects, named_models
from weightslab.components.retaining import Retainer
from weightslab.components.saving import CheckpointSaver
from weightslab.engine.errors import ExperimentNotFoundError, LockedError, ReadOnlyStoreError
from weightslab.engine.identity.wrappers import unwrap
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.ancestry import Ancestry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weightslab.components.identifying import Identification
    from weightslab.engine.retention.rules import Retention
    from weightslab.engine.values import ParentLink

__all__ = ["Session", "is_writer", "unwrapped"]


class Session:
    """The root, the live objects and the current experiment of a manager.

    Args:
        path: the root.
        read_only: write nothing.
        async_save: save in the background.
        exclude: config keys that do not count.
        queue_depth: snapshots under way at once.
        retention: what to keep after each save; None keeps everything.
    Attributes:
        root: the root; read-only too on ranks above 0.
        live: the objects given or registered.
        ancestry: where their weights come from.
        saver: commits drafts.
        advise: logs each advice once.
        current: the experiment that saves go to; None before the first.
        exclude: config keys that do not count.
        read_only: what the user asked for.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        async_save: bool,
        exclude: Sequence[str],
        queue_depth: int,
        retention: Retention | None = None,
    ) -> None:
        self.root = CheckpointRoot(
            path, read_only=read_only or not is_writer(), must_exist=is_writer()
        )
        self.read_only = read_only
        self.exclude = tuple(exclude)
        self.live = LiveObjects()
        self.ancestry = Ancestry(str(self.root.path))
        if retention is not None:
            self.root.retention = retention
        self.saver = CheckpointSaver(
            self.root,
            self.ancestry,
            in_background=async_save,
            queue_depth=queue_depth,
            retain=None if retention is None else Retainer(self.root, retention),
        )
        self.advise = Advice()
        self.current: Identification | None = None
        self._pid = os.getpid()
        self._closed = False

    # ------------------------------------------------------------ life
    def close(self) -> None:
        """End the use; idempotent.

        Raises: AsyncSaveError if a save in the background failed.
        """
        self._closed = True
        if os.getpid() == self._pid:
            self.saver.close()

    def check_open(self, *, wait: bool = True) -> None:
        """Raise unless the manager can be used; wait for what is saved in the background.

        Raises: LockedError; AsyncSaveError if a save in the background failed.
        """
        if os.getpid() != self._pid:
            raise LockedError(
                "this manager belongs to the process that forked this one",
                hint="make a CheckpointManagerV2 of its own in the child",
            )
        if self._closed:
            raise LockedError("this manager is closed", hint="make a new CheckpointManagerV2")
        if wait:
            self.saver.wait()  # so that everything sees what was saved before

    def check_writable(self, action: str, *, wait: bool = True) -> None:
        """Raise unless the manager can be used for `action`, which writes.

        Raises: ReadOnlyStoreError; as `check_open`.
        """
        self.check_open(wait=wait)
        if self.read_only:
            raise ReadOnlyStoreError(
                f"cannot {action}: {self.root.path} was opened with read_only=True",
                hint="open it without read_only to change it",
            )

    # ------------------------------------------------------------ the current experiment
    @property
    def current_hash(self) -> str | None:
        """Hash of the current experiment; None before the first."""
        return None if self.current is None else self.current.exp_hash

    def enter(self, found: Identification, link: ParentLink | None) -> None:
        """Make `found` the current experiment.

        Args:
            found: its identity.
            link: where the weights of the model came from, if the caller stated it.
        """
        self.current = found
        self.ancestry.enter(found.exp_hash)
        model = self.live.last_model()
        if model is not None:
            modules = unwrapped(model)
            self.ancestry.meet(modules)
            if link is not None:
                self.ancestry.declare(modules, link)

    def get_current(self, action: str) -> Identification:
        """Return the current experiment.

        Raises: ExperimentNotFoundError if there is none.
        """
        if self.current is None:
            raise ExperimentNotFoundError(
                f"cannot {action}: no experiment is current",
                hint="call update_experiment_hash(model=..., config=..., active_data_uids=...) first",
            )
        return self.current

    def wanted(self, exp_hash: str | None, action: str) -> str:
        """Return the experiment a question is about: the one named, the current, or the only one.

        Raises: ExperimentNotFoundError.
        """
        if exp_hash is not None:
            return exp_hash
        if self.current_hash is not None:
            return self.current_hash
        hashes = self.root.list_hashes()
        if len(hashes) == 1:
            return hashes[0]
        raise ExperimentNotFoundError(
            f"cannot {action}: no experiment is current and the root has {len(hashes)}",
            hint="pass exp_hash=",
        )

    def path(self, key: str) -> Path:
        """Return where a key lies."""
        return self.root.path / key


def is_writer() -> bool:
    """Tell whether this process writes: always, except ranks above 0 of torch.distributed."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() != 0)


def unwrapped(model: Any) -> list[Any]:
    """Return the module objects of a model, or of a dict of models, without wrappers."""
    return [unwrap(module) for module in named_models(model).values()]
