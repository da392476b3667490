"""`CheckpointManagerV2`: the door through which a training script saves, loads and changes course.

manager = CheckpointManagerV2("runs/digits")
manager.update_experiment_hash(model=model, config=config, active_data_uids=uids)
found = manager.resume(model, optimizer=optimizer)
manager.save_model_checkpoint(model, step=100, optimizer=optimizer, metrics={"loss": 0.3})
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightslab.components import advising, measuring
from weightslab.components.identifying import (
    check_drift,
    check_model,
    compare_with,
    identify,
    new_record,
)
from weightslab.components.live_objects import named_optimizers, parts_of
from weightslab.components.loading import load_newest, load_step
from weightslab.components.pacing import Pacer
from weightslab.components.replaying import check_verification
from weightslab.components.resuming import Resuming
from weightslab.components.session import Session, is_writer, unwrapped, world_of
from weightslab.engine.errors import AsyncSaveError
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.explain import diff_configs
from weightslab.engine.identity.library import checked_libraries
from weightslab.engine.loading.options import LoadOptions
from weightslab.engine.repository import layout, opening
from weightslab.engine.repository.data_file import save_backup
from weightslab.engine.repository.opening import tidy
from weightslab.engine.resume import ResumeRequest
from weightslab.engine.retention.rules import Retention
from weightslab.engine.saving.drafting import (
    CheckpointFacts,
    check_metrics,
    check_step,
    make_draft,
)
from weightslab.engine.saving.writer import record_event
from weightslab.engine.training.state import check_count
from weightslab.engine.values import HashUpdate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from weightslab.engine.repository.catalog import CheckpointEntry
    from weightslab.engine.resume import Resumed
    from weightslab.engine.retention.policies import AnyOf, ByteBudget, RetentionPolicy
    from weightslab.engine.saving.policies import SavePolicy
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
        libraries: top-level packages whose classes and functions are known by name and constructor
            arguments, like those of torch, and not by their code.
        queue_depth: snapshots that may be under way at once with `async_save`, each in memory as
            large as the state; a save beyond waits for the oldest.
        save_policy: when `step` saves: `FixedInterval(100) | OnPreemption() | AtExit()`.
        retention: what to keep, as a policy (`LatestN(3) | BestN("loss")`), a `ByteBudget` or a
            `Retention`; applied after each save, with `async_save` in the background, to the
            experiment that was saved to, or to the root if a scope says so. It never makes a save
            fail: what goes wrong is logged and told by `root.gc`.
    Raises: NotFoundError (read-only root that is not there), StorageError.
    """

    def __init__(  # noqa: PLR0913 - options with defaults, each of them keyword-only
        self,
        root_log_dir: str | os.PathLike[str] = "root_experiment",
        *,
        read_only: bool = False,
        async_save: bool = False,
        config_exclude: Sequence[str] = (),
        libraries: Sequence[str] = (),
        queue_depth: int = 1,
        save_policy: SavePolicy | None = None,
        retention: Retention | RetentionPolicy | AnyOf | ByteBudget | None = None,
    ) -> None:
        if isinstance(config_exclude, str):
            raise TypeError("config_exclude is a sequence of dotted keys, not one str")
        self._session = Session(
            root_log_dir,
            read_only=read_only,
            async_save=async_save,
            exclude=config_exclude,
            libraries=checked_libraries(libraries),
            queue_depth=queue_depth,
            retention=None if retention is None else Retention.of(retention),
        )
        self.root = self._session.root
        self._pacer = Pacer(self._session, save_policy)
        self._pacer.finish_at_exit(self.save_model_checkpoint)

    # ------------------------------------------------------------ life
    def __enter__(self) -> Self:
        """Return the manager."""
        self._session.check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the manager; an error of the block goes before one of a save in the background."""
        try:
            self._pacer.close(self.save_model_checkpoint, error)
        except AsyncSaveError:
            if kind is None:
                raise  # otherwise it was logged when it happened

    def close(self) -> None:
        """End the use of this manager, once everything saved is on disk; idempotent.

        With a `save_policy` that says so, the last step is saved first, and a signal that came in
        the meantime is passed on afterwards.

        Raises: AsyncSaveError if a save in the background failed.
        """
        self._pacer.close(self.save_model_checkpoint, None)

    @property
    def current_hash(self) -> str | None:
        """The experiment that saves go to; None before the first `update_experiment_hash`."""
        return self._session.current_hash

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
        self._session.check_writable("open an experiment")
        found = identify(
            self._session.live,
            model,
            config,
            active_data_uids,
            exclude=self._session.exclude,
            libraries=self._session.libraries,
            last=self._session.current,
        )
        if parent is not None and (not isinstance(parent, tuple) or len(parent) != 2):  # noqa: PLR2004
            raise TypeError(f"parent is a tuple (exp_hash, step), not {parent!r:.60}")
        link = None if parent is None else self.root.get_checkpoint(*parent).as_parent()
        compared_with, changes = compare_with(self.root, self._session.current, found)
        is_new = False
        if is_writer():
            record = new_record(
                found, clock=self.root.clock, compared_with=compared_with, changes=changes
            )
            is_new = opening.open_experiment(self.root.store, record, found.content, force=force)
            tidy(self.root.store, found.exp_hash)
            self._session.record_provenance(found.exp_hash)
        self._session.enter(found, link)
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
            self._session.advise(warning)
        return HashUpdate(
            exp_hash=found.exp_hash,
            is_new=is_new,
            changes=tuple(changes),
            compared_with=compared_with,
        )

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
        epoch: int | None = None,
        samples_seen: int | None = None,
    ) -> Path:
        """Commit a checkpoint: all of it, or nothing. On disk on return, unless `async_save`.

        Saving the same step again with the same content is a no-op; with another content it becomes
        a new revision, and the old one stays. Content is all of it: if random numbers were drawn
        in between, training would go on differently, and that is another content.

        Args:
            model: module or dict of name -> module; else `model_name` in the ledger, the only one
                registered, or the last one given.
            model_name: name in the ledger.
            step: optimizer step, int >= 0; None takes `model.current_step`.
            save_optimizer: save the training state too: the optimizer, if there is one, tracked
                objects, the random state. False saves weights only.
            optimizer_name: name in the ledger.
            metadata: anything made of None, bool, int, float, str, bytes, list, tuple, dict.
            optimizer: optimizer, or dict of name -> optimizer.
            metrics: name -> number; what `root.best` looks at.
            epoch: the epoch training is in; a load returns it.
            samples_seen: samples trained on so far, over all ranks; a load returns it.
        Returns: path of the weights file (of the first name in a dict of models); with `async_save`
            the one it will have if the step is new.
        Raises: ExperimentNotFoundError (no hash yet), StateMismatchError (the model or the sample
            set changed since the hash was taken), NotStorableError, StorageError, AsyncSaveError (an
            earlier save failed; this one was not begun).
        """
        self._session.check_writable("save a checkpoint", wait=False)
        current = self._session.get_current("save a checkpoint")
        live = self._session.live.get_model(model, model_name)
        parts, number, numbers = parts_of(live), check_step(step, live), check_metrics(metrics)
        epoch = check_count(epoch, what="epoch")
        samples_seen = check_count(samples_seen, what="samples_seen")
        optimizers = self._optimizers_to_save(optimizer, optimizer_name, wanted=save_optimizer)
        if not is_writer() or self._session.replay is not None:
            name = layout.CheckpointName(exp_hash=current.exp_hash, step=number)
            return self._session.path(name.file_key(name.file_name(min(parts))))
        check_drift(current, live, self._session.live.live_samples())
        changed = advising.config_drift(
            current, self._session.live.find_config(), exclude=self._session.exclude
        )
        for advice in [*advising.forgotten_parameters(parts, optimizers), changed]:
            if advice is not None:
                self._session.advise(advice)
        facts = CheckpointFacts(
            exp_hash=current.exp_hash,
            experiment_digest=current.components.digest,
            step=number,
            metadata=metadata,
            metrics=numbers,
            epoch=epoch,
            samples_seen=samples_seen,
            world_size=world_of()[1],
            trail=self._session.progress.trail.records(current.exp_hash, number),
        )
        tracked = self._session.tracking.everything() if save_optimizer else {}
        return self._session.saver.save(
            lambda: make_draft(parts, optimizers, facts, tracked), unwrapped(live)
        )

    def track(self, **objects: Any) -> None:
        """Save and restore these objects with the optimizers from now on, under these names.

            manager.track(scheduler=scheduler, scaler=scaler, ema=ema, shuffle=generator)

        They are held until the manager goes, or `track(name=None)`. Registered schedulers and data
        loaders belong to the training state without being tracked.

        Args:
            objects: anything with `state_dict` and `load_state_dict` (modules and optimizers too);
                random generators of Python, NumPy and torch. A name given again replaces its
                object; None takes it out.
        Raises: TypeError naming an object that cannot be saved and restored.
        """
        self._session.check_open(wait=False)
        self._session.tracking.change(objects)

    def step(
        self,
        step: int,
        metrics: Mapping[str, float] | None = None,
        *,
        model: Any = None,
        optimizer: Any = None,
        metadata: Any = None,
        batch_uids: Any = None,
        **more: Any,
    ) -> Path | None:
        """Tell that a step is complete; save it if the `save_policy` says so.

        Call it once for each step, last: after the optimizer, the scheduler, the scaler and averages
        have stepped, and before the next batch is drawn, since a `ResumableSampler` counts a batch as
        used when the loop gets it. Where nothing is saved it takes a few microseconds.

        Args:
            step: optimizer steps so far, int >= 0.
            metrics: name -> number, stored with the checkpoint if there is one; `log_metrics` logs.
            model, optimizer: as in `save_model_checkpoint`; what was given last is used again, and
                is held weakly.
            metadata: as in `save_model_checkpoint`.
            batch_uids: UIDs of the samples of this step; by default those that the tracked
                `ResumableSampler`s gave last. They and the metrics of the first 32 steps after a
                checkpoint are saved with the next one, for `resume(resume_verification=...)`.
            more: other keyword arguments of `save_model_checkpoint`.
        Returns: path of the weights file; None if this step was not saved.
        Raises: as `save_model_checkpoint`, when it saves; `Preempted` (SystemExit) or
            KeyboardInterrupt once the step is on disk, where `OnPreemption` held a signal back.
        """
        replay = self._session.replay
        if replay is not None:
            self._pacer.note_again(replay, step, metrics, batch_uids)
            return None
        facts = {"metrics": metrics, "metadata": metadata, **more}
        return self._pacer.step(
            self.save_model_checkpoint, step, model, optimizer, facts, batch_uids
        )

    def log_metrics(
        self, step: int, metrics: Mapping[str, float] | None = None, **named: float
    ) -> None:
        """Append metrics of a step to `logs/metrics.jsonl`; `root.metrics` reads them.

        Args:
            step: the step, int >= 0.
            metrics: name -> number; NaN and infinities are kept.
            named: metrics by name: `log_metrics(10, loss=0.5)`.
        Raises: ExperimentNotFoundError (no hash yet), TypeError naming what is no number, StorageError.
        Durability: safe from the end of the process on return; safe from the end of the machine a
            second and one call later, and before the next checkpoint is committed.
        """
        self._session.check_writable("log metrics", wait=False)
        if self._session.replay is None:
            measuring.log_metrics(self._session, step, metrics, named)

    def wait(self) -> None:
        """Wait until every save is committed (`async_save=True`); at once otherwise.

        Raises: AsyncSaveError if a save in the background failed; its cause is the error itself.
        """
        self._session.check_open()

    def _optimizers_to_save(
        self, optimizer: Any, name: str | None, *, wanted: bool
    ) -> dict[str, Any] | None:
        """Return what to save as training state; None where only the weights are wanted."""
        if not wanted:
            return None
        found = self._session.live.find_optimizer(optimizer, name)
        if optimizer is not None:
            self._session.live.remember_optimizer(optimizer)
        if found is None:
            self._session.advise(
                "no optimizer was passed and none is registered: the checkpoint holds no optimizer "
                "state; pass optimizer=, register_optimizer(...), or say save_optimizer=False"
            )
            return {}
        return named_optimizers(found)

    def save_model_architecture(self, model: Any = None, model_name: str | None = None) -> Path:
        """Write the description of the model, once per experiment.

        `update_experiment_hash` has done it already, unless the file was lost.

        Returns: path of `{exp_hash}_architecture.json`.
        Raises: StateMismatchError if the current experiment has another model, or none.
        """
        self._session.check_writable("save the architecture")
        current = self._session.get_current("save the architecture")
        found = self._session.live.get_model(model, model_name)
        check_model(current, found, libraries=self._session.libraries)
        if is_writer():
            record = new_record(current, clock=self.root.clock, compared_with=None, changes=[])
            opening.open_experiment(self.root.store, record, current.content, force=True)
        return self._session.path(layout.architecture_key(current.exp_hash))

    def save_config(self, config: Any, config_name: str = "config") -> Path:
        """Store a config as a further revision; the experiment and its hash stay.

        Returns: path of the YAML file; of the newest one if it holds this config already.
        Raises: IdentityError for values that have no deterministic form.
        """
        self._session.check_writable("save a config")
        current = self._session.get_current("save a config")
        layout.check_label(config_name, what="config_name")
        described = describe_config(config, exclude=self._session.exclude)
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
            return self._session.path(layout.config_key(current.exp_hash, name=config_name))
        key = opening.write_config_revision(
            self.root.store, current.exp_hash, described.plain, name=config_name
        )
        return self._session.path(key)

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
        self._session.check_writable("save a backup")
        current = self._session.get_current("save a backup")
        path = Path(data_h5_path)
        name = path.stem if backup_name is None else backup_name
        if not is_writer():
            return self._session.path(layout.data_key(current.exp_hash, name))
        return self._session.path(save_backup(self.root.store, current.exp_hash, path, name=name))

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
        load_random: bool = False,
    ) -> dict[str, Any] | None:
        """Load the newest valid checkpoint of an experiment into the live objects.

        Newest is the one committed last. A damaged one is passed over with a warning and listed
        under `skipped`.

        Args:
            model, model_name, optimizer, optimizer_name: as in `save_model_checkpoint`.
            load_optimizer: restore the optimizer and tracked objects too.
            exp_hash: hash or prefix; by default the current experiment, and without one the newest
                checkpoint of the whole root.
            verify: `full` hashes every byte before anything changes; `size` trusts the bytes of
                tensors and looks at the size and header of each file alone.
            strict: False loads what fits and leaves the rest as it is; `report` names it.
            cast: True converts tensors of another dtype, as far as torch calls it safe.
            load_random: True sets the random state of Python, NumPy and torch as it was saved. Not
                by default: loading weights to look at them must not disturb a running program.
        Returns: dict with step, epoch, samples_seen, timestamp (ISO 8601, UTC), metadata, metrics,
            exp_hash, path, report (`LoadReport`), skipped; None if there is no checkpoint.
        Raises: StateMismatchError (nothing was changed, unless its text says that an object refused
            its state halfway); IntegrityError if all are damaged; UnsupportedVersionError if the
            newest was written by a newer version of this package.
        """
        self._session.check_open()
        options = LoadOptions(verify=verify, strict=strict, cast=cast, load_random=load_random)
        target = partial(
            self._session.live.target,
            model,
            model_name,
            optimizer,
            optimizer_name,
            load_optimizer,
        )
        return load_newest(self._session, exp_hash, target, options)

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
        load_random: bool = False,
    ) -> dict[str, Any]:
        """Load the checkpoint of a step into the live objects.

        Args:
            step: the step.
            exp_hash: hash or prefix; by default the current experiment, and without one the
                experiment of the newest checkpoint.
            revision: which revision of the step; by default the highest.
            model, model_name, load_optimizer, optimizer_name, optimizer, verify, strict, cast,
                load_random: as in `load_latest_checkpoint`.
        Returns: as `load_latest_checkpoint`.
        Raises: CheckpointNotFoundError naming the nearest steps; IntegrityError naming the other
            revisions of a damaged one; StateMismatchError. Nothing was changed.
        """
        self._session.check_open()
        check_step(step, None)
        options = LoadOptions(verify=verify, strict=strict, cast=cast, load_random=load_random)
        target = partial(
            self._session.live.target,
            model,
            model_name,
            optimizer,
            optimizer_name,
            load_optimizer,
        )
        return load_step(self._session, step, exp_hash, target, options, revision=revision)

    def resume(  # noqa: PLR0913 - each is one word
        self,
        model: Any = None,
        *,
        optimizer: Any = None,
        resume: str | int = "auto",
        metric: str | None = None,
        mode: str = "min",
        on_change: str = "fresh",
        load_random: bool = True,
        strict: bool = True,
        resume_verification: tuple[Callable[..., Any], int] | None = None,
        model_name: str | None = None,
        optimizer_name: str | None = None,
    ) -> Resumed:
        """Go on where the training of the current experiment stopped, bit for bit.

            manager.update_experiment_hash(model=model, config=config, active_data_uids=uids)
            manager.track(scheduler=scheduler, sampler=sampler)
            found = manager.resume(model, optimizer=optimizer)
            for step in range(found.step + 1, 1001): ...

        Restores model, optimizers, tracked objects, what the ledger holds, and random state, all or
        nothing. Damaged checkpoints are passed over with a warning, and so are those without a
        training state (thinned, or saved with `save_optimizer=False`) by `auto` and `latest`.

        Args:
            model, optimizer, model_name, optimizer_name: as in `load_latest_checkpoint`.
            resume: `auto`: the newest checkpoint, or a fresh start where there is none. `latest`:
                the newest; none is an error. `best`: the best by `metric`. `never`: a fresh start.
                An int: that step. Any other text: the newest of the experiment of this hash or
                prefix, as a new branch of the current one.
            metric, mode: for `best`: name of the metric, `min` or `max`.
            on_change: what to do where the current experiment has no checkpoint, but one that it came
                from has. `fresh`: say what changed, and do as if there were none. `continue`: load
                that checkpoint; what is saved then is a new branch with it as parent. `error`: raise.
            load_random: False leaves the random state alone, e.g. with another number of processes.
            strict: False restores what fits, as in `load_latest_checkpoint`.
            resume_verification: (train_step, k): take up to k steps again from the checkpoint before,
                and compare them with what was recorded, before this one is loaded. `train_step(step)`
                does all that the loop does for a step, `manager.step` included; or it is a generator
                function `loop(found)` that yields after each step. Nothing is saved meanwhile.
        Returns: `Resumed`; of a fresh start with step 0.
        Raises: CheckpointNotFoundError (nothing to resume, except in `auto`);
            ExperimentNotFoundError (no hash yet, or an unknown one); StateMismatchError naming what
            does not fit, or that there is no training state; IntegrityError if all are damaged. Nothing
            was changed. ReplayMismatchError with the first difference; the checkpoint is loaded then.
        """
        self._session.check_open()
        request = ResumeRequest.of(resume, metric=metric, mode=mode, on_change=on_change)
        verification = check_verification(resume_verification, load_random=load_random)
        target = self._session.live.target(model, model_name, optimizer, optimizer_name, True)
        options = LoadOptions(strict=strict, load_random=load_random)
        return Resuming(self._session, target, options).resume(request, verification)

    # ------------------------------------------------------------ looking
    def best_checkpoint(
        self, metric: str, mode: str = "min", *, exp_hash: str | None = None
    ) -> CheckpointEntry:
        """Return the checkpoint with the best value of a metric it was saved with.

        Those without the metric, or with NaN, take no part; of equals the newer is the best.

        Args:
            metric: its name.
            mode: `min` or `max`.
            exp_hash: hash or prefix; by default the current experiment, and without one the whole
                root.
        Raises: CheckpointNotFoundError naming the metrics there are.
        """
        self._session.check_open()
        return measuring.best_checkpoint(self._session, metric, mode, exp_hash)

    def load_config(
        self, exp_hash: str | None = None, *, step: int | None = None
    ) -> dict[str, Any]:
        """Return the newest config of an experiment, or the one a step was saved with.

        Raises: ObjectNotFoundError if it has none; ExperimentNotFoundError.
        """
        self._session.check_open()
        return self.root.config(self._session.wanted(exp_hash, "load a config"), step=step)

    def list_experiment_hashes(self) -> list[str]:
        """Return the hashes of all experiments of the root, oldest first."""
        self._session.check_open()
        return self.root.list_hashes()

    def get_checkpoint_info(self, exp_hash: str | None = None) -> dict[str, Any]:
        """Return exp_hash, model_checkpoints, architecture_saved, configs, data_backups, steps,
        size_bytes, created_at, parents, changed_from, identity and damaged of an experiment.
        """
        self._session.check_open()
        return self.root.info(self._session.wanted(exp_hash, "tell about an experiment"))

    def explain(self, hash_a: str, hash_b: str | None = None) -> Explanation:
        """Return what changed from experiment `hash_a` to `hash_b`; `print` shows a screen of it.

        Told from what is stored: neither the code nor the data of the experiments is needed.

        Args:
            hash_a: hash or prefix.
            hash_b: hash or prefix; by default the current experiment.
        Raises: ExperimentNotFoundError; ObjectNotFoundError if a record is damaged.
        """
        self._session.check_open()
        if hash_b is None:
            hash_b = self._session.get_current("explain against it").exp_hash
        return self.root.explain(hash_a, hash_b)
