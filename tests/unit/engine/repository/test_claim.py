"""Readers and those who delete, move or thin: neither disturbs the other."""

import os
import threading

import pytest
from support.repo import HASH, Repo

from weightslab.engine.errors import CheckpointNotFoundError, LockedError
from weightslab.engine.repository.claim import claimed, reading
from weightslab.engine.repository.commit import delete_checkpoint
from weightslab.engine.repository.layout import CheckpointName
from weightslab.engine.repository.quarantine import quarantine_checkpoint
from weightslab.engine.repository.thinning import thin_checkpoint
from weightslab.engine.repository.trash import trash_checkpoint, trash_checkpoints
from weightslab.engine.storage.local import LocalStore
from weightslab.engine.storage.memory import MemoryStore

NAME = CheckpointName(exp_hash=HASH, step=100)
WAYS = {
    "delete": lambda repo: delete_checkpoint(repo.store, NAME),
    "quarantine": lambda repo: quarantine_checkpoint(
        repo.store, NAME, now=repo.clock(), reason="x"
    ),
    "trash": lambda repo: trash_checkpoint(repo.store, NAME, now=repo.clock(), reason="x"),
    "thin": lambda repo: thin_checkpoint(repo.store, repo.catalog, NAME, clock=repo.clock),
}


@pytest.fixture(params=["memory", "local"])
def repo(request, tmp_path):
    made = Repo(MemoryStore() if request.param == "memory" else LocalStore(tmp_path))
    made.commit(step=100, state={"model": {}, "training": {"optimizer": {}}})
    return made


@pytest.mark.parametrize("way", WAYS)
def test_checkpoint_that_is_read_stays_and_can_be_had_afterwards(repo, way):
    before = repo.files()
    with reading(repo.store, NAME) as manifest:
        with pytest.raises(LockedError, match="is being read"):
            WAYS[way](repo)
        assert repo.files() == before
    assert manifest.name == NAME
    WAYS[way](repo)
    assert repo.files() != before


def test_readers_do_not_disturb_each_other_and_leave_no_trace(repo):
    before = repo.files()
    with reading(repo.store, NAME), reading(repo.store, NAME):
        assert repo.files() == before


def test_checkpoint_that_is_being_deleted_is_not_read(repo):
    with (
        claimed(repo.store, NAME),
        pytest.raises(LockedError, match="being deleted or moved"),
        reading(repo.store, NAME),
    ):
        pass


def test_absent_checkpoint_is_neither_read_nor_claimed(repo):
    absent = CheckpointName(exp_hash=HASH, step=7)
    for verb in (reading, claimed):
        with pytest.raises(CheckpointNotFoundError, match="step_000007"), verb(repo.store, absent):
            pass
    assert [name for name in repo.files() if name.endswith(".pending")] == []


def test_many_pass_over_the_one_that_is_read(repo):
    repo.commit(step=101)
    other = CheckpointName(exp_hash=HASH, step=101)
    with reading(repo.store, NAME):
        done = trash_checkpoints(repo.store, {NAME: "x", other: "x"}, now=repo.clock())
    assert isinstance(done[NAME], LockedError)
    assert done[other] == f"checkpoints/.trash/{other.stem}/"
    assert repo.steps() == [(100, 1)]


def test_reading_works_where_nothing_may_be_written(tmp_path):
    repo = Repo(LocalStore(tmp_path))
    repo.commit(step=100)
    with reading(LocalStore(tmp_path, read_only=True), NAME), pytest.raises(LockedError):
        delete_checkpoint(repo.store, NAME)


def test_lock_of_a_reader_ends_with_its_process(tmp_path):
    repo = Repo(LocalStore(tmp_path))
    repo.commit(step=100)
    ready, gate = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with reading(LocalStore(tmp_path), NAME):
            os.write(ready[1], b"x")
            os.read(gate[0], 1)
            os._exit(9)  # dies in the middle
    try:
        os.read(ready[0], 1)
        with pytest.raises(LockedError):
            delete_checkpoint(repo.store, NAME)
    finally:
        os.write(gate[1], b"x")
        os.waitpid(pid, 0)
    delete_checkpoint(repo.store, NAME)
    assert repo.steps() == []


def test_child_of_a_reader_does_not_keep_its_lock(tmp_path):
    repo = Repo(LocalStore(tmp_path))
    repo.commit(step=100)
    ready, gate = os.pipe(), os.pipe()
    with reading(repo.store, NAME):
        pid = os.fork()  # as a worker of a DataLoader, which outlives the load
        if pid == 0:
            os.write(ready[1], b"x")
            os.read(gate[0], 1)
            os._exit(0)
    try:
        os.read(ready[0], 1)
        delete_checkpoint(repo.store, NAME)
    finally:
        os.write(gate[1], b"x")
        os.waitpid(pid, 0)


def test_without_locks_nobody_is_kept_out(tmp_path, monkeypatch):
    repo = Repo(LocalStore(tmp_path))
    repo.commit(step=100)

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    lock = repo.store.hold(NAME.manifest_key, mode="read")
    assert lock is not None
    alone = repo.store.hold(NAME.manifest_key, mode="alone")
    assert alone is not None
    lock.release()
    alone.release()


@pytest.mark.slow
def test_readers_beside_a_deleter_see_all_or_nothing(tmp_path):
    """Each reader that got the manifest finds every file, whatever goes on meanwhile."""
    store = LocalStore(tmp_path)
    repo = Repo(store)
    steps = range(30)
    for step in steps:
        repo.commit(step=step, content=b"%d" % step)
    lacking, read, gate = [], [], threading.Barrier(3)

    def look():
        gate.wait()
        for step in steps:
            name = CheckpointName(exp_hash=HASH, step=step)
            try:
                with reading(LocalStore(tmp_path), name) as manifest:
                    keys = [name.file_key(file.name) for file in manifest.files]
                    lacking.extend(key for key in keys if store.stat(key) is None)
                    read.append(step)
            except (CheckpointNotFoundError, LockedError):
                continue

    def remove():
        gate.wait()
        for step in reversed(steps):
            try:
                name = CheckpointName(exp_hash=HASH, step=step)
                trash_checkpoint(store, name, now=repo.clock(), reason="x")
            except LockedError:  # noqa: PERF203 - one per checkpoint
                continue

    threads = [threading.Thread(target=work) for work in (look, look, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lacking == []
    assert read
