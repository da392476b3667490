"""Importing: checkpoints of others become checkpoints here, each once, with their origin.

The identity of what comes in has no model, because architecture cannot be read from weights: config
and samples where the source knows them, and an `origin` that keeps unrelated sources apart. It is made
of what the source calls itself (or the content of its first checkpoint) and of the keys, shapes and
dtypes of the state. A checkpoint is known again by the digest of its files, wherever they lie, so an
import may be broken off and repeated, and a source that has grown brings in what is new.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import CheckpointError, FormatError, NotStorableError
from weightslab.engine.identity.canonical import digest_of_encoding, encode_canonical
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.jsonform import decode, encode
from weightslab.engine.repository.catalog import read_manifest
from weightslab.engine.repository.commit import Draft
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.notes import add_note, read_notes
from weightslab.engine.repository.opening import ExperimentContent, open_experiment
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import library_versions, record_event, write_or_find
from weightslab.engine.training.progress import Progress
from weightslab.engine.values import ParentLink
from weightslab.formats.held import HeldFile, HeldMemory, hold_file
from weightslab.formats.known import find_sources
from weightslab.formats.report import ImportedCheckpoint, ImportReport

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from weightslab.engine.identity.config import ConfigDescription
    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.formats.source import (
        Source,
        SourceCheckpoint,
        SourceExperiment,
        SourceState,
    )

__all__ = ["IMPORTED_FROM", "import_root"]

logger = logging.getLogger(__name__)
IMPORTED_FROM: Final = "imported_from"  # the key in the metadata of an imported checkpoint


def import_root(
    source: str | os.PathLike[str],
    root: str | os.PathLike[str] | CheckpointRoot,
    *,
    format: str | None = None,  # noqa: A002 - the word people know
    trust: bool = False,
    dry_run: bool = False,
    progress: Callable[[ImportedCheckpoint], object] | None = None,
) -> ImportReport:
    """Import everything that is found at a place; what cannot be is named in the report.

    The source is only read. Nothing in it is run, unless `trust` says so. Idempotent: what was
    imported before, known by the digest of its files, is not written again.

    Args:
        source: a file or folder of any known format, or a folder of such.
        root: the root to import into; created if it is not there.
        format: name of the format; by default each place is asked which one it is.
        trust: let pickles run whatever they name. They can do anything that you can.
        dry_run: read everything and write nothing; the root need not exist.
        progress: called after each checkpoint.
    Returns: the report; `is_complete` is False if anything was left out.
    Raises: NotFoundError (no source), FormatError (nothing known there), StorageError (root).
    """
    place = Path(source).absolute()
    sources, problems = find_sources(place, format)
    target = _target(root, dry_run=dry_run)
    told: list[ImportedCheckpoint] = []
    with HeldMemory() as memory:
        shared = _Shared(target, known_digests(target), memory, trust=trust, dry_run=dry_run)
        for found in sources:
            problems += [(name, reason) for name, reason in found.problems]
            importer = _Importer(found, shared)
            for checkpoint in found.checkpoints:
                told.append(importer.take(checkpoint))
                if progress is not None:
                    progress(told[-1])
    return ImportReport(
        source=str(place),
        root=str(target.path),
        is_dry_run=dry_run,
        checkpoints=tuple(told),
        problems=tuple(problems),
    )


def _target(root: str | os.PathLike[str] | CheckpointRoot, *, dry_run: bool) -> CheckpointRoot:
    if isinstance(root, CheckpointRoot):
        return root
    return CheckpointRoot(root, read_only=dry_run, must_exist=False)


@dataclass(slots=True)
class _HeldReader:
    """Holds the files of one checkpoint while it is read."""

    trust: bool
    stack: ExitStack
    memory: HeldMemory
    held: dict[Path, HeldFile] = field(default_factory=dict)

    def hold(self, path: Path) -> HeldFile:
        """Return the bytes of a file as they are now."""
        path = path.absolute()
        if path not in self.held:
            self.held[path] = self.stack.enter_context(hold_file(path, self.memory))
        return self.held[path]

    def digest(self, key: str) -> str:
        """Return the digest of the files held so far, under the name that they have in the source."""
        lines = [f"{file.size_bytes} {file.digest}" for file in self.held.values()]
        return digest_bytes("\n".join([key, *lines]).encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class _Opened:
    """An experiment that checkpoints are committed to."""

    exp_hash: str
    digest: str
    config_file: str | None


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the sources of one import have in common.

    `known`: digest of source files -> the checkpoint here; it grows with the import.
    """

    root: CheckpointRoot
    known: dict[str, CheckpointName]
    memory: HeldMemory
    trust: bool
    dry_run: bool


