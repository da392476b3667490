"""Thinning: the weights stay, the optimizer state goes, the checkpoint keeps its place."""

import dataclasses
from datetime import timedelta

import pytest
from support.repo import HASH, Repo, plain_image

from weightslab.engine.errors import (
    CheckpointError,
    DigestMismatchError,
    LockedError,
    MissingObjectError,
)
from weightslab.engine.repository.catalog import map_file, read_manifest
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.manifest import Manifest
from weightslab.engine.repository.notes import add_note
from weightslab.engine.repository.thinning import is_thin, thin_checkpoint
from weightslab.engine.repository.trash import list_trash, restore_trashed
from weightslab.engine.repository.verify import verify_checkpoint, verify_files
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.tensors.packing import PackedTensor, pack
from weightslab.engine.testing.faults import FaultyStore, SimulatedCrash
from weightslab.engine.values import ParentLink

FAT = CheckpointName(exp_hash=HASH, step=100)
THIN = CheckpointName(exp_hash=HASH, step=100, revision=2)
STATE = {"model": {"a": 1}, "training": {"optimizer": {"adam": {}}}}
PARENT = ParentLink(kind="checkpoint", exp_hash=HASH, step=99, revision=1, exact=True)


class NoLinks(MemoryStore):
    """A store on a file system that cannot link."""

    def link(self, src, dst):
        return False


def commit(repo, step=100, content=b"weights", **more):
    images = {"model": plain_image(content), "training": plain_image(content * 2)}
    facts = {"images": images, "state": STATE, "metrics": {"loss": 0.5}, "parent": PARENT}
    return repo.commit(step=step, **(facts | more))[0]


def made(store=None):
    repo = Repo(store if store is not None else MemoryStore())
    repo.store.put(f"checkpoints/{HASH}/experiment.json", [b"record"])
    commit(repo, 99, b"earlier")
    commit(repo)
    commit(repo, 101, b"later")
    return repo


def thin(repo, name=FAT, *, store=None, **more):
    return thin_checkpoint(store or repo.store, repo.catalog, name, clock=repo.clock, **more)


def bytes_of(store, manifest, key):
    record = manifest.tensors[key]
    data = map_file(store, manifest.name, record.file)
    return bytes(data[record.offset : record.offset + record.size_bytes])


@pytest.mark.parametrize("kind", [MemoryStore, NoLinks])
def test_thin_checkpoint_keeps_weights_place_and_story(kind):
    repo = made(kind())
    old = read_manifest(repo.store, FAT)

    new = thin(repo)

    assert new == read_manifest(repo.store, THIN)
    kept = ("sequence", "created_at", "parent", "metrics", "metadata", "config_file", "versions")
    assert {k: getattr(new, k) for k in kept} == {k: getattr(old, k) for k in kept}
    assert (new.derived_from, new.parts, new.state) == (old.digest, ("model",), {"model": {"a": 1}})
    assert bytes_of(repo.store, new, "model/weight") == b"weights"
    assert verify_checkpoint(repo.store, THIN) == []
    assert is_thin(new)
    assert not is_thin(old)


def test_old_revision_goes_to_the_trash_and_the_bytes_are_shared():
    repo = made()
    thin(repo)
    (entry,) = list_trash(repo.store)
    assert (entry.name, entry.reason) == (
        FAT,
        f"thinned: the optimizer state was dropped, the weights stay in {THIN.stem}",
    )
    assert [n for n in repo.files() if "000100" in n] == [
        f"{THIN.stem}.json",
        f"{THIN.stem}.safetensors",
    ]
    one = repo.store.stat(THIN.file_key(f"{THIN.stem}.safetensors"))
    two = repo.store.stat(f"{entry.key}{FAT.stem}.safetensors")
    assert one.inode == two.inode


def test_order_of_the_experiment_stays():
    repo = made()
    thin(repo)
    thin(repo, CheckpointName(exp_hash=HASH, step=101))
    found = [(e.name.step, e.name.revision, e.sequence) for e in repo.catalog.checkpoints(HASH)]
    assert found == [(99, 1, 1), (100, 2, 2), (101, 2, 3)]
    assert repo.catalog.latest(HASH).name.step == 101
    assert repo.catalog.latest().name.step == 101


