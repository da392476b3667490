"""`CheckpointManagerV2`: the door through which a training script saves, loads and changes course.

manager = CheckpointManagerV2("runs/digits")
manager.update_experiment_hash(model=model, config=config, active_data_uids=uids)
found = manager.load_latest_checkpoint(model, optimizer=optimizer)
manager.save_model_checkpoint(model, step=100, optimizer=optimizer, metrics={"loss": 0.3})
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightslab.components import advising, choosing
from weightslab.components.identifying import (
    Identification,
    check_drift,
    check_model,
    compare_with,
    identify,
    new_record,
)
from weightslab.components.live_objects import (
    LiveObjects,
    LoadTarget,
    named_models,
    named_optimizers,
    parts_of,
)
from weightslab.components.saving import CheckpointSaver
from weightslab.engine.errors import (
    AsyncSaveError,
    ExperimentNotFoundError,
    FormatError,
    IntegrityError,
    LockedError,
    ReadOnlyStoreError,
    UnsupportedVersionError,
)
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.explain import diff_configs
from weightslab.engine.identity.wrappers import unwrap
from weightslab.engine.loading.options import LoadOptions
from weightslab.engine.loading.restoring import restore, summary
from weightslab.engine.repository import layout, opening
from weightslab.engine.repository.data_file import save_backup
from weightslab.engine.repository.opening import tidy
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.ancestry import Ancestry
from weightslab.engine.saving.drafting import (
    CheckpointFacts,
    check_metrics,
    check_step,
    make_draft,
)
from weightslab.engine.saving.writer import record_event
from weightslab.engine.values import HashUpdate, ParentLink

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.values import Explanation

__all__ = ["CheckpointManagerV2"]

logger = logging.getLogger(__name__)


class CheckpointManagerV2:
    """Saves and loads checkpoints that know what produced them.

    One manager serves one process; it is a context manager. After a fork the child has to make its
    own. With torch.distributed only rank 0 writes, and no call enters a collective: put a barrier of
    your own between a load and the next save, so that all ranks load the same checkpoint.

    Args:
        root_log_dir: the root; created if absent.
        read_only: write nothing at all: no folder, no file, no log line.
        async_save: `save_model_checkpoint` returns once the state is copied, and the commit goes on in
            a thread. Its errors are raised by the next call of any method; `wait()`, `close()`, the
            end of a `with` block and of the interpreter wait for it.
        config_exclude: dotted config keys that are not part of the identity (`"data.dir"`), besides
            the few that never are.
        queue_depth: snapshots that may be under way at once with `async_save`, each in memory as
            large as the state; a save beyond waits for the oldest.
    Raises: NotFoundError (read-only root that is not there), StorageError.
    """

    def __init__(
        self,
        root_log_dir: str | os.PathLike[str] = "root_experiment",
        *,
        read_only: bool = False,
        async_save: bool = False,
        config_exclude: Sequence[str] = (),
        queue_depth: int = 1,
    ) -> None:
        if isinstance(config_exclude, str):
            raise TypeError("config_exclude is a sequence of dotted keys, not one str")
        self.root = CheckpointRoot(
            root_log_dir, read_only=read_only or not is_writer(), must_exist=is_writer()
        )
        self._read_only = read_only
        self._exclude = tuple(config_exclude)
        self._live = LiveObjects()
        self._ancestry = Ancestry(str(self.root.path))
        self._saver = CheckpointSaver(
            self.root, self._ancestry, in_background=async_save, queue_depth=queue_depth
        )
        self._current: Identification | None = None
        self._pid = os.getpid()
        self._closed = False
        self._advise = advising.Advice()

    # ------------------------------------------------------------ life
    def __enter__(self) -> Self:
        """Return the manager."""
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the manager; an error of the block goes before one of a save in the background."""
        try:
            self.close()
        except AsyncSaveError:
            if kind is None:
                raise  # otherwise it was logged when it happened

    def close(self) -> None:
        """End the use of this manager, once everything saved is on disk; idempotent.

        Raises: AsyncSaveError if a save in the background failed.
        """
        self._closed = True
        if os.getpid() == self._pid:
            self._saver.close()

    def _check_open(self, *, wait: bool = True) -> None:
        if os.getpid() != self._pid:
            raise LockedError(
                "this manager belongs to the process that forked this one",
                hint="make a CheckpointManagerV2 of its own in the child",
            )
        if self._closed:
            raise LockedError("this manager is closed", hint="make a new CheckpointManagerV2")
        if wait:
            self._saver.wait()  # so that everything sees what was saved before

    def _check_writable(self, action: str, *, wait: bool = True) -> None:
        self._check_open(wait=wait)
        if self._read_only:
            raise ReadOnlyStoreError(
                f"cannot {action}: {self.root.path} was opened with read_only=True",
                hint="open it without read_only to change it",
            )

    @property
    def current_hash(self) -> str | None:
        """The experiment that saves go to; None before the first `update_experiment_hash`."""
        return None if self._current is None else self._current.exp_hash

    # ------------------------------------------------------------ identity
    def update_experiment_hash(
        self,
        model: Any = None,
        config: Any = None,
        active_data_uids: Any = None,
        force: bool = False,
        *,
        parent: tuple[str, int] | None = None,
    ) -> HashUpdate:
        """Take the identity of what is given, and make it the current experiment.

        A component left out is the ledger's current object, else the last one given (described
        again), else absent. Changing nothing leads back to the same experiment.

        Args:
            model: module, or dict of name -> module.
            config: dict, dataclass, Namespace, OmegaConf, pydantic model.
            active_data_uids: iterable of UIDs, a `SampleSet`, or an object with `active_uids`.
            force: write files of the experiment again where they are missing or damaged. It never
                changes a hash.
            parent: (exp_hash, step) whose weights are in `model`, where they came by other means
                than a load of this manager.
        Returns: `HashUpdate`; unpacks as `exp_hash, is_new`.
        Raises: IdentityError naming what cannot be described; IntegrityError for a damaged record
            of the same experiment; StorageError.
        """
        self._check_writable("open an experiment")
        found = identify(
            self._live, model, config, active_data_uids, exclude=self._exclude, last=self._current
        )
        if parent is not None and (not isinstance(parent, tuple) or len(parent) != 2):  # noqa: PLR2004
            raise TypeError(f"parent is a tuple (exp_hash, step), not {parent!r:.60}")
        link = None if parent is None else self.root.get_checkpoint(*parent).as_parent()
        compared_with, changes = compare_with(self.root, self._current, found)
        is_new = False
        if is_writer():
            record = new_record(
                found, clock=self.root.clock, compared_with=compared_with, changes=changes
            )
            is_new = opening.open_experiment(self.root.store, record, found.content, force=force)
            tidy(self.root.store, found.exp_hash)
        self._enter(found, link)
        if is_new:
            record_event(
                self.root,
                "experiment_begun",
                exp_hash=found.exp_hash,
                digest=found.components.digest,
                changed_from=compared_with,
                changes=[change.text for change in changes],
            )
        for warning in found.warnings:
            self._advise(warning)
        return HashUpdate(
            exp_hash=found.exp_hash,
            is_new=is_new,
            changes=tuple(changes),
            compared_with=compared_with,
        )

    def _enter(self, found: Identification, link: ParentLink | None) -> None:
        self._current = found
        self._ancestry.enter(found.exp_hash)
        model = self._live.last_model()
        if model is not None:
            modules = _unwrapped(model)
            self._ancestry.meet(modules)
            if link is not None:
                self._ancestry.declare(modules, link)

    def _get_current(self, action: str) -> Identification:
        if self._current is None:
            raise ExperimentNotFoundError(
                f"cannot {action}: no experiment is current",
                hint="call update_experiment_hash(model=..., config=..., active_data_uids=...) first",
            )
        return self._current

    # ------------------------------------------------------------ saving
    def save_model_checkpoint(  # noqa: PLR0913 - the fixed face
        self,
        model: Any = None,
        model_name: str | None = None,
        step: int | None = None,
        save_optimizer: bool = True,
        optimizer_name: str | None = None,
        metadata: Any = None,
        *,
        optimizer: Any = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Path:
        """Commit a checkpoint: all of it, or nothing. On disk on return, unless `async_save`.

        Saving the same step again with the same content is a no-op; with another content it becomes
        a new revision, and the old one stays.

        Args:
            model: module or dict of name -> module; else `model_name` in the ledger, the only one
                registered, or the last one given.
            model_name: name in the ledger.
            step: optimizer step, int >= 0; None takes `model.current_step`.
            save_optimizer: save the optimizer too, if there is one.
            optimizer_name: name in the ledger.
            metadata: anything made of None, bool, int, float, str, bytes, list, tuple, dict.
            optimizer: optimizer, or dict of name -> optimizer.
            metrics: name -> number; what `root.best` looks at.
        Returns: path of the weights file (of the first name in a dict of models); with `async_save`
            the one it will have if the step is new.
        Raises: ExperimentNotFoundError (no hash yet), StateMismatchError (the model or the sample
            set changed since the hash was taken), NotStorableError, StorageError, AsyncSaveError (an
            earlier save failed; this one was not begun).
        """
        self._check_writable("save a checkpoint", wait=False)
        current = self._get_current("save a checkpoint")
        live = self._live.get_model(model, model_name)
        parts, number, numbers = parts_of(live), check_step(step, live), check_metrics(metrics)
        optimizers = self._optimizers_to_save(optimizer, optimizer_name, wanted=save_optimizer)
        if not is_writer():
            name = layout.CheckpointName(exp_hash=current.exp_hash, step=number)
            return self._path(name.file_key(name.file_name(min(parts))))
        check_drift(current, live, self._live.live_samples())
        changed = advising.config_drift(current, self._live.find_config(), exclude=self._exclude)
        for advice in [*advising.forgotten_parameters(parts, optimizers), changed]:
            if advice is not None:
                self._advise(advice)
        facts = CheckpointFacts(
            exp_hash=current.exp_hash,
            experiment_digest=current.components.digest,
            step=number,
            metadata=metadata,
            metrics=numbers,
        )
        return self._saver.save(lambda: make_draft(parts, optimizers, facts), _unwrapped(live))

    def wait(self) -> None:
        """Wait until every save is committed (`async_save=True`); at once otherwise.

        Raises: AsyncSaveError if a save in the background failed; its cause is the error itself.
        """
        self._check_open()

    def _optimizers_to_save(
        self, optimizer: Any, name: str | None, *, wanted: bool
    ) -> dict[str, Any] | None:
        """Return what to save as training state; None where only the weights are wanted."""
        if not wanted:
            return None
        found = self._live.find_optimizer(optimizer, name)
        if found is None:
            self._advise(
                "no optimizer was passed and none is registered: the checkpoint holds weights only; "
                "pass optimizer=, register_optimizer(...), or say save_optimizer=False"
            )
            return {}
        return named_optimizers(found)

    def save_model_architecture(self, model: Any = None, model_name: str | None = None) -> Path:
        """Write the description of the model, once per experiment.

        `update_experiment_hash` has done it already, unless the file was lost.

        Returns: path of `{exp_hash}_architecture.json`.
        Raises: StateMismatchError if the current experiment has another model, or none.
        """
        self._check_writable("save the architecture")
        current = self._get_current("save the architecture")
        check_model(current, self._live.get_model(model, model_name))
        if is_writer():
            record = new_record(current, clock=self.root.clock, compared_with=None, changes=[])
            opening.open_experiment(self.root.store, record, current.content, force=True)
        return self._path(layout.architecture_key(current.exp_hash))

    def save_config(self, config: Any, config_name: str = "config") -> Path:
        """Store a config as a further revision; the experiment and its hash stay.

        Returns: path of the YAML file; of the newest one if it holds this config already.
        Raises: IdentityError for values that have no deterministic form.
        """
        self._check_writable("save a config")
        current = self._get_current("save a config")
        layout.check_label(config_name, what="config_name")
        described = describe_config(config, exclude=self._exclude)
        if current.components.config not in (None, described.digest):
            changes = diff_configs(
                current.content.config or {}, described.plain, exclude=described.excluded
            )
            logger.warning(
                "this config is another experiment than %s (%s); its hash stays until "
                "update_experiment_hash(config=...) is called",
                current.exp_hash,
                advising.some(changes),
            )
        if not is_writer():
            return self._path(layout.config_key(current.exp_hash, name=config_name))
        key = opening.write_config_revision(
            self.root.store, current.exp_hash, described.plain, name=config_name
        )
        return self._path(key)

    def save_data_backup(
        self, data_h5_path: str | os.PathLike[str], backup_name: str | None = None
    ) -> Path:
        """Copy an HDF5 file into the current experiment; whole and verified, or not at all.

        Args:
            data_h5_path: the file; nobody may have it open for writing.
            backup_name: its name in the experiment; by default the name of the file.
        Returns: path of the copy.
        Raises: NotFoundError, FormatError (no HDF5), StorageError.
        """
        self._check_writable("save a backup")
        current = self._get_current("save a backup")
        path = Path(data_h5_path)
        name = path.stem if backup_name is None else backup_name
        if not is_writer():
            return self._path(layout.data_key(current.exp_hash, name))
        return self._path(save_backup(self.root.store, current.exp_hash, path, name=name))

    # ------------------------------------------------------------ loading
    def load_latest_checkpoint(  # noqa: PLR0913 - the fixed face
        self,
        model: Any = None,
        model_name: str | None = None,
        load_optimizer: bool = True,
        optimizer_name: str | None = None,
        exp_hash: str | None = None,
        *,
        optimizer: Any = None,
        verify: str = "full",
        strict: bool = True,
        cast: bool = False,
    ) -> dict[str, Any] | None:
        """Load the newest valid checkpoint of an experiment into the live objects.

        Newest is the one committed last. A damaged one is passed over with a warning and listed
        under `skipped`.

        Args:
            model, model_name, optimizer, optimizer_name: as in `save_model_checkpoint`.
            load_optimizer: restore the optimizer too.
            exp_hash: hash or prefix; by default the current experiment, and without one the newest
                checkpoint of the whole root.
            verify: `full` hashes every byte before anything changes; `size` trusts the bytes of
                tensors and looks at the size and header of each file alone.
            strict: False loads what fits and leaves the rest as it is; `report` names it.
            cast: True converts tensors of another dtype, as far as torch calls it safe.
        Returns: dict with step, timestamp (ISO 8601, UTC), metadata, metrics, exp_hash, path,
            report (`LoadReport`), skipped; None if there is no checkpoint.
        Raises: StateMismatchError (nothing was changed, unless its text says that an object refused
            its state halfway); IntegrityError if all are damaged; UnsupportedVersionError if the
            newest was written by a newer version of this package.
        """
        self._check_open()
        options = LoadOptions(verify=verify, strict=strict, cast=cast)
        entries = choosing.candidates(self.root, exp_hash, self.current_hash)
        if not entries:
            return None
        target = self._live.target(model, model_name, optimizer, optimizer_name, load_optimizer)
        skipped: list[dict[str, Any]] = []
        for entry in entries:
            try:
                return self._load(entry, target, options) | {"skipped": skipped}
            except UnsupportedVersionError:  # noqa: PERF203 - not damaged: newer than this package
                raise
            except choosing.PASSED_OVER as error:
                skipped.append(choosing.skip(self.root, entry, error, record=is_writer()))
        raise IntegrityError(
            f"all {len(skipped)} checkpoints are damaged; the newest: {skipped[0]['reason']}",
            hint="manager.root.verify() lists what is wrong with each",
        )

    def load_checkpoint(  # noqa: PLR0913 - the fixed face
        self,
        step: int,
        exp_hash: str | None = None,
        model: Any = None,
        model_name: str | None = None,
        load_optimizer: bool = True,
        optimizer_name: str | None = None,
        *,
        optimizer: Any = None,
        revision: int | None = None,
        verify: str = "full",
        strict: bool = True,
        cast: bool = False,
    ) -> dict[str, Any]:
        """Load the checkpoint of a step into the live objects.

        Args:
            step: the step.
            exp_hash: hash or prefix; by default the current experiment, and without one the
                experiment of the newest checkpoint.
            revision: which revision of the step; by default the highest.
            model, model_name, load_optimizer, optimizer_name, optimizer, verify, strict, cast: as in
                `load_latest_checkpoint`.
        Returns: as `load_latest_checkpoint`.
        Raises: CheckpointNotFoundError naming the nearest steps; IntegrityError naming the other
            revisions of a damaged one; StateMismatchError. Nothing was changed.
        """
        self._check_open()
        check_step(step, None)
        options = LoadOptions(verify=verify, strict=strict, cast=cast)
        wanted = choosing.find_hash(self.root, exp_hash, self.current_hash)
        if wanted is None:
            raise ExperimentNotFoundError(f"{self.root.path} has no checkpoints to load from")
        entry = self.root.get_checkpoint(wanted, step, revision=revision)
        target = self._live.target(model, model_name, optimizer, optimizer_name, load_optimizer)
        try:
            return self._load(entry, target, options) | {"skipped": []}
        except (IntegrityError, FormatError) as error:
            others = [
                e.name.revision
                for e in self.root.checkpoints(wanted)
                if e.name.step == step and e.name != entry.name and e.damaged is None
            ]
            if others and error.hint is None:
                error.hint = f"other revisions of step {step}: {others}; load one by revision="
            raise

    def _load(
        self, entry: CheckpointEntry, target: LoadTarget, options: LoadOptions
    ) -> dict[str, Any]:
        manifest = self.root.manifest(entry)
        found = summary(manifest, folder=self._path(layout.model_folder(manifest.name.exp_hash)))
        report = restore(
            self.root.store,
            manifest,
            parts_of(target.live),
            target.optimizers,
            load_optimizer=target.load_optimizer,
            given=target.given,
            options=options,
        )
        self._ancestry.settle(_unwrapped(target.live), manifest)
        self._live.remember_model(target.live)
        name = manifest.name
        if is_writer() and not self.root.read_only:
            record_event(
                self.root,
                "checkpoint_loaded",
                exp_hash=name.exp_hash,
                step=name.step,
                revision=name.revision,
                into=self.current_hash,
            )
        return found | {"report": report}

    # ------------------------------------------------------------ looking
    def load_config(
        self, exp_hash: str | None = None, *, step: int | None = None
    ) -> dict[str, Any]:
        """Return the newest config of an experiment, or the one a step was saved with.

        Raises: ObjectNotFoundError if it has none; ExperimentNotFoundError.
        """
        self._check_open()
        return self.root.config(self._wanted(exp_hash, "load a config"), step=step)

    def list_experiment_hashes(self) -> list[str]:
        """Return the hashes of all experiments of the root, oldest first."""
        self._check_open()
        return self.root.list_hashes()

    def get_checkpoint_info(self, exp_hash: str | None = None) -> dict[str, Any]:
        """Return exp_hash, model_checkpoints, architecture_saved, configs, data_backups, steps,
        size_bytes, created_at, parents, changed_from, identity and damaged of an experiment.
        """
        self._check_open()
        return self.root.info(self._wanted(exp_hash, "tell about an experiment"))

    def explain(self, hash_a: str, hash_b: str | None = None) -> Explanation:
        """Return what changed from experiment `hash_a` to `hash_b`; `print` shows a screen of it.

        Told from what is stored: neither the code nor the data of the experiments is needed.

        Args:
            hash_a: hash or prefix.
            hash_b: hash or prefix; by default the current experiment.
        Raises: ExperimentNotFoundError; ObjectNotFoundError if a record is damaged.
        """
        self._check_open()
        if hash_b is None:
            hash_b = self._get_current("explain against it").exp_hash
        return self.root.explain(hash_a, hash_b)

    def _wanted(self, exp_hash: str | None, action: str) -> str:
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

    def _path(self, key: str) -> Path:
        return self.root.path / key


def is_writer() -> bool:
    """Tell whether this process writes: always, except ranks above 0 of torch.distributed."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized() and dist.get_rank() != 0)


def _unwrapped(model: Any) -> list[Any]:
    return [unwrap(module) for module in named_models(model).values()]
