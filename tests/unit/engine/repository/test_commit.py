"""The commit: what is visible is complete, nothing is overwritten."""

import pytest
from support.repo import HASH, Repo

from weightslab.engine.errors import (
    CheckpointNotFoundError,
    LockedError,
    StorageFullError,
)
from weightslab.engine.repository.commit import (
    commit_checkpoint,
    delete_checkpoint,
    remove_leftovers,
)
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.testing.faults import FaultyStore, RecordingStore, SimulatedCrash

FIRST = f"{HASH}_step_000100"


def test_commit_leaves_weights_and_manifest_and_nothing_else(repo):
    repo.commit()
    assert repo.files() == [f"{FIRST}.json", f"{FIRST}.safetensors"]


def test_order_is_hold_files_sync_manifest_sync_release():
    store = RecordingStore(Repo().store)
    Repo(store).commit()
    folder = f"checkpoints/{HASH}/model/"
    assert list(store.steps) == [
        ("hold", f"{folder}{FIRST}.pending"),
        ("put", f"{folder}{FIRST}.safetensors"),
        ("sync", folder),
        ("put", f"{folder}{FIRST}.json"),
        ("sync", folder),
        ("release", f"{folder}{FIRST}.pending"),
    ]


def test_sequence_counts_commits_not_steps(repo):
    repo.commit(step=300)
    manifest, _ = repo.commit(step=200)
    assert manifest.sequence == 2
    assert repo.steps() == [(300, 1), (200, 1)]


def test_same_content_again_writes_nothing(repo):
    first, written_first = repo.commit()
    again, written_again = repo.commit()
    assert (written_first, written_again) == (True, False)
    assert again.digest == first.digest


def test_same_content_again_syncs_the_folder_for_an_attempt_that_died_before_it():
    store = RecordingStore(Repo().store)
    repo = Repo(store)
    repo.commit()
    store.log.clear()
    repo.commit()
    assert list(store.steps) == [("sync", f"checkpoints/{HASH}/model/")]


def test_other_content_becomes_a_revision_and_the_old_one_stays(repo):
    repo.commit(content=b"old")
    manifest, _ = repo.commit(content=b"new")
    assert manifest.name.revision == 2
    assert bytes(repo.store.map(f"checkpoints/{HASH}/model/{FIRST}.safetensors")) == b"headold"
    assert bytes(repo.store.map(f"checkpoints/{HASH}/model/{FIRST}.r2.safetensors")) == b"headnew"


@pytest.mark.parametrize(
    "more", [{"metadata": {"a": 1}}, {"metrics": {"loss": 0.5}}, {"state": {"model": {"x": 1}}}]
)
def test_other_metadata_metrics_or_state_is_other_content(repo, more):
    repo.commit()
    assert repo.commit(**more)[0].name.revision == 2


def test_damaged_first_revision_is_kept_and_same_content_is_saved_again(repo):
    repo.commit(content=b"good")
    repo.store.put(f"checkpoints/{HASH}/model/{FIRST}.safetensors", [b"headbad!"])
    manifest, written = repo.commit(content=b"good")
    assert (written, manifest.name.revision) == (True, 2)


def test_revision_held_by_another_writer_is_passed_over(repo):
    hold = repo.store.hold(CheckpointName(exp_hash=HASH, step=100).pending_key)
    manifest, _ = repo.commit()
    assert manifest.name.revision == 2
    hold.release()


def test_files_left_by_a_dead_writer_are_removed_and_its_revision_is_used(repo):
    repo.store.put(f"checkpoints/{HASH}/model/{FIRST}.training.safetensors", [b"left"])
    manifest, _ = repo.commit()
    assert manifest.name.revision == 1
    assert repo.files() == [f"{FIRST}.json", f"{FIRST}.safetensors"]


def test_crash_at_every_write_leaves_the_earlier_checkpoint_and_the_next_save_works():
    for point in range(1, 7):
        repo = Repo()
        repo.commit(step=50, content=b"before")
        broken = FaultyStore(repo.store, fail_at=point, error=SimulatedCrash)
        with pytest.raises(SimulatedCrash):
            commit_checkpoint(broken, repo.catalog, repo.draft(), clock=repo.clock)
        assert (50, 1) in repo.steps()
        repo.commit(content=b"after")
        assert {step for step, _ in repo.steps()} == {50, 100}


def test_failed_write_raises_and_leaves_no_files():
    repo = Repo()
    broken = FaultyStore(repo.store, fail_at=2, error=lambda: StorageFullError("no space"))
    with pytest.raises(StorageFullError):
        commit_checkpoint(broken, repo.catalog, repo.draft(), clock=repo.clock)
    assert repo.files() == []


def test_leftovers_are_removed_only_where_the_hold_can_be_taken(repo):
    folder = f"checkpoints/{HASH}/model/"
    repo.commit(step=50)
    repo.store.put(f"{folder}{HASH}_step_000060.safetensors", [b"dead"])
    repo.store.put(f"{folder}{HASH}_step_000070.safetensors", [b"alive"])
    hold = repo.store.hold(CheckpointName(exp_hash=HASH, step=70).pending_key)
    assert remove_leftovers(repo.store, HASH) == [f"{folder}{HASH}_step_000060.safetensors"]
    hold.release()
    assert f"{HASH}_step_000050.safetensors" in repo.files()


def test_delete_takes_the_manifest_first():
    store = RecordingStore(Repo().store)
    Repo(store).commit()
    store.log.clear()
    delete_checkpoint(store, CheckpointName(exp_hash=HASH, step=100))
    deleted = [key for op, key in store.steps if op == "delete"]
    assert [key.rpartition("/")[2] for key in deleted] == [f"{FIRST}.json", f"{FIRST}.safetensors"]


def test_delete_of_one_revision_leaves_the_other(repo):
    repo.commit(content=b"old")
    repo.commit(content=b"new")
    delete_checkpoint(repo.store, CheckpointName(exp_hash=HASH, step=100, revision=2))
    assert repo.files() == [f"{FIRST}.json", f"{FIRST}.safetensors"]


def test_delete_of_what_is_being_written_is_refused(repo):
    repo.commit()
    name = CheckpointName(exp_hash=HASH, step=100)
    with repo.store.hold(name.pending_key), pytest.raises(LockedError):
        delete_checkpoint(repo.store, name)


def test_delete_of_an_absent_checkpoint_says_so(repo):
    with pytest.raises(CheckpointNotFoundError):
        delete_checkpoint(repo.store, CheckpointName(exp_hash=HASH, step=1))
