"""What worker processes do to a root without torch; run by the fork server.

A kill takes whatever is at hand, so each worker says what was acknowledged at once, and no sooner.
"""

from __future__ import annotations

import h5py  # noqa: F401 - loaded before the fork, not once in each worker

from support import collected
from support.fork_server import speak
from support.roots import begin, content_of, hash_of, open_samples, read, save, small_root, tidy_all
from weightslab.engine.errors import (
    CheckpointError,
    CheckpointNotFoundError,
    ExperimentNotFoundError,
    LockedError,
    StorageError,
)
from weightslab.engine.identity.samples import SampleSet
from weightslab.engine.repository.opening import tidy
from weightslab.engine.retention.policies import BestN, LatestN
from weightslab.engine.retention.rules import Retention


def acknowledge(manifest, text):
    """Say that a checkpoint was committed."""
    name = manifest.name
    speak(saved=[name.exp_hash, name.step, name.revision, text, manifest.sequence])


def save_forever(ready, path, number, first_step, size_bytes):
    """Open the experiment, clean up, then save and revise step after step until killed."""
    ready()
    root = small_root(path)
    exp_hash, _ = begin(root, number, num_samples=20)
    tidy(root.store, exp_hash)
    speak(opened=exp_hash)
    step = first_step
    while True:
        for text in (f"{step}", f"{step} again")[: 1 + step % 2]:
            acknowledge(save(root, exp_hash, step, text, size_bytes), text)
        step += 1


def save_some(ready, path, number, steps, text, size_bytes=48):
    """Save the given steps with one content; returns (step, revision, sequence) of each."""
    root = small_root(path)
    ready()
    manifests = [save(root, hash_of(number), step, text, size_bytes) for step in steps]
    return [(m.name.step, m.name.revision, m.sequence) for m in manifests]


def open_it(ready, path, number, num_samples):
    """Open an experiment; returns whether this process created it."""
    root = small_root(path)
    ready()
    return begin(root, number, num_samples=num_samples)[1]


def open_changed(ready, path, start, discards):
    """Open an experiment after each of `discards`; returns [exp_hash, created, digest] of each.

    Args:
        start: experiment whose samples are read to begin with; a number of samples, to build them.
        discards: integer UIDs to take out, one list for each experiment.
    """
    root = small_root(path)
    samples = (
        SampleSet.from_uids(range(start)) if type(start) is int else root.samples(start).copy()
    )
    ready()
    found = []
    for uids in discards:
        samples.discard(uids)
        found.append([*open_samples(root, samples), samples.digest])
    return found


def save_in_three_stages(ready, scratch, path, number):
    """Once for nothing, then behind the gate: open an experiment, save a step, revise it."""
    _three_stages(scratch, number, say=lambda *_: None)  # loads all modules that are loaded late
    speak(ready=True)
    ready()
    try:
        return _three_stages(path, number, say=acknowledge)
    except StorageError as error:
        return f"{type(error).__name__}: {error}"


def _three_stages(path, number, *, say):
    root = small_root(path)
    exp_hash, _ = begin(root, number)
    tidy(root.store, exp_hash)
    for text in ("first", "second"):
        say(save(root, exp_hash, 1, text), text)
    return True


def save_what_may_be_deleted(ready, path, number, steps):
    """Save steps while somebody deletes; returns (step, revision) that were acknowledged."""
    root = small_root(path)
    ready()
    saved, refused = [], 0
    for step in steps:
        try:
            manifest = save(root, hash_of(number), step, f"{step}")
            saved.append((manifest.name.step, manifest.name.revision))
        except StorageError:  # noqa: PERF203
            refused += 1  # the folder went away under its hands, and it said so
    return {"saved": saved, "refused": refused}


def delete_what_is_there(ready, path, number, until_step):
    """Delete each step as it appears, up to the last one; returns those deleted."""
    root = small_root(path)
    ready()
    deleted = []
    while until_step not in deleted:
        for entry in root.checkpoints(hash_of(number)):
            try:
                root.delete(entry.name.exp_hash, step=entry.name.step)
                deleted.append(entry.name.step)
            except LockedError:  # noqa: PERF203
                continue  # visible, and its writer has not let go of it yet
    return deleted


