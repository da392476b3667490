"""The operations that are killed, made to fail and cut off: one row each in `OPERATIONS`.

An operation prepares a root, works on it, and says what it has acknowledged as soon as it has:
`saved` with the name of a checkpoint, `kept` with a key, `gone` with the name of a checkpoint,
`absent` and `present` with a path that is not, or is, there, `whole` with a path and the digest of the file, `mended` when nothing damaged is left,
`logged` with the number of metrics that are on disk.
Everything is done once before the first fork, so that nothing is imported under the tracer.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import random
import shutil
import sys
import threading
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import torch

from support import collected
from support.fork_server import speak
from support.mutants import mutate
from support.roots import (
    ORIGIN,
    begin,
    content_of,
    draft_of,
    fast_folder,
    hash_of,
    save,
    small_root,
    tidy_all,
)
from weightslab.backend import ledgers
from weightslab.components import CheckpointManager, CheckpointManagerV2
from weightslab.engine.care.trashing import thin
from weightslab.engine.digests import digest_bytes
from weightslab.engine.errors import (
    AlreadyExistsError,
    CheckpointError,
    LockedError,
    ObjectNotFoundError,
)
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository import layout
from weightslab.engine.repository.data_file import save_backup
from weightslab.engine.repository.index_file import find_index_path
from weightslab.engine.repository.opening import write_config_revision
from weightslab.engine.repository.provenance import Provenance, add_provenance
from weightslab.engine.repository.trash import LIFETIME
from weightslab.engine.retention.policies import CustomSteps, LatestN
from weightslab.engine.retention.rules import Retention
from weightslab.engine.saving.writer import write_checkpoint
from weightslab.engine.storage.holder import host_id
from weightslab.engine.storage.local import LocalStore
from weightslab.formats.numbered_table import TABLE_FILE

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)  # no pool of threads that a fork would leave behind

HASH, OTHER = hash_of(0), hash_of(1)
SECOND = layout.CheckpointName(exp_hash=HASH, step=2)
BACKUP = layout.data_key(HASH, "table")
MODEL = torch.nn.Linear(2, 2)
LARGE_BYTES = 1_200_000  # above the 1 MiB from which tensors are linked instead of written


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One thing that is done to a root.

    Attributes:
        work: called with the path and with `say`, which acknowledges.
        prepare: makes the root.
        holds: what must be true once the work is done, beside what every work has to keep.
        unsynced: paths whose names a power loss may still take when the work begins, because whoever
            made them was killed before the fsync of the folder.
        inside: where the root is, below the folder that is prepared.
        repeats: done again it comes to the same end, however far it came the first time.
    """

    work: Callable
    prepare: Callable
    holds: Callable = lambda path: True
    unsynced: tuple[str, ...] = ()
    inside: str = ""
    repeats: bool = False

    def __post_init__(self):
        for name in ("work", "prepare"):
            object.__setattr__(self, name, without_sessions(getattr(self, name)))


