"""read_only=True where nothing can be written, and a disk that is full."""

import os
import shutil
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.training import CONFIG, files_of, make, state_of, train, tree_of

from weightslab.components import CheckpointManagerV2
from weightslab.engine.errors import ReadOnlyStoreError, StorageFullError


@contextmanager
def mounted(folder, *options):
    """Mount a small tmpfs on `folder`; skip where that is not allowed."""
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("no mounts here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(root):
    model, optimizer = make()
    train(model, optimizer)
    with CheckpointManagerV2(root) as manager:
        manager.update_experiment_hash(model, CONFIG, range(20))
        manager.save_model_checkpoint(model, step=1, optimizer=optimizer)
    return model, optimizer


def read_all(root, model, optimizer):
    fresh, fresh_optimizer = make(seed=4)
    with CheckpointManagerV2(root, read_only=True) as manager:
        assert manager.load_latest_checkpoint(fresh, optimizer=fresh_optimizer)["step"] == 1
        assert manager.load_config() == CONFIG
        assert manager.get_checkpoint_info()["steps"] == [1]
        assert manager.root.verify() == []
        assert len(manager.root.samples(manager.list_experiment_hashes()[0])) == 20
    assert state_of(fresh, fresh_optimizer) == state_of(model, optimizer)


def test_reading_writes_nothing_at_all(tmp_path):
    objects = fill(tmp_path / "root")
    before = tree_of(tmp_path)
    read_all(tmp_path / "root", *objects)
    assert tree_of(tmp_path) == before


def test_root_without_journal_and_data_folders_is_read_as_it_is(tmp_path):
    objects = fill(tmp_path / "root")
    shutil.rmtree(tmp_path / "root" / "logs")
    shutil.rmtree(tmp_path / "root" / "data")
    before = tree_of(tmp_path)
    read_all(tmp_path / "root", *objects)
    assert tree_of(tmp_path) == before


def test_read_only_mount_is_read_and_writing_to_it_is_a_clear_error(tmp_path):
    with mounted(tmp_path / "mount", "size=8m") as mount:
        objects = fill(mount / "root")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        before = tree_of(mount)
        read_all(mount / "root", *objects)
        model, optimizer = make()
        with CheckpointManagerV2(mount / "root") as manager:
            manager.load_latest_checkpoint(model, optimizer=optimizer)  # the journal cannot tell
            with pytest.raises(ReadOnlyStoreError, match="read-only"):
                manager.update_experiment_hash(model, {"lr": 3}, range(20))
            with pytest.raises(ReadOnlyStoreError, match="choose a root_log_dir"):
                CheckpointManagerV2(mount / "other")
        assert tree_of(mount) == before


def test_known_experiment_on_a_read_only_mount_cannot_be_saved_into(tmp_path):
    with mounted(tmp_path / "mount", "size=8m") as mount:
        model, optimizer = fill(mount / "root")
        subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
        before = tree_of(mount)
        with CheckpointManagerV2(mount / "root") as manager:
            assert not manager.update_experiment_hash(model, CONFIG, range(20)).is_new
            with pytest.raises(ReadOnlyStoreError, match="read-only"):
                manager.save_model_checkpoint(model, step=2, optimizer=optimizer)
        assert tree_of(mount) == before


@pytest.mark.parametrize("what", ["checkpoint", "experiment", "backup"])
def test_full_disk_loses_nothing_and_says_so(tmp_path, what):
    import h5py

    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["zeros"] = np.zeros(1 << 20, np.uint8)
    with mounted(tmp_path / "mount", "size=2m") as mount:
        model, optimizer = fill(mount / "root")
        with CheckpointManagerV2(mount / "root") as manager:
            exp_hash, _ = manager.update_experiment_hash(model, CONFIG, range(20))
            free = shutil.disk_usage(mount).free
            filler = mount / "filler"
            filler.write_bytes(bytes(max(0, free - 4096)))
            before = files_of(mount)
            del before["root/logs/events.jsonl"]  # it tells of the failed save
            write = {
                "checkpoint": lambda: manager.save_model_checkpoint(
                    model, step=2, optimizer=optimizer
                ),
                "experiment": lambda: manager.update_experiment_hash(
                    torch.nn.Linear(3, 3), {"a": 1}, range(9)
                ),
                "backup": lambda: manager.save_data_backup(tmp_path / "big.h5"),
            }[what]
            with pytest.raises(StorageFullError, match=r"[Ss]pace"):
                write()
            if what != "experiment":  # its files are written before its record: the next one tidies
                assert files_of(mount).keys() - before.keys() == {"root/logs/events.jsonl"}
            assert before.items() <= files_of(mount).items()
            assert manager.root.verify(exp_hash) == []
            assert manager.list_experiment_hashes() == [exp_hash]
            filler.unlink()
            manager.save_model_checkpoint(step=3, save_optimizer=False, model=model)
            assert manager.load_latest_checkpoint(model, load_optimizer=False)["step"] == 3
            manager.update_experiment_hash(torch.nn.Linear(3, 3), {"a": 1}, range(9))
            manager.save_data_backup(tmp_path / "big.h5")
            assert manager.root.verify() == []
