"""`MemoryStore`: what it has beyond the contract."""

from __future__ import annotations

from weightslab.engine.storage import MemoryStore


def test_reopened_store_has_the_files_and_no_holder():
    store = MemoryStore()
    store.put("k", [b"x"])
    store.hold("key")
    after = store.reopened()
    assert bytes(after.map("k")) == b"x"
    assert after.list("") == ["k", "key"]
    assert after.hold("key") is not None
    assert store.hold("key") is None


def test_reopened_store_goes_its_own_way():
    store = MemoryStore()
    after = store.reopened()
    after.put("k", [b"x"])
    assert store.list("") == []


def test_folder_status_changes_with_its_names_only():
    store = MemoryStore()
    store.put("a/k", [b"x"])
    store.put("b/k", [b"x"])
    before = store.stat("a/")
    store.put("b/k2", [b"x"])
    assert store.stat("a/") == before
    store.put("a/k2", [b"x"])
    assert store.stat("a/").mtime_ns > before.mtime_ns
    assert store.stat("a/").inode == before.inode


def test_it_describes_itself():
    assert MemoryStore().describe() == "memory"