def test_thinning_again_or_without_anything_to_drop_changes_nothing():
    repo = made()
    new = thin(repo)
    repo.commit(step=5)
    plain = CheckpointName(exp_hash=HASH, step=5)
    before = repo.files()
    assert thin(repo, THIN) == new
    assert thin(repo, plain) == read_manifest(repo.store, plain)
    assert repo.files() == before
    assert len(list_trash(repo.store)) == 1


def test_only_the_revision_that_answers_is_thinned():
    repo = made()
    commit(repo, content=b"another")
    with pytest.raises(CheckpointError, match=r"is not the newest revision .*r2 is"):
        thin(repo)
    repo.store.put(THIN.manifest_key, [b"{"])
    with pytest.raises(CheckpointError, match="is not the newest revision"):
        thin(repo)
    assert list_trash(repo.store) == []


def test_revision_that_somebody_writes_is_not_taken():
    repo = made()
    with (
        repo.store.hold(THIN.pending_key),
        pytest.raises(LockedError, match=r"r2 is being written"),
    ):
        thin(repo)
    assert repo.steps() == [(99, 1), (100, 1), (101, 1)]


def test_what_allow_raises_leaves_it_as_it_was():
    repo = made()

    def refuse(name):
        raise LockedError(f"not {name.step}")

    with pytest.raises(LockedError, match="not 100"):
        thin(repo, allow=refuse)
    assert repo.steps() == [(99, 1), (100, 1), (101, 1)]


def test_damaged_weights_are_not_passed_on():
    repo = made()
    repo.store.put(FAT.file_key(f"{FAT.stem}.safetensors"), [b"headweightz"])
    before = repo.files()
    with pytest.raises(DigestMismatchError):
        thin(repo)
    assert repo.files() == before
    repo.store.delete(FAT.file_key(f"{FAT.stem}.safetensors"))
    with pytest.raises(MissingObjectError, match="which is not there"):
        thin(repo)
    assert repo.steps() == [(99, 1), (100, 1), (101, 1)]


def test_damaged_optimizer_state_may_go():
    repo = made()
    repo.store.put(FAT.file_key(f"{FAT.stem}.training.safetensors"), [b"x"])
    assert verify_checkpoint(repo.store, thin(repo).name) == []


# ---------------------------------------------------------------- files that hold both
def tensor(text, times):
    data = text.encode() * times
    return PackedTensor(dtype="U8", shape=(len(data),), data=memoryview(data))


def mixed(repo, name=FAT, *, weights, training):
    """Write a checkpoint whose weights and training tensors lie in one file, as reuse may make it."""
    old = commit(repo, name.step)
    image = pack({"model/w": tensor("w", weights), "training/optimizer/m": tensor("m", training)})
    file, tensors = image.records(name.file_name("stable"), "stable")
    repo.store.put(name.file_key(file.name), image.buffers)
    changed = dataclasses.replace(old, files=(*old.files, file), tensors=old.tensors | tensors)
    repo.store.put(name.manifest_key, [changed.to_bytes()])
    repo.catalog.refresh()
    return Manifest.from_bytes(repo.store.map(name.manifest_key), name=name)


def test_file_that_is_mostly_weights_is_linked_whole():
    repo = Repo()
    mixed(repo, weights=900, training=100)
    new = thin(repo)
    assert [f.part for f in new.files] == ["model", "stable"]
    assert sorted(new.tensors) == ["model/w", "model/weight"]
    assert bytes_of(repo.store, new, "model/w") == b"w" * 900
    verify_files(repo.store, new)


def test_weights_in_a_file_that_is_mostly_training_are_written_anew():
    repo = Repo()
    mixed(repo, weights=100, training=9000)
    new = thin(repo)
    assert [(f.part, f.name) for f in new.files] == [
        ("kept", f"{THIN.stem}.kept.safetensors"),
        ("model", f"{THIN.stem}.safetensors"),
    ]
    assert bytes_of(repo.store, new, "model/w") == b"w" * 100
    assert repo.store.stat(THIN.file_key(f"{THIN.stem}.kept.safetensors")).size_bytes < 400
    verify_files(repo.store, new)


