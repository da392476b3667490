"""`CheckpointRoot`: everything about a whole root, without torch.

root = CheckpointRoot("root_experiment", read_only=True)
for experiment in root.experiments(): ...
root.latest("3f2a")                      newest checkpoint of an experiment, by commit order
root.verify("3f2a", step=100)            reads every byte
root.quarantine("3f2a")                  sets damaged checkpoints aside
root.tensors("3f2a", 100, "encoder.*")   reads and verifies these alone
root.export("3f2a", 100, "weights.safetensors")   also format="torch" and "huggingface"
root.pin("3f2a", step=100)               keeps it from being deleted
root.delete("3f2a", step=100)            for good; root.trash.put("3f2a", 100) can be undone:
root.restore("3f2a9c1b00d14e77_step_000100")
print(root.gc(LatestN(3) | BestN("loss"), dry_run=True))
root.bundle("run.wlb", "3f2a")           one file with its lineage; other.unbundle("run.wlb") takes it in
root.copy_to("other_root", "3f2a@100")   into another root, without duplicates
print(root.lineage())                    the tree of experiments
root.history("3f2a@100")                 what led to these weights
root.audit([17, 99]).newest_clean        the newest checkpoint that cannot know these samples
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import (
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    NotFoundError,
    ObjectNotFoundError,
    ReadOnlyStoreError,
)
from weightslab.engine.reference import parse_reference
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import (
    CheckpointEntry,
    ExperimentEntry,
    read_manifest,
)
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.indexed import IndexedCatalog
from weightslab.engine.retention.rules import Retention
from weightslab.engine.storage.journal import LocalJournal
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.verb import Verb

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    import torch

    from weightslab.engine.audit import run, sample_history
    from weightslab.engine.care import (
        checking,
        deleting,
        doctor,
        noting,
        reproducing,
        summary,
        trashing,
        usage,
    )
    from weightslab.engine.care.noting import RootNotes
    from weightslab.engine.care.trashing import RootTrash
    from weightslab.engine.collecting import gc
    from weightslab.engine.comparing import comparison
    from weightslab.engine.export import exporting
    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.lineage import graph, history
    from weightslab.engine.query import asking
    from weightslab.engine.repository.catalog import Catalog
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.transfer import bundling, copying, unbundling
    from weightslab.engine.transplanting import transplant as transplanting
    from weightslab.engine.values import Change, Explanation, MetricRecord

__all__ = ["CheckpointRoot"]


def _now() -> datetime:
    return datetime.now(timezone.utc)


class CheckpointRoot:
    """A folder with experiments: list, find, read, verify, delete.

    Hashes may be unique prefixes everywhere. Opening runs no code from the root.

    Args:
        path: the `root_log_dir`.
        read_only: write nothing at all; otherwise `data/`, `logs/` and `checkpoints/` are created.
        must_exist: refuse a read-only root that is not there; False lets it appear later.
        clock: returns the current aware UTC time.
    Raises: NotFoundError if a read-only root does not exist; NotADirectoryError; StorageError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        must_exist: bool = True,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self.path = Path(path).absolute()  # the caller may change folders later
        self.read_only = read_only
        self.clock = clock
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"{self.path} is a file; a root is a folder")
        if read_only and must_exist and not self.path.exists():
            raise NotFoundError(f"no root {self.path}", hint="a read-only root has to exist")
        self.store = LocalStore(self.path, read_only=read_only)
        self.catalog: Catalog = IndexedCatalog(self.store, self.path)
        self.journal = LocalJournal(self.path / "logs" / "events.jsonl")
        self.retention = Retention()  # a manager sets its own
        self.retention_problems: list[str] = []  # of automatic runs, until the next `gc` tells them
        if not read_only:
            _make_folders(self)

    # ------------------------------------------------------------ experiments
    def list_hashes(self) -> list[str]:
        """Return the hashes of all experiments, oldest first."""
        return [entry.exp_hash for entry in self.catalog.experiments()]

    def get_hash(self, prefix: str) -> str:
        """Return the full hash that starts with `prefix`.

        Raises: ExperimentNotFoundError if none or several do; names the nearest.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"an experiment hash is a str, not {type(prefix).__name__}")
        if layout.is_exp_hash(prefix) and self.catalog.experiment(prefix) is not None:
            return prefix
        found = self.catalog.exp_hashes(prefix.lower()) if prefix else []
        if len(found) == 1:
            return found[0]
        context = {"exp_hash": prefix}
        if found:
            raise ExperimentNotFoundError(
                f"{prefix!r} is the beginning of {len(found)} experiments: {', '.join(found[:8])}",
                hint="give more digits",
                context=context,
            )
        import difflib

        hashes = self.catalog.exp_hashes()
        near = difflib.get_close_matches(prefix.lower(), hashes, n=3, cutoff=0.3) or hashes[:3]
        hint = f"nearest: {', '.join(near)}" if near else f"{self.path} has no experiments"
        raise ExperimentNotFoundError(f"no experiment {prefix!r}", hint=hint, context=context)

    def get_experiment(self, exp_hash: str) -> ExperimentEntry:
        """Return an experiment by hash or prefix.

        Raises: ExperimentNotFoundError.
        """
        full = self.get_hash(exp_hash)
        entry = self.catalog.experiment(full)
        if entry is None:
            raise ExperimentNotFoundError(f"experiment {full} was deleted meanwhile")
        return entry

    # ------------------------------------------------------------ checkpoints

    def find_checkpoint(
        self, exp_hash: str, step: int, *, revision: int | None = None
    ) -> CheckpointEntry | None:
        """Return the checkpoint of a step: the given revision, else the highest; None if absent."""
        found = [
            e
            for e in self.catalog.checkpoints(self.get_hash(exp_hash))
            if e.name.step == step and revision in (None, e.name.revision)
        ]
        return max(found, key=lambda e: e.name.revision, default=None)

    def get_checkpoint(
        self, exp_hash: str, step: int, *, revision: int | None = None
    ) -> CheckpointEntry:
        """Return the checkpoint of a step: the given revision, else the highest.

        Raises: CheckpointNotFoundError naming the nearest steps.
        """
        found = self.find_checkpoint(exp_hash, step, revision=revision)
        if found is not None:
            return found
        full = self.get_hash(exp_hash)
        entries = self.catalog.checkpoints(full)
        if revision is not None and any(e.name.step == step for e in entries):
            have = sorted(e.name.revision for e in entries if e.name.step == step)
            what, hint = f"revision {revision} of step {step}", f"revisions there: {have}"
        else:
            steps = sorted({e.name.step for e in entries}, key=lambda s: (abs(s - step), s))
            near = ", ".join(map(str, sorted(steps[:3])))
            what = f"checkpoint at step {step}"
            hint = f"nearest: {near}" if steps else "the experiment has no checkpoints"
        raise CheckpointNotFoundError(
            f"no {what} in {full}", hint=hint, context={"exp_hash": full, "step": step}
        )

    def at(self, reference: str) -> CheckpointEntry:
        """Return the checkpoint that a reference names: `3f2a@100`, `3f2a@best:loss`, `latest`.

        Args:
            reference: `HASH` (its newest checkpoint), `HASH@STEP`, `HASH@STEP.rN`, `HASH@latest`,
                `HASH@best:METRIC`, `HASH@best:METRIC:max`, `latest`, `best:METRIC`.
        Raises: ValueError, TypeError for other texts; ExperimentNotFoundError,
            CheckpointNotFoundError.
        """
        told = parse_reference(reference)
        if told.step is not None:
            assert told.exp_hash is not None, "a step is that of an experiment"
            return self.get_checkpoint(told.exp_hash, told.step, revision=told.revision)
        if told.metric is not None:
            found = self.best(told.metric, mode=told.mode, exp_hash=told.exp_hash)
            what = f"no checkpoint with the metric {told.metric!r}"
        else:
            found, what = (
                self.catalog.latest(told.exp_hash and self.get_hash(told.exp_hash)),
                "no checkpoint",
            )
        if found is None:
            where = self.path if told.exp_hash is None else self.get_hash(told.exp_hash)
            raise CheckpointNotFoundError(f"{what} in {where}", context={"exp_hash": told.exp_hash})
        return found

    def metrics(
        self, exp_hash: str | None = None, *, name: str | None = None
    ) -> list[MetricRecord]:
        """Return what `log_metrics` has logged, in the order it was logged.

        Lines that were cut off are passed over. Reads the whole log.

        Args:
            exp_hash: only this experiment; hash or prefix. A full hash is found after the experiment
                was deleted, too.
            name: only this metric, from the records that have it.
        Raises: ExperimentNotFoundError.
        """
        if exp_hash is not None and not layout.is_exp_hash(exp_hash):
            exp_hash = self.get_hash(exp_hash)
        from weightslab.engine.repository.metric_lines import read_metrics

        return list(read_metrics(self.path, exp_hash, name))

    def manifest(self, entry: CheckpointEntry) -> Manifest:
        """Read the manifest of a listed checkpoint again, checked.

        Raises: CheckpointNotFoundError, IntegrityError, FormatError.
        """
        return read_manifest(self.store, entry.name)

    # ------------------------------------------------------------ descriptions
    def config(self, exp_hash: str, *, step: int | None = None) -> dict[str, Any]:
        """Return the newest config of an experiment, or the one a step was saved with.

        Raises: ObjectNotFoundError if the experiment has no config; CheckpointNotFoundError.
        """
        from weightslab.engine.repository.component_file import read_config
        from weightslab.engine.repository.config_file import newest_config

        record = _record(self, exp_hash)
        if step is None:
            file = newest_config(self.store, record.exp_hash)
        else:
            file = self.manifest(self.get_checkpoint(record.exp_hash, step)).config_file
        if file is None and record.components.config is None:
            raise ObjectNotFoundError(
                f"{record.exp_hash} has no config", hint="none was given to it"
            )
        return read_config(self.store, record, file=file)

    def architecture(self, exp_hash: str) -> dict[str, Any]:
        """Return the stored description of the model: modules, parameters, source as data.

        Raises: ObjectNotFoundError if the experiment has none.
        """
        from weightslab.engine.repository.component_file import read_architecture

        return read_architecture(self.store, _record(self, exp_hash))

    def samples(self, exp_hash: str) -> SampleSet:
        """Return the active samples.

        Raises: ObjectNotFoundError if the experiment has none.
        """
        from weightslab.engine.repository.component_file import read_samples

        record = _record(self, exp_hash)
        if record.components.data is None:
            raise ObjectNotFoundError(
                f"{record.exp_hash} has no samples", hint="none were given to it"
            )
        return read_samples(self.store, record)

    def tensors(
        self,
        exp_hash: str,
        step: int,
        patterns: str | tuple[str, ...] = "*",
        *,
        revision: int | None = None,
        verify: str = "full",
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return tensors of a checkpoint by name or glob, verified, without any model.

        No byte of another tensor is read. Imports torch.

        Args:
            exp_hash: hash or prefix.
            step: the step.
            patterns: `"encoder.*.weight"`, or a tuple of several; `*` stands for any text, dots
                included. Names are state_dict keys; with several models `{name}/` stands before
                them, and the training state is `training/{path}`.
            revision: which revision of the step; by default the highest.
            verify: `full`, or `size`: sizes and headers alone.
            device: where the tensors go.
            dtype: convert floating-point tensors; None keeps every dtype.
        Returns: name -> tensor with memory of its own; tied names share one tensor.
        Raises: CheckpointNotFoundError; ObjectNotFoundError if a pattern fits nothing;
            IntegrityError, FormatError.
        """
        from weightslab.engine.loading.selecting import load_tensors
        from weightslab.engine.repository.claim import reading

        found = self.get_checkpoint(exp_hash, step, revision=revision)
        with reading(self.store, found.name) as manifest:
            return load_tensors(
                self.store, manifest, patterns, verify=verify, device=device, dtype=dtype
            )

    def explain(self, old: str, new: str) -> Explanation:
        """Return what tells two experiments apart, from what is stored; no code is run.

        Raises: ExperimentNotFoundError; ObjectNotFoundError if a record is damaged.
        """
        from weightslab.engine import compare

        entries = [self.get_experiment(h) for h in (old, new)]
        for entry in entries:
            if entry.record is None:
                raise ObjectNotFoundError(f"{entry.exp_hash} cannot be compared: {entry.damaged}")
        return compare.explain(self.store, *entries)

    def changes(self, old: str, new: str) -> list[Change]:
        """Return the changes of `explain(old, new)`."""
        return list(self.explain(old, new).changes)

    # ------------------------------------------------------------ verbs
    # each has a room of its own, which is imported when the verb is first used
    if TYPE_CHECKING:
        experiments = asking.experiments
        checkpoints = asking.checkpoints
        latest = asking.latest
        best = asking.best
        compare = comparison.compare
        transplant = transplanting.transplant
        lineage = graph.lineage
        history = history.history
        audit = run.audit
        sample_history = sample_history.sample_history
        provenance = reproducing.provenance
        reproduce = reproducing.reproduce
        info = summary.info
        usage = usage.usage
        verify = checking.verify
        quarantine = checking.quarantine
        doctor = doctor.doctor
        delete = deleting.delete
        pin = noting.pin
        unpin = noting.unpin
        restore = trashing.restore
        gc = gc.gc
        export = exporting.export
        bundle = bundling.bundle
        unbundle = unbundling.unbundle
        copy_to = copying.copy_to
    else:
        experiments = Verb("query.asking")
        checkpoints = Verb("query.asking")
        latest = Verb("query.asking")
        best = Verb("query.asking")
        compare = Verb("comparing.comparison")
        transplant = Verb("transplanting.transplant")
        lineage = Verb("lineage.graph")
        history = Verb("lineage.history")
        audit = Verb("audit.run")
        sample_history = Verb("audit.sample_history")
        provenance = Verb("care.reproducing")
        reproduce = Verb("care.reproducing")
        info = Verb("care.summary")
        usage = Verb("care.usage")
        verify = Verb("care.checking")
        quarantine = Verb("care.checking")
        doctor = Verb("care.doctor")
        delete = Verb("care.deleting")
        pin = Verb("care.noting")
        unpin = Verb("care.noting")
        restore = Verb("care.trashing")
        gc = Verb("collecting.gc")
        export = Verb("export.exporting")
        bundle = Verb("transfer.bundling")
        unbundle = Verb("transfer.unbundling")
        copy_to = Verb("transfer.copying")

    @property
    def notes(self) -> RootNotes:
        """Names, notes and tags: `read`, `name`, `add`, `tag`, `remove`."""
        from weightslab.engine.care.noting import RootNotes

        return RootNotes(self)

    @property
    def trash(self) -> RootTrash:
        """Deleted checkpoints that can be had back: `list`, `put`, `restore`, `empty`."""
        from weightslab.engine.care.trashing import RootTrash

        return RootTrash(self)

    def refresh(self) -> None:
        """Forget what was remembered of the folders."""
        self.catalog.refresh()


def _make_folders(root: CheckpointRoot) -> None:
    try:
        root.store.create()
        for name in ("data", "logs", "checkpoints"):
            (root.path / name).mkdir(exist_ok=True)
    except OSError as error:
        raise ReadOnlyStoreError(
            f"cannot create folders in {root.path}: {error}",
            hint="open it with read_only=True, or choose a root_log_dir that can be written",
        ) from error


def _record(root: CheckpointRoot, exp_hash: str) -> ExperimentRecord:
    """Return the record of an experiment, read again and checked.

    Raises: ExperimentNotFoundError; ObjectNotFoundError, IntegrityError, FormatError.
    """
    full = root.get_hash(exp_hash)
    data = root.store.map(layout.experiment_key(full))
    return ExperimentRecord.from_bytes(data, exp_hash=full)
