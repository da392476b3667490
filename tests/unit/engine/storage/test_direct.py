"""Writing past the page cache: the same bytes, whatever the file system takes."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightslab.engine.errors import StorageFullError
from weightslab.engine.storage import LocalStore, direct

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT is Linux's")
CHUNK = direct.CHUNK_BYTES


@pytest.fixture(scope="module")
def pattern():
    # a period that is no divisor of a block: a block in the wrong place is another content
    return memoryview((bytes(range(251)) * (3 * CHUNK // 251 + 1))[: 3 * CHUNK])


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root", direct_from_bytes=1)


def has_direct_writes(folder):
    try:
        os.close(os.open(folder / "probe", os.O_CREAT | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "size", [1, 4095, 4096, 4097, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 4096, 3 * CHUNK]
)
def test_file_of_any_size_holds_the_bytes_given(store, tmp_path, pattern, size):
    store.put("k", [pattern[:size]])
    assert (tmp_path / "root" / "k").read_bytes() == bytes(pattern[:size])


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 3 * CHUNK), max_size=8))
@pytest.mark.slow
def test_parts_of_any_size_are_joined_in_order(tmp_path_factory, pattern, cuts):
    bounds = [0, *sorted(cuts), 3 * CHUNK]
    parts = [pattern[a:b] for a, b in itertools.pairwise(bounds)]
    folder = tmp_path_factory.mktemp("direct")
    LocalStore(folder, direct_from_bytes=1).put("k", parts)
    assert (folder / "k").read_bytes() == bytes(pattern)


def test_whole_blocks_go_past_the_cache(tmp_path, pattern, monkeypatch):
    if not has_direct_writes(tmp_path):
        pytest.skip("this file system has no direct writes")
    flags, plain = [], os.pwrite

    def watch(descriptor, data, offset):
        import fcntl

        flags.append(bool(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT))
        return plain(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", watch)
    LocalStore(tmp_path / "root").put("large", [pattern[: CHUNK + 5]])
    assert flags == [True]  # the last 5 bytes are no block
    LocalStore(tmp_path / "root").put("small", [pattern[: CHUNK - 1]])
    assert flags == [True]


@pytest.mark.parametrize("refused_from", [0, CHUNK, 2 * CHUNK])
def test_refused_direct_write_goes_on_buffered(store, tmp_path, pattern, monkeypatch, refused_from):
    plain = os.pwrite

    def refuse(descriptor, data, offset):
        if offset >= refused_from:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", refuse)
    store.put("k", [pattern])
    assert (tmp_path / "root" / "k").read_bytes() == bytes(pattern)


def test_short_direct_writes_are_completed(store, tmp_path, pattern, monkeypatch):
    plain = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: plain(fd, data[:12288], offset))
    store.put("k", [pattern[: CHUNK + 777]])
    assert (tmp_path / "root" / "k").read_bytes() == bytes(pattern[: CHUNK + 777])


def test_file_system_without_direct_writes_gets_buffered_ones(
    store, tmp_path, pattern, monkeypatch
):
    import fcntl

    def refuse(descriptor, command, *args):
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(descriptor, command, *args)

    plain = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "pwrite", lambda *args: pytest.fail("a direct write"))
    store.put("k", [pattern[: CHUNK + 1]])
    assert (tmp_path / "root" / "k").read_bytes() == bytes(pattern[: CHUNK + 1])


@pytest.mark.parametrize("failing", [0, CHUNK, 2 * CHUNK])
def test_full_disk_in_any_block_fails_the_put_and_leaves_nothing(
    store, tmp_path, pattern, monkeypatch, failing
):
    plain = os.pwrite

    def fail(descriptor, data, offset):
        if offset == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return plain(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(StorageFullError, match="No space left"):
        store.put("k", [pattern])
    assert list((tmp_path / "root").iterdir()) == []


def test_save_at_the_end_of_the_interpreter_is_written_without_a_thread(tmp_path):
    code = (
        "import atexit, sys, threading; from weightslab.engine.storage import LocalStore\n"
        "def last():\n"
        "    def refuse(self): raise RuntimeError('no new thread at interpreter shutdown')\n"
        "    threading.Thread.start = refuse\n"  # as Python 3.12 does by itself
        "    LocalStore(sys.argv[1], direct_from_bytes=1).put('k', [b'0123456789' * 10**6])\n"
        "atexit.register(last)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "k").read_bytes() == b"0123456789" * 10**6


@pytest.mark.slow
def test_two_threads_that_write_at_once_do_not_mix_their_bytes(store, tmp_path, pattern):
    from concurrent.futures import ThreadPoolExecutor

    other = memoryview(bytes(reversed(pattern)))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store.put, "abcd", [[pattern], [other], [pattern], [other]]))
    found = [(tmp_path / "root" / name).read_bytes() for name in "abcd"]
    assert found == [bytes(pattern), bytes(other)] * 2