def delete_experiments(ready, path, number, times):
    """Delete the whole experiment again and again; returns how often it worked."""
    root = small_root(path)
    ready()
    done = 0
    for _ in range(times):
        try:
            root.delete(hash_of(number))
            done += 1
        except (ExperimentNotFoundError, CheckpointNotFoundError, StorageError):  # noqa: PERF203
            continue
    return done


def save_with_branches(ready, path, number, num_steps):
    """Save one run; each fifth step begins an experiment, each seventh is pinned.

    Returns: steps of the branch points, hashes of what began there, pinned steps.
    """
    root = small_root(path)
    exp_hash, parent = hash_of(number), None
    points, branches, pins = [], [], []
    ready()
    for step in range(1, num_steps + 1):
        metrics = {"loss": float(step * 7 % num_steps)}
        parent = collected.save(root, exp_hash, step, parent=parent, metrics=metrics)
        if step % 5 == 0:
            branch = begin(root, 100 * (number + 1) + step)[0]
            collected.save(root, branch, 1, parent=parent)
            points.append(step)
            branches.append(branch)
        if step % 7 == 0:
            root.pin(exp_hash, step=step)
            pins.append(step)
    return points, branches, pins


def collect_until(ready, path, until):
    """Collect again and again until steps are there; returns how many were dropped and thinned."""
    root, done = small_root(path), [0, 0]
    wanted = Retention(keep=LatestN(2) | BestN("loss"), training=LatestN(1))
    ready()
    while True:
        is_last = all(root.find_checkpoint(hash_of(number), step) for number, step in until)
        report = root.gc(wanted)
        done = [done[0] + len(report.dropped), done[1] + len(report.thinned)]
        if is_last:
            return done


def read_all(ready, path, number, num_checkpoints):
    """List and read until so many are there; returns (turns, what was wrong)."""
    root = small_root(path, read_only=True)
    ready()
    turns, found = 0, 0
    while found < num_checkpoints:
        entries = root.checkpoints(hash_of(number))
        wrong = _look_at(root, entries)
        if wrong:
            return turns, wrong
        if len(entries) < found:
            return turns, [f"{found} checkpoints became {len(entries)}"]
        turns, found = turns + 1, len(entries)
    return turns, []


def _look_at(root, entries):
    wrong = [f"{e.name.stem}: {e.damaged}" for e in entries if e.damaged is not None]
    for entry in entries[-6:]:  # the newest are those that may be half there
        try:
            parts = read(root, entry.name)
        except CheckpointError as error:  # noqa: PERF203
            wrong.append(f"{entry.name.stem}: {error}")
        else:
            size_bytes = len(parts["model"])
            texts = [content_of(text, size_bytes) for text in "abcdefgh"]
            wrong += [] if parts in texts else [f"{entry.name.stem}: mixed content"]
    return wrong


def read_forever(ready, path, exp_hash):
    """List and read what `save_forever` saves until killed; says each turn and what was wrong."""
    root = small_root(path, read_only=True)
    ready()
    seen = set()
    while True:
        entries = root.checkpoints(exp_hash)
        wrong = [f"{e.name.stem}: {e.damaged}" for e in entries if e.damaged is not None]
        for entry in entries[-4:]:
            step, parts = entry.name.step, read(root, entry.name)
            texts = (f"{step}", f"{step} again")
            if parts not in [content_of(text, len(parts["model"])) for text in texts]:
                wrong.append(f"{entry.name.stem}: mixed content")
        names = {entry.name.stem for entry in entries}
        wrong += [f"{name} is gone" for name in seen - names]
        seen = names
        speak(turn=len(entries), wrong=wrong[:5])


def tidy_forever(ready, path, until):
    """Clean up after the dead, again and again, while others live; returns what was removed."""
    root = small_root(path)
    ready()
    removed = []
    while len(root.checkpoints()) < until:
        removed += tidy_all(root)
    return removed
