"""Opening an experiment: its files are written first, its record last.

Two processes may open one experiment at once. Each file is created exclusively; who comes second
reads what is there and checks that it decodes to the digest it expects.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightslab.engine.errors import (
    CheckpointError,
    ExperimentHashClashError,
    FormatError,
    IntegrityError,
    UnsupportedVersionError,
)
from weightslab.engine.jsonform import unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.commit import remove_leftovers
from weightslab.engine.repository.component_file import (
    architecture_text_to_bytes,
    architecture_to_bytes,
    read_architecture,
    read_architecture_text,
    read_config,
    read_samples,
)
from weightslab.engine.repository.config_file import (
    config_from_bytes,
    config_revisions,
    config_to_bytes,
    newest_config,
    same_config,
)
from weightslab.engine.repository.data_file import add_sidecar, finish_backups, sidecar_key
from weightslab.engine.repository.experiment import ExperimentRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.storage.store import Buffer, Store

__all__ = [
    "ExperimentContent",
    "ExperimentFile",
    "newest_config",
    "open_experiment",
    "open_with_files",
    "write_config_revision",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentContent:
    """What the files of an experiment hold; None for a component that was not given."""

    architecture: dict[str, Any] | None = None
    architecture_text: str = ""
    config: dict[str, Any] | None = None
    samples: SampleSet | None = None


@dataclass(frozen=True, slots=True)
class ExperimentFile:
    """One file: how to make it, and how to tell that what is there will do."""

    key: str
    render: Callable[[], Buffer]
    check: Callable[[], object]
    mend: Callable[[], Buffer] | None = None  # makes it again beside what may be damaged, too
    after: Callable[[], None] | None = None  # called when this process has written it


def open_experiment(
    store: Store, record: ExperimentRecord, content: ExperimentContent, *, force: bool = False
) -> bool:
    """Create the experiment if it is not there.

    Args:
        store: where the root lives.
        record: its record; the record of an existing experiment is left alone.
        content: its files.
        force: check the files of an existing experiment too, and write again what is missing or
            damaged.
    Returns: True if this call created it.
    Raises: ExperimentHashClashError, IntegrityError (a damaged file; says how to mend it),
        StorageError.
    """
    files = _files(store, record, content)
    return open_with_files(store, record, files, force=force)


def open_with_files(
    store: Store,
    record: ExperimentRecord,
    files: Sequence[ExperimentFile],
    *,
    content: Buffer | None = None,
    force: bool = False,
) -> bool:
    """Do as `open_experiment` with files that the caller makes.

    Args:
        store: where the root lives.
        record: its record.
        files: how to make each of its files; they are asked in order, and only if they are needed.
        content: the bytes of the record; None renders it.
        force: as for `open_experiment`.
    Raises: as `open_experiment`.
    """
    exp_hash, key = record.exp_hash, layout.experiment_key(record.exp_hash)
    exists = store.stat(key) is not None
    if exists:
        _check_same(store, record, force=force)
    if exists and not force:
        _warn_missing(store, files)
        return False
    for file in files:
        # without a record nothing was acknowledged: what a power loss left half is written again
        _ensure(store, file, force=force or not exists)
    for folder in sorted({file.key.rpartition("/")[0] + "/" for file in files}):
        store.sync(folder)
    created = store.put(key, [content or record.to_bytes()], if_absent=True)
    store.sync(layout.experiment_folder(exp_hash))
    if not created:
        _check_same(store, record, force=False)
    return created


def _check_same(store: Store, record: ExperimentRecord, *, force: bool) -> None:
    """Hold the full digest of what is there against ours: 16 digits name a folder, 64 decide."""
    key = layout.experiment_key(record.exp_hash)
    try:
        document, _ = unseal(store.map(key), what=f"experiment record of {record.exp_hash}")
        _refuse_clash(document, record)
        ExperimentRecord.from_bytes(store.map(key), exp_hash=record.exp_hash)
    except (ExperimentHashClashError, UnsupportedVersionError):
        raise  # neither is damage
    except (IntegrityError, FormatError) as error:
        if not force:
            error.hint = "update_experiment_hash(..., force=True) writes the record again"
            raise
        logger.warning("writing %s again: %s", key, error)
        store.put(key, [record.to_bytes()])  # the caller syncs the folder


def _refuse_clash(document: dict[str, Any], record: ExperimentRecord) -> None:
    identity = document.get("identity")
    found = str(identity.get("combined")) if isinstance(identity, dict) else ""
    expected = record.components.digest
    start = expected.rindex(":") + 1
    if found != expected and found[start : start + 16] == record.exp_hash:
        raise ExperimentHashClashError(
            f"{record.exp_hash} is the folder of {found}, not of {expected}",
            hint="two identities share 16 digits (p = 1e-9 at 190,000 experiments);"
            " use another root for one of them",
        )


def _files(
    store: Store, record: ExperimentRecord, content: ExperimentContent
) -> list[ExperimentFile]:
    from weightslab.engine.repository.sample_base import remember_written, render_samples
    from weightslab.engine.repository.sample_file import samples_to_bytes

    exp_hash, files = record.exp_hash, []
    if (
        content.config is not None
    ):  # first: what YAML cannot hold is refused before anything is written
        config, key = content.config, layout.config_key(exp_hash)
        files.append(
            ExperimentFile(
                key,
                lambda: config_to_bytes(config, name=key.rpartition("/")[2]),
                lambda: read_config(store, record),
            )
        )
    if content.architecture is not None:
        files += _architecture_files(store, record, content)
    if content.samples is not None:
        samples, data_key = content.samples, layout.data_key(exp_hash)
        files.append(
            ExperimentFile(
                data_key,
                lambda: render_samples(store, exp_hash, samples),
                lambda: read_samples(store, record),
                lambda: samples_to_bytes(samples),
                lambda: remember_written(store, exp_hash, samples),
            )
        )
    return files


def _architecture_files(
    store: Store, record: ExperimentRecord, content: ExperimentContent
) -> list[ExperimentFile]:
    exp_hash, description = record.exp_hash, content.architecture or {}
    return [
        ExperimentFile(
            layout.architecture_key(exp_hash),
            lambda: architecture_to_bytes(exp_hash, description),
            lambda: read_architecture(store, record),
        ),
        ExperimentFile(
            layout.architecture_key(exp_hash, "txt"),
            lambda: architecture_text_to_bytes(exp_hash, content.architecture_text),
            lambda: read_architecture_text(store, exp_hash),
        ),
    ]


def _ensure(store: Store, file: ExperimentFile, *, force: bool) -> None:
    """Create the file, or check the one that is there."""
    is_data = file.key.endswith(".h5")
    if store.stat(file.key) is None and store.put(file.key, [file.render()], if_absent=True):
        if is_data:
            add_sidecar(store, file.key)
        if file.after is not None:
            file.after()
        return
    try:
        if is_data and store.stat(sidecar_key(file.key)) is None:
            add_sidecar(store, file.key)  # its writer died between the two, or is about to add it
        file.check()
    except UnsupportedVersionError:
        raise  # not damage, and not ours to write over
    except CheckpointError as error:
        if not force:
            error.hint = "update_experiment_hash(..., force=True) writes the file again"
            raise
        logger.warning("writing %s again: %s", file.key, error)
        store.put(file.key, [(file.mend or file.render)()])
        if is_data:
            store.delete(sidecar_key(file.key))
            add_sidecar(store, file.key)


def _warn_missing(store: Store, files: Iterable[ExperimentFile]) -> None:
    for file in files:
        if store.stat(file.key) is None:
            logger.warning(
                "%s is missing; update_experiment_hash(..., force=True) writes it again", file.key
            )


def tidy(store: Store, exp_hash: str) -> list[str]:
    """Remove what dead writers left in an experiment: temporary files, files without a manifest.

    Stores without temporary files have nothing to sweep. Returns the names of what was removed.
    """
    from weightslab.engine.repository.sample_base import drop_unneeded_base  # brings numpy

    removed = []
    sweep = getattr(store, "sweep", None)
    if sweep is not None:
        for folder in (layout.experiment_folder, layout.model_folder):
            removed += sweep(folder(exp_hash))
        for folder in (layout.config_folder, layout.data_folder, layout.notes_folder):
            removed += sweep(folder(exp_hash))
        removed += sweep(layout.provenance_folder(exp_hash))
        for aside in (layout.QUARANTINE, layout.TRASH):
            for name in store.list(aside):
                if name.startswith(exp_hash):
                    removed += sweep(aside + name)
    removed += remove_leftovers(store, exp_hash) + drop_unneeded_base(store, exp_hash)
    removed += finish_backups(store, exp_hash)
    if removed:
        logger.info("removed %d files of interrupted writes in %s", len(removed), exp_hash)
    return removed


def write_config_revision(store: Store, exp_hash: str, plain: dict[str, Any], *, name: str) -> str:
    """Store a config beside the one of the identity; returns its key.

    What the newest revision holds already is not written again. Numbers are taken by exclusive
    creation, so two writers never share one.
    """
    layout.check_label(name, what="config name")
    newest = max((r for n, r in config_revisions(store, exp_hash) if n == name), default=0)
    if newest:
        key = layout.config_key(exp_hash, name=name, revision=newest)
        if same_config(config_from_bytes(store.map(key), name=key.rpartition("/")[2]), plain):
            store.sync(layout.config_folder(exp_hash))
            return key
    for revision in itertools.count(newest + 1):
        key = layout.config_key(exp_hash, name=name, revision=revision)
        if store.put(key, [config_to_bytes(plain, name=key.rpartition("/")[2])], if_absent=True):
            break
    store.sync(layout.config_folder(exp_hash))
    return key
