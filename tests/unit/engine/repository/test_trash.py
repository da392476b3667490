"""The trash: what is deleted can be had back as it was, and a kill loses nothing."""

from datetime import datetime, timedelta, timezone

import pytest
from support.repo import HASH, Repo

from weightslab.engine.errors import (
    AlreadyExistsError,
    ExperimentNotFoundError,
    LockedError,
    MissingObjectError,
    ObjectNotFoundError,
    PinnedError,
)
from weightslab.engine.jsonform import seal, unseal
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.trash import (
    empty_trash,
    list_trash,
    restore_trashed,
    trash_checkpoint,
    trash_checkpoints,
)
from weightslab.engine.repository.verify import verify_checkpoint
from weightslab.engine.storage.memory import MemoryStore
from weightslab.engine.testing.faults import FaultyStore, SimulatedCrash

STEM = f"{HASH}_step_000100"
NAME = CheckpointName(exp_hash=HASH, step=100)
MODEL = f"checkpoints/{HASH}/model/"
THERE = f"checkpoints/.trash/{STEM}/"
DAY = datetime(2026, 2, 1, tzinfo=timezone.utc)
FILES = [f"{STEM}.json", f"{STEM}.safetensors", "why.json"]


class NoLinks(MemoryStore):
    """A store on a file system that cannot link."""

    def link(self, src, dst):
        return False


def made(store=None):
    """A repository with steps 99 and 100."""
    repo = Repo(store if store is not None else MemoryStore())
    repo.store.put(f"checkpoints/{HASH}/experiment.json", [b"record"])
    repo.commit(step=99)
    repo.commit(step=100, content=b"others")
    return repo


def trash(repo, name=NAME, *, now=DAY, reason="a reason", store=None, **more):
    return trash_checkpoint(store or repo.store, name, now=now, reason=reason, **more)


@pytest.mark.parametrize("kind", [MemoryStore, NoLinks])
def test_checkpoint_moves_with_a_note_and_comes_back_as_it_was(kind):
    repo = made(kind())
    before = {name: bytes(repo.store.map(MODEL + name)) for name in repo.files()}

    assert trash(repo) == THERE
    assert repo.store.list(THERE) == FILES
    assert repo.steps() == [(99, 1)]
    note, _ = unseal(repo.store.map(f"{THERE}why.json"), what="why.json")
    assert (note["step"], note["reason"], note["files"]) == (100, "a reason", FILES[:2])

    assert restore_trashed(repo.store, NAME) == NAME
    assert {name: bytes(repo.store.map(MODEL + name)) for name in repo.files()} == before
    assert repo.store.list("checkpoints/.trash/") == []
    assert verify_checkpoint(repo.store, NAME) == []


def test_listing_says_what_when_and_why_oldest_first():
    repo = made()
    trash(repo, now=DAY)
    trash(repo, CheckpointName(exp_hash=HASH, step=99), now=DAY - timedelta(days=1), reason="old")
    older, newer = list_trash(repo.store)
    assert (older.name.step, older.reason, newer.reason) == (99, "old", "a reason")
    assert (newer.name, newer.trashed_at, newer.key, newer.is_damaged) == (NAME, DAY, THERE, False)
    assert newer.size_bytes == sum(repo.store.stat(THERE + f).size_bytes for f in FILES)


def test_what_allow_raises_leaves_it_in_its_place():
    repo = made()

    def refuse(name):
        assert name == NAME
        raise PinnedError("pinned meanwhile")

    with pytest.raises(PinnedError):
        trash(repo, allow=refuse)
    done = trash_checkpoints(repo.store, {NAME: "x"}, now=DAY, allow=refuse)
    assert isinstance(done[NAME], PinnedError)
    assert repo.steps() == [(99, 1), (100, 1)]
    assert repo.store.list("checkpoints/") == [f"{HASH}/"]


