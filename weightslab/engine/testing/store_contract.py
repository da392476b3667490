"""The contract of a store, as tests: subclass `StoreContract`, say how a store is made, run pytest.

class TestMyStore(StoreContract):
    def make_store(self):
        return MyStore(...)

    def reader_of(self, store):
        return MyStore(..., read_only=True)
"""

from __future__ import annotations

import array
import contextlib
import ctypes
from typing import TYPE_CHECKING, Any, Final

import pytest

from weightslab.engine.errors import (
    AlreadyExistsError,
    ObjectNotFoundError,
    ReadOnlyStoreError,
    StorageError,
)
from weightslab.engine.testing.hold_contract import HoldContract

if TYPE_CHECKING:
    from collections.abc import Callable

    from weightslab.engine.storage.store import Store

__all__ = ["BAD_KEYS", "StoreContract"]

BAD_KEYS: Final = (
    "",
    "/",
    "/absolute",
    "a//b",
    "..",
    "../outside",
    "a/../../outside",
    "a/./b",
    "a\\b",
    "nul\0byte",
    "C:/windows",
    "C:",
    "a/C:b",
    ".name.tmp",
    "lone\ud800surrogate",
)
_BIG_BYTES: Final = (8 << 20) + 4097  # more than one write of usual buffer sizes, not page-aligned


