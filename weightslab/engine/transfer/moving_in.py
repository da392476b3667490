"""Moving in: a choice of experiments of one store becomes part of a root; what cannot be is told."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    CheckpointNotFoundError,
    LockedError,
)
from weightslab.engine.repository import layout
from weightslab.engine.repository.arriving import Arrival
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.saving.writer import record_event
from weightslab.engine.transfer.report import (
    TransferredCheckpoint,
    TransferredExperiment,
    TransferReport,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from weightslab.engine.care.keeper import Keeper
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.storage.store import Store
    from weightslab.engine.transfer.choice import Choice

__all__ = ["move_in"]


def move_in(
    source: Store,
    root: Keeper,
    choice: Choice,
    *,
    source_name: str,
    links: bool = True,
    dry_run: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> TransferReport:
    """Have what was chosen in a root; each experiment and each checkpoint whole, or not at all.

    Args:
        source: where it is.
        root: where it goes; of no meaning but to read from with `dry_run`.
        choice: what goes.
        source_name: for the report and the journal.
        links: see `Arrival`.
        dry_run: write nothing.
        progress: called with bytes done and bytes in all, after each checkpoint.
    Raises: nothing for what cannot be taken: it is in the report.
    """
    mover = _Mover(source, root, choice, source_name, links=links, dry_run=dry_run)
    mover.run(progress)
    return mover.report()


class _Mover:
    def __init__(
        self,
        source: Store,
        root: Keeper,
        choice: Choice,
        source_name: str,
        *,
        links: bool,
        dry_run: bool,
    ) -> None:
        self._source, self._root, self._choice = source, root, choice
        self._source_name, self._dry_run = source_name, dry_run
        self._arrival = Arrival(source, root.store, root.catalog, links=links, around=self._told)
        self._experiments: dict[str, TransferredExperiment] = {}
        self._checkpoints: dict[CheckpointName, TransferredCheckpoint] = {}

    def run(self, progress: Callable[[int, int], object] | None) -> None:
        sizes = {name: self._size_of(name) for name in self._choice.names}
        total, done = sum(sizes.values()), 0
        for exp_hash, names in self._choice.checkpoints.items():
            self._experiments[exp_hash] = self._take_experiment(exp_hash)
            for name in names:
                self._checkpoints[name] = self._take_checkpoint(name, sizes[name])
                done += sizes[name]
                if progress is not None:
                    progress(done, total)
        for name, told in list(self._checkpoints.items()):
            if told.status == "busy":  # whoever wrote it may have finished while the others came
                self._checkpoints[name] = self._take_checkpoint(name, sizes[name])

    def _size_of(self, name: CheckpointName) -> int:
        try:
            return read_manifest(self._source, name).size_bytes
        except CheckpointError:
            return 0  # it is told when its turn comes

    def report(self) -> TransferReport:
        return TransferReport(
            source=self._source_name,
            root=str(self._root.path),
            is_dry_run=self._dry_run,
            experiments=tuple(self._experiments.values()),
            checkpoints=tuple(self._checkpoints.values()),
            gaps=self._choice.gaps,
            written_bytes=self._arrival.written_bytes,
            linked_bytes=self._arrival.linked_bytes,
        )

    # ------------------------------------------------------------ experiments
    def _take_experiment(self, exp_hash: str) -> TransferredExperiment:
        try:
            if self._dry_run:
                return self._look_at_experiment(exp_hash)
            created = self._arrival.experiment(exp_hash)
            if created:
                record_event(
                    self._root, "experiment_begun", exp_hash=exp_hash, because=self._because
                )
            problems = self._arrival.beside(exp_hash, self._choice.wants)
        except (CheckpointError, OSError) as error:
            return TransferredExperiment(exp_hash=exp_hash, status="failed", reason=str(error))
        status = "created" if created else "known"
        return TransferredExperiment(exp_hash=exp_hash, status=status, problems=tuple(problems))

    def _look_at_experiment(self, exp_hash: str) -> TransferredExperiment:
        key = layout.experiment_key(exp_hash)
        ExperimentRecord.from_bytes(self._source.map(key), exp_hash=exp_hash)
        is_there = self._root.store.stat(key) is not None
        return TransferredExperiment(
            exp_hash=exp_hash, status="known" if is_there else "would create"
        )

    @property
    def _because(self) -> str:
        return f"copied from {self._source_name}"

    # ------------------------------------------------------------ checkpoints
    def _take_checkpoint(self, name: CheckpointName, size_bytes: int) -> TransferredCheckpoint:
        def tell(status: str, error: Exception | None = None) -> TransferredCheckpoint:
            return TransferredCheckpoint(
                exp_hash=name.exp_hash,
                step=name.step,
                revision=name.revision,
                status=status,
                size_bytes=size_bytes,
                reason=None if error is None else str(error),
            )

        experiment = self._experiments[name.exp_hash]
        if experiment.status == "failed":
            return tell("failed", CheckpointError("its experiment could not be taken"))
        try:
            return tell(self._look_at(name) if self._dry_run else self._arrival.checkpoint(name))
        except CheckpointNotFoundError as error:
            return tell("gone", error)
        except AlreadyExistsError as error:
            return tell("conflict", error)
        except LockedError as error:
            return tell("busy", error)
        except (CheckpointError, OSError) as error:
            return tell("failed", error)

    def _look_at(self, name: CheckpointName) -> str:
        manifest = read_manifest(self._source, name)
        data = bytes(self._source.map(name.manifest_key))
        return "known" if self._arrival.is_known(manifest, data) else "would copy"

    @contextmanager
    def _told(self, name: CheckpointName) -> Iterator[None]:
        """Tell the catalogs of other processes that a manifest may appear until a further line."""
        about: dict[str, Any] = {"exp_hash": name.exp_hash, "step": name.step}
        record_event(self._root, "checkpoint_begun", **about, because=self._because)
        try:
            yield
        except BaseException as error:
            record_event(self._root, "checkpoint_failed", **about, reason=type(error).__name__)
            raise
        record_event(
            self._root,
            "checkpoint_committed",
            **about,
            revision=name.revision,
            because=self._because,
        )
