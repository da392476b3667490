"""`LocalStore.sync`: which folders are synced, and which are known to be on disk already."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from weightslab.engine.errors import StorageError
from weightslab.engine.storage import LocalStore


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


@pytest.fixture
def synced(tmp_path, monkeypatch):
    """The folders synced so far, relative to the folder above the root."""
    found = []
    fsync = os.fsync

    def watch(descriptor):
        fsync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            found.append(os.path.relpath(path, tmp_path))

    monkeypatch.setattr(os, "fsync", watch)
    return found


def test_first_sync_goes_up_to_the_folder_above_the_root(root, synced):
    store = LocalStore(root)
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    assert synced == ["root/a/b", "root/a", "root", "."]


def test_next_sync_of_a_folder_syncs_that_folder_alone(root, synced):
    store = LocalStore(root)
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    synced.clear()
    store.put("a/b/k2", [b"x"])
    store.sync("a/b")
    assert synced == ["root/a/b"]


def test_new_folder_syncs_its_name_and_nothing_more(root, synced):
    store = LocalStore(root)
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    synced.clear()
    store.put("a/c/k", [b"x"])
    store.sync("a/c")
    assert synced == ["root/a/c", "root/a"]


def test_folders_that_another_process_made_are_not_trusted(root, synced):
    LocalStore(root).put("a/b/k", [b"x"])
    LocalStore(root).sync("a/b")
    assert synced == ["root/a/b", "root/a", "root", "."]


def test_folder_made_anew_is_new_although_it_gets_the_same_inode(root, synced):
    store = LocalStore(root)
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    store.delete("a/b/k")
    store.delete("a/b/")
    synced.clear()
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    assert synced == ["root/a/b", "root/a"]


def test_folders_above_the_root_are_on_disk_before_the_root_is_used(tmp_path, synced):
    LocalStore(tmp_path / "x" / "y" / "root").put("k", [b"x"])
    assert synced == [".", "x"]


def test_folder_moved_away_and_back_under_another_name_is_synced_again(root, synced):
    store = LocalStore(root)
    store.put("a/k", [b"x"])
    store.sync("a")
    (root / "a").rename(root / "b")
    synced.clear()
    store.sync("b")
    assert synced == ["root/b", "root"]


def test_file_system_that_cannot_sync_folders_is_no_failure(root, monkeypatch):
    store = LocalStore(root)
    store.put("k", [b"x"])

    def refuse(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    store.sync("")


def test_failed_folder_sync_fails_the_sync_and_is_not_remembered_as_done(root, monkeypatch, synced):
    store = LocalStore(root)
    store.put("a/k", [b"x"])
    working = os.fsync

    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="a cannot be synced: Input/output error"):
        store.sync("a")
    monkeypatch.setattr(os, "fsync", working)
    store.sync("a")
    assert synced == ["root/a", "root", "."]


def test_folder_that_another_process_deleted_and_this_one_made_anew_is_new(root, synced):
    store = LocalStore(root)
    store.put("a/b/k", [b"x"])
    store.sync("a/b")
    number = (root / "a" / "b").stat().st_ino
    other = LocalStore(root)
    other.delete("a/b/k")
    other.delete("a/b/")
    synced.clear()
    store.put("a/b/k", [b"x"])
    if (root / "a" / "b").stat().st_ino != number:
        pytest.skip("this file system gives a new folder a new inode")
    store.sync("a/b")
    assert synced == ["root/a/b", "root/a"]
