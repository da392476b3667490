"""The operations that are killed, made to fail and cut off: one row each in `OPERATIONS`.

An operation prepares a root, works on it, and says what it has acknowledged as soon as it has:
`saved` with the name of a checkpoint, `kept` with a key, `gone` with the name of a checkpoint.
Everything is done once before the first fork, so that nothing is imported under the tracer.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import torch

from support.fork_server import speak
from support.mutants import mutate
from support.roots import (
    begin,
    content_of,
    draft_of,
    fast_folder,
    hash_of,
    save,
    small_root,
    tidy_all,
)
from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import CheckpointError
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.data_file import save_backup
from weightslab.engine.repository.opening import write_config_revision
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.storage.holder import host_id
from weightslab.engine.storage.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)  # no pool of threads that a fork would leave behind
logging.disable(logging.CRITICAL)

HASH = hash_of(0)
LARGE_BYTES = 1_200_000  # above the 1 MiB from which tensors are linked instead of written


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that is done to a root.

    Attributes:
        work: called with the path and with `say`, which acknowledges.
        prepare: makes the root.
        holds: what must be true once the work is done, beside what every work has to keep.
    """

    work: Callable
    prepare: Callable
    holds: Callable = lambda path: True


def two_steps(path):
    """Make a root with an experiment and two checkpoints."""
    root = small_root(path)
    begin(root, 0)
    save(root, HASH, 1, "first")
    save(root, HASH, 2, "second")


def acknowledged(manifest, say):
    name = manifest.name
    say(saved=[name.exp_hash, name.step, name.revision])


def save_step(path, say, *, step=3, text="third"):
    acknowledged(save(small_root(path), HASH, step, text), say)


def save_past_cache(path, say):
    """Save as large files are saved: aligned, in a second thread, past the page cache."""
    root = small_root(path, lambda local: LocalStore(local.describe(), direct_from_bytes=1))
    acknowledged(save(root, HASH, 3, "third", 9_000), say)


def large_step(path):
    two_steps(path)
    write_checkpoint(small_root(path), large_draft(1, "a"))


def large_draft(number, text):
    parts = {"model": content_of("m", LARGE_BYTES)["model"], "training": text.encode()}
    return draft_of(HASH, 10 * number, parts)


def save_reused(path, say):
    """Save weights that are in the root already: their file is linked, not written."""
    acknowledged(write_checkpoint(small_root(path), large_draft(2, "b")), say)


def is_linked(path):
    name = layout.CheckpointName(exp_hash=HASH, step=20)
    return (path / name.file_key(name.file_name("model"))).stat().st_nlink > 1


def layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def update_hash(path, say, *, uids=range(5), force=False):
    """Open an experiment with architecture, config and samples."""
    with CheckpointManagerV2(path) as manager:
        opened = manager.update_experiment_hash(layers(), {"lr": 0.1}, uids, force=force)
        say(kept=layout.experiment_key(opened.exp_hash))


def discard_samples(path, say):
    """Discard 12 of 5,000 samples: a delta is stored, and its base linked beside it."""
    samples = SampleSet.from_uids(range(5000))
    update_hash(path, say, uids=samples)
    samples.discard(range(12))
    update_hash(path, say, uids=samples)


def has_linked_base(path):
    bases = list((path / "checkpoints").glob("*/data/*_samples.base.h5"))
    return len(bases) == 1 and bases[0].stat().st_nlink == 2


def save_in_background(path, say):
    """Save with `async_save`: acknowledged by `wait`."""
    model = layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with CheckpointManagerV2(path, async_save=True) as manager:
        opened = manager.update_experiment_hash(model, {"lr": 0.1}, range(1000))
        for step in (4, 5):
            manager.save_model_checkpoint(model, step=step, optimizer=optimizer)
            manager.wait()
            say(saved=[opened.exp_hash, step, 1])


def opened(path):
    two_steps(path)
    update_hash(path, lambda **_: None, uids=range(1000))


def damaged_config(path):
    """An experiment whose config was hit by a fault of the disk."""
    opened(path)
    folders = [f for f in (path / "checkpoints").iterdir() if f.name != HASH]
    config = path / layout.config_key(folders[0].name)
    config.write_bytes(config.read_bytes()[:-20])


def with_h5(path):
    two_steps(path)
    with h5py.File(path / "data" / "table.h5", "w") as file:
        file["x"] = np.arange(7)


def backup(path, say):
    key = save_backup(small_root(path).store, HASH, path / "data" / "table.h5", name="table")
    say(kept=key)


def save_config(path, say):
    plain = {"experiment": 0, "note": "more"}
    say(kept=write_config_revision(small_root(path).store, HASH, plain, name="config"))


def delete_step(path, say):
    small_root(path).delete(HASH, step=2)
    say(gone=[HASH, 2, 1])


def delete_experiment(path, say):
    small_root(path).delete(HASH)
    say(gone=[HASH, 1, 1])
    say(gone=[HASH, 2, 1])


def left_behind(path):
    """What a writer that was killed leaves: files without a manifest, a hold, a temporary file."""
    two_steps(path)
    name = layout.CheckpointName(exp_hash=HASH, step=3)
    folder = path / layout.model_folder(HASH)
    source = folder / layout.CheckpointName(exp_hash=HASH, step=1).file_name("model")
    shutil.copy(source, folder / name.file_name("model"))
    shutil.copy(source, folder / name.file_name("training"))
    (path / name.pending_key).touch()
    (folder / f".half.{host_id()}.{'0' * 16}.tmp").write_bytes(b"half")


def clean_up(path, say):
    tidy_all(small_root(path))


OPERATIONS = {
    "save": Operation(prepare=two_steps, work=save_step),
    "save past the cache": Operation(prepare=two_steps, work=save_past_cache),
    "save reused tensors": Operation(prepare=large_step, work=save_reused, holds=is_linked),
    "save a revision": Operation(
        prepare=two_steps, work=lambda path, say: save_step(path, say, step=2, text="other")
    ),
    "save the same again": Operation(
        prepare=two_steps, work=lambda path, say: save_step(path, say, step=2, text="second")
    ),
    "update hash": Operation(prepare=two_steps, work=update_hash),
    "update hash, fewer samples": Operation(
        prepare=opened, work=lambda path, say: update_hash(path, say, uids=range(12, 1000))
    ),
    "discard samples": Operation(prepare=two_steps, work=discard_samples, holds=has_linked_base),
    "save in the background": Operation(prepare=opened, work=save_in_background),
    "write damaged files again": Operation(
        prepare=damaged_config,
        work=lambda path, say: update_hash(path, say, uids=range(1000), force=True),
    ),
    "backup": Operation(prepare=with_h5, work=backup),
    "save config": Operation(prepare=two_steps, work=save_config),
    "delete step": Operation(prepare=two_steps, work=delete_step),
    "delete experiment": Operation(prepare=two_steps, work=delete_experiment),
    "clean up": Operation(prepare=left_behind, work=clean_up),
}


def work_on(ready, name, path, site=None):
    """Do an operation behind the gate, with a call left out of the package if one is named.

    Returns: True, or the kind and text of the error of the house.
    """
    if site is not None:
        mutate(*site)
    os.chdir("/")
    speak(ready=True)
    ready()
    try:
        OPERATIONS[name].work(Path(path), speak)
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return True


def warm_up():
    """Do everything once: what is imported late is imported now."""
    for operation in OPERATIONS.values():
        with fast_folder() as folder:
            operation.prepare(folder / "root")
            operation.work(folder / "root", lambda **_: None)
