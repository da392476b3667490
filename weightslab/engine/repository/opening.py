"""Opening an experiment: its files are written first, its record last.

Two processes may open one experiment at once. Each file is created exclusively; who comes second
reads what is there and checks that it decodes to the digest it expects.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weightslab.engine.digests import seal_digest
from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    ExperimentHashClashError,
    FormatError,
    IntegrityError,
    InvalidManifestError,
    UnsupportedVersionError,
)
from weightslab.engine.identity.config import describe_config
from weightslab.engine.jsonform import seal, seal_text, unseal, unseal_text
from weightslab.engine.repository import layout
from weightslab.engine.repository.commit import remove_leftovers
from weightslab.engine.repository.config_file import config_from_bytes, config_to_bytes
from weightslab.engine.repository.data_file import add_sidecar, read_data_file, sidecar_key
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.sample_file import samples_from_bytes, samples_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.identity.samples import SampleSet
    from weightslab.engine.storage.store import Store

__all__ = ["ExperimentContent", "open_experiment", "read_architecture", "write_config_revision"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentContent:
    """What the files of an experiment hold; None for a component that was not given."""

    architecture: dict[str, Any] | None = None
    architecture_text: str = ""
    config: dict[str, Any] | None = None
    samples: SampleSet | None = None
    discarded: SampleSet | None = None


@dataclass(frozen=True, slots=True)
class _File:
    """One file: how to make it, and how to tell that what is there will do."""

    key: str
    render: Callable[[], bytes]
    check: Callable[[], object]


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
    exp_hash, key = record.exp_hash, layout.experiment_key(record.exp_hash)
    exists = store.stat(key) is not None
    if exists:
        _check_same(store, record, force=force)
    if exists and not force:
        _warn_missing(store, record, content)
        return False
    files = _files(store, record, content)
    for file in files:
        _ensure(store, file, force=force)
    for folder in sorted({file.key.rpartition("/")[0] + "/" for file in files}):
        store.sync(folder)
    created = store.put(key, [record.to_bytes()], if_absent=True)
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
        store.put(key, [record.to_bytes()])
        store.sync(layout.experiment_folder(record.exp_hash))


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


def _files(store: Store, record: ExperimentRecord, content: ExperimentContent) -> list[_File]:
    exp_hash, files = record.exp_hash, []
    if content.architecture is not None:
        files += _architecture_files(store, record, content)
    if content.config is not None:
        config, key = content.config, layout.config_key(exp_hash)
        files.append(
            _File(
                key,
                lambda: config_to_bytes(config),
                lambda: _check_config(store, key, record, config),
            )
        )
    if content.samples is not None:
        samples, data_key = content.samples, layout.data_key(exp_hash)
        files.append(
            _File(
                data_key,
                lambda: samples_to_bytes(samples, discarded=content.discarded),
                lambda: _check_samples(store, data_key, record),
            )
        )
    return files


def _architecture_files(
    store: Store, record: ExperimentRecord, content: ExperimentContent
) -> list[_File]:
    key = layout.architecture_key(record.exp_hash)
    text_key = layout.architecture_key(record.exp_hash, "txt")
    return [
        _File(
            key,
            lambda: seal(
                {"schema": "weightslab.architecture", "schema_version": 1}
                | {"description": content.architecture}
            ),
            lambda: _check_architecture(store, record),
        ),
        _File(
            text_key,
            lambda: seal_text(content.architecture_text),
            lambda: unseal_text(store.map(text_key), what=text_key),
        ),
    ]


def _ensure(store: Store, file: _File, *, force: bool) -> None:
    """Create the file, or check the one that is there."""
    is_data = file.key.endswith(".h5")
    if store.stat(file.key) is None and store.put(file.key, [file.render()], if_absent=True):
        if is_data:
            add_sidecar(store, file.key)
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
        store.put(file.key, [file.render()])
        if is_data:
            store.delete(sidecar_key(file.key))
            add_sidecar(store, file.key)


def _warn_missing(store: Store, record: ExperimentRecord, content: ExperimentContent) -> None:
    for file in _files(store, record, content):
        if store.stat(file.key) is None:
            logger.warning(
                "%s is missing; update_experiment_hash(..., force=True) writes it again", file.key
            )


def tidy(store: Store, exp_hash: str) -> list[str]:
    """Remove what dead writers left in an experiment: temporary files, files without a manifest.

    Stores without temporary files have nothing to sweep. Returns the names of what was removed.
    """
    removed = []
    sweep = getattr(store, "sweep", None)
    if sweep is not None:
        for folder in (layout.experiment_folder, layout.model_folder):
            removed += sweep(folder(exp_hash))
        for folder in (layout.config_folder, layout.data_folder):
            removed += sweep(folder(exp_hash))
    removed += remove_leftovers(store, exp_hash)
    if removed:
        logger.info("removed %d files of interrupted writes in %s", len(removed), exp_hash)
    return removed


def read_architecture(store: Store, exp_hash: str) -> dict[str, Any]:
    """Return the stored description of the model.

    Raises: ObjectNotFoundError if the experiment has none, IntegrityError, FormatError.
    """
    key = layout.architecture_key(exp_hash)
    document, _ = unseal(store.map(key), what=key.rpartition("/")[2])
    description = document.get("description")
    if not isinstance(description, dict):
        raise FormatError(f"{key} holds no description")
    return description


def _check_architecture(store: Store, record: ExperimentRecord) -> None:
    from weightslab.engine.identity.architecture import digest_of_document

    key = layout.architecture_key(record.exp_hash)
    try:
        found = digest_of_document(read_architecture(store, record.exp_hash))
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise InvalidManifestError(f"{key} is not in order: {error!r}") from error
    _check_digest(key, found, record.components.model)


def _check_config(
    store: Store, key: str, record: ExperimentRecord, expected: dict[str, Any]
) -> None:
    # both sides as they come out of a file: a set and a list are two configs, and one YAML
    stored = config_from_bytes(store.map(key), what=key.rpartition("/")[2])
    found, wanted = (describe_config(c, exclude=record.excluded).digest for c in (stored, expected))
    _check_digest(key, found, wanted)


def _check_samples(store: Store, key: str, record: ExperimentRecord) -> None:
    samples = samples_from_bytes(read_data_file(store, key), what=key.rpartition("/")[2])
    _check_digest(key, samples.digest, record.components.data)


def _check_digest(key: str, found: str, expected: str | None) -> None:
    if found != expected:
        raise DigestMismatchError(f"{key} describes {found}, but the experiment is of {expected}")


def write_config_revision(store: Store, exp_hash: str, plain: dict[str, Any], *, name: str) -> str:
    """Store a config beside the one of the identity; returns its key.

    What the newest revision holds already is not written again. Numbers are taken by exclusive
    creation, so two writers never share one.
    """
    layout.check_label(name, what="config name")
    data = config_to_bytes(plain)
    newest = max((r for n, r in config_revisions(store, exp_hash) if n == name), default=0)
    if newest:
        key = layout.config_key(exp_hash, name=name, revision=newest)
        if seal_digest(store.map(key)) == seal_digest(data):
            return key
    revision = newest + 1
    while not store.put(
        layout.config_key(exp_hash, name=name, revision=revision), [data], if_absent=True
    ):
        revision += 1
    store.sync(layout.config_folder(exp_hash))
    return layout.config_key(exp_hash, name=name, revision=revision)


def newest_config(store: Store, exp_hash: str) -> str | None:
    """Return the file name of the newest revision of the config, None without one."""
    newest = max((r for n, r in config_revisions(store, exp_hash) if n == "config"), default=0)
    key = layout.config_key(exp_hash, revision=newest)
    return key.rpartition("/")[2] if newest else None


def config_revisions(store: Store, exp_hash: str) -> list[tuple[str, int]]:
    """Return (name, revision) of every config file of the experiment, ascending."""
    parsed = (
        layout.parse_config_name(exp_hash, file)
        for file in store.list(layout.config_folder(exp_hash))
    )
    return sorted(p for p in parsed if p is not None)
