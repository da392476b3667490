"""The session: what one manager works with and on, and what it may do now."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from weightslab.components.advising import Advice
from weightslab.components.live_objects import LiveObjects, named_models
from weightslab.components.retaining import Retainer
from weightslab.components.saving import CheckpointSaver
from weightslab.components.tracking import Tracking
from weightslab.engine.errors import (
    ExperimentNotFoundError,
    LockedError,
    ReadOnlyStoreError,
    StorageError,
)
from weightslab.engine.identity.wrappers import unwrap
from weightslab.engine.provenance.recording import record_provenance
from weightslab.engine.repository.metric_lines import METRICS_FILE
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.ancestry import Ancestry
from weightslab.engine.saving.loop import LoopProgress
from weightslab.engine.storage.append_log import AppendLog

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from weightslab.components.identifying import Identification
    from weightslab.engine.retention.rules import Retention
    from weightslab.engine.saving.trail import Trail
    from weightslab.engine.values import ParentLink

__all__ = ["Session", "is_writer", "unwrapped", "world_of"]

logger = logging.getLogger(__name__)


class Session:
    """The root, the live objects and the current experiment of a manager.

    Args:
        path: the root.
        read_only: write nothing.
        async_save: save in the background.
        exclude: config keys that do not count.
        libraries: packages that count as libraries besides the list.
        queue_depth: snapshots under way at once.
        retention: what to keep after each save; None keeps everything.
    Attributes:
        root: the root; read-only too on ranks above 0.
        live: the objects given or registered.
        tracking: what else belongs to the training.
        ancestry: where their weights come from.
        progress: how far the training loop is, and what of it is saved.
        metrics_log: where `log_metrics` writes.
        saver: commits drafts.
        advise: logs each advice once.
        current: the experiment that saves go to; None before the first.
        current_hash: its hash.
        exclude: config keys that do not count.
        read_only: what the user asked for.
        replay: takes the steps that are taken again to be compared; None: steps count.
        is_closed: `close` was called.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool,
        async_save: bool,
        exclude: Sequence[str],
        libraries: frozenset[str] = frozenset(),
        queue_depth: int,
        retention: Retention | None = None,
    ) -> None:
        self.root = CheckpointRoot(
            path, read_only=read_only or not is_writer(), must_exist=is_writer()
        )
        self.read_only = read_only
        self.exclude = tuple(exclude)
        self.libraries = libraries
        self.live = LiveObjects()
        self.tracking = Tracking()
        self.ancestry = Ancestry(str(self.root.path))
        if retention is not None:
            self.root.retention = retention
        self.progress = LoopProgress(time.monotonic)
        self.metrics_log = AppendLog(self.root.path / METRICS_FILE, clock=time.monotonic)
        self.saver = CheckpointSaver(
            self.root,
            self.ancestry,
            self.progress,
            before_commit=self._sync_metrics,
            in_background=async_save,
            queue_depth=queue_depth,
            retain=None if retention is None else Retainer(self.root, retention),
        )
        self.advise = Advice()
        self.current: Identification | None = None
        self.current_hash: str | None = None
        self.replay: Trail | None = None
        self._pid = os.getpid()
        self.is_closed = False

    # ------------------------------------------------------------ life
    def close(self) -> None:
        """End the use; idempotent.

        Raises: AsyncSaveError if a save in the background failed.
        """
        self.is_closed = True
        if os.getpid() == self._pid:
            try:
                self.saver.close()
            finally:
                self.metrics_log.close()

    def _sync_metrics(self) -> None:
        """Have the metrics up to a checkpoint on disk before it; it is worth more than they are."""
        try:
            self.metrics_log.sync()
        except StorageError as error:
            logger.warning("the metrics logged last may be lost: %s", error)

    def check_open(self, *, wait: bool = True) -> None:
        """Raise unless the manager can be used; wait for what is saved in the background.

        Raises: LockedError; AsyncSaveError if a save in the background failed.
        """
        if os.getpid() != self._pid:
            raise LockedError(
                "this manager belongs to the process that forked this one",
                hint="make a CheckpointManagerV2 of its own in the child",
            )
        if self.is_closed:
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
    def record_provenance(self, exp_hash: str) -> None:
        """Write where this session comes from beside an experiment; what fails is told once."""
        problem = record_provenance(self.root.store, exp_hash, clock=self.root.clock)
        if problem is not None:
            self.advise(problem)

    def enter(self, found: Identification, link: ParentLink | None) -> None:
        """Make `found` the current experiment.

        Args:
            found: its identity.
            link: where the weights of the model came from, if the caller stated it.
        """
        self.current, self.current_hash = found, found.exp_hash
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
    return world_of()[0] == 0


def world_of() -> tuple[int, int]:
    """Return rank and world size of torch.distributed; 0 and 1 without."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def unwrapped(model: Any) -> list[Any]:
    """Return the module objects of a model, or of a dict of models, without wrappers."""
    return [unwrap(module) for module in named_models(model).values()]
