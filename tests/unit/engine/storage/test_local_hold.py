"""`LocalStore.hold` between processes: kill -9, forks, contention, deleted files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from weightslab.engine.errors import StorageError
from weightslab.engine.storage import LocalStore, hold, holder, system

HOLD_AND_WAIT = """
import sys
from weightslab.engine.storage import LocalStore
hold = LocalStore(sys.argv[1]).hold("a/key")
print("free" if hold is None else "held", flush=True)
sys.stdin.read()
"""

TAKE_TURNS = """
import os, sys
from weightslab.engine.storage import LocalStore
store = LocalStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
turns = 0
while turns < 100:
    hold = store.hold("a/key")
    if hold is None:
        continue
    # Two processes in here at once make this an error: the file is created exclusively.
    os.close(os.open(sys.argv[1] + "/inside", os.O_CREAT | os.O_EXCL))
    os.unlink(sys.argv[1] + "/inside")
    hold.release()
    turns += 1
print("done", flush=True)
"""


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root")


@contextlib.contextmanager
def process(script, store):
    command = [sys.executable, "-c", script, store.describe()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_key_of_a_killed_process_is_taken_over(store):
    with process(HOLD_AND_WAIT, store) as child:
        assert child.stdout.readline() == "held\n"
        assert store.hold("a/key") is None
        assert json.loads(bytes(store.map("a/key")))["pid"] == child.pid
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert store.list("a") == ["key"]
    taken = store.hold("a/key")
    assert taken is not None
    assert json.loads(bytes(store.map("a/key")))["pid"] == os.getpid()
    taken.release()
    assert store.list("a") == []


def test_two_processes_are_never_inside_together(store):
    store.put("x", [b""])
    with process(TAKE_TURNS, store) as one, process(TAKE_TURNS, store) as two:
        for child in (one, two):
            assert child.stdout.readline() == "ready\n"
        for child in (one, two):
            child.stdin.write("go\n")
            child.stdin.flush()
        assert one.stdout.readline() == "done\n"
        assert two.stdout.readline() == "done\n"
    assert store.list("a") == []


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "of this host and boot"])
def test_what_a_dead_process_left_is_taken_over(store, content):
    store.put("key", [holder.holder_text() if content is None else content])
    taken = store.hold("key")
    assert taken is not None
    taken.release()
    assert store.list("") == []


def test_longer_text_of_the_dead_holder_is_replaced_whole(store):
    dead = {**json.loads(holder.holder_text()), "note": "x" * 500}
    store.put("key", [json.dumps(dead).encode()])
    with store.hold("key"):
        assert bytes(store.map("key")) == holder.holder_text()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"{}"])
def test_unreadable_hold_is_left_alone(store, content):
    store.put("key", [content])
    assert store.hold("key") is None
    assert bytes(store.map("key")) == content


def test_locker_of_a_file_that_was_released_meanwhile_starts_over(store, monkeypatch):
    """The lock is won on a file whose name is gone: it protects nothing."""
    first = store.hold("key")
    lock = hold.try_lock
    seen = []

    def release_first_then_lock(descriptor):
        if not seen:
            seen.append("opened the old file")
            first.release()
        return lock(descriptor)

    monkeypatch.setattr(hold, "try_lock", release_first_then_lock)
    second = store.hold("key")
    assert seen == ["opened the old file"]
    assert second is not None
    assert store.stat("key") is not None
    assert store.hold("key") is None
    second.release()


def test_release_spares_a_file_that_somebody_else_made_anew(store):
    first = store.hold("key")
    store.delete("key")
    second = store.hold("key")
    first.release()
    assert store.list("") == ["key"]
    assert store.hold("key") is None
    second.release()


def test_release_after_the_folder_was_deleted_is_quiet(store):
    held = store.hold("a/key")
    store.delete("a/key")
    store.delete("a/")
    held.release()
    assert store.list("") == []


def in_child(work):
    """Run `work` in a forked child; return its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = work()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_cannot_release_what_its_parent_holds(store):
    with store.hold("key") as held:
        assert in_child(lambda: held.release() or 0) == 0
        assert store.list("") == ["key"]
        assert store.hold("key") is None


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_child_does_not_keep_the_lock_of_its_parent(store):
    """A data-loading worker that outlives the killed training keeps nobody out."""
    held = store.hold("key")
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        os.close(held._descriptor)  # what a kill of the parent does
        taken = store.hold("key")
        assert taken is not None
        taken.release()
    finally:
        os.write(go[1], b"x")
        os.waitpid(pid, 0)
        system._locked.discard(held._descriptor)
        for descriptor in (*ready, *go):
            os.close(descriptor)


def test_without_locks_only_a_new_file_can_be_held(store, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(hold, "try_lock", refuse)
    held = store.hold("key")
    assert held is not None
    assert store.hold("key") is None
    held.release()
    assert store.list("") == []


def num_open_files():
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def test_failed_hold_leaves_neither_an_open_file_nor_a_name(store, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = num_open_files()
    monkeypatch.setattr(hold, "write_all", fail)
    with pytest.raises(StorageError, match=r"key cannot be held: No space left"):
        store.hold("key")
    monkeypatch.undo()
    assert num_open_files() == before
    assert store.list("") == []
    taken = store.hold("key")
    assert taken is not None
    taken.release()
