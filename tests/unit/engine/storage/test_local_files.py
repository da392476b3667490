"""`LocalStore`: what lies in the folder, and what is refused."""

from __future__ import annotations

import os
import threading

import pytest

from weightslab.engine.errors import IntegrityError, ReadOnlyStoreError, StorageError
from weightslab.engine.storage import ForeignFileError, LocalStore


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_created_before_the_first_write(tmp_path):
    store = LocalStore(tmp_path / "a" / "root")
    assert store.list("") == []
    assert store.stat("") is None
    assert store.delete("x") is False
    assert store.sweep("") == []
    assert list(tmp_path.iterdir()) == []


def test_first_write_creates_the_root_and_all_above(tmp_path):
    LocalStore(tmp_path / "a" / "b" / "root").put("k", [b"x"])
    assert (tmp_path / "a" / "b" / "root" / "k").read_bytes() == b"x"


def test_root_stays_where_it_was_when_the_program_changes_its_folder(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = LocalStore("root")
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.put("k", [b"x"])
    assert (tmp_path / "root" / "k").exists()
    assert store.describe() == str(tmp_path / "root")


def test_put_leaves_no_temporary_file(store, tmp_path):
    store.put("a/k", [b"x"])
    store.put("a/k", [b"y"])
    store.put("a/k", [b"z"], if_absent=True)
    assert names(tmp_path / "root" / "a") == ["k"]


def test_files_follow_the_umask(store, tmp_path):
    before = os.umask(0o027)
    try:
        store.put("k", [b"x"])
    finally:
        os.umask(before)
    assert (tmp_path / "root" / "k").stat().st_mode & 0o777 == 0o640


def test_name_of_255_bytes_is_stored(store):
    name = "\u00e9" * 127 + "x"
    store.put(name, [b"x"])
    assert store.list("") == [name]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_interrupted_put_leaves_the_old_value_and_no_litter(store, tmp_path, monkeypatch, error):
    store.put("k", [b"old"])

    def fail(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        store.put("k", [b"new"])
    assert names(tmp_path / "root") == ["k"]
    assert bytes(store.map("k")) == b"old"


def test_failed_fsync_is_never_tried_again(store, monkeypatch):
    calls = []

    def fail(descriptor):
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"k cannot be written: Input/output error"):
        store.put("k", [b"new"])
    assert len(calls) == 1


def test_bytes_are_on_disk_before_the_name_appears(store, tmp_path, monkeypatch):
    seen = []
    fsync = os.fsync
    store.put("first", [b""])

    def watch(descriptor):
        seen.append((os.fstat(descriptor).st_size, store.list("")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    store.put("k", [b"12345"], if_absent=True)
    assert seen == [(5, ["first"])]


def test_partial_writes_are_continued(store, monkeypatch):
    writev = os.writev

    def write_three_bytes(descriptor, buffers):
        return writev(descriptor, [b"".join(buffers)[:3]])

    monkeypatch.setattr(os, "writev", write_three_bytes)
    store.put("k", [b"ab", b"cdefgh", b"i", b"jklmnopq"])
    assert bytes(store.map("k")) == b"abcdefghijklmnopq"


def test_one_write_takes_at_most_1024_parts_and_the_limit_of_bytes(store, monkeypatch):
    from weightslab.engine.storage import system

    sizes = []

    def pretend(descriptor, buffers):
        sizes.append((len(buffers), sum(map(len, buffers))))
        return sizes[-1][1]

    monkeypatch.setattr(os, "writev", pretend)
    mib = memoryview(bytes(1 << 20))
    monkeypatch.setattr(system, "_MAX_WRITE_BYTES", 3 << 19)
    system.write_all(0, [mib, mib, *[memoryview(b"x")] * 1500])
    assert all(count <= 1024 and size <= 3 << 19 for count, size in sizes)
    assert sum(size for _, size in sizes) == (2 << 20) + 1500


def test_value_is_read_where_the_file_system_cannot_map(store, monkeypatch):
    import mmap

    def refuse(*args, **kwargs):
        raise OSError(19, "No such device")

    store.put("k", [b"12345"])
    monkeypatch.setattr(mmap, "mmap", refuse)
    assert bytes(store.map("k")) == b"12345"
    assert store.map("k").readonly


def test_temporary_and_foreign_names_are_not_listed(store, tmp_path):
    store.put("k", [b"x"])
    for name in (".k.0123456789ab.0123456789abcdef.tmp", "back\\slash", b"bad\xff"):
        (tmp_path / "root" / os.fsdecode(name)).touch()
    assert store.list("") == ["k"]


# ---------------------------------------------------------------- what is not a file of the store
def test_symbolic_link_to_a_file_is_never_read(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    store.put("k", [b"x"])
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ForeignFileError, match="link cannot be read"):
        store.map("link")
    with pytest.raises(ForeignFileError, match="not a regular file"):
        store.link("link", "other")
    with pytest.raises(ForeignFileError, match="link cannot be held"):
        store.hold("link")
    assert store.list("") == ["k", "link"]
    assert store.stat("link") is not None
    assert store.put("link", [b"mine"], if_absent=True) is False
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_put_and_delete_replace_the_link_and_not_what_it_leads_to(store, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    store.put("k", [b"x"])
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    store.put("link", [b"mine"])
    assert bytes(store.map("link")) == b"mine"
    (tmp_path / "root" / "link2").symlink_to(tmp_path / "secret")
    assert store.delete("link2") is True
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_symbolic_link_to_a_folder_is_never_followed(store, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_bytes(b"x")
    store.put("k", [b"x"])
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside", target_is_directory=True)
    for call in (
        lambda: store.map("link/precious"),
        lambda: store.delete("link/precious"),
        lambda: store.delete("link/"),
        lambda: store.put("link/new", [b"x"]),
        lambda: store.list("link"),
        lambda: store.sync("link"),
        lambda: store.sweep("link"),
    ):
        with pytest.raises(ForeignFileError, match="none is followed below"):
            call()
    assert names(tmp_path / "outside") == ["precious"]
    assert store.list("") == ["k", "link"]


def test_root_itself_may_be_a_symbolic_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk", target_is_directory=True)
    store = LocalStore(tmp_path / "root")
    store.put("a/k", [b"x"])
    store.sync("a")
    assert store.stat("") is not None
    assert (tmp_path / "disk" / "a" / "k").read_bytes() == b"x"


def test_pipe_does_not_make_anybody_wait(store, tmp_path):
    store.put("k", [b"x"])
    os.mkfifo(tmp_path / "root" / "pipe")
    done = threading.Event()

    def touch_it():
        for call in (lambda: store.map("pipe"), lambda: store.hold("pipe")):
            with pytest.raises(ForeignFileError, match="not a regular file"):
                call()
        done.set()

    thread = threading.Thread(target=touch_it, daemon=True)
    thread.start()
    assert done.wait(timeout=20)


def test_foreign_file_counts_as_damage_and_as_refusal():
    assert issubclass(ForeignFileError, IntegrityError)
    assert issubclass(ForeignFileError, StorageError)
    assert ForeignFileError.exit_code == 20


# ---------------------------------------------------------------- reading writes nothing
def test_reader_changes_neither_bytes_nor_times(store, tmp_path):
    store.put("a/k", [b"x"])

    def picture():
        return {
            path: (status.st_mtime_ns, status.st_ctime_ns, status.st_size)
            for path in sorted(tmp_path.rglob("*"))
            for status in [path.stat()]
        }

    before = picture()
    reader = LocalStore(tmp_path / "root", read_only=True)
    assert bytes(reader.map("a/k")) == b"x"
    assert reader.list("a") == ["k"]
    assert reader.stat("a/k") is not None
    for call in (lambda: reader.sweep("a"), lambda: reader.put("b/c", [b"x"])):
        with pytest.raises(ReadOnlyStoreError, match="open it without read_only to write"):
            call()
    assert picture() == before


def test_reader_of_an_absent_root_finds_nothing_and_creates_nothing(tmp_path):
    reader = LocalStore(tmp_path / "root", read_only=True)
    assert reader.list("") == []
    assert list(tmp_path.iterdir()) == []