def without_sessions(do):
    """Return `do` without records of the session: what they write syncs the folders above, which would
    cover for calls that are left out. They have a row of their own.
    """

    @functools.wraps(do)
    def done(*args, **more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WEIGHTSLAB_PROVENANCE", "off")
            return do(*args, **more)

    return done


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


@contextlib.contextmanager
def no_links():
    """A file system without hard links, as FAT and some network shares are."""

    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    link, os.link = os.link, refuse
    try:
        yield
    finally:
        os.link = link


def save_without_links(path, say):
    with no_links():
        save_step(path, say)


def begin_in_new_folders(path, say):
    """Make a root three folders deep and save into it."""
    root = small_root(path)
    begin(root, 0)
    acknowledged(save(root, HASH, 1, "first"), say)


def layers():
    """Return a small model, and set all that is drawn: it is part of every checkpoint."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))


def update_hash(path, say, *, uids=range(5), force=False):
    """Open an experiment with architecture, config and samples."""
    with CheckpointManagerV2(path) as manager:
        opened = manager.update_experiment_hash(layers(), {"lr": 0.1}, uids, force=force)
        say(kept=layout.experiment_key(opened.exp_hash))
        if force:
            say(mended=opened.exp_hash)


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


def log_metrics(path, say):
    """Log metrics: on disk when the manager is closed, and before the next commit."""
    model = layers()
    with CheckpointManagerV2(path) as manager:
        manager.update_experiment_hash(model, {"lr": 0.1}, range(1000))
        manager.log_metrics(3, loss=0.5)
    say(logged=1)
    with CheckpointManagerV2(path) as manager:
        opened = manager.update_experiment_hash(model, {"lr": 0.1}, range(1000))
        manager.log_metrics(4, loss=0.25)
        manager.save_model_checkpoint(model, step=4, save_optimizer=False)
        say(saved=[opened.exp_hash, 4, 1], logged=2)


def without_logs(path):
    """A root that was copied without its logs."""
    opened(path)
    shutil.rmtree(path / "logs")


def opened(path):
    two_steps(path)
    update_hash(path, lambda **_: None, uids=range(1000))


def damaged_config(path):
    """An experiment whose config was hit by a fault of the disk."""
    opened(path)
    folders = [f for f in (path / "checkpoints").iterdir() if f.name != HASH]
    config = path / layout.config_key(folders[0].name)
    config.write_bytes(config.read_bytes()[:-20])


def damaged_record(path):
    """An experiment whose record was hit by a fault of the disk."""
    opened(path)
    (record,) = (p for p in path.glob("checkpoints/*/experiment.json") if HASH not in p.parts)
    record.write_bytes(record.read_bytes()[:-20])


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


def with_backup(path):
    with_h5(path)
    backup(path, lambda **_: None)


def killed_backup(path):
    """What a backup leaves whose writer was killed before the last fsync of the folder."""
    with_backup(path)
    (path / f"{BACKUP}.pending").touch()


def half_backup(path):
    """What a backup leaves whose writer was killed between the file and its sidecar."""
    with_backup(path)
    (path / BACKUP).with_suffix(".h5.json").unlink()
    (path / f"{BACKUP}.pending").touch()


def half_backup_of_a_sidecar(path):
    """What a power loss leaves of a backup: names need not go to disk in their order."""
    with_backup(path)
    (path / BACKUP).unlink()
    (path / f"{BACKUP}.pending").touch()


def two_configs(path):
    two_steps(path)
    save_config(path, lambda **_: None)


def delete_step(path, say):
    small_root(path).delete(HASH, step=2)
    say(gone=[HASH, 2, 1])
    say(absent=layout.model_folder(HASH) + SECOND.file_name("model"))


def delete_experiment(path, say):
    small_root(path).delete(HASH)
    for step in (1, 2):
        say(gone=[HASH, step, 1])
    say(absent=layout.experiment_folder(HASH))


def damaged_step(path):
    """A checkpoint whose weights were hit by a fault of the disk."""
    two_steps(path)
    weights = path / layout.model_folder(HASH) / SECOND.file_name("model")
    weights.write_bytes(weights.read_bytes()[:-3])


def quarantine(path, say):
    root = small_root(path)
    if root.verify():
        root.quarantine(HASH)
    say(gone=[HASH, 2, 1])
    say(mended=HASH)
    say(present=f"checkpoints/.quarantine/{SECOND.stem}/{SECOND.stem}.json")
    say(present=f"checkpoints/.quarantine/{SECOND.stem}/{SECOND.file_name('model')}")


def pin(path, say):
    """Pin a checkpoint; the clock stands still, so that the name of the file is known."""
    say(kept=small_root(path, clock=lambda: ORIGIN).pin(HASH, step=2, reason="a\x1b[2J\n").key)


def record_session(path, say):
    """Write where a session comes from; the clock stands still, so that the name is known."""
    record = Provenance(exp_hash=HASH, recorded_at=ORIGIN, command=("python", "train.py"))
    say(present=add_provenance(small_root(path).store, record))


def write_recipe(path, say):
    with contextlib.suppress(AlreadyExistsError):  # begun before the death; nothing is replaced
        small_root(path).reproduce(HASH).write(path / "data" / "recipe")
        say(present="data/recipe/config.yaml")
        say(present="data/recipe/recipe.json")


def trash_step(path, say):
    root = small_root(path)
    root.trash.put(HASH, 2)
    say(gone=[HASH, 2, 1])
    say(present=f"{layout.TRASH}{SECOND.stem}/{SECOND.stem}.json")
    say(present=f"{layout.TRASH}{SECOND.stem}/{SECOND.file_name('training')}")


def trashed_step(path):
    two_steps(path)
    trash_step(path, lambda **_: None)


def thinned_step(path):
    two_steps(path)
    thin_step(path, lambda **_: None)


def restore_step(path, say):
    """Have a checkpoint back that was thinned: the thin revision goes."""
    root = small_root(path)
    with contextlib.suppress(ObjectNotFoundError):  # all done before the death
        root.restore(SECOND.stem)
    assert root.trash.list() == []
    say(saved=[HASH, 2, 1])
    say(gone=[HASH, 2, 2])


def empty_trash(path, say):
    root = small_root(path)
    root.trash.empty(older_than=timedelta(0))
    assert root.store.list(layout.TRASH) == []
    say(absent=f"{layout.TRASH}{SECOND.stem}")


def thin_step(path, say):
    root = small_root(path)
    acknowledged(thin(root, root.get_checkpoint(HASH, 2).name), say)
    say(gone=[HASH, 2, 1])


def is_thin(path):
    name = layout.CheckpointName(exp_hash=HASH, step=2, revision=2)
    weights = path / name.file_key(name.file_name("model"))
    assert not (path / name.file_key(name.file_name("training"))).exists()
    return weights.stat().st_nlink == 2  # here and in the trash


def export(path, say):
    with contextlib.suppress(AlreadyExistsError):  # done before the death, and whole
        small_root(path).export(HASH, 1, path / "data" / "weights.safetensors")
    say(present="data/weights.safetensors")


def digest_of(path):
    """Return the digest of a file; None without one."""
    return digest_bytes(path.read_bytes()) if path.exists() else None


def digest_there(path):
    """Return the digest of a file that has to be there."""
    found = digest_of(path)
    if found is None:
        raise ObjectNotFoundError(f"{path} is not there")
    return found


def export_folder(path, say):
    target = path / "data" / "hf"
    with contextlib.suppress(AlreadyExistsError):
        small_root(path).export(HASH, 1, target, format="huggingface")
    for name in ("model.safetensors", "config.json", "weightslab-origin.json"):
        say(whole=[f"data/hf/{name}", digest_there(target / name)])


def numbered(path):
    """Return an old manager beside the root, with a model in the ledger."""
    ledgers.register_model("crash", MODEL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return CheckpointManager(path / "data" / "numbered")


def with_numbered(path):
    """A root, and in it a folder of the old manager with one checkpoint."""
    two_steps(path)
    numbered(path).dump("crash")


def dump_numbered(path, say):
    manager = numbered(path)
    number = manager.dump("crash")
    for file in (Path(manager.id_to_path[number]), path / "data" / "numbered" / TABLE_FILE):
        say(whole=[str(file.relative_to(path)), digest_there(file)])
    manager.dump("crash", override_filepath="note.json")
    say(whole=["data/numbered/note.json", digest_there(path / "data" / "numbered" / "note.json")])


def write_bundle(path, say):
    target = path / "data" / "b.wlb"
    with contextlib.suppress(AlreadyExistsError):
        small_root(path).bundle(target, HASH)
    say(whole=["data/b.wlb", digest_there(target)])


def write_bundle_without_links(path, say):
    with no_links():
        write_bundle(path, say)


def beside_another(path):
    """A root, and beside it another one and a bundle of that: weights that are linked, a pin, a backup."""
    two_steps(path / "mine")
    other = small_root(path / "theirs", clock=lambda: ORIGIN)
    begin(other, 1)
    for step in (1, 2):
        save(other, OTHER, step, "shared", 70_000)
    other.pin(OTHER, step=2)
    write_config_revision(other.store, OTHER, {"lr": 0.5}, name="config")
    with h5py.File(path / "table.h5", "w") as file:
        file["x"] = np.arange(7)
    save_backup(other.store, OTHER, path / "table.h5", name="table")
    other.bundle(path / "b.wlb")


def arrived(report, path, say):
    if not report.is_complete:
        raise LockedError(str(report))
    for step in (1, 2):
        say(saved=[OTHER, step, 1])
    root = small_root(path)
    for folder in (layout.config_folder, layout.data_folder, layout.notes_folder):
        for name in root.store.list(folder(OTHER)):
            say(kept=folder(OTHER) + name)


def unbundle(path, say):
    arrived(small_root(path).unbundle(path.parent / "b.wlb"), path, say)


def copy_from_another(path, say):
    arrived(small_root(path.parent / "theirs").copy_to(path), path, say)


def has_linked_weights(path):
    names = [layout.CheckpointName(exp_hash=OTHER, step=step) for step in (1, 2)]
    files = [path / name.file_key(name.file_name("model")) for name in names]
    return files[0].stat().st_ino == files[1].stat().st_ino


def collectable(path):
    """Make a root with two experiments: five steps and a revision, and a branch from step 2."""
    root, parent = small_root(path), None
    begin(root, 0)
    for step in (1, 2, 3, 4, 5):
        parent = collected.save(root, HASH, step, parent=parent)
        branch = parent if step == 2 else None
        if branch:
            collected.line(root, begin(root, 1)[0], [1], parent=branch)
    collected.save(root, HASH, 4, parent=parent, text="again")
    root.pin(HASH, step=1)


def collect_garbage(path, say, *, lifetime=LIFETIME):
    """Drop step 3 and the first revision of step 4, and thin step 2, from which the branch began."""
    keep = LatestN(1) | CustomSteps([4, 5])
    wanted = Retention(keep=keep, training=LatestN(2), trash_lifetime=lifetime)
    report = small_root(path).gc(wanted)
    if report.problems:
        raise LockedError("; ".join(report.problems))
    for step in (2, 3, 4):
        say(gone=[HASH, step, 1])
    for step, revision in ((1, 1), (2, 2), (4, 2), (5, 1)):
        say(saved=[HASH, step, revision])


def rebuild_catalog(path, say):
    """Ask a root without an index, with one that is new, with one cut off, and with an empty one."""
    for cut in (None, None, 5000, 0):
        index = find_index_path(path)
        if index is not None and cut is not None and index.exists():
            os.truncate(index, cut)
        root = small_root(path)
        root.refresh()
        assert root.latest().name == SECOND
        assert len(root.checkpoints(HASH)) == 2
        assert root.catalog.locate({"xxh3-128:" + 32 * "0"}) == {}


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
        prepare=two_steps,
        work=lambda path, say: save_step(path, say, step=2, text="second"),
        unsynced=(SECOND.manifest_key,),
    ),
    "save without links": Operation(prepare=two_steps, work=save_without_links),
    "begin in new folders": Operation(
        prepare=Path.mkdir, work=begin_in_new_folders, inside="runs/june/digits"
    ),
    "update hash": Operation(prepare=two_steps, work=update_hash),
    "update hash, fewer samples": Operation(
        prepare=opened, work=lambda path, say: update_hash(path, say, uids=range(12, 1000))
    ),
    "discard samples": Operation(prepare=two_steps, work=discard_samples, holds=has_linked_base),
    "save in the background": Operation(prepare=opened, work=save_in_background),
    "log metrics": Operation(prepare=without_logs, work=log_metrics),
    "write damaged files again": Operation(
        prepare=damaged_config,
        work=lambda path, say: update_hash(path, say, uids=range(1000), force=True),
    ),
    "write a damaged record again": Operation(
        prepare=damaged_record,
        work=lambda path, say: update_hash(path, say, uids=range(1000), force=True),
    ),
    "backup": Operation(prepare=with_h5, work=backup),
    "the same backup again": Operation(
        prepare=killed_backup, work=backup, unsynced=(BACKUP, f"{BACKUP}.json")
    ),
    "mend a backup": Operation(prepare=half_backup, work=clean_up),
    "drop half a backup": Operation(prepare=half_backup_of_a_sidecar, work=clean_up),
    "save config": Operation(prepare=two_steps, work=save_config),
    "save the same config again": Operation(
        prepare=two_configs, work=save_config, unsynced=(layout.config_key(HASH, revision=2),)
    ),
    "delete step": Operation(prepare=two_steps, work=delete_step),
    "delete experiment": Operation(prepare=two_steps, work=delete_experiment),
    "quarantine": Operation(prepare=damaged_step, work=quarantine),
    "pin": Operation(prepare=two_steps, work=pin),
    "record a session": Operation(prepare=two_steps, work=record_session),
    "write a recipe": Operation(prepare=two_steps, work=write_recipe),
    "trash step": Operation(prepare=two_steps, work=trash_step),
    "restore step": Operation(prepare=thinned_step, work=restore_step),
    "empty trash": Operation(prepare=trashed_step, work=empty_trash),
    "thin step": Operation(prepare=two_steps, work=thin_step, holds=is_thin),
    "collect garbage": Operation(prepare=collectable, work=collect_garbage, repeats=True),
    "collect garbage for good": Operation(
        prepare=collectable,
        work=lambda path, say: collect_garbage(path, say, lifetime=timedelta(0)),
        repeats=True,
    ),
    "export": Operation(prepare=two_steps, work=export),
    "export a folder": Operation(prepare=two_steps, work=export_folder),
    "numbered dump": Operation(prepare=with_numbered, work=dump_numbered),
    "bundle": Operation(prepare=two_steps, work=write_bundle),
    "bundle without links": Operation(prepare=two_steps, work=write_bundle_without_links),
    "unbundle": Operation(
        prepare=beside_another, work=unbundle, inside="mine", holds=has_linked_weights
    ),
    "copy": Operation(prepare=beside_another, work=copy_from_another, inside="mine"),
    "rebuild the catalog": Operation(prepare=two_steps, work=rebuild_catalog),
    "clean up": Operation(prepare=left_behind, work=clean_up),
}


def lines_of(ready, name, path, files):
    """Do an operation; returns the (file, line) it went through, of the given files."""
    seen = set()

    def look(frame, event, _):
        file = frame.f_code.co_filename
        if event == "line":
            seen.add((file, frame.f_lineno))
        return look if file in files else None

    ready()
    threading.settrace(look)
    sys.settrace(look)
    OPERATIONS[name].work(Path(path) / OPERATIONS[name].inside, lambda **_: None)
    sys.settrace(None)
    return sorted(seen)


def save_beside(ready, path):
    """Save some steps while somebody cleans up."""
    ready()
    root = small_root(path)
    for step in range(100, 106):
        acknowledged(save(root, HASH, step, f"{step}"), speak)
    return True


def work_on_disk(ready, name, path, log, is_safe):
    """Do an operation; each acknowledgement carries how far the log of the disk was by then."""
    if not is_safe:
        os.fsync = lambda descriptor: None
    ready()
    operation = OPERATIONS[name]
    say = lambda **ack: speak(position=os.stat(log).st_size, **ack)  # noqa: E731, PTH116
    operation.work(Path(path) / operation.inside, say)
    return True


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
        OPERATIONS[name].work(Path(path) / OPERATIONS[name].inside, speak)
    except CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return True


def warm_up():
    """Do everything once: what is imported late is imported now."""
    for operation in OPERATIONS.values():
        with fast_folder() as folder:
            operation.prepare(folder / "root")
            operation.work(folder / "root" / operation.inside, lambda **_: None)
