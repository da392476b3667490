"""Refusals of the system become errors that say what happened, where, and what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from weightslab.engine.errors import (
    ObjectNotFoundError,
    ReadOnlyStoreError,
    StorageError,
    StorageFullError,
)
from weightslab.engine.storage import ForeignFileError, LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root")


@pytest.mark.parametrize(
    ("number", "kind", "advice"),
    [
        (errno.ENOSPC, StorageFullError, "free space, inodes or quota"),
        (errno.EDQUOT, StorageFullError, "free space, inodes or quota"),
        (errno.EROFS, ReadOnlyStoreError, "read_only=True"),
        (errno.EACCES, ReadOnlyStoreError, "get write permission"),
        (errno.EPERM, ReadOnlyStoreError, "get write permission"),
        (errno.EIO, StorageError, "committed before is untouched"),
        (errno.EISDIR, ForeignFileError, "in the way"),
    ],
)
def test_failed_write_names_file_reason_and_remedy(store, monkeypatch, number, kind, advice):
    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "writev", fail)
    with pytest.raises(StorageError) as caught:
        store.put("folder/file", [b"x"])
    assert type(caught.value) is kind
    assert "root/folder/file cannot be written: " in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert advice in str(caught.value)
    assert caught.value.errno == number
    assert type(caught.value.__cause__) is not kind


def test_forbidden_read_is_no_reason_to_speak_of_writing(store, monkeypatch):
    store.put("k", [b"x"])
    monkeypatch.setattr(os, "open", _refuse)
    with pytest.raises(StorageError, match=r"k cannot be read: .*; get read permission") as caught:
        store.map("k")
    assert type(caught.value) is StorageError


def _refuse(*args):
    raise PermissionError(errno.EACCES, "Permission denied")


def test_name_that_is_too_long_says_so(store):
    with pytest.raises(StorageError, match="File name too long"):
        store.put("x" * 300, [b"x"])


def test_absent_key_names_path_and_key(store):
    with pytest.raises(ObjectNotFoundError, match="root/folder/nowhere does not exist") as caught:
        store.map("folder/nowhere")
    assert caught.value.context["key"] == "folder/nowhere"


def fill(store, value):
    for number in range(100):
        store.put(f"fill/{number}", [value])


@pytest.fixture
def tiny(tmp_path):
    """A real file system of 300 KiB and 50 inodes."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    options = "size=300k,nr_inodes=50"
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs Linux and root")
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is refused: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_fails_the_put_and_keeps_what_was_there(tiny):
    store = LocalStore(tiny / "root")
    store.put("a/k", [b"x" * 100_000])
    for if_absent in (False, True):
        with pytest.raises(StorageFullError, match="No space left on device; free space"):
            store.put("a/big", [b"y" * 400_000], if_absent=if_absent)
    with pytest.raises(StorageFullError, match="a/k cannot be written"):
        store.put("a/k", [b"y" * 400_000])
    assert bytes(store.map("a/k")) == b"x" * 100_000
    assert [path.name for path in (tiny / "root" / "a").iterdir()] == ["k"]
    store.put("a/small", [b"z" * 100_000])
    assert store.list("a") == ["k", "small"]


def test_disk_without_inodes_counts_as_full(tiny):
    store = LocalStore(tiny / "root")
    with pytest.raises(StorageFullError, match="df -i"):
        fill(store, b"")
    assert 30 < len(store.list("fill")) < 50


def test_full_disk_fails_a_hold_and_the_key_stays_free(tiny):
    store = LocalStore(tiny / "root")
    store.put("big", [b"x" * 200_000])
    with pytest.raises(StorageFullError):
        fill(store, b"x" * 4096)
    with pytest.raises(StorageFullError, match="key cannot be held"):
        store.hold("key")
    assert "key" not in store.list("")
    store.delete("big")
    held = store.hold("key")
    assert held is not None
    held.release()


def test_read_only_mount_is_read_and_refuses_writes(tiny):
    store = LocalStore(tiny / "root")
    store.put("a/k", [b"x"])
    subprocess.run(["mount", "-o", "remount,ro", str(tiny)], check=True)
    assert bytes(store.map("a/k")) == b"x"
    assert store.list("a") == ["k"]
    for call in (
        lambda: store.put("a/new", [b"x"]),
        lambda: store.put("b/new", [b"x"]),
        lambda: store.link("a/k", "a/new"),
        lambda: store.hold("a/new"),
        lambda: store.delete("a/k"),
    ):
        with pytest.raises(ReadOnlyStoreError, match="mounted read-only; open the root with read_"):
            call()
