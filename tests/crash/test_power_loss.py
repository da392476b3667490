"""Power loss at every point of a commit, as a model; with broken commits that must be caught."""

from dataclasses import dataclass

import pytest
from support.power import all_states, files_of
from support.repo import HASH, Repo, plain_image
from support.roots import begin

from weightslab.engine.errors import CheckpointError
from weightslab.engine.repository.catalog import map_file, read_manifest
from weightslab.engine.repository.commit import delete_checkpoint, remove_leftovers
from weightslab.engine.repository.layout import CheckpointName, experiment_key
from weightslab.engine.repository.verify import verify_experiment, verify_files
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.testing.faults import RecordingStore

EARLIER = CheckpointName(exp_hash=HASH, step=50)
NEW = CheckpointName(exp_hash=HASH, step=100)
PARTS = {"model": plain_image(b"new weights"), "training": plain_image(b"new moments")}


@dataclass
class Recorded:
    """A root before some work, and what the work did to it."""

    files: dict
    log: list


def record(work):
    """Commit an earlier checkpoint, then record `work`."""
    inner = MemoryStore()
    Repo(inner).commit(step=50, content=b"earlier")
    files = files_of(inner)
    store = RecordingStore(inner)
    work(Repo(store))
    return Recorded(files, list(store.log))


def recorded_save():
    return record(lambda repo: repo.commit(images=PARTS))


def parts_of(store, name):
    """Return the verified bytes of a checkpoint; None if it is not there.

    Raises: CheckpointError if it is there and damaged.
    """
    if store.stat(name.manifest_key) is None:
        return None
    manifest = read_manifest(store, name)
    verify_files(store, manifest)
    return [bytes(map_file(store, name, file.name))[4:] for file in manifest.files]


def problem_of(store, *, acknowledged):
    """Return what is wrong with the root after the cut; None if all is well."""
    try:
        if parts_of(store, EARLIER) != [b"earlier"]:
            return "the earlier checkpoint is lost"
        new = parts_of(store, NEW)
    except CheckpointError as error:
        return f"half a checkpoint: {error}"
    if new is None and acknowledged:
        return "an acknowledged checkpoint is lost"
    if new not in (None, [b"new weights", b"new moments"]):
        return f"another checkpoint: {new}"
    return problem_of_going_on(store)


def problem_of_going_on(store):
    repo = Repo(store)
    remove_leftovers(store, HASH)
    left = [file for file in repo.files() if not file.endswith((".json", "safetensors"))]
    if left:
        return f"left behind: {left}"
    repo.commit(images=PARTS)
    return None if parts_of(store, NEW) else "the next save does not work"


def acknowledged_at(log):
    """Return after how many operations the save is acknowledged: before the hold is released."""
    return [operation.op for operation in log].index("release")


def problems(recorded, acknowledged):
    found, count = [], 0
    for done, store in all_states(recorded.files, recorded.log):
        count += 1
        problem = problem_of(store, acknowledged=done >= acknowledged)
        if problem is not None:
            found.append((done, problem))
    return count, found


def test_no_cut_during_a_save_loses_or_shows_half_a_checkpoint():
    recorded = recorded_save()
    count, found = problems(recorded, acknowledged_at(recorded.log))
    assert found == []
    assert count == 21  # 1 + 2 + 4 + 8, 1 after the sync, 2 with the manifest, 1, 2


def test_no_cut_during_a_revision_touches_the_first_one():
    work = lambda repo: repo.commit(step=50, images=PARTS)  # noqa: E731
    recorded = record(work)
    second = CheckpointName(exp_hash=HASH, step=50, revision=2)
    for done, store in all_states(recorded.files, recorded.log):
        assert parts_of(store, EARLIER) == [b"earlier"]
        new = parts_of(store, second)
        assert new == [b"new weights", b"new moments"] or (new is None and done < 6)


def test_no_cut_during_a_delete_leaves_half_a_checkpoint():
    recorded = record(lambda repo: delete_checkpoint(repo.store, EARLIER))
    for done, store in all_states(recorded.files, recorded.log):
        left = parts_of(store, EARLIER)
        assert left == [b"earlier"] or (left is None and done > 0)
        Repo(store).commit(step=50, content=b"earlier")
        assert parts_of(store, EARLIER) == [b"earlier"]


def test_no_cut_while_an_experiment_is_opened_shows_one_without_its_files():
    store = RecordingStore(MemoryStore())
    exp_hash, _ = begin(Repo(store), 0, num_samples=20)
    complete = sorted(files_of(store.store))
    assert len(complete) == 4  # record, config, samples and their sidecar
    visible = 0
    for _, state in all_states({}, store.log):
        if state.stat(experiment_key(exp_hash)) is not None:
            visible += 1
            assert sorted(files_of(state)) == complete
            assert verify_experiment(state, exp_hash) == []
        begin(Repo(state), 0, num_samples=20)
        assert sorted(files_of(state)) == complete
    assert visible > 0


# ---------------------------------------------------------------- commits that are broken
def without_first_sync(log):
    first = next(n for n, operation in enumerate(log) if operation.op == "sync")
    return log[:first] + log[first + 1 :]


def without_last_sync(log):
    last = max(n for n, operation in enumerate(log) if operation.op == "sync")
    return log[:last] + log[last + 1 :]


def manifest_first(log):
    manifest = next(n for n, operation in enumerate(log) if operation.key == NEW.manifest_key)
    return [log[0], log[manifest], *log[1:manifest], *log[manifest + 1 :]]


def over_the_earlier_one(log):
    """Write the new files under the names of the earlier checkpoint."""
    earlier, new = f"{EARLIER.stem}.", f"{NEW.stem}."
    return [
        type(o)(op=o.op, key=o.key.replace(new, earlier), source=o.source, data=o.data) for o in log
    ]


@pytest.mark.parametrize(
    ("broken", "symptom"),
    [
        (without_first_sync, "half a checkpoint"),
        (without_last_sync, "an acknowledged checkpoint is lost"),
        (manifest_first, "half a checkpoint"),
        (over_the_earlier_one, "half a checkpoint"),
    ],
)
def test_broken_commit_is_caught(broken, symptom):
    recorded = recorded_save()
    log = broken(recorded.log)
    _, found = problems(Recorded(recorded.files, log), acknowledged_at(log))
    assert any(problem.startswith(symptom) for _, problem in found)
