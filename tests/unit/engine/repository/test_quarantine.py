"""Quarantine: damaged checkpoints move whole, nothing else does, and a kill loses nothing."""

import pytest
from support.repo import HASH, Repo

from weightslab.engine.errors import CheckpointError, CheckpointNotFoundError, LockedError
from weightslab.engine.jsonform import unseal
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.quarantine import quarantine_checkpoint
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.testing.faults import FaultyStore, SimulatedCrash

STEM = f"{HASH}_step_000100"
NAME = CheckpointName(exp_hash=HASH, step=100)
MODEL = f"checkpoints/{HASH}/model/"
THERE = f"checkpoints/.quarantine/{STEM}/"


class NoLinks(MemoryStore):
    """A store on a file system that cannot link."""

    def link(self, src, dst):
        return False


def damaged(store=None, content=b"weights"):
    """A repository with a good step 99 and a step 100 of which one byte is wrong."""
    repo = Repo(store if store is not None else MemoryStore())
    repo.commit(step=99)
    repo.commit(step=100, content=content)
    repo.store.put(f"{MODEL}{STEM}.safetensors", [b"head" + content.upper()])
    return repo


def set_aside(repo, store=None, **more):
    return quarantine_checkpoint(store or repo.store, NAME, now=repo.clock(), **more)


@pytest.mark.parametrize("kind", [MemoryStore, NoLinks])
def test_damaged_checkpoint_moves_with_a_note_and_the_others_stay(kind):
    repo = damaged(kind())
    manifest = bytes(repo.store.map(f"{MODEL}{STEM}.json"))

    assert set_aside(repo) == THERE

    assert repo.store.list(THERE) == [f"{STEM}.json", f"{STEM}.safetensors", "why.json"]
    assert bytes(repo.store.map(f"{THERE}{STEM}.json")) == manifest
    assert bytes(repo.store.map(f"{THERE}{STEM}.safetensors")) == b"headWEIGHTS"
    assert repo.steps() == [(99, 1)]
    assert repo.files() == [f"{HASH}_step_000099.json", f"{HASH}_step_000099.safetensors"]


def test_note_says_what_was_found_and_when():
    repo = damaged()
    set_aside(repo)
    note, _ = unseal(repo.store.map(f"{THERE}why.json"), what="why.json")
    assert (note["exp_hash"], note["step"], note["revision"]) == (HASH, 100, 1)
    assert note["quarantined_at"] == "2026-01-01T00:00:02+00:00"
    assert note["files"] == [f"{STEM}.json", f"{STEM}.safetensors"]
    (finding,) = note["findings"]
    assert finding["key"] == f"{STEM}.safetensors"
    assert "tensor 'model/weight' does not have the digest" in finding["problem"]


def test_damaged_manifest_takes_its_files_along():
    repo = Repo()
    repo.commit(step=100)
    repo.store.put(f"{MODEL}{STEM}.json", [b"{"])
    set_aside(repo)
    assert repo.files() == []
    assert repo.store.list(THERE) == [f"{STEM}.json", f"{STEM}.safetensors", "why.json"]


def test_whole_checkpoint_stays_unless_a_reason_is_given():
    repo = Repo()
    repo.commit(step=100)
    with pytest.raises(CheckpointError, match=r"every byte of .* is as it was written"):
        set_aside(repo)
    assert repo.steps() == [(100, 1)]
    assert repo.store.list("checkpoints/.quarantine/") == []
    set_aside(repo, reason="bad labels")
    note, _ = unseal(repo.store.map(f"{THERE}why.json"), what="why.json")
    assert (note["reason"], note["findings"], repo.steps()) == ("bad labels", [], [])


def test_checkpoint_of_a_newer_version_stays():
    from weightslab.engine.jsonform import seal

    repo = Repo()
    repo.commit(step=100)
    document, _ = unseal(repo.store.map(f"{MODEL}{STEM}.json"), what="manifest")
    repo.store.put(f"{MODEL}{STEM}.json", [seal(document | {"schema_version": 99})])
    with pytest.raises(CheckpointError, match=r"not known to be damaged.*schema version 99"):
        set_aside(repo)
    assert repo.files() == [f"{STEM}.json", f"{STEM}.safetensors"]


def test_second_one_of_the_same_name_gets_a_folder_of_its_own():
    repo = damaged()
    assert set_aside(repo) == THERE
    repo.commit(step=100, content=b"another")
    repo.store.put(f"{MODEL}{STEM}.safetensors", [b"headANOTHER"])
    assert set_aside(repo) == f"checkpoints/.quarantine/{STEM}.2/"
    assert bytes(repo.store.map(f"{THERE}{STEM}.safetensors")) == b"headWEIGHTS"


def test_checkpoint_that_is_being_written_is_left_alone():
    repo = damaged()
    with repo.store.hold(NAME.pending_key), pytest.raises(LockedError, match="being written"):
        set_aside(repo)
    assert repo.steps() == [(99, 1), (100, 1)]


def test_absent_checkpoint_is_an_error():
    with pytest.raises(CheckpointNotFoundError):
        set_aside(Repo())


def calls_of_a_move(kind):
    repo = damaged(kind())
    store = FaultyStore(repo.store)
    set_aside(repo, store)
    return [(kind, call) for call in range(1, store.calls + 1)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("kind", "call"), calls_of_a_move(MemoryStore) + calls_of_a_move(NoLinks))
def test_killed_anywhere_it_is_here_or_whole_there_and_the_next_try_ends_it(kind, call, after):
    repo = damaged(kind())
    with pytest.raises(SimulatedCrash):
        set_aside(repo, FaultyStore(repo.store, fail_at=call, after=after))
    store = repo.store.reopened()
    left = Repo(store)
    if (100, 1) in left.steps():
        assert bytes(store.map(f"{MODEL}{STEM}.safetensors")) == b"headWEIGHTS"
        assert set_aside(left) == THERE
    assert left.steps() == [(99, 1)]
    assert store.list(THERE) == [f"{STEM}.json", f"{STEM}.safetensors", "why.json"]
    assert bytes(store.map(f"{THERE}{STEM}.safetensors")) == b"headWEIGHTS"
    assert store.list("checkpoints/.quarantine/") == [f"{STEM}/"]
