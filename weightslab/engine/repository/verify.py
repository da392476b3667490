"""Verification: reads every byte of what was committed and says what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from weightslab.engine.errors import CheckpointError
from weightslab.engine.jsonform import unseal, unseal_text
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import map_file, read_manifest
from weightslab.engine.repository.config_file import config_from_bytes
from weightslab.engine.repository.data_file import read_data_file
from weightslab.engine.repository.experiment import ExperimentRecord
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
    verify_file(data, file, manifest.tensors_of(file))


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
    """Check every byte of the files of an experiment beside its checkpoints."""
    checks: dict[str, Callable[[], object]] = {
        layout.experiment_key(exp_hash): lambda: ExperimentRecord.from_bytes(
            store.map(layout.experiment_key(exp_hash)), exp_hash=exp_hash
        )
    }
    for suffix, check in (("json", unseal), ("txt", unseal_text)):
        key = layout.architecture_key(exp_hash, suffix)
        if store.stat(key) is not None:
            checks[key] = partial(_check_sealed, store, key, check)
    for folder, ending, check_file in (
        (layout.config_folder(exp_hash), ".yaml", _check_config),
        (layout.data_folder(exp_hash), ".h5", read_data_file),
    ):
        for name in store.list(folder):
            if name.startswith(exp_hash) and name.endswith(ending):
                checks[folder + name] = partial(check_file, store, folder + name)
    return [f for key, check_key in checks.items() for f in _findings(key, check_key)]


def _findings(key: str, check: Callable[[], object]) -> list[Finding]:
    try:
        check()
    except CheckpointError as error:
        return [Finding(key=key, problem=str(error))]
    return []


def _check_sealed(store: Store, key: str, check: Callable[..., object]) -> None:
    check(store.map(key), what=key.rpartition("/")[2])


def _check_config(store: Store, key: str) -> None:
    config_from_bytes(store.map(key), what=key.rpartition("/")[2])