def test_many_move_in_one_call_beyond_the_size_of_a_batch():
    repo = Repo()
    names = [CheckpointName(exp_hash=HASH, step=step) for step in range(70)]
    for name in names:
        repo.commit(step=name.step)
    done = trash_checkpoints(repo.store, dict.fromkeys(names, "x"), now=DAY)
    assert done == {name: f"checkpoints/.trash/{name.stem}/" for name in names}
    assert repo.files() == []
    assert [entry.name for entry in list_trash(repo.store)] == names


# ---------------------------------------------------------------- the way back
def test_name_that_was_taken_meanwhile_is_not_overwritten():
    repo = made()
    trash(repo)
    repo.commit(step=100, content=b"newer")
    with pytest.raises(AlreadyExistsError, match=f"another checkpoint is called {STEM}"):
        restore_trashed(repo.store, NAME)
    assert len(list_trash(repo.store)) == 1
    assert bytes(repo.store.map(f"{MODEL}{STEM}.safetensors")) == b"headnewer"


def test_second_checkpoint_of_a_name_gets_a_folder_of_its_own_and_the_last_one_comes_back():
    repo = made()
    trash(repo)
    repo.commit(step=100, content=b"second")
    assert trash(repo, now=DAY + timedelta(hours=1)) == f"checkpoints/.trash/{STEM}.2/"
    restore_trashed(repo.store, STEM)
    assert bytes(repo.store.map(f"{MODEL}{STEM}.safetensors")) == b"headsecond"
    (entry,) = list_trash(repo.store)
    trash(repo)
    restore_trashed(repo.store, entry)
    assert bytes(repo.store.map(f"{MODEL}{STEM}.safetensors")) == b"headothers"


def test_experiment_that_is_gone_has_to_be_opened_first():
    repo = made()
    trash(repo)
    repo.store.delete(f"checkpoints/{HASH}/experiment.json")
    with pytest.raises(ExperimentNotFoundError, match="update_experiment_hash"):
        restore_trashed(repo.store, NAME)
    assert len(list_trash(repo.store)) == 1


def test_what_is_not_in_the_trash_is_an_error_that_names_what_is():
    repo = made()
    trash(repo)
    with pytest.raises(ObjectNotFoundError, match=f"newest there: {STEM}"):
        restore_trashed(repo.store, f"{HASH}_step_000007")
    with pytest.raises(TypeError):
        restore_trashed(repo.store, 100)


def test_what_is_not_whole_stays_in_the_trash_and_says_so():
    repo = made()
    trash(repo)
    repo.store.delete(f"{THERE}{STEM}.safetensors")
    (entry,) = list_trash(repo.store)
    assert entry.is_damaged
    with pytest.raises(MissingObjectError, match="lacks"):
        restore_trashed(repo.store, entry)
    assert repo.steps() == [(99, 1)]


# ---------------------------------------------------------------- emptying
def test_only_what_is_older_is_deleted():
    repo = made()
    trash(repo, now=DAY)
    trash(repo, CheckpointName(exp_hash=HASH, step=99), now=DAY - timedelta(days=1))
    (deleted,) = empty_trash(repo.store, before=DAY)
    assert deleted.name.step == 99
    assert repo.store.list("checkpoints/.trash/") == [f"{STEM}/"]
    assert empty_trash(repo.store, before=DAY) == []


def test_what_is_being_restored_is_not_deleted():
    repo = made()
    trash(repo)
    with repo.store.hold(f"{THERE}why.json", mode="alone"):
        assert empty_trash(repo.store, before=DAY + timedelta(days=9)) == []
        with pytest.raises(LockedError):
            restore_trashed(repo.store, NAME)
    assert len(empty_trash(repo.store, before=DAY + timedelta(days=9))) == 1


def test_damaged_note_is_listed_first_and_deleted_only_on_request():
    repo = made()
    trash(repo)
    repo.store.put(f"{THERE}why.json", [b"{"])
    (entry,) = list_trash(repo.store)
    assert (entry.trashed_at, entry.is_damaged) == (None, True)
    late = DAY + timedelta(days=900)
    assert empty_trash(repo.store, before=late) == []
    assert empty_trash(repo.store, before=late, damaged=True) == [entry]
    assert repo.store.list("checkpoints/.trash/") == []