class _Importer:
    """Takes the checkpoints of one source in."""

    def __init__(self, source: Source, shared: _Shared) -> None:
        self._source, self._root = source, shared.root
        self._trust, self._dry_run = shared.trust, shared.dry_run
        self._known, self._memory = shared.known, shared.memory
        self._experiments = {e.key: e for e in source.experiments}
        self._opened: dict[tuple[str, str | None, str], _Opened] = {}
        self._origins: dict[str, str] = {}  # key of an experiment -> identity that it goes by here
        self._placed: dict[str, ParentLink] = {}  # key of a checkpoint -> link that names it

    def take(self, checkpoint: SourceCheckpoint) -> ImportedCheckpoint:
        """Import one checkpoint, or say why not."""
        with ExitStack() as stack:
            reader = _HeldReader(self._trust, stack, self._memory)
            try:
                return self._take(checkpoint, reader)
            except (CheckpointError, OSError) as error:
                logger.warning("%s was not imported: %s", checkpoint.key, error)
                return self._tell(checkpoint, reader, "failed", reason=str(error))

    def _take(self, checkpoint: SourceCheckpoint, reader: _HeldReader) -> ImportedCheckpoint:
        for path in checkpoint.files:
            reader.hold(path)
        self._memory.trim()
        digest = reader.digest(checkpoint.key)
        if digest in self._known:
            return self._tell_known(checkpoint, reader, digest)
        state = _load(checkpoint, reader)
        opened = self._open(checkpoint, state, digest)
        step = state.step if state.step is not None else checkpoint.step
        draft, omitted = self._draft(checkpoint, state, opened, digest, step)
        if self._dry_run:
            return self._tell(
                checkpoint,
                reader,
                "would import",
                opened.exp_hash,
                draft.step,
                omitted=omitted,
                damaged=state.damaged,
            )
        manifest, _ = write_or_find(self._root, draft, because=f"import of {checkpoint.key}")
        link = ParentLink(
            kind="checkpoint",
            exp_hash=manifest.name.exp_hash,
            step=manifest.name.step,
            revision=manifest.name.revision,
            manifest_digest=manifest.digest,
        )
        self._placed[checkpoint.key] = link
        self._known[digest] = manifest.name
        return self._tell(
            checkpoint,
            reader,
            "imported",
            opened.exp_hash,
            draft.step,
            revision=manifest.name.revision,
            omitted=omitted,
            damaged=state.damaged,
        )

    # ------------------------------------------------------------ telling
    def _tell(
        self,
        checkpoint: SourceCheckpoint,
        reader: _HeldReader,
        status: str,
        exp_hash: str | None = None,
        step: int | None = None,
        **more: Any,
    ) -> ImportedCheckpoint:
        return ImportedCheckpoint(
            format=self._source.format,
            key=checkpoint.key,
            status=status,
            exp_hash=exp_hash,
            step=step,
            size_bytes=sum(file.size_bytes for file in reader.held.values()),
            **more,
        )

    def _tell_known(
        self, checkpoint: SourceCheckpoint, reader: _HeldReader, digest: str
    ) -> ImportedCheckpoint:
        name = self._known[digest]
        manifest = read_manifest(self._root.store, name)
        self._placed[checkpoint.key] = ParentLink(
            kind="checkpoint",
            exp_hash=name.exp_hash,
            step=name.step,
            revision=name.revision,
            manifest_digest=manifest.digest,
        )
        told = _origin_of(manifest.metadata)
        self._origins.setdefault(checkpoint.experiment, str(told.get("identity", "")))
        return self._tell(
            checkpoint,
            reader,
            "known",
            name.exp_hash,
            name.step,
            revision=name.revision,
            damaged=tuple(map(str, told.get("damaged", ()))),
        )

    # ------------------------------------------------------------ experiments
    def _open(self, checkpoint: SourceCheckpoint, state: SourceState, digest: str) -> _Opened:
        experiment = self._experiments[checkpoint.experiment]
        config = experiment.config if experiment.config is not None else state.config
        described = None if config is None else describe_config(config)
        identity = experiment.identity or self._origins.get(experiment.key) or digest
        self._origins.setdefault(experiment.key, identity)
        origin = _origin_digest(self._source.format, identity, state)
        key = experiment.key, None if described is None else described.digest, origin
        if key not in self._opened:
            self._opened[key] = self._make(experiment, described, state, origin)
        return self._opened[key]

    def _make(
        self,
        experiment: SourceExperiment,
        config: ConfigDescription | None,
        state: SourceState,
        origin: str,
    ) -> _Opened:
        samples = None
        if experiment.uids is not None:
            samples = SampleSet.from_uids(experiment.uids)
            if discarded := list(experiment.discarded):
                samples = samples.with_discarded(discarded)
            samples = samples.frozen()
        components = Components(
            config=None if config is None else config.digest,
            data=None if samples is None else samples.digest,
            origin=origin,
        )
        record = ExperimentRecord(
            components=components,
            created_at=self._root.clock(),
            excluded=() if config is None else config.excluded,
            weak=(f"model: known by keys, shapes and dtypes of its state ({self._source.format})",),
            facts=_facts(state)
            | {"imported_from": self._source.format}
            | ({} if samples is None else {"num_samples": len(samples)}),
        )
        if not self._dry_run:
            content = ExperimentContent(
                config=None if config is None else config.plain, samples=samples
            )
            if open_experiment(self._root.store, record, content):
                record_event(self._root, "experiment_begun", exp_hash=record.exp_hash)
            self._note(record.exp_hash, experiment, experiment.name or state.name)
        config_file = None if config is None else f"{record.exp_hash}_config.yaml"
        return _Opened(record.exp_hash, components.digest, config_file)

    def _note(self, exp_hash: str, experiment: SourceExperiment, name: str | None) -> None:
        store, there = self._root.store, read_notes(self._root.store, exp_hash)
        if name and there.name is None:
            add_note(store, exp_hash, kind="name", text=name, now=self._root.clock())
        texts = {note.text for note in there.notes}
        for text in experiment.notes:
            if text and text not in texts:
                add_note(store, exp_hash, kind="note", text=text, now=self._root.clock())

    # ------------------------------------------------------------ checkpoints
    def _draft(
        self,
        checkpoint: SourceCheckpoint,
        state: SourceState,
        opened: _Opened,
        digest: str,
        step: int | None,
    ) -> tuple[Draft, tuple[str, ...]]:
        from weightslab.engine.saving.snapshot import take_snapshot
        from weightslab.engine.training.models import ModelState

        models = {
            f"model.{name}" if name else "model": ModelState(
                tensors=dict(tensors), extra=dict(state.extra.get(name, {}))
            )
            for name, tensors in state.models.items()
        }
        omitted = list(state.omitted)
        tree = _training_tree(state, step or 0)
        try:
            snapshot = take_snapshot(models, tree)
        except NotStorableError as error:
            if tree is None:
                raise
            snapshot = take_snapshot(models, None)
            omitted.append(f"training state: {error}")
        origin = {
            "format": self._source.format,
            "key": checkpoint.key,
            "identity": self._origins[checkpoint.experiment],
            "files_digest": digest,
            "created_at": checkpoint.created_at and checkpoint.created_at.isoformat(),
            "step_is": checkpoint.step_is if step is not None else "unknown",
            "omitted": omitted,
            "damaged": list(state.damaged),
            "trusted": self._trust,
            "experiment": dict(self._experiments[checkpoint.experiment].metadata),
        }
        draft = Draft(
            exp_hash=opened.exp_hash,
            experiment_digest=opened.digest,
            step=step or 0,
            images=snapshot.images,
            aliases=snapshot.aliases,
            state=snapshot.state,
            metadata=encode({**state.metadata, IMPORTED_FROM: origin}, path="metadata"),
            metrics=encode(dict(state.metrics), path="metrics"),
            parent=self._parent(checkpoint),
            config_file=opened.config_file,
            versions=library_versions(),
        )
        return draft, tuple(omitted)

    def _parent(self, checkpoint: SourceCheckpoint) -> ParentLink:
        found = self._placed.get(checkpoint.parent) if checkpoint.parent is not None else None
        return found or ParentLink(kind="import", exact=None)


