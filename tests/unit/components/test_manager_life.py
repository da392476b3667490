"""A manager from opening to closing: forks, read-only roots, foreign ranks."""

import os

import pytest
import torch
from support.training import CONFIG, files_of, make, tree_of

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import LockedError, NotFoundError, ReadOnlyStoreError, StorageError

CALLS = {
    "update": lambda m: m.update_experiment_hash(config={}),
    "save": lambda m: m.save_model_checkpoint(make()[0], step=1),
    "architecture": lambda m: m.save_model_architecture(make()[0]),
    "config": lambda m: m.save_config({}),
    "backup": lambda m: m.save_data_backup("x.h5"),
    "latest": lambda m: m.load_latest_checkpoint(make()[0]),
    "load": lambda m: m.load_checkpoint(1),
    "load_config": lambda m: m.load_config(),
    "hashes": lambda m: m.list_experiment_hashes(),
    "info": lambda m: m.get_checkpoint_info(),
    "enter": lambda m: m.__enter__(),
}
WRITES = ("update", "save", "architecture", "config", "backup")


def test_new_root_has_its_three_folders(manager):
    assert sorted(tree_of(manager.root.path)) == ["checkpoints", "data", "logs"]


def test_root_may_be_given_as_text_and_be_nested(tmp_path):
    with CheckpointManagerV2(str(tmp_path / "a" / "b")) as manager:
        assert manager.root.path == tmp_path / "a" / "b"
        assert manager.root.path.is_dir()


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file; a root is a folder"):
        CheckpointManagerV2(tmp_path / "file")


def test_excluded_keys_given_as_one_text_are_refused(tmp_path):
    with pytest.raises(TypeError, match="config_exclude is a sequence"):
        CheckpointManagerV2(tmp_path, config_exclude="data.dir")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_closed_manager_refuses_everything(manager, call):
    manager.close()
    manager.close()
    with pytest.raises(LockedError, match="closed; make a new CheckpointManagerV2"):
        call(manager)


def test_leaving_the_with_block_closes(tmp_path):
    with CheckpointManagerV2(tmp_path) as manager:
        assert manager.list_experiment_hashes() == []
    with pytest.raises(LockedError):
        manager.list_experiment_hashes()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_manager_of_the_parent_refuses_everything_in_a_forked_child(manager, monkeypatch, call):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(LockedError, match=r"process that forked.*of its own in the child"):
        call(manager)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_child_is_refused_and_the_parent_goes_on(run):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.save(1)
        except LockedError:
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    run.save(1)
    assert run.manager.get_checkpoint_info()["steps"] == [1]


# ---------------------------------------------------------------- read-only
def test_read_only_root_has_to_exist_and_is_not_made(tmp_path):
    with pytest.raises(NotFoundError, match="a read-only root has to exist"):
        CheckpointManagerV2(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", WRITES)
def test_read_only_manager_refuses_to_write_and_names_the_way(run, name):
    with (
        CheckpointManagerV2(run.manager.root.path, read_only=True) as reader,
        pytest.raises(ReadOnlyStoreError, match=r"opened with read_only=True; open it without"),
    ):
        CALLS[name](reader)


def test_read_only_manager_reads_everything_and_writes_nothing(run):
    run.save(1, metadata={"a": 1})
    run.save(2)
    run.weights(2).write_bytes(b"damaged")
    before = tree_of(run.manager.root.path)
    model, optimizer = make(seed=3)
    with CheckpointManagerV2(run.manager.root.path, read_only=True) as reader:
        found = reader.load_latest_checkpoint(model, optimizer=optimizer)
        assert (found["step"], len(found["skipped"])) == (1, 1)
        reader.load_checkpoint(1, run.exp_hash, model, optimizer=optimizer)
        assert reader.load_config() == CONFIG
        assert reader.list_experiment_hashes() == [run.exp_hash]
        assert reader.get_checkpoint_info()["steps"] == [1, 2]
        assert len(reader.root.samples(run.exp_hash)) == 100
        assert len(reader.root.verify()) == 1
        with pytest.raises(ReadOnlyStoreError):
            reader.root.delete(run.exp_hash)
    assert tree_of(run.manager.root.path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ReadOnlyStoreError, match="choose a root_log_dir that can be written"):
        CheckpointManagerV2(tmp_path / "root")


# ---------------------------------------------------------------- ranks
@pytest.fixture
def rank_one(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)


def test_other_rank_writes_nothing_and_gets_the_same_hash_and_path(tmp_path, rank_one):
    model, optimizer = make()
    with CheckpointManagerV2(tmp_path / "other") as manager:
        update = manager.update_experiment_hash(model, CONFIG, range(5))
        path = manager.save_model_checkpoint(model, step=3, optimizer=optimizer)
        assert manager.save_config(CONFIG).name == f"{update.exp_hash}_config.yaml"
        assert manager.save_model_architecture(model).name.endswith("_architecture.json")
        assert manager.save_data_backup("x.h5").name == f"{update.exp_hash}_x.h5"
        assert manager.load_latest_checkpoint(model) is None
    assert not update.is_new
    assert not (tmp_path / "other").exists()
    assert path == (
        tmp_path / "other" / "checkpoints" / update.exp_hash / "model"
        / f"{update.exp_hash}_step_000003.safetensors"
    )  # fmt: skip


def test_other_rank_loads_and_leaves_the_journal_alone(run, rank_one):
    run.save(1)  # as another rank: nothing
    assert run.manager.get_checkpoint_info()["steps"] == []


def test_journal_of_a_manager_made_before_the_ranks_were_is_left_alone(run, monkeypatch):
    run.save(1)
    journal = (run.manager.root.path / "logs" / "events.jsonl").read_bytes()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    assert run.manager.load_latest_checkpoint(optimizer=run.optimizer)["step"] == 1
    assert (run.manager.root.path / "logs" / "events.jsonl").read_bytes() == journal


# ---------------------------------------------------------------- trouble at the edges
def test_journal_that_cannot_be_written_does_not_undo_a_save(run, caplog):
    journal = run.manager.root.path / "logs" / "events.jsonl"
    journal.unlink()
    journal.mkdir()
    run.save(1)
    assert run.manager.root.verify() == []
    assert "checkpoint_committed is not in the journal" in caplog.text


def test_failed_write_loses_nothing_and_the_next_save_works(run, monkeypatch):
    run.save(1)
    before = files_of(run.folder)
    put = run.manager.root.store.put

    def broken(key, parts, **more):
        if key.endswith(".json"):
            raise StorageError("the disk is gone")
        return put(key, parts, **more)

    monkeypatch.setattr(run.manager.root.store, "put", broken)
    with pytest.raises(StorageError, match="the disk is gone"):
        run.save(2)
    assert files_of(run.folder) == before
    monkeypatch.undo()
    run.save(2)
    assert run.manager.root.verify() == []