def test_damaged_note_does_not_keep_a_whole_checkpoint_from_coming_back():
    repo = made()
    trash(repo)
    repo.store.put(f"{THERE}why.json", [b"{"])
    restore_trashed(repo.store, NAME)
    assert repo.steps() == [(99, 1), (100, 1)]


LIES = {"step": 7, "reason": None, "trashed_at": "soon", "schema": "x", "schema_version": 2}


@pytest.mark.parametrize("key", LIES)
def test_note_that_lies_is_damaged_and_not_obeyed(key):
    repo = made()
    trash(repo)
    document, _ = unseal(repo.store.map(f"{THERE}why.json"), what="why.json")
    repo.store.put(f"{THERE}why.json", [seal({**document, key: LIES[key]})])
    (entry,) = list_trash(repo.store)
    assert entry.is_damaged
    assert empty_trash(repo.store, before=DAY + timedelta(days=900)) == []


def test_files_and_folders_of_others_stay():
    repo = made()
    trash(repo)
    repo.store.put(f"{THERE}mine.txt", [b"x"])
    repo.store.put("checkpoints/.trash/notes/mine.txt", [b"x"])
    empty_trash(repo.store, before=DAY + timedelta(days=9))
    assert repo.store.list(THERE) == ["mine.txt"]
    assert repo.store.list("checkpoints/.trash/notes/") == ["mine.txt"]


# ---------------------------------------------------------------- death at each call
def whole_in_trash(store):
    return [e.name.step for e in list_trash(store) if not e.is_damaged]


def deaths(work, prepare):
    """Yield the store that each death during `work` leaves, before and after each writing call."""
    counting = prepare()
    counted = FaultyStore(counting.store)
    work(counted)
    assert counted.calls > 3
    for call in range(1, counted.calls + 1):
        for after in (False, True):
            repo = prepare()
            with pytest.raises(SimulatedCrash):
                work(FaultyStore(repo.store, fail_at=call, after=after))
            yield Repo(repo.store.reopened())


@pytest.mark.parametrize("kind", [MemoryStore, NoLinks])
def test_death_while_it_moves_leaves_it_in_its_place_or_whole_in_the_trash(kind):
    work = lambda store: trash(None, store=store)  # noqa: E731
    for repo in deaths(work, lambda: made(kind())):
        steps = [step for step, _ in repo.steps()]
        assert steps + whole_in_trash(repo.store) == [99, 100]
        if 100 in steps:
            assert verify_checkpoint(repo.store, NAME) == []
            assert trash(repo, now=DAY + timedelta(days=1)) == THERE
            assert list_trash(repo.store)[0].trashed_at == DAY + timedelta(days=1)
        assert repo.store.list(THERE) == FILES


def trashed():
    repo = made()
    trash(repo)
    return repo


def test_death_while_it_comes_back_leaves_it_in_the_trash_or_whole_in_its_place():
    for repo in deaths(lambda store: restore_trashed(store, NAME), trashed):
        steps = [step for step, _ in repo.steps()]
        assert steps + whole_in_trash(repo.store) == [99, 100]
        try:
            restore_trashed(repo.store, NAME)
        except ObjectNotFoundError:
            assert 100 in steps
        assert verify_checkpoint(repo.store, NAME) == []
        assert list_trash(repo.store) == []
        empty_trash(repo.store, before=DAY + timedelta(days=9))
        assert repo.store.list("checkpoints/.trash/") == []
        assert verify_checkpoint(repo.store, NAME) == []


def test_death_while_it_is_emptied_leaves_an_entry_or_none():
    late = DAY + timedelta(days=9)
    for repo in deaths(lambda store: empty_trash(store, before=late), trashed):
        assert whole_in_trash(repo.store) == [e.name.step for e in list_trash(repo.store)]
        empty_trash(repo.store, before=late)
        assert repo.store.list("checkpoints/.trash/") == []
        assert repo.steps() == [(99, 1)]
