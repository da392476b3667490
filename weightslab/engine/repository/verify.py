"""Verification: reads every byte of what was committed and says what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightslab.engine.errors import CheckpointError, CheckpointNotFoundError
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
from weightslab.engine.repository.findings import Finding, Meter, Tally, VerifyReport
from weightslab.engine.repository.notes import note_keys, read_note
from weightslab.engine.repository.provenance import provenance_keys, read_provenance
from weightslab.engine.tensors.check import verify_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightslab.engine.repository.layout import CheckpointName
    from weightslab.engine.repository.manifest import Manifest
    from weightslab.engine.storage.store import Store
    from weightslab.engine.values import FileRecord

__all__ = [
    "Finding",
    "VerifyReport",
    "keys_beside",
    "verify_all",
    "verify_checkpoint",
    "verify_experiment",
    "verify_files",
]


def verify_files(store: Store, manifest: Manifest, tally: Tally | None = None) -> None:
    """Read every byte of every file that `manifest` names.

    Args:
        store: where the root lives.
        manifest: the checkpoint.
        tally: what is known of files by then: another name of one that was right is not read again.
    Raises: MissingObjectError, TruncatedError, DigestMismatchError for the first thing wrong.
    """
    for file in manifest.files:
        _verify_file(store, manifest, file, tally or Tally())


def keys_beside(store: Store, exp_hash: str) -> list[str]:
    """Return the keys of the files of an experiment beside record and checkpoints, damaged or not.

    Without the sidecars of data files, and without the file that a samples file which is a delta
    refers to.

    Raises: StorageError, FormatError if a folder cannot be read.
    """
    beside, problems = _beside(store, exp_hash)
    for problem in problems.values():
        raise problem
    return sorted(_present(store, exp_hash) | beside)


def _verify_file(store: Store, manifest: Manifest, file: FileRecord, tally: Tally) -> None:
    """Hash a file; what was right under another of its names is not hashed again."""
    key, records = manifest.name.file_key(file.name), manifest.tensors_in(file)
    stat = store.stat(key)
    meter = Meter(tally, 0 if stat is None else stat.size_bytes)
    spans = {name: (r.offset, r.size_bytes, r.digest) for name, r in records.items()}
    whole = (0, file.size_bytes, file.digest)
    known: set[tuple[int, int, str]] = set()
    if stat is not None:
        known = tally.known.setdefault((stat.device, stat.inode, stat.size_bytes), known)
    try:
        data = map_file(store, manifest.name, file.name)
        if whole in known:
            names = [name for name, span in spans.items() if span not in known]
            verify_file(data, file, records, names=names, with_header=True, progress=meter)
        else:
            verify_file(data, file, records, progress=meter)
        known.update((whole, *spans.values()))
    finally:
        meter.finish()


def verify_checkpoint(
    store: Store, name: CheckpointName, tally: Tally | None = None
) -> list[Finding]:
    """Check the manifest and every byte of the files of one checkpoint.

    One that is deleted meanwhile has no findings.
    """
    counted = tally or Tally()
    meter = Meter(counted, _size_of(store, name.manifest_key))
    try:
        manifest = read_manifest(store, name)
    except CheckpointNotFoundError:
        return []
    except CheckpointError as error:
        return [Finding.of(name.manifest_key, error, name=name)]
    finally:
        meter.finish()
    findings = []
    for file in manifest.files:
        try:
            _verify_file(store, manifest, file, counted)
        except CheckpointError as error:  # noqa: PERF203 - one per file
            findings.append(Finding.of(file.name, error, name=name))
    return findings if store.stat(name.manifest_key) is not None else []


def verify_experiment(store: Store, exp_hash: str, tally: Tally | None = None) -> list[Finding]:
    """Check every byte of the files of an experiment beside its checkpoints.

    A file that the record promises and that is not there is a finding, too; so is a data file of
    which only the sidecar is left.
    """
    key, counted = layout.experiment_key(exp_hash), tally or Tally()
    findings, promised, record = [], set(), None
    meter = Meter(counted, _size_of(store, key))
    try:
        record = ExperimentRecord.from_bytes(store.map(key), exp_hash=exp_hash)
        promised = _promised(record)
    except CheckpointError as error:
        findings.append(replace(Finding.of(key, error), exp_hash=exp_hash))
    meter.finish()
    beside, problems = _beside(store, exp_hash)
    for folder, problem in problems.items():
        findings.append(replace(Finding.of(folder, problem), exp_hash=exp_hash))
    for name in sorted(promised | beside | _present(store, exp_hash)):
        meter = Meter(counted, sum(_size_of(store, part) for part in _parts_of(exp_hash, name)))
        try:
            _check_file(store, record, exp_hash, name)
        except CheckpointError as error:
            findings.append(replace(Finding.of(name, error), exp_hash=exp_hash))
        meter.finish()
    return findings


def verify_all(
    store: Store,
    exp_hashes: Sequence[str],
    *,
    names: Sequence[CheckpointName] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> VerifyReport:
    """Check every byte of whole experiments, or of some checkpoints alone.

    Args:
        store: where the root lives.
        exp_hashes: the experiments; of no meaning with `names`.
        names: only these checkpoints.
        progress: called with bytes done and bytes in all, from several threads, one call at a time.
            What it raises ends the verification.
    """
    whole = [] if names is not None else list(exp_hashes)
    of_hash = {exp_hash: _committed(store, exp_hash) for exp_hash in whole}
    chosen = [*names] if names is not None else [n for found in of_hash.values() for n in found]
    keys = [key for name in chosen for key in _keys_of(store, name)]
    for exp_hash in whole:
        keys.append(layout.experiment_key(exp_hash))
        present = _present(store, exp_hash) | _beside(store, exp_hash)[0]
        keys += [k for n in present for k in _parts_of(exp_hash, n)]
    tally = Tally(sum(_size_of(store, key) for key in keys), progress)
    findings: list[Finding] = []
    for exp_hash in whole:
        findings += verify_experiment(store, exp_hash, tally)
        for name in of_hash[exp_hash]:
            findings += verify_checkpoint(store, name, tally)
    for name in names or ():
        findings += verify_checkpoint(store, name, tally)
    return VerifyReport(
        findings=tuple(findings),
        size_bytes=tally.done_bytes,
        num_files=tally.num_files,
        num_checkpoints=len(chosen),
        num_experiments=len(whole),
    )


def _committed(store: Store, exp_hash: str) -> list[CheckpointName]:
    """Return the checkpoints that have a manifest, damaged or not, by step and revision."""
    parsed = map(layout.parse_checkpoint_file, store.list(layout.model_folder(exp_hash)))
    names = [p[0] for p in parsed if p is not None and p[1] == "json" and p[0].exp_hash == exp_hash]
    return sorted(names, key=lambda name: (name.step, name.revision))


def _keys_of(store: Store, name: CheckpointName) -> list[str]:
    """Return the manifest and what it names; of a damaged manifest only itself."""
    try:
        files = read_manifest(store, name).files
    except CheckpointError:
        files = ()  # not passed over: the verification itself reads it again and says what is wrong
    return [name.manifest_key, *(name.file_key(file.name) for file in files)]


def _parts_of(exp_hash: str, key: str) -> list[str]:
    """Return the files that are read to check `key`."""
    parts = [key]
    if key == layout.data_key(exp_hash):
        base = layout.samples_base_key(exp_hash)
        parts += [base, sidecar_key(base)]
    return [*parts, sidecar_key(key)] if key.endswith(".h5") else parts


def _size_of(store: Store, key: str) -> int:
    stat = store.stat(key)
    return 0 if stat is None else stat.size_bytes


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


def _beside(store: Store, exp_hash: str) -> tuple[set[str], dict[str, CheckpointError]]:
    """Return the keys of notes and sessions, and folder -> why it cannot be read."""
    found: set[str] = set()
    problems = {}
    for folder, keys in (
        (layout.notes_folder, note_keys),
        (layout.provenance_folder, provenance_keys),
    ):
        try:
            found.update(keys(store, exp_hash))
        except CheckpointError as error:  # noqa: PERF203 - one per folder
            problems[folder(exp_hash)] = error
    return found, problems


def _is_unfinished(name: str, listed: set[str]) -> bool:
    """Tell whether a backup is being written, or its writer died: it was never acknowledged."""
    return pending_key(name) in listed and not {name, sidecar_key(name)} <= listed


def _check_file(store: Store, record: ExperimentRecord | None, exp_hash: str, key: str) -> None:
    """Read a file; with a record to hold it against, the components against their digests."""
    from weightslab.engine.repository.sample_base import read_sample_set

    name = key.rpartition("/")[2]
    if key.startswith(layout.notes_folder(exp_hash)):
        read_note(store, exp_hash, key)
    elif key.startswith(layout.provenance_folder(exp_hash)):
        read_provenance(store, exp_hash, key)
    elif name.endswith(".txt"):
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
