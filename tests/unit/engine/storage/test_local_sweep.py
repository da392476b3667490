"""`LocalStore.sweep`: temporary files of dead processes go, all others stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from weightslab.engine.storage import LocalStore, holder, local

DIE_IN_THE_MIDDLE_OF_A_PUT = """
import os, sys
from weightslab.engine.storage import LocalStore

def stop(descriptor):
    print("writing", flush=True)
    sys.stdin.read()

os.fsync = stop
LocalStore(sys.argv[1]).put("k", [b"half"])
"""


@pytest.fixture
def store(tmp_path):
    store = LocalStore(tmp_path / "root")
    store.put("a/k", [b"x"])
    return store


def test_file_of_a_killed_writer_is_removed_and_that_of_a_living_one_is_not(tmp_path):
    store = LocalStore(tmp_path / "root")
    store.put("other", [b"x"])
    command = [sys.executable, "-c", DIE_IN_THE_MIDDLE_OF_A_PUT, store.describe()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "writing\n"
        assert store.sweep("") == []
        assert len(list((tmp_path / "root").iterdir())) == 2
        assert store.list("") == ["other"]
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(store.sweep("")) == 1
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["other"]


def test_files_of_other_hosts_and_of_users_stay(store, tmp_path):
    for name in (
        ".k.000000000000.0123456789abcdef.tmp",
        f".k.{holder.host_id()}.short.tmp",
        ".k.tmp",
        "k.tmp",
    ):
        (tmp_path / "root" / "a" / name).touch()
    assert store.sweep("a") == []
    assert len(list((tmp_path / "root" / "a").iterdir())) == 5


def test_name_that_looks_like_ours_but_is_a_link_or_a_pipe_stays(store, tmp_path):
    for token, make in (("0" * 16, lambda path: path.symlink_to("k")), ("1" * 16, os.mkfifo)):
        make(tmp_path / "root" / "a" / f".k.{holder.host_id()}.{token}.tmp")
    assert store.sweep("a") == []
    assert bytes(store.map("a/k")) == b"x"


def test_folder_that_holds_only_dead_temporary_files_counts_as_empty(store, tmp_path):
    store.delete("a/k")
    (tmp_path / "root" / "a" / f".k.{holder.host_id()}.{'0' * 16}.tmp").touch()
    assert store.delete("a/") is True
    assert store.list("") == []


def test_writer_whose_fresh_file_was_swept_takes_another(store, tmp_path, monkeypatch):
    """Between creating and locking its file, a writer looks dead."""
    lock = local.try_lock
    swept = []

    def sweep_then_lock(descriptor):
        monkeypatch.setattr(local, "try_lock", lock)
        swept.extend(store.sweep("a"))
        return lock(descriptor)

    monkeypatch.setattr(local, "try_lock", sweep_then_lock)
    assert store.put("a/new", [b"value"]) is True
    assert len(swept) == 1
    assert bytes(store.map("a/new")) == b"value"
    assert store.sweep("a") == []


def test_value_survives_when_its_writer_died_after_the_name_was_made(store, tmp_path):
    folder = tmp_path / "root" / "a"
    os.link(folder / "k", folder / f".k.{holder.host_id()}.{'0' * 16}.tmp")
    assert len(store.sweep("a")) == 1
    assert bytes(store.map("a/k")) == b"x"