def known_digests(root: CheckpointRoot) -> dict[str, CheckpointName]:
    """Return digest of source files -> the checkpoint that was imported from them."""
    found: dict[str, CheckpointName] = {}
    for experiment in root.catalog.experiments():
        if experiment.record is None or experiment.record.components.origin is None:
            continue
        for entry in root.catalog.checkpoints(experiment.exp_hash):
            if entry.damaged is None:
                told = _origin_of(read_manifest(root.store, entry.name).metadata)
                if isinstance(told.get("files_digest"), str):
                    found[told["files_digest"]] = entry.name
    return found


def _origin_of(metadata: Any) -> dict[str, Any]:
    plain = decode(metadata, path="metadata")
    found = plain.get(IMPORTED_FROM) if isinstance(plain, dict) else None
    return found if isinstance(found, dict) else {}


def _origin_digest(format_name: str, identity: str, state: SourceState) -> str:
    """Return the digest of where it came from: the source, and what its state looks like."""
    tensors = [
        [name, key, str(tensor.dtype).removeprefix("torch."), [str(n) for n in tensor.shape]]
        for name, model in sorted(state.models.items())
        for key, tensor in sorted(model.items())
    ]
    return digest_of_encoding("origin", encode_canonical([format_name, identity, tensors]))


def _facts(state: SourceState) -> dict[str, Any]:
    tensors = [tensor for model in state.models.values() for tensor in model.values()]
    return {"num_tensors": len(tensors), "num_parameters": sum(t.numel() for t in tensors)}


def _load(checkpoint: SourceCheckpoint, reader: _HeldReader) -> SourceState:
    try:
        return checkpoint.load(reader)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # whatever a format makes of a file that was made to hurt
        raise FormatError(
            f"{checkpoint.key} is not in order: {type(error).__name__}: {error!s:.200}"
        ) from error


def _training_tree(state: SourceState, step: int) -> dict[str, Any] | None:
    optimizers: Mapping[str, Any] = state.optimizers
    random = None if state.random is None else dict(state.random)
    if not (optimizers or state.schedulers or random) and state.epoch is None:
        return None
    return {
        "optimizer": {
            name: {"class": None, "names": [], "state": found} for name, found in optimizers.items()
        },
        "tracked": {
            name: {"kind": "stateful", "class": None, "state": found}
            for name, found in state.schedulers.items()
        },
        "progress": Progress(step=step, epoch=state.epoch, world_size=state.world_size).to_tree(),
        **({} if random is None else {"random": random}),
    }


def require_models(state: SourceState, key: str) -> None:
    """Raise unless there is a model in it.

    Raises: FormatError.
    """
    if not any(state.models.values()):
        raise FormatError(f"{key} holds no tensors of a model")