def test_what_wrappers_count_stays_with_the_weights():
    repo = Repo()
    image = pack({"optimizer/m": tensor("m", 500), "wrappers/model/n": tensor("n", 8)})
    state = {"model": {}, "training": {"optimizer": {"a": {}}, "wrappers": {"model": {"n": 1}}}}
    repo.commit(step=100, images={"model": plain_image(b"w"), "training": image}, state=state)
    new = thin(repo)
    assert new.state == {"model": {}, "training": {"wrappers": {"model": {"n": 1}}}}
    assert sorted(new.tensors) == ["model/weight", "training/wrappers/model/n"]
    assert bytes_of(repo.store, new, "training/wrappers/model/n") == b"n" * 8
    verify_files(repo.store, new)


def test_tied_names_of_the_weights_stay_and_those_of_the_optimizer_go():
    repo = Repo()
    images = {"model": plain_image(b"w"), "training": plain_image(b"t")}
    aliases = {"model/tied": "model/weight", "training/tied": "training/weight"}
    repo.commit(step=100, images=images, state=STATE, aliases=aliases)
    assert thin(repo).aliases == {"model/tied": "model/weight"}


# ---------------------------------------------------------------- undo
def test_restored_checkpoint_answers_again_and_the_thin_one_is_gone():
    repo = made()
    thin(repo)
    assert restore_trashed(repo.store, FAT) == FAT
    assert repo.steps() == [(99, 1), (100, 1), (101, 1)]
    assert [n for n in repo.files() if ".r2." in n] == []
    assert verify_checkpoint(repo.store, FAT) == []


def test_thin_revision_that_is_pinned_by_itself_stays():
    repo = made()
    thin(repo)
    add_note(repo.store, HASH, kind="pin", step=100, revision=2, now=repo.clock())
    restore_trashed(repo.store, FAT)
    assert repo.steps() == [(99, 1), (100, 1), (100, 2), (101, 1)]


def test_another_revision_is_not_taken_for_the_thin_one():
    repo = made()
    thin(repo)
    commit(repo, content=b"another")
    restore_trashed(repo.store, FAT)
    assert repo.steps() == [(99, 1), (100, 1), (101, 1), (100, 3)]


# ---------------------------------------------------------------- death at each call
def test_death_at_any_call_leaves_one_that_answers_and_a_second_call_goes_on():
    counting = made()
    counted = FaultyStore(counting.store)
    thin(counting, store=counted)
    assert counted.calls > 10
    for call in range(1, counted.calls + 1):
        for after in (False, True):
            repo = made()
            with pytest.raises(SimulatedCrash):
                thin(repo, store=FaultyStore(repo.store, fail_at=call, after=after))
            repo = Repo(repo.store.reopened())
            repo.clock()
            names = [e.name for e in repo.catalog.checkpoints(HASH) if e.name.step == 100]
            newest = max(names, key=lambda n: n.revision)
            assert verify_checkpoint(repo.store, newest) == []
            assert (
                bytes_of(repo.store, read_manifest(repo.store, newest), "model/weight")
                == b"weights"
            )
            new = thin(repo, newest)
            assert new.name == THIN
            assert repo.steps() == [(99, 1), (100, 2), (101, 1)]
            assert [e.name for e in list_trash(repo.store) if not e.is_damaged] == [FAT]


def test_damaged_thin_revision_does_not_take_the_place_of_the_old_one():
    repo = made()
    store = FaultyStore(repo.store, fail_at=None)
    old = bytes(repo.store.map(FAT.manifest_key))
    thin(repo, store=store)
    restored = {
        n: bytes(repo.store.map(f"checkpoints/.trash/{FAT.stem}/{n}"))
        for n in (f"{FAT.stem}.safetensors", f"{FAT.stem}.training.safetensors")
    }
    for name, data in restored.items():
        repo.store.put(FAT.file_key(name), [data])
    repo.store.put(FAT.manifest_key, [old])  # as if killed between the two commits
    repo.store.put(THIN.file_key(f"{THIN.stem}.safetensors"), [b"headweightz"])
    for name in (FAT, THIN):
        with pytest.raises(DigestMismatchError):
            thin(repo, name)
    assert (100, 1) in repo.steps()


def test_time_in_the_note_is_that_of_the_thinning():
    repo = made()
    before = repo.clock()
    thin(repo)
    assert before < list_trash(repo.store)[0].trashed_at < before + timedelta(seconds=5)
