"""Roots on disk without torch: experiments that are numbers, checkpoints that are bytes."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from support.repo import plain_image
from weightslab.engine.identity.config import describe_config
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.catalog import ScanCatalog, map_file, read_manifest
from weightslab.engine.repository.commit import Draft
from weightslab.engine.repository.experiment import Components, ExperimentRecord
from weightslab.engine.repository.opening import ExperimentContent, open_experiment, tidy
from weightslab.engine.repository.provenance import provenance_keys, read_provenance
from weightslab.engine.repository.verify import verify_files
from weightslab.engine.root import CheckpointRoot
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.values import ParentLink

SHM = Path("/dev/shm")
ORIGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


@contextmanager
def fast_folder():
    """Yield an empty folder in memory where the system has one, else on disk."""
    in_memory = str(SHM) if SHM.is_dir() and os.access(SHM, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="weightslab-", dir=in_memory))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ticking_clock():
    """Return a clock that goes on by a second a call."""
    ticks = itertools.count()
    return lambda: ORIGIN + timedelta(seconds=next(ticks))


def small_root(path, store=None, **more):
    """Open a root; `store(local)` may wrap its store."""
    root = CheckpointRoot(path, **more)
    if store is not None:
        root.store = store(root.store)
        root.catalog = ScanCatalog(root.store)
    return root


def components_of(number, samples=None):
    """Return the identity of the experiment `number`."""
    return Components(
        config=describe_config({"experiment": number}).digest,
        data=None if samples is None else samples.digest,
    )


def hash_of(number):
    """Return the hash of the experiment `number` without samples."""
    return components_of(number).exp_hash


def begin(root, number, *, num_samples=None, force=False):
    """Open the experiment `number`; returns (exp_hash, is_new)."""
    samples = None if num_samples is None else SampleSet.from_uids(range(num_samples))
    record = ExperimentRecord(components=components_of(number, samples), created_at=root.clock())
    content = ExperimentContent(config={"experiment": number}, samples=samples)
    return record.exp_hash, open_experiment(root.store, record, content, force=force)


def open_samples(root, samples):
    """Open an experiment of one config and these samples; returns (exp_hash, is_new)."""
    kept = samples.frozen()
    components = Components(config=describe_config({"n": 0}).digest, data=kept.digest)
    record = ExperimentRecord(components=components, created_at=ORIGIN)
    content = ExperimentContent(config={"n": 0}, samples=kept)
    return record.exp_hash, open_experiment(root.store, record, content)


def content_of(text, size_bytes=48):
    """Return the parts that a checkpoint with the content `text` has."""
    plain = text.encode()
    return {
        "model": (plain * size_bytes)[:size_bytes],
        "training": (plain[::-1] * 2 * size_bytes)[: 2 * size_bytes],
    }


def draft_of(exp_hash, step, parts):
    """Return a checkpoint that is ready to be committed."""
    return Draft(
        exp_hash=exp_hash,
        experiment_digest="wl1:sha256:" + exp_hash * 4,
        step=step,
        images={part: plain_image(data) for part, data in parts.items()},
        aliases={},
        state={"model": {}, "training": {}},
        metadata=None,
        metrics={},
        parent=ParentLink(kind="fresh", exact=True),
        config_file=None,
        versions={"python": "3"},
    )


def save(root, exp_hash, step, text, size_bytes=48):
    """Commit the content `text` as a checkpoint; returns its manifest."""
    return write_checkpoint(root, draft_of(exp_hash, step, content_of(text, size_bytes)))


def read(root, name):
    """Return the parts of a checkpoint, every byte of them checked, as a load does it."""
    manifest = read_manifest(root.store, name)
    verify_files(root.store, manifest)
    return {file.part: bytes(map_file(root.store, name, file.name))[4:] for file in manifest.files}


def strangers(root):
    """Return the files of all experiments that no record, manifest or config accounts for.

    The folders are walked by hand: a store does not show temporary files.
    """
    known = set()
    for exp_hash in root.catalog.exp_hashes():
        known |= {layout.experiment_key(exp_hash), layout.config_key(exp_hash)}
        known |= {layout.architecture_key(exp_hash, suffix) for suffix in ("json", "txt")}
        known |= {layout.data_key(exp_hash), layout.data_key(exp_hash) + ".json"}
        for key in provenance_keys(root.store, exp_hash):
            read_provenance(root.store, exp_hash, key)
            known.add(key)
        for entry in root.catalog.checkpoints(exp_hash):
            known |= _keys_of(root, entry.name)
    folder = root.path / "checkpoints"
    found = (path for path in folder.rglob("*") if not path.is_dir())
    return sorted({path.relative_to(root.path).as_posix() for path in found} - known)


def _keys_of(root, name):
    # by name: a damaged manifest does not tell which files it has
    parts = [name.file_name(part) for part in ("model", "training")]
    return {name.manifest_key, *(layout.model_folder(name.exp_hash) + part for part in parts)}


def tidy_all(root):
    """Clean up after dead writers in every experiment of the root."""
    return [key for exp_hash in root.catalog.exp_hashes() for key in tidy(root.store, exp_hash)]


def listing(root):
    """Return (exp_hash, step, revision, damaged) of everything that is visible, sorted."""
    root.refresh()
    return sorted(
        (entry.name.exp_hash, entry.name.step, entry.name.revision, entry.damaged is not None)
        for entry in root.checkpoints()
    )
