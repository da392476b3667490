"""Verification: reads every byte of what was committed and says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from weightslab.engine.errors import CheckpointError
from weightslab.engine.jsonform import unseal
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import map_file, read_manifest
from weightslab.engine.repository.component_file import (
    read_architecture,
    read_architecture_text,
    read_config,
    read_samples,
)
from weightslab.engine.repository.config_file import config_from_bytes
from weightslab.engine.repository.data_file import pending_key, read_data_file, sidecar_key
from weightslab.engine.repository.experiment import ExperimentRecord
from weightslab.engine.repository.sample_base import read_sample_set
from weightslab.engine.tensors.check import verify_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import FileRecord

__all__ = ["Finding", "verify_checkpoint", "verify_experiment", "verify_files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        key: what it is about.
        problem: what is wrong, in words.
    """

    key: str
    problem: str


def verify_files(store: Store, manifest: Manifest) -> None:
    """Read every byte of every file that `manifest` names.

    Raises: MissingObjectError, TruncatedError, DigestMismatchError for the first thing wrong.
    """
    for file in manifest.files:
        _verify_file(store, manifest, file)


def _verify_file(store: Store, manifest: Manifest, file: FileRecord) -> None:
    data = map_file(store, manifest.name, file.name)
    verify_file(data, file, manifest.tensors_in(file))


def verify_checkpoint(store: Store, name: CheckpointName) -> list[Finding]:
    """Check the manifest and every byte of the files of one checkpoint."""
    try:
        manifest = read_manifest(store, name)
    except CheckpointError as error:
        return [Finding(key=name.manifest_key, problem=str(error))]
    return [
        finding
        for file in manifest.files
        for finding in _findings(file.name, partial(_verify_file, store, manifest, file))
    ]


def verify_experiment(store: Store, exp_hash: str) -> list[Finding]:
    """Check every byte of the files of an experiment beside its checkpoints.

    A file that the record promises and that is not there is a finding, too; so is a data file of
    which only the sidecar is left.
    """
    key = layout.experiment_key(exp_hash)
    findings, promised, record = [], set(), None
    try:
        record = ExperimentRecord.from_bytes(store.map(key), exp_hash=exp_hash)
        promised = _promised(record)
    except CheckpointError as error:
        findings.append(Finding(key=key, problem=str(error)))
    for name in sorted(promised | _present(store, exp_hash)):
        findings += _findings(name, partial(_check_file, store, record, exp_hash, name))
    return findings


def _promised(record: ExperimentRecord) -> set[str]:
    """Return the keys of the files that an experiment with this record has."""
    exp_hash, components = record.exp_hash, record.components
    keys = {
        layout.architecture_key(exp_hash): components.model,
        layout.architecture_key(exp_hash, "txt"): components.model,
        layout.config_key(exp_hash): components.config,
        layout.data_key(exp_hash): components.data,
    }
    return {key for key, digest in keys.items() if digest is not None}


def _present(store: Store, exp_hash: str) -> set[str]:
    """Return the keys of all files of ours in an experiment, checkpoints and record left out."""
    architecture = (layout.architecture_key(exp_hash, suffix) for suffix in ("json", "txt"))
    found = {key for key in architecture if store.stat(key) is not None}
    for folder, ending in (
        (layout.config_folder(exp_hash), ".yaml"),
        (layout.data_folder(exp_hash), ".h5"),
    ):
        listed = set(store.list(folder))
        names = {name.removesuffix(".json") for name in listed}
        names -= {n for n in names if _is_unfinished(n, listed)}
        names.discard(layout.samples_base_key(exp_hash).rpartition("/")[2])  # read with its delta
        found |= {folder + n for n in names if n.startswith(exp_hash) and n.endswith(ending)}
    return found


def _is_unfinished(name: str, listed: set[str]) -> bool:
    """Tell whether a backup is being written, or its writer died: it was never acknowledged."""
    return pending_key(name) in listed and not {name, sidecar_key(name)} <= listed


def _check_file(store: Store, record: ExperimentRecord | None, exp_hash: str, key: str) -> None:
    """Read a file; with a record to hold it against, the components against their digests."""
    name = key.rpartition("/")[2]
    if name.endswith(".txt"):
        read_architecture_text(store, exp_hash)
    elif record is not None and key == layout.architecture_key(exp_hash):
        read_architecture(store, record)
    elif record is not None and key == layout.data_key(exp_hash):
        read_samples(store, record)
    elif key == layout.data_key(exp_hash):
        read_sample_set(store, exp_hash)
    elif record is not None and name.endswith(".yaml"):
        read_config(store, record, file=name)
    elif name.endswith(".yaml"):
        config_from_bytes(store.map(key), name=name)
    elif name.endswith(".h5"):
        read_data_file(store, key)
    else:
        unseal(store.map(key), what=name)


def _findings(key: str, check: Callable[[], object]) -> list[Finding]:
    try:
        check()
    except CheckpointError as error:
        return [Finding(key=key, problem=str(error))]
    return []