class StoreContract(HoldContract):
    """What every store promises; each test gets a store with nothing in it."""

    def make_store(self) -> Store:
        """Return a new, empty, writable store."""
        raise NotImplementedError

    def reader_of(self, store: Store) -> Store:
        """Return a store over the same bytes that refuses to write."""
        raise NotImplementedError

    @pytest.fixture
    def store(self) -> Store:
        """A new, empty, writable store."""
        return self.make_store()

    # ------------------------------------------------------------ put and map
    def test_put_then_map_returns_the_joined_parts(self, store: Store) -> None:
        assert store.put("a/b/c.bin", [b"one ", b"two"]) is True
        assert bytes(store.map("a/b/c.bin")) == b"one two"

    @pytest.mark.parametrize("parts", [[], [b""], [b"", b"", b""]], ids=["none", "one", "three"])
    def test_nothing_is_a_value_too(self, store: Store, parts: list[bytes]) -> None:
        assert store.put("empty", parts) is True
        assert bytes(store.map("empty")) == b""
        assert store.list("") == ["empty"]

    def test_parts_may_be_any_contiguous_buffer(self, store: Store) -> None:
        floats = array.array("f", [1.0, -2.0])
        grid = memoryview(bytes(range(6))).cast("B", (2, 3))
        native = (ctypes.c_uint16 * 2)(258, 772)
        parts: list[Any] = [
            b"x",
            bytearray(b"y"),
            memoryview(floats),
            b"",
            grid,
            memoryview(native),
        ]
        store.put("mixed", parts)
        expected = b"xy" + floats.tobytes() + bytes(range(6)) + bytes(native)
        assert bytes(store.map("mixed")) == expected

    def test_strided_buffer_is_refused_and_nothing_appears(self, store: Store) -> None:
        with pytest.raises(TypeError):
            store.put("strided", [memoryview(b"abcdef")[::2]])
        assert store.list("") == []

    def test_thousands_of_parts_arrive_in_order(self, store: Store) -> None:
        parts = [bytes([n % 251]) * (n % 7) for n in range(5000)]
        store.put("many", parts)
        assert bytes(store.map("many")) == b"".join(parts)

    def test_big_value_arrives_whole_and_the_buffer_is_left_as_it_was(self, store: Store) -> None:
        pattern = bytes(range(256)) * (_BIG_BYTES // 256 + 1)
        buffer = bytearray(pattern[:_BIG_BYTES])
        store.put("big", [memoryview(buffer)])
        assert store.map("big") == pattern[:_BIG_BYTES]
        assert buffer == pattern[:_BIG_BYTES]

    def test_buffer_is_not_kept(self, store: Store) -> None:
        buffer = bytearray(b"before")
        store.put("key", [buffer])
        buffer[:] = b"after!"
        buffer += b" and resized, which a kept view would forbid"
        assert bytes(store.map("key")) == b"before"

    def test_mapped_bytes_cannot_be_changed(self, store: Store) -> None:
        store.put("key", [b"fixed"])
        assert store.map("key").readonly

    def test_put_replaces_and_older_views_keep_their_bytes(self, store: Store) -> None:
        store.put("key", [b"old value"])
        old = store.map("key")
        assert store.put("key", [b"new"]) is True
        assert bytes(store.map("key")) == b"new"
        assert bytes(old) == b"old value"

    def test_view_outlives_delete(self, store: Store) -> None:
        store.put("key", [b"still here"])
        view = store.map("key")
        store.delete("key")
        assert bytes(view) == b"still here"

    def test_put_if_absent_leaves_an_existing_value_alone(self, store: Store) -> None:
        assert store.put("key", [b"first"], if_absent=True) is True
        assert store.put("key", [b"second"], if_absent=True) is False
        assert bytes(store.map("key")) == b"first"

    def test_map_of_an_absent_key_is_an_error_that_names_it(self, store: Store) -> None:
        store.put("folder/file", [b"x"])
        for key in ("nowhere", "folder/nowhere", "nowhere/nowhere", "folder/file/below"):
            with pytest.raises(ObjectNotFoundError, match=key):
                store.map(key)

    def test_folder_is_not_a_file(self, store: Store) -> None:
        store.put("folder/file", [b"x"])
        with pytest.raises(StorageError, match="folder"):
            store.map("folder")
        with pytest.raises(StorageError, match="folder"):
            store.put("folder", [b"x"])
        with pytest.raises(StorageError, match="folder"):
            store.delete("folder")
        assert bytes(store.map("folder/file")) == b"x"

    def test_file_is_not_a_folder(self, store: Store) -> None:
        store.put("file", [b"x"])
        with pytest.raises(StorageError, match="file"):
            store.put("file/below", [b"y"])
        assert bytes(store.map("file")) == b"x"

    # ------------------------------------------------------------ keys
    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_key_is_refused_by_every_verb(self, store: Store, key: str) -> None:
        store.put("good", [b"x"])
        calls: list[Callable[[], object]] = [
            lambda: store.put(key, [b"x"]),
            lambda: store.map(key),
            lambda: store.link(key, "other"),
            lambda: store.link("good", key),
            lambda: store.hold(key),
            lambda: store.delete(key),
        ]
        if key:  # "" is the whole store where a folder is meant
            calls += [
                lambda: store.list(key),
                lambda: store.stat(key),
                lambda: store.sync(key),
            ]
        for call in calls:
            with pytest.raises(ValueError, match=r"\w"):
                call()
        assert store.list("") == ["good"]

    @pytest.mark.parametrize(
        "key", ["name with space", "r\u00e9sum\u00e9", "a" * 200, ".hidden", "..x"]
    )
    def test_unusual_names_are_kept_as_they_are(self, store: Store, key: str) -> None:
        store.put(key, [b"x"])
        assert store.list("") == [key]
        assert bytes(store.map(key)) == b"x"

    # ------------------------------------------------------------ list and stat
    def test_list_gives_sorted_children_and_marks_folders(self, store: Store) -> None:
        for key in ("b.txt", "a/x", "a/deep/y", "a.txt", "ab/z"):
            store.put(key, [b"x"])
        assert store.list("") == ["a.txt", "a/", "ab/", "b.txt"]
        assert store.list("a") == ["deep/", "x"]
        assert store.list("a/") == ["deep/", "x"]

    def test_list_gives_only_names_that_start_as_asked(self, store: Store) -> None:
        for key in ("f/step_1.json", "f/step_1.bin", "f/step_10.json", "f/other", "f/step_1/x"):
            store.put(key, [b"x"])
        assert store.list("f", starting="step_1.") == ["step_1.bin", "step_1.json"]
        assert store.list("f", starting="step_1")[2:] == ["step_1/", "step_10.json"]
        assert store.list("f", starting="step_9") == []

    def test_list_of_what_is_no_folder_is_empty(self, store: Store) -> None:
        store.put("file", [b"x"])
        assert store.list("nowhere") == []
        assert store.list("file") == []

    def test_stat_knows_size_and_identity(self, store: Store) -> None:
        store.put("folder/file", [b"12345"])
        found = store.stat("folder/file")
        assert found is not None
        assert found.size_bytes == len(b"12345")
        assert found == store.stat("folder/file")

    def test_stat_tells_files_from_folders(self, store: Store) -> None:
        store.put("folder/file", [b"12345"])
        assert store.stat("folder/") is not None
        assert store.stat("folder") is None
        assert store.stat("folder/file/") is None
        assert store.stat("nowhere") is None
        assert store.stat("nowhere/") is None
        assert store.stat("folder/file/below") is None

    # ------------------------------------------------------------ link
    def test_link_is_a_further_name_that_outlives_the_first(self, store: Store) -> None:
        store.put("a/old", [b"shared"])
        if not store.link("a/old", "b/new"):
            pytest.skip("this store cannot link")
        old, new = store.stat("a/old"), store.stat("b/new")
        assert old is not None
        assert new is not None
        assert (old.device, old.inode) == (new.device, new.inode)
        assert store.delete("a/old") is True
        assert bytes(store.map("b/new")) == b"shared"

    def test_replacing_one_name_leaves_its_link_alone(self, store: Store) -> None:
        store.put("old", [b"shared"])
        if not store.link("old", "new"):
            pytest.skip("this store cannot link")
        store.put("old", [b"other"])
        assert bytes(store.map("new")) == b"shared"

    def test_link_never_replaces(self, store: Store) -> None:
        store.put("old", [b"old"])
        store.put("taken", [b"taken"])
        with contextlib.suppress(AlreadyExistsError):  # where the store can link at all
            assert store.link("old", "taken") is False
        assert bytes(store.map("taken")) == b"taken"

    def test_link_of_an_absent_key_is_an_error_that_names_it(self, store: Store) -> None:
        with pytest.raises(ObjectNotFoundError, match="nowhere"):
            store.link("nowhere", "new")
        assert store.list("") == []

    # ------------------------------------------------------------ delete and sync
    def test_delete_says_whether_something_was_there(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        assert store.delete("a/b") is True
        assert store.delete("a/b") is False
        assert store.delete("nowhere/at/all") is False
        assert store.stat("a/b") is None

    def test_delete_of_a_folder_needs_it_to_be_empty(self, store: Store) -> None:
        store.put("a/b/c", [b"x"])
        assert store.delete("a/b/") is False
        assert bytes(store.map("a/b/c")) == b"x"
        store.delete("a/b/c")
        assert store.delete("a/b/") is True
        assert store.delete("a/b/") is False
        assert store.list("a") == []

    def test_put_after_the_folder_was_deleted_makes_it_anew(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        store.sync("a")
        store.delete("a/b")
        store.delete("a/")
        store.put("a/b", [b"y"])
        store.sync("a")
        assert bytes(store.map("a/b")) == b"y"

    def test_sync_is_idempotent_and_takes_both_forms(self, store: Store) -> None:
        store.put("a/b/c", [b"x"])
        for prefix in ("a/b", "a/b/", "a", ""):
            store.sync(prefix)
            store.sync(prefix)
        assert bytes(store.map("a/b/c")) == b"x"

    def test_sync_of_a_folder_that_is_gone_is_an_error(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        with pytest.raises(ObjectNotFoundError, match="gone"):
            store.sync("gone")

    # ------------------------------------------------------------ read-only
    def test_reader_reads_and_refuses_to_write(self, store: Store) -> None:
        store.put("a/b", [b"x"])
        reader = self.reader_of(store)
        assert reader.read_only is True
        assert store.read_only is False
        assert bytes(reader.map("a/b")) == b"x"
        assert reader.list("") == ["a/"]
        for call in (
            lambda: reader.put("new", [b"x"]),
            lambda: reader.put("a/b", [b"y"], if_absent=True),
            lambda: reader.link("a/b", "new"),
            lambda: reader.hold("new"),
            lambda: reader.delete("a/b"),
            lambda: reader.delete("a/"),
            lambda: reader.sync("a"),
        ):
            with pytest.raises(ReadOnlyStoreError, match="read_only"):
                call()
        assert store.list("") == ["a/"]
        assert store.list("a") == ["b"]

    def test_store_describes_itself(self, store: Store) -> None:
        assert store.describe()
